//! Each property finds its violation: one record is changed in a sound state, and the table it
//! shows in is named.

use bytes::Bytes;
use doldam_proto::wire::{CountersRecord, InodeRecord};
use prost::Message;

use super::check;
use crate::engine::namespace::world::rich_state;
use crate::engine::tables::{MemoryTables, Table, WriteSet};

fn first_key(tables: &MemoryTables, table: Table) -> Bytes {
    tables.entries(table).keys().next().unwrap().clone()
}

fn last_key(tables: &MemoryTables, table: Table) -> Bytes {
    tables.entries(table).keys().next_back().unwrap().clone()
}

fn violated(tables: &MemoryTables, change: impl FnOnce(&mut WriteSet<'_>)) -> Vec<Table> {
    let mut set = WriteSet::new(tables);
    change(&mut set);
    let mut shows: Vec<Table> = check(&set).into_iter().map(|violation| violation.table).collect();
    shows.sort();
    shows.dedup();
    shows
}

#[test]
fn a_missing_record_is_found_in_every_table() {
    let tables = rich_state();
    assert_eq!(check(&tables), []);
    for (table, shows) in [
        (Table::Children, Table::Children),
        (Table::Pending, Table::Pending),
        (Table::Leases, Table::Leases),
        (Table::BlockOwners, Table::BlockOwners),
        (Table::Replicas, Table::Replicas),
        (Table::Fingerprints, Table::Fingerprints),
        (Table::Nodes, Table::NodeUuids),
        (Table::NodeUuids, Table::NodeUuids),
        (Table::Garbage, Table::Garbage),
        (Table::Debts, Table::Debts),
        (Table::Blocks, Table::BlockOwners),
        (Table::Meta, Table::Meta),
    ] {
        for key in [first_key(&tables, table), last_key(&tables, table)] {
            let found = violated(&tables, |set| set.delete(table, &key));
            assert!(found.contains(&shows), "{table:?} {key:?}: {found:?}");
        }
    }
    for key in tables.entries(Table::Inodes).keys() {
        let found = violated(&tables, |set| set.delete(Table::Inodes, key));
        assert!(!found.is_empty(), "{key:?}");
    }
}

#[test]
fn a_wrong_record_is_found() {
    let tables = rich_state();
    let meta = tables.entries(Table::Meta);
    let counters = CountersRecord::decode(meta[&b"counters"[..]].clone()).unwrap();
    for wrong in [
        CountersRecord { files: counters.files + 1, ..counters },
        CountersRecord { directories: counters.directories - 1, ..counters },
        CountersRecord { blocks: 0, ..counters },
        CountersRecord { under_replicated: 9, ..counters },
        CountersRecord { corrupt: 9, ..counters },
        CountersRecord { next_inode: 2, ..counters },
        CountersRecord { next_block: 1, ..counters },
        CountersRecord { next_node: 9, ..counters },
    ] {
        let value = wrong.encode_to_vec();
        let found = violated(&tables, |set| set.put(Table::Meta, b"counters", value));
        assert!(found.contains(&Table::Meta), "{wrong:?}");
    }
    let found = violated(&tables, |set| set.put(Table::Inodes, b"garbled", &b"x"[..]));
    assert_eq!(found, [Table::Inodes]);
}

#[test]
fn directories_that_hold_each_other_are_found() {
    let tables = rich_state();
    let directory = |parent_id| {
        let name = "loop".to_owned();
        InodeRecord { parent_id, name, ..InodeRecord::default() }.encode_to_vec()
    };
    let found = violated(&tables, |set| {
        for (id, parent) in [(90_u64, 91_u64), (91, 90)] {
            set.put(Table::Inodes, &id.to_be_bytes(), directory(parent));
            let key = [&parent.to_be_bytes()[..], b"loop"].concat();
            set.put(Table::Children, &key, id.to_be_bytes().to_vec());
        }
    });
    assert!(found.contains(&Table::Inodes));
}
