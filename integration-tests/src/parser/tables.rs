//! The namenode's state as a start finds it: records of its tables, and the file of its store.

use std::fs;
use std::ops::Bound;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use doldam_namenode::engine::invariant;
use doldam_namenode::engine::namespace::{apply, view};
use doldam_namenode::engine::tables::{Change, Changes, MemoryTables, StoreError, Table, Tables};
use doldam_namenode::store::{Store, StoreOptions};
use doldam_proto::id::{BlockId, InodeId, JournalIndex, NodeId};
use doldam_proto::wire::command::Change as Order;
use doldam_proto::wire::{
    AllocateBlockCommand, BlockCommit, CollectGarbageCommand, Command, CompleteCommand,
    CreateCommand, DeleteCommand, FormatCommand, MkdirCommand, RegisterNodeCommand, RequestId,
};
use doldam_runtime::disk::{Disk, RealDisk};

use super::memory_folder::in_empty_folder;

const ENTRIES_MAX: usize = 200;

/// Entries of the tables, one after another: table (one byte), length of the key and of the value (u16), key, value.
/// What cannot be is said, and no reader of the state panics, nor a command that goes by what it finds there.
pub fn table_records(bytes: &[u8]) {
    let tables = decode_entries(bytes);
    // Violations are what is to be expected.
    let _ = invariant::check(&tables);
    read_views(&tables);
    let order = Order::CollectGarbage(CollectGarbageCommand { max_items: 100 });
    let command = Command { change: Some(order), ..Command::default() };
    let _ = apply(&tables, &command);
}

/// What a namenode reads to answer and to plan.
fn read_views(tables: &dyn Tables) {
    for path in ["/", "/d", "/d/f"] {
        let Ok(path) = view::parse_path(path) else { continue };
        let _ = view::stat(tables, &path);
        let _ = view::list(tables, &path, "", 100);
        let _ = view::locate(tables, &path, 0, 100, InodeId(0));
    }
    let _ = view::totals(tables);
    let _ = view::cluster_id(tables);
    let _ = view::debts(tables, BlockId(0), 100);
    for number in 1..4 {
        let _ = view::block(tables, BlockId(number));
        let _ = view::file_blocks(tables, InodeId(number), 0, 100);
        let replica = doldam_proto::fingerprint::ReplicaId {
            block: BlockId(number),
            generation: doldam_proto::id::Generation(1),
            length: 1,
        };
        let _ = view::standing(tables, NodeId(1), &replica);
    }
}

fn decode_entries(mut bytes: &[u8]) -> MemoryTables {
    let mut changes = Changes::new();
    for _ in 0..ENTRIES_MAX {
        let Some((head, rest)) = bytes.split_first_chunk::<5>() else { break };
        let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let table = Table::ALL[usize::from(head[0]) % Table::COUNT];
        let (key, rest) = rest.split_at(length(1).min(rest.len()));
        let (value, rest) = rest.split_at(length(3).min(rest.len()));
        changes.insert(
            table,
            Bytes::copy_from_slice(key),
            Change::Put(Bytes::copy_from_slice(value)),
        );
        bytes = rest;
    }
    let mut tables = MemoryTables::new();
    tables.apply_changes(changes);
    tables
}

/// A small namespace: two nodes, a complete file, an unfinished one, a deleted one; or all of it `deleted` and waiting
/// to be collected.
fn state(deleted: bool) -> MemoryTables {
    let mut tables = MemoryTables::new();
    let mut time_ms = 1000;
    let mut run = |change: Order, sequence: Option<u64>| {
        time_ms += 1;
        let request = sequence.map(|sequence| RequestId {
            client_id: vec![5; 16].into(),
            sequence,
            answered_below: 0,
        });
        let command = Command { change: Some(change), request, time_ms };
        let applied = apply(&tables, &command).expect("a sound state");
        tables.apply_changes(applied.changes);
    };
    run(Order::Format(FormatCommand { cluster_id: vec![7; 16].into() }), None);
    for node in 1..=2_u8 {
        let register = RegisterNodeCommand {
            node_uuid: vec![node; 16].into(),
            address: format!("h{node}:1"),
            rack: "/r".into(),
        };
        run(Order::RegisterNode(register), None);
    }
    run(Order::Mkdir(MkdirCommand { path: "/d".into(), parents: false }), Some(1));
    for (inode, (sequence, name)) in (3..).zip([(2, "/d/f"), (3, "/d/g"), (4, "/d/unfinished")]) {
        let create = CreateCommand {
            path: name.into(),
            replication: 2,
            block_bytes: 1 << 16,
            durability: 1,
            allocate_first: true,
            holder: "host".into(),
            first_targets: vec![1, 2],
            ..CreateCommand::default()
        };
        run(Order::Create(create), Some(sequence));
        if name == "/d/unfinished" {
            let more = AllocateBlockCommand {
                inode_id: inode,
                index: 1,
                targets: vec![1],
                ..AllocateBlockCommand::default()
            };
            run(Order::AllocateBlock(more), Some(20));
            continue;
        }
        let commit = BlockCommit {
            block_id: inode - 2,
            generation: 1,
            length: 4096,
            chaining_value: vec![9; 32].into(),
            root_value: vec![8; 32].into(),
            node_ids: vec![1, 2],
        };
        let complete = CompleteCommand { inode_id: inode, length: 4096, commits: vec![commit] };
        run(Order::Complete(complete), Some(10 + sequence));
    }
    run(Order::Delete(DeleteCommand { path: "/d/g".into(), recursive: false }), Some(30));
    if deleted {
        run(Order::Delete(DeleteCommand { path: "/d".into(), recursive: true }), Some(31));
    }
    tables
}

fn encode_entries(tables: &MemoryTables) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, table) in (0_u8..).zip(Table::ALL) {
        for (key, value) in tables.entries(table) {
            bytes.push(number);
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
    }
    bytes
}

/// A name that is too long for a key, in a directory that is being collected.
fn with_long_name() -> Vec<u8> {
    let children = Table::ALL.iter().position(|table| *table == Table::Children).unwrap_or(0);
    let key = [&2_u64.to_be_bytes()[..], &[b'a'; 300]].concat();
    let mut entry = vec![children as u8];
    entry.extend((key.len() as u16).to_le_bytes());
    entry.extend(8_u16.to_le_bytes());
    entry.extend(key);
    entry.extend(3_u64.to_be_bytes());
    [encode_entries(&state(true)), entry].concat()
}

pub(super) fn table_records_seeds() -> Vec<Vec<u8>> {
    vec![encode_entries(&state(false)), encode_entries(&state(true)), with_long_name()]
}

/// A store with the small namespace in it, as it lies on disk.
fn store_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut store = Store::open(&disk, folder.path(), options(false)).expect("a new store");
        let mut changes = Changes::new();
        let state = state(false);
        for table in Table::ALL {
            for (key, value) in state.entries(table) {
                changes.insert(table, key.clone(), Change::Put(value.clone()));
            }
        }
        store.commit(changes, JournalIndex(9));
        store.checkpoint(JournalIndex(9)).expect("a checkpoint");
        drop(store);
        fs::read(folder.path().join(STORE_FILE)).expect("the file that was just written")
    })
}

const STORE_FILE: &str = "tables.redb";
const PATCHES_MAX: usize = 64;

fn options(check_at_open: bool) -> StoreOptions {
    StoreOptions { cache_bytes: 1 << 20, check_at_open }
}

/// The file of the store with changes: whether to check it at the start, how much is cut off its end (in 4 KiB), then
/// a place (u32) and a byte for each. It is opened and read, or refused.
pub fn store_damage(bytes: &[u8]) {
    let Some(([check, cut], patches)) = bytes.split_first_chunk::<2>() else { return };
    let mut file = store_file().to_vec();
    file.truncate(file.len().saturating_sub(usize::from(*cut) * 4096));
    for patch in patches.as_chunks::<5>().0.iter().take(PATCHES_MAX) {
        let place = u32::from_le_bytes([patch[0], patch[1], patch[2], patch[3]]) as usize;
        if let Some(byte) = file.get_mut(place) {
            *byte = patch[4];
        }
    }
    in_empty_folder(|folder| {
        fs::write(folder.join(STORE_FILE), &file).expect("a folder in memory takes a file");
        let _ = read_store(folder, check & 1 != 0);
    });
}

fn read_store(folder: &std::path::Path, check_at_open: bool) -> Result<(), StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = Store::open(&disk, folder, options(check_at_open))?;
    for table in Table::ALL {
        store.scan(table, Bound::Unbounded, &mut |_, _| ControlFlow::Continue(()))?;
    }
    read_views(&store);
    Ok(())
}

pub(super) fn store_damage_seeds() -> Vec<Vec<u8>> {
    let patch = |place: u32, byte: u8| [&place.to_le_bytes()[..], &[byte]].concat();
    vec![
        vec![0, 0],
        vec![1, 0],
        vec![1, 1],
        [&[1, 0][..], &patch(0, 0)].concat(),
        [&[0, 0][..], &patch(9, 0xff), &patch(64, 1), &patch(128, 1)].concat(),
        [&[1, 0][..], &patch(4096, 0xff), &patch(8192, 0xff)].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_sound_and_so_is_the_store_without_changes() {
        for deleted in [false, true] {
            let tables = decode_entries(&encode_entries(&state(deleted)));
            assert_eq!(tables, state(deleted));
            assert_eq!(invariant::check(&tables), []);
        }
        in_empty_folder(|folder| {
            fs::write(folder.join(STORE_FILE), store_file()).unwrap();
            read_store(folder, true).unwrap();
        });
    }

    #[test]
    fn a_name_that_no_key_can_hold_is_damage_and_not_a_panic() {
        let tables = decode_entries(&with_long_name());
        let order = Order::CollectGarbage(CollectGarbageCommand { max_items: 100 });
        let command = Command { change: Some(order), ..Command::default() };
        let refused = apply(&tables, &command).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { table: Table::Children, .. }), "{refused}");
    }
}
