//! Keys and values of every table survive the way to bytes and back, in order, and nothing else
//! decodes.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use doldam_proto::fingerprint::{ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, ClientId, Generation, InodeId, NodeId, NodeUuid};
use doldam_proto::wire::{
    BlockRecord, CountersRecord, GarbageRecord, InodeRecord, NodeRecord, RequestRecord,
};
use proptest::prelude::*;

use super::fingerprints::ReplicaSum;
use super::*;
use crate::engine::tables::{MemoryTables, WriteSet};

/// The state after `change`.
fn state(change: impl FnOnce(&mut WriteSet<'_>)) -> MemoryTables {
    let mut tables = MemoryTables::new();
    let mut set = WriteSet::new(&tables);
    change(&mut set);
    let changes = set.into_changes();
    tables.apply_changes(changes);
    tables
}

/// Everything a scan visits.
fn all<T>(
    scan: impl FnOnce(&mut dyn FnMut(T) -> Flow) -> Result<(), StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    scan(&mut |entry| {
        found.push(entry);
        CONTINUE
    })?;
    Ok(found)
}

/// Numbers whose bytes differ in every place, and their neighbours.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, any::<u64>(), Just(255), Just(256), Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, any::<u32>(), Just(u32::MAX)]
}

proptest! {
    #[test]
    fn names_stay_with_their_parent_in_byte_order(
        entries in prop::collection::btree_map((number(), "[^/\0]{1,40}"), number(), 0..20),
        parent in number(),
    ) {
        let tables = state(|set| {
            for ((parent, name), inode) in &entries {
                children::put(set, InodeId(*parent), name, InodeId(*inode));
            }
        });
        let found = all(|visit| children::scan_all(&tables, &mut |parent, name, inode| {
            visit(((parent.0, name.to_owned()), inode.0))
        })).unwrap();
        prop_assert_eq!(&found, &entries.clone().into_iter().collect::<Vec<_>>());
        for ((parent, name), inode) in &entries {
            let got = children::get(&tables, InodeId(*parent), name).unwrap();
            prop_assert_eq!(got, Some(InodeId(*inode)));
            prop_assert_eq!(pending::get(&tables, InodeId(*parent), name).unwrap(), None);
        }
        let below: Vec<(String, u64)> = entries
            .iter()
            .filter(|((of, _), _)| *of == parent)
            .map(|((_, name), inode)| (name.clone(), *inode))
            .collect();
        for skipped in 0..=below.len() {
            let after = skipped.checked_sub(1).map_or("", |last| below[last].0.as_str());
            let found = all(|visit| children::scan(&tables, InodeId(parent), after, &mut |name, of| {
                visit((name.to_owned(), of.0))
            })).unwrap();
            prop_assert_eq!(&found[..], &below[skipped..]);
        }
    }

    #[test]
    fn blocks_come_in_order_of_their_index(
        entries in prop::collection::btree_map((number(), small()), number(), 0..20),
        from in (number(), small()),
    ) {
        let tables = state(|set| {
            for ((inode, index), block_id) in &entries {
                let record = BlockRecord { block_id: *block_id, ..BlockRecord::default() };
                blocks::put(set, InodeId(*inode), *index, &record);
                block_owners::put(set, BlockId(*block_id), InodeId(*inode), *index);
            }
        });
        let found = all(|visit| blocks::scan_all(&tables, &mut |inode, index, record| {
            visit(((inode.0, index), record.block_id))
        })).unwrap();
        prop_assert_eq!(&found, &entries.clone().into_iter().collect::<Vec<_>>());
        let inode = InodeId(from.0);
        let found = all(|visit| blocks::scan(&tables, inode, from.1, &mut |index, record| {
            visit((index, record.block_id))
        })).unwrap();
        let expected: Vec<(u32, u64)> = entries
            .range(from..=(from.0, u32::MAX))
            .map(|((_, index), block)| (*index, *block))
            .collect();
        prop_assert_eq!(found, expected);
        for ((inode, index), block) in &entries {
            let record = blocks::get(&tables, InodeId(*inode), *index).unwrap().unwrap();
            prop_assert_eq!(record.block_id, *block);
            prop_assert!(block_owners::get(&tables, BlockId(*block)).unwrap().is_some());
        }
    }

    #[test]
    fn replicas_are_found_by_node_and_by_bucket(
        held in prop::collection::btree_set((small(), number()), 0..20),
        node in small(),
        generation in number(),
    ) {
        let replica = |block| ReplicaId {
            block: BlockId(block),
            generation: Generation(generation),
            length: block.wrapping_add(1),
        };
        let tables = state(|set| {
            for (node, block) in &held {
                replicas::put(set, NodeId(*node), &replica(*block));
            }
        });
        let found = all(|visit| replicas::scan_all(&tables, &mut |node, bucket, replica| {
            visit((node, bucket, replica))
        })).unwrap();
        let mut expected: Vec<(NodeId, u32, ReplicaId)> = held
            .iter()
            .map(|(node, block)| (NodeId(*node), bucket_of(BlockId(*block)), replica(*block)))
            .collect();
        expected.sort();
        prop_assert_eq!(&found, &expected);
        expected.retain(|(holder, _, _)| holder.0 == node);
        for skipped in 0..=expected.len() {
            let after = skipped.checked_sub(1).map(|last| expected[last].2.block);
            let of_node = |visit: &mut dyn FnMut(ReplicaId) -> Flow| {
                replicas::scan_node(&tables, NodeId(node), after, visit)
            };
            let found = all(of_node).unwrap();
            let rest: Vec<ReplicaId> =
                expected[skipped..].iter().map(|(_, _, held)| *held).collect();
            prop_assert_eq!(found, rest);
        }
        for (_, bucket, _) in &expected {
            let found =
                all(|visit| replicas::scan_bucket(&tables, NodeId(node), *bucket, visit)).unwrap();
            let in_bucket = expected.iter().filter(|(_, of, _)| of == bucket);
            prop_assert_eq!(found, in_bucket.map(|(_, _, held)| *held).collect::<Vec<_>>());
        }
    }

    #[test]
    fn leases_are_found_by_client(
        held in prop::collection::btree_set((any::<[u8; 2]>(), number()), 0..20),
    ) {
        let client = |ends: [u8; 2]| {
            let mut bytes = [0; 16];
            (bytes[0], bytes[15]) = (ends[0], ends[1]);
            ClientId(bytes)
        };
        let tables = state(|set| {
            for (ends, inode) in &held {
                leases::put(set, client(*ends), InodeId(*inode));
            }
        });
        let mut by_client: BTreeMap<ClientId, Vec<InodeId>> = BTreeMap::new();
        for (ends, inode) in &held {
            by_client.entry(client(*ends)).or_default().push(InodeId(*inode));
        }
        let mut last = None;
        for (client, inodes) in &by_client {
            prop_assert_eq!(leases::next_client(&tables, last).unwrap(), Some(*client));
            let found = all(|visit| leases::scan(&tables, *client, visit)).unwrap();
            prop_assert_eq!(&found, inodes);
            last = Some(*client);
        }
        prop_assert_eq!(leases::next_client(&tables, last).unwrap(), None);
    }

    #[test]
    fn single_records_survive(number in number(), small in small(), bytes in any::<[u8; 16]>()) {
        let inode = InodeRecord { parent_id: number, name: "n".into(), ..InodeRecord::default() };
        let node = NodeRecord { address: "a:1".into(), ..NodeRecord::default() };
        let garbage_entry = GarbageRecord { inode_id: number, ..GarbageRecord::default() };
        let request = RequestRecord { time_ms: number, ..RequestRecord::default() };
        let counters = CountersRecord { next_inode: number, ..CountersRecord::default() };
        let sum = ReplicaSum { count: number, ..ReplicaSum::default() };
        let tables = state(|set| {
            inodes::put(set, InodeId(number), &inode);
            nodes::put(set, NodeId(small), &node);
            node_uuids::put(set, NodeUuid(bytes), NodeId(small));
            garbage::put(set, number, &garbage_entry);
            requests::put(set, ClientId(bytes), number, &request);
            debts::put(set, BlockId(number));
            fingerprints::put(set, NodeId(small), small, &sum);
            meta::put_counters(set, &counters);
            meta::put_forgotten_to(set, Some(&requests::key(ClientId(bytes), number)));
        });
        prop_assert_eq!(inodes::get(&tables, InodeId(number)).unwrap(), Some(inode));
        prop_assert_eq!(nodes::get(&tables, NodeId(small)).unwrap(), Some(node));
        let known = node_uuids::get(&tables, NodeUuid(bytes)).unwrap();
        prop_assert_eq!(known, Some(NodeId(small)));
        prop_assert_eq!(garbage::get(&tables, number).unwrap(), Some(garbage_entry));
        prop_assert_eq!(requests::get(&tables, ClientId(bytes), number).unwrap(), Some(request));
        let sequences =
            all(|visit| requests::scan_sequences(&tables, ClientId(bytes), 0, visit)).unwrap();
        prop_assert_eq!(sequences, [number]);
        let before = BlockId(number.saturating_sub(1));
        let owed = all(|visit| debts::scan(&tables, before, visit)).unwrap();
        prop_assert_eq!(owed.is_empty(), number == 0, "0 is no block");
        prop_assert_eq!(fingerprints::get(&tables, NodeId(small), small).unwrap(), sum);
        prop_assert_eq!(meta::counters(&tables).unwrap(), counters);
        let forgotten_to = meta::forgotten_to(&tables).unwrap();
        prop_assert_eq!(forgotten_to, requests::key(ClientId(bytes), number).to_vec());
    }
}

#[test]
fn an_empty_sum_is_no_entry() {
    let tables = state(|set| {
        fingerprints::put(set, NodeId(1), 2, &ReplicaSum { count: 1, ..ReplicaSum::default() });
        fingerprints::put(set, NodeId(1), 2, &ReplicaSum::default());
    });
    assert!(tables.entries(Table::Fingerprints).is_empty());
    assert_eq!(fingerprints::get(&tables, NodeId(1), 2).unwrap(), ReplicaSum::default());
}

#[test]
fn what_does_not_decode_is_damage_and_names_its_table() {
    let key = 1_u64.to_be_bytes();
    let node_key = 1_u32.to_be_bytes();
    let pair = [key, key].concat();
    let client = [&[9; 16][..], &key].concat();
    let garbled = |table, key: &[u8], value: &[u8]| {
        let (key, value) = (key.to_vec(), Bytes::copy_from_slice(value));
        state(move |set| set.put(table, &key, value))
    };
    let is_damage = |table, failed: Result<(), StoreError>| match failed {
        Err(StoreError::Damaged { table: named, .. }) => assert_eq!(named, table),
        other => panic!("{table:?}: {other:?}"),
    };
    let bad = b"\xff\xff\xff";

    let at = Table::Inodes;
    is_damage(at, inodes::get(&garbled(at, &key, bad), InodeId(1)).map(drop));
    is_damage(at, inodes::require(&MemoryTables::new(), InodeId(1)).map(drop));
    is_damage(at, inodes::scan_all(&garbled(at, bad, b""), &mut |_, _| CONTINUE));
    let at = Table::Children;
    let name = [&key[..], b"n"].concat();
    is_damage(at, children::get(&garbled(at, &name, bad), InodeId(1), "n").map(drop));
    let no_text = [&key[..], b"\xff"].concat();
    let tables = garbled(at, &no_text, &key);
    is_damage(at, children::scan(&tables, InodeId(1), "", &mut |_, _| CONTINUE));
    is_damage(at, children::scan_all(&tables, &mut |_, _, _| CONTINUE));
    let at = Table::Leases;
    let tables = garbled(at, &client[..20], b"");
    is_damage(at, leases::scan(&tables, ClientId([9; 16]), &mut |_| CONTINUE));
    is_damage(at, leases::next_client(&garbled(at, bad, b""), None).map(drop));
    let at = Table::Blocks;
    let block_key = [&key[..], &node_key].concat();
    is_damage(at, blocks::get(&garbled(at, &block_key, bad), InodeId(1), 1).map(drop));
    let tables = garbled(at, &pair, b"");
    is_damage(at, blocks::scan(&tables, InodeId(1), 0, &mut |_, _| CONTINUE));
    let at = Table::BlockOwners;
    for value in [&b"short"[..], b"thirteen bytes"] {
        is_damage(at, block_owners::get(&garbled(at, &key, value), BlockId(1)).map(drop));
    }
    let at = Table::Replicas;
    let replica_key = [&node_key[..], &node_key, &key].concat();
    let tables = garbled(at, &replica_key, b"short");
    is_damage(at, replicas::scan_node(&tables, NodeId(1), None, &mut |_| CONTINUE));
    is_damage(at, replicas::scan_bucket(&tables, NodeId(1), 1, &mut |_| CONTINUE));
    let at = Table::Fingerprints;
    let tables = garbled(at, &[node_key, node_key].concat(), b"short");
    is_damage(at, fingerprints::get(&tables, NodeId(1), 1).map(drop));
    let at = Table::Nodes;
    is_damage(at, nodes::get(&garbled(at, &node_key, bad), NodeId(1)).map(drop));
    let at = Table::NodeUuids;
    is_damage(at, node_uuids::get(&garbled(at, &[3; 16], bad), NodeUuid([3; 16])).map(drop));
    let at = Table::Garbage;
    is_damage(at, garbage::get(&garbled(at, &key, bad), 1).map(drop));
    let at = Table::Requests;
    is_damage(at, requests::get(&garbled(at, &client, bad), ClientId([9; 16]), 1).map(drop));
    let tables = garbled(at, bad, b"");
    is_damage(at, requests::scan_after(&tables, &[], &mut |_, _, _| CONTINUE));
    let at = Table::Debts;
    is_damage(at, debts::scan(&garbled(at, bad, b""), BlockId(0), &mut |_| CONTINUE));
    let at = Table::Meta;
    is_damage(at, meta::counters(&MemoryTables::new()).map(drop));
    is_damage(at, meta::cluster_id(&garbled(at, b"cluster_id", bad)).map(drop));
    is_damage(at, meta::counters(&garbled(at, b"counters", bad)).map(drop));
}

#[test]
fn a_scan_ends_with_its_prefix_and_when_the_visitor_breaks() {
    let tables = state(|set| {
        for inode in 1..4 {
            blocks::put(set, InodeId(2), inode, &BlockRecord::default());
            blocks::put(set, InodeId(3), inode, &BlockRecord::default());
        }
    });
    let mut seen = Vec::new();
    blocks::scan(&tables, InodeId(2), 2, &mut |index, _| {
        seen.push(index);
        CONTINUE
    })
    .unwrap();
    assert_eq!(seen, [2, 3]);
    let mut visits = 0;
    scan(&tables, Table::Blocks, &[], Bound::Unbounded, &mut |_, _| {
        visits += 1;
        BREAK
    })
    .unwrap();
    assert_eq!(visits, 1);
}
