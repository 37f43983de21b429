//! Checkpoints, crashes and what a store refuses.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::Disk;
use doldam_runtime::random::SeededRandom;
use proptest::prelude::*;

use super::{Store, StoreOptions};
use crate::engine::tables::{Change, Changes, MemoryTables, StoreError, Table, Tables};
use crate::journal::test_disk::{CrashDisk, Fault};

const FOLDER: &str = "/store";
const SMALL: StoreOptions = StoreOptions { cache_bytes: 1 << 20, check_at_open: false };

fn open(disk: &Arc<CrashDisk>) -> Result<Store, StoreError> {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    Store::open(&disk, Path::new(FOLDER), SMALL)
}

fn put(key: &str, value: &str) -> Changes {
    let mut changes = Changes::new();
    let value = Bytes::copy_from_slice(value.as_bytes());
    changes.insert(Table::Inodes, Bytes::copy_from_slice(key.as_bytes()), Change::Put(value));
    changes
}

fn value(store: &Store, key: &str) -> Option<String> {
    let value = store.get(Table::Inodes, key.as_bytes()).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_checkpoint_survives_and_what_came_after_does_not() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    assert_eq!(store.applied_index(), JournalIndex(0));
    store.commit(put("a", "1"), JournalIndex(3));
    store.checkpoint(JournalIndex(3)).unwrap();
    store.commit(put("a", "2"), JournalIndex(4));
    store.checkpoint(JournalIndex(4)).unwrap();
    store.commit(put("a", "3"), JournalIndex(5));
    assert_eq!(value(&store, "a").as_deref(), Some("3"));
    drop(store);
    let store = open(&disk.after_crash(&SeededRandom::new(1))).unwrap();
    assert_eq!(value(&store, "a").as_deref(), Some("2"));
    assert_eq!(store.applied_index(), JournalIndex(4));
    assert_eq!(store.checkpointed_index(), JournalIndex(4));
    assert_eq!(store.previous_checkpoint_index(), JournalIndex(3));
}

#[test]
fn commits_and_reads_go_on_while_a_flush_runs() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    store.commit(put("a", "1"), JournalIndex(1));
    let job = store.freeze().unwrap();
    assert_eq!(job.applied_index(), JournalIndex(1));
    assert!(store.freeze().is_none(), "one flush at a time");
    store.commit(put("b", "2"), JournalIndex(2));
    assert!(store.freeze().is_none(), "one flush at a time");
    assert_eq!((value(&store, "a"), value(&store, "b")), (Some("1".into()), Some("2".into())));
    let flushed = job.run(JournalIndex(1)).unwrap();
    assert_eq!(store.checkpointed_index(), JournalIndex(0), "not before it is installed");
    drop(store.install(flushed));
    assert_eq!(store.checkpointed_index(), JournalIndex(1));
    assert_eq!(store.applied_index(), JournalIndex(2));
    assert_eq!((value(&store, "a"), value(&store, "b")), (Some("1".into()), Some("2".into())));
}

#[test]
fn nothing_is_frozen_where_nothing_was_applied() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    assert!(store.freeze().is_none());
    store.commit(Changes::new(), JournalIndex(1));
    assert!(store.freeze().is_some(), "a command without changes moves the index");
}

#[test]
#[should_panic(expected = "would overtake the journal")]
fn a_checkpoint_never_overtakes_the_journal() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    store.commit(put("a", "1"), JournalIndex(2));
    let _never = store.checkpoint(JournalIndex(1));
}

#[test]
fn a_failed_flush_is_an_error_and_leaves_the_checkpoint_before() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    store.commit(put("a", "1"), JournalIndex(1));
    store.checkpoint(JournalIndex(1)).unwrap();
    store.commit(put("a", "2"), JournalIndex(2));
    disk.fail_after_syncs(0, Fault::Power);
    let error = store.checkpoint(JournalIndex(2)).unwrap_err();
    assert!(matches!(error, StoreError::Storage { .. }), "{error}");
    let store = open(&disk.after_crash(&SeededRandom::new(3))).unwrap();
    assert_eq!(value(&store, "a").as_deref(), Some("1"));
    assert_eq!(store.applied_index(), JournalIndex(1));
}

#[test]
fn creating_survives_a_crash_at_every_sync() {
    for syncs in 0..12 {
        for seed in 0..8 {
            let disk = CrashDisk::with_folder(FOLDER);
            disk.fail_after_syncs(syncs, Fault::Power);
            drop(open(&disk));
            let disk = disk.after_crash(&SeededRandom::new(seed));
            let store = open(&disk).unwrap();
            assert_eq!(store.applied_index(), JournalIndex(0), "{syncs} syncs, seed {seed}");
            assert_eq!(disk.paths().len(), 1);
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let disk = CrashDisk::with_folder(FOLDER);
    drop(open(&disk).unwrap());
    let path = Path::new(FOLDER).join("tables.redb");
    disk.damage(&path, |bytes| bytes[..64].fill(b'x'));
    assert!(matches!(open(&disk), Err(StoreError::Storage { .. })));
}

#[test]
fn a_changed_byte_is_found_when_every_page_is_checked() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    let mut model = MemoryTables::new();
    for index in 1..=120 {
        let changes = change_of(index, 200);
        model.apply_changes(changes.clone());
        store.commit(changes, JournalIndex(index.into()));
    }
    store.checkpoint(JournalIndex(120)).unwrap();
    drop(store);
    let path = Path::new(FOLDER).join("tables.redb");
    let untouched = disk.bytes_of(&path);
    let mut refused = 0;
    for place in (0..untouched.len()).step_by(499) {
        disk.damage(&path, |bytes| {
            bytes.clone_from(&untouched);
            bytes[place] ^= 0x10;
        });
        let disk = Arc::clone(&disk) as Arc<dyn Disk>;
        let options = StoreOptions { check_at_open: true, ..SMALL };
        match Store::open(&disk, Path::new(FOLDER), options) {
            Ok(store) => assert_same(&store, &model),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50, "only {refused} places were noticed");
}

#[test]
fn a_scan_stops_where_the_visitor_says() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut store = open(&disk).unwrap();
    store.commit(put("a", "1"), JournalIndex(1));
    store.checkpoint(JournalIndex(1)).unwrap();
    store.commit(put("b", "2"), JournalIndex(2));
    let _frozen = store.freeze().unwrap();
    store.commit(put("c", "3"), JournalIndex(3));
    for count in 1..=3 {
        let mut seen = Vec::new();
        store
            .scan(Table::Inodes, Bound::Unbounded, &mut |key, _| {
                seen.push(key.to_vec());
                if seen.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(seen, [b"a", b"b", b"c"][..count]);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(u8, u8),
    Checkpoint,
    CrashInCheckpoint { after_syncs: u64, seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Commit(key % 16, value)),
        1 => Just(Step::Checkpoint),
        2 => (0..4_u64, any::<u64>())
            .prop_map(|(after_syncs, seed)| Step::CrashInCheckpoint { after_syncs, seed }),
    ]
}

fn change_of(key: u8, value: u8) -> Changes {
    let mut changes = Changes::new();
    let change =
        if value < 64 { Change::Delete } else { Change::Put(Bytes::from(vec![value; 300])) };
    changes.insert(Table::Children, Bytes::from(vec![key]), change);
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// After a crash the store is exactly the state at its applied index; with the journal's
    /// commands after that it is the state before the crash.
    #[test]
    fn a_crash_leaves_a_checkpoint_and_the_replay_completes_it(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut disk = CrashDisk::with_folder(FOLDER);
        let mut store = open(&disk).unwrap();
        let mut journal: Vec<(u8, u8)> = Vec::new();
        for step in steps {
            let last = JournalIndex(journal.len() as u64);
            match step {
                Step::Commit(key, value) => {
                    journal.push((key, value));
                    store.commit(change_of(key, value), last.next());
                }
                Step::Checkpoint => store.checkpoint(last).unwrap(),
                Step::CrashInCheckpoint { after_syncs, seed } => {
                    let before = store.checkpointed_index();
                    disk.fail_after_syncs(after_syncs, Fault::Power);
                    let finished = store.checkpoint(last).is_ok();
                    disk = disk.after_crash(&SeededRandom::new(seed));
                    store = open(&disk).unwrap();
                    let applied = store.applied_index();
                    prop_assert!(applied == last || (!finished && applied == before));
                    let mut model = MemoryTables::new();
                    for (place, (key, value)) in (1..).zip(&journal) {
                        model.apply_changes(change_of(*key, *value));
                        if place == applied.0 {
                            assert_same(&store, &model);
                        } else if place > applied.0 {
                            store.commit(change_of(*key, *value), JournalIndex(place));
                        }
                    }
                    assert_same(&store, &model);
                }
            }
        }
    }
}

fn assert_same(store: &Store, model: &MemoryTables) {
    let mut found = Vec::new();
    let from = Bound::Unbounded;
    store
        .scan(Table::Children, from, &mut |key, value| {
            found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    let expected: Vec<_> = model
        .entries(Table::Children)
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(found, expected);
}
