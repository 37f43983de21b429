//! What a writer left, gone on with, finished, dropped; and a crash at every step of each.

use std::fs;
use std::path::PathBuf;

use doldam_proto::block::BlockBytes;
use doldam_proto::id::{BlockId, Generation};
use tempfile::TempDir;

use super::*;
use crate::engine::replica::ReplicaState;
use crate::testing::{
    Fault, FaultyDisk, Operation, bytes, copy_tree, files, open_store, store_block, tree_of,
};

const GROUP: usize = GROUP_BYTES as usize;
const MIB: u64 = 1 << 20;

fn key(generation: u64) -> ReplicaKey {
    ReplicaKey::new(0x1ab, generation)
}

struct Fixture {
    dir: TempDir,
    disk: FaultyDisk,
    store: Arc<BlockStore>,
}

fn fixture() -> Fixture {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let store = open_store(disk.handle(), &[dir.path()]);
    Fixture { dir, disk, store }
}

/// The node stops as it is and starts again: on a copy of its folder.
fn restarted(fixture: &Fixture) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(fixture.dir.path(), dir.path());
    let disk = FaultyDisk::default();
    let store = open_store(disk.handle(), &[dir.path()]);
    Fixture { dir, disk, store }
}

fn start(content: &[u8]) -> Start {
    let value = tree_of(0, content).1.chaining_value;
    Start { file_offset: 0, length: content.len() as u64, value, length_max: MIB }
}

/// A writer that wrote `content`.
fn writer(store: &Arc<BlockStore>, key: ReplicaKey, content: &[u8]) -> PartialReplica {
    let mut partial = store.begin_write(key, 0, MIB).unwrap();
    partial.write(0, content).unwrap();
    partial.advance(&tree_of(0, content).0, 0);
    partial
}

fn take_over(
    store: &Arc<BlockStore>,
    key: ReplicaKey,
    content: &[u8],
) -> Result<(PartialReplica, BlockTree), StoreError> {
    store.take_over(store.begin_take_over(key)?, start(content))
}

/// Goes on behind the first `there` bytes up to all of `content`, and publishes.
fn append(store: &Arc<BlockStore>, key: ReplicaKey, content: &[u8], there: usize) {
    let (mut partial, _) = take_over(store, key, &content[..there]).unwrap();
    partial.write(there as u64, &content[there..]).unwrap();
    let (tree, digest) = tree_of(0, content);
    partial.advance(&tree, there as u64);
    partial.publish(&tree, &digest, true).unwrap();
}

fn read(store: &BlockStore, key: ReplicaKey, length: usize) -> Vec<u8> {
    let readable = store.open_to_read(key, length as u64).unwrap();
    let mut content = vec![0; length];
    readable.data().read_exact_at(&mut content, 0).unwrap();
    let groups = readable.proof(length as u64, 0..groups_of(length as u64)).unwrap();
    let value = tree_of(0, &content).0.groups().iter().flat_map(|it| it.0).collect::<Vec<u8>>();
    assert_eq!(&groups[..], &value[..], "the proof is for what is read");
    content
}

fn open_keys(store: &BlockStore) -> Vec<ReplicaKey> {
    store.state().open.iter().map(|(key, _)| key).collect()
}

fn events(store: &BlockStore) -> Vec<(ReplicaKey, ReplicaEvent)> {
    store.news().take(Duration::ZERO, 100).events
}

#[test]
fn what_is_verified_stays_when_its_writer_leaves_and_the_namenode_is_told() {
    let Fixture { dir, store, .. } = fixture();
    let content = bytes(GROUP + 9);
    let mut partial = writer(&store, key(1), &content);
    // A part of a frame that was never verified as a whole.
    partial.write(content.len() as u64, b"unverified").unwrap();
    drop(partial);
    let left = ReplicaEvent::Open { length: content.len() as u64 };
    assert_eq!(events(&store), [(key(1), left.clone())]);
    let path = dir.path().join("writing/00000000000001ab_1@0.data");
    assert!(fs::read(path).unwrap() == content);
    assert!(read(&store, key(1), GROUP + 4) == content[..GROUP + 4]);
    assert_eq!(store.used_bytes(VolumeIndex(0)), content.len() as u64);
    store.tell_open();
    assert_eq!(events(&store), [(key(1), left)]);
    assert!(matches!(store.begin_write(key(1), 0, MIB), Err(StoreError::Left { .. })));
}

#[test]
fn a_writer_of_which_nothing_is_verified_and_a_repair_copy_vanish() {
    let Fixture { dir, store, .. } = fixture();
    drop(store.begin_write(key(1), 0, MIB).unwrap());
    let mut copy = store.begin_copy(key(1), 100).unwrap();
    copy.write(0, &bytes(50)).unwrap();
    copy.advance(&tree_of(0, &bytes(50)).0, 0);
    assert_eq!(
        files(dir.path()).into_iter().collect::<Vec<_>>(),
        ["writing/00000000000001ab_1.copy"]
    );
    drop(copy);
    assert!(files(dir.path()).is_empty() && open_keys(&store).is_empty());
    assert!(events(&store).is_empty());
}

#[test]
fn what_was_left_is_cut_renamed_and_gone_on_with() {
    let content = bytes(3 * GROUP);
    for (left, there) in
        [(3 * GROUP, GROUP), (2 * GROUP, 2 * GROUP), (GROUP + 9, GROUP + 5), (7, 3)]
    {
        for restart in [false, true] {
            let mut fixture = fixture();
            drop(writer(&fixture.store, key(1), &content[..left]));
            if restart {
                fixture = restarted(&fixture);
            }
            let (partial, tree) = take_over(&fixture.store, key(3), &content[..there]).unwrap();
            assert_eq!(tree.groups(), tree_of(0, &content[..there]).0.groups());
            let path = fixture.dir.path().join("writing/00000000000001ab_3@0.data");
            assert!(fs::read(path).unwrap() == content[..there], "{left} {there}");
            assert_eq!(open_keys(&fixture.store), [key(3)]);
            drop(partial);
            append(&fixture.store, key(4), &content, there);
            assert!(open_keys(&fixture.store).is_empty());
            fixture.store.verify(key(4), None).unwrap();
        }
    }
}

#[test]
fn other_bytes_too_few_bytes_and_nothing_are_refused_each_by_its_name_and_stay_as_they_are() {
    let Fixture { store, .. } = fixture();
    let content = bytes(2 * GROUP);
    let nothing = take_over(&store, key(2), &content[..1]).err().unwrap();
    assert!(matches!(nothing, StoreError::NotFound { .. }), "{nothing}");
    drop(writer(&store, key(1), &content[..GROUP + 5]));
    let too_few = take_over(&store, key(2), &content[..GROUP + 6]).err().unwrap();
    assert!(matches!(too_few, StoreError::NotFound { .. }), "{too_few}");
    let other = take_over(&store, key(3), &vec![1; GROUP]).err().unwrap();
    assert!(matches!(other, StoreError::OtherBytes { length: 65_536, .. }), "{other}");
    assert_eq!(open_keys(&store), [key(1)]);
    // What was refused was seen all the same: nobody goes back behind it.
    let late = store.begin_write(key(2), 0, MIB).err().unwrap();
    assert!(matches!(late, StoreError::OtherGeneration { found: Generation(3), .. }), "{late}");
}

#[test]
fn an_append_shares_the_file_of_the_replica_and_neither_changes_the_other() {
    let fixture = fixture();
    let (store, content) = (&fixture.store, bytes(3 * GROUP));
    let before = GROUP + 100;
    store_block(store, key(1), &content[..before], true);
    let (partial, _) = take_over(store, key(2), &content[..before]).unwrap();
    let written = 2 * GROUP;
    let mut partial = partial;
    partial.write(before as u64, &content[before..written]).unwrap();
    partial.advance(&tree_of(0, &content[..written]).0, before as u64);
    store.verify(key(1), None).unwrap();
    assert!(read(store, key(1), before) == content[..before]);
    assert!(read(store, key(2), written) == content[..written]);
    drop(partial);

    // A start finds the replica in a longer file, and both are what they were.
    let fixture = restarted(&fixture);
    let store = &fixture.store;
    store.verify(key(1), None).unwrap();
    assert!(read(store, key(2), written) == content[..written]);
    append(store, key(3), &content, written);
    store.verify(key(1), None).unwrap();
    store.verify(key(3), None).unwrap();
    assert!(store.drop_replica(key(1)).unwrap());
    store.verify(key(3), None).unwrap();
}

#[test]
fn an_append_does_not_write_into_the_file_of_a_longer_replica() {
    let Fixture { store, .. } = fixture();
    let (content, other) = (bytes(2 * GROUP), vec![7; GROUP]);
    store_block(&store, key(1), &content[..100], true);
    append(&store, key(2), &content, 100);
    // The shorter one is gone on with, as if the longer one had never been.
    let divergent = [&content[..100], &other].concat();
    append(&store, key(3), &divergent, 100);
    for key in [key(1), key(2), key(3)] {
        store.verify(key, None).unwrap();
    }
}

#[test]
fn to_cut_a_replica_its_bytes_are_copied_and_it_stays_whole() {
    let Fixture { dir, store, .. } = fixture();
    let content = bytes(2 * GROUP);
    store_block(&store, key(1), &content, true);
    for (cut, of) in [(GROUP + 5, 2), (GROUP, 3), (1, 4)] {
        let mut other = content[..cut].to_vec();
        other.extend_from_slice(&[9; 77]);
        append(&store, key(of), &other, cut);
        store.verify(key(of), None).unwrap();
        store.verify(key(1), None).unwrap();
    }
    assert_eq!(files(dir.path()).len(), 8);
}

#[test]
fn a_rotten_replica_is_not_copied_into_a_new_generation() {
    let Fixture { dir, store, .. } = fixture();
    let content = bytes(2 * GROUP);
    store_block(&store, key(1), &content, true);
    let path = dir.path().join("blocks/2b/00000000000001ab_1_131072.data");
    let mut rotten = content.clone();
    rotten[5] ^= 1;
    fs::write(path, rotten).unwrap();
    assert!(take_over(&store, key(2), &content[..GROUP]).is_err());
    assert!(open_keys(&store).is_empty());
}

#[tokio::test]
async fn nobody_gets_a_block_before_its_older_writer_is_out() {
    let Fixture { store, .. } = fixture();
    let content = bytes(100);
    let partial = writer(&store, key(1), &content);
    let fenced = partial.fenced();
    let take = store.begin_take_over(key(2)).unwrap();
    assert!(fenced.is_cancelled());
    let short = Duration::from_millis(1);
    let still_there = store.writers_out(key(2), short).await.unwrap_err();
    assert!(matches!(still_there, StoreError::BeingWritten { .. }), "{still_there}");
    let waiting = store.writers_out(key(2), Duration::from_secs(30));
    let leaving = async { drop(partial) };
    let (out, ()) = tokio::join!(waiting, leaving);
    out.unwrap();
    drop(store.take_over(take, start(&content)).unwrap());
    assert_eq!(open_keys(&store), [key(2)]);
}

#[test]
fn of_two_that_go_on_with_a_block_the_newer_one_does() {
    let Fixture { store, .. } = fixture();
    let content = bytes(100);
    drop(writer(&store, key(1), &content));
    let slow = store.begin_take_over(key(2)).unwrap();
    let fast = store.begin_take_over(key(3)).unwrap();
    let refused = store.take_over(slow, start(&content)).err().unwrap();
    assert!(matches!(refused, StoreError::OtherGeneration { .. }), "{refused}");
    store.take_over(fast, start(&content)).unwrap();
}

#[test]
fn what_was_left_is_dropped_by_an_order_that_names_it_and_by_no_other() {
    let Fixture { dir, store, .. } = fixture();
    drop(writer(&store, key(2), &bytes(100)));
    _ = events(&store);
    for other in [1, 3] {
        assert!(!store.drop_replica(key(other)).unwrap());
    }
    assert!(!store.drop_bad_replica(key(2)).unwrap());
    assert!(store.drop_replica(key(2)).unwrap());
    assert_eq!(events(&store), [(key(2), ReplicaEvent::Dropped)]);
    assert!(files(dir.path()).is_empty());
    let late = store.begin_write(key(1), 0, MIB).err().unwrap();
    assert!(matches!(late, StoreError::OtherGeneration { .. }), "{late}");
}

#[test]
fn an_older_open_block_stays_when_a_newer_generation_is_published() {
    let Fixture { store, .. } = fixture();
    let content = bytes(100);
    drop(writer(&store, key(1), &content));
    store_block(&store, key(2), &content, true);
    assert_eq!(open_keys(&store), [key(1)]);
    assert!(store.drop_replica(key(1)).unwrap());
    store.verify(key(2), None).unwrap();
}

fn recover_order(generation: u64) -> RecoverOrder {
    RecoverOrder {
        block: BlockId(0x1ab),
        generation: Generation(generation),
        file_offset: 0,
        block_bytes: BlockBytes::new(MIB).unwrap(),
    }
}

fn recover(store: &Arc<BlockStore>, generation: u64) -> Option<Recovered> {
    let take = store.begin_recovery(key(generation)).unwrap();
    store.recover(&take, recover_order(generation)).unwrap()
}

fn finish_order(generation: u64, content: &[u8]) -> FinishOrder {
    FinishOrder {
        block: BlockId(0x1ab),
        generation: Generation(generation),
        file_offset: 0,
        length: content.len() as u64,
        chaining_value: tree_of(0, content).1.chaining_value,
    }
}

fn finish(store: &Arc<BlockStore>, generation: u64, content: &[u8]) -> Result<(), StoreError> {
    store.finish(store.begin_take_over(key(generation))?, finish_order(generation, content))
}

#[test]
fn a_block_is_recovered_and_its_start_finished_also_over_restarts() {
    for length in [1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP] {
        let content = bytes(length);
        for restarts in 0..3 {
            let mut fixture = fixture();
            drop(writer(&fixture.store, key(2), &content));
            if restarts > 0 {
                fixture = restarted(&fixture);
            }
            let found = recover(&fixture.store, 5).unwrap();
            let (tree, digest) = tree_of(0, &content);
            assert_eq!((found.written_under, found.length), (key(2), length as u64));
            assert_eq!(found.groups, tree.groups());
            let root = if length <= GROUP { digest.root_value } else { None };
            assert_eq!(found.first_root, root);
            if restarts > 1 {
                fixture = restarted(&fixture);
            }
            // Fenced, and remembered.
            let late = fixture.store.begin_take_over(key(4)).err().unwrap();
            assert!(matches!(late, StoreError::OtherGeneration { .. }), "{late}");
            assert_eq!(recover(&fixture.store, 5).unwrap().groups, tree.groups());

            let kept = &content[..length - length / 3];
            finish(&fixture.store, 5, kept).unwrap();
            let events = events(&fixture.store);
            let (length, value) = (kept.len() as u64, tree_of(0, kept).1.chaining_value);
            let stored = (key(5), ReplicaEvent::Stored { length, value });
            assert_eq!(events.last(), Some(&stored));
            fixture.store.verify(key(5), None).unwrap();
            let replica = fixture.store.state().inventory.get(key(5)).unwrap();
            assert_eq!((replica.length, replica.state), (length, ReplicaState::Final));
            // Asked again, it says what it is.
            assert_eq!(recover(&fixture.store, 5).unwrap().length, length);
        }
    }
}

#[test]
fn a_replica_that_was_to_be_appended_to_is_recovered_and_finished_as_it_is() {
    let Fixture { store, .. } = fixture();
    let content = bytes(GROUP + 5);
    store_block(&store, key(1), &content, true);
    let found = recover(&store, 3).unwrap();
    assert_eq!((found.written_under, found.length), (key(1), content.len() as u64));
    finish(&store, 3, &content).unwrap();
    store.verify(key(3), None).unwrap();
    store.verify(key(1), None).unwrap();
    let nothing = store.begin_recovery(ReplicaKey::new(9, 2)).unwrap();
    assert_eq!(store.recover(&nothing, recover_order(2)).unwrap(), None);
}

#[test]
fn what_is_not_what_the_order_says_is_not_finished_and_stays() {
    let Fixture { store, .. } = fixture();
    let content = bytes(GROUP + 5);
    drop(writer(&store, key(1), &content));
    recover(&store, 3).unwrap();
    assert!(matches!(finish(&store, 3, &[1; 50]), Err(StoreError::OtherBytes { .. })));
    assert!(matches!(finish(&store, 3, &bytes(GROUP + 6)), Err(StoreError::NotFound { .. })));
    assert_eq!(recover(&store, 3).unwrap().length, content.len() as u64);
    finish(&store, 3, &content).unwrap();
}

/// The node stops before each change of the disk, one after another: by a fault that strikes there, and a start from
/// the files as they are then.
fn at_every_step(setup: impl Fn(&Fixture), work: impl Fn(&Fixture), check: impl Fn(Fixture, &str)) {
    let steps = [
        (Operation::Create, "writing/"),
        (Operation::Write, "writing/"),
        (Operation::Link, "writing/"),
        (Operation::SetLength, "writing/"),
        (Operation::Sync, ".data"),
        (Operation::Sync, ".side"),
        (Operation::SyncDir, "writing"),
        (Operation::Rename, "writing/"),
        (Operation::Rename, "blocks/"),
        (Operation::SyncDir, "blocks/"),
    ];
    let mut struck = 0;
    for (operation, path) in steps {
        for after in 0..3 {
            let fixture = fixture();
            setup(&fixture);
            // As a stop would leave it: nothing is undone after the fault.
            fixture.disk.stop_at(Fault { operation, path, after, errno: 5 });
            work(&fixture);
            if !fixture.disk.has_stopped() {
                break;
            }
            struck += 1;
            let step = format!("{operation:?} {path} after {after}");
            check(restarted(&fixture), &step);
        }
    }
    assert!(struck >= 3, "{struck} steps");
}

fn content() -> Vec<u8> {
    bytes(2 * GROUP + 100)
}

/// Whatever step a stop falls on, the first `length` bytes are there, to be gone on with or as a replica.
fn still_has(fixture: &Fixture, content: &[u8], step: &str) {
    fixture.store.sync_late();
    let held = fixture.store.state().held(key(9));
    let length = content.len();
    assert!(held.iter().any(|it| it.length >= length as u64), "{step}: {held:?}");
    assert!(read(&fixture.store, key(9), length) == content, "{step}");
    let (partial, _) = take_over(&fixture.store, key(9), content).unwrap();
    let (tree, digest) = tree_of(0, content);
    partial.publish(&tree, &digest, true).unwrap();
    fixture.store.verify(key(9), None).unwrap();
}

#[test]
fn synced_bytes_survive_a_stop_at_every_step_of_publishing() {
    let content = content();
    for sync in [false, true] {
        let setup = |fixture: &Fixture| {
            let partial = writer(&fixture.store, key(1), &content);
            partial.file().sync().unwrap();
            drop(partial);
            drop(take_over(&fixture.store, key(2), &content).unwrap());
        };
        let work = |fixture: &Fixture| {
            let Ok((partial, _)) = take_over(&fixture.store, key(3), &content) else { return };
            let (tree, digest) = tree_of(0, &content);
            _ = partial.publish(&tree, &digest, sync);
        };
        at_every_step(setup, work, |fixture, step| still_has(&fixture, &content, step));
    }
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_a_sync() {
    let content = content();
    let setup = |fixture: &Fixture| drop(writer(&fixture.store, key(1), &content));
    let work = |fixture: &Fixture| {
        let Ok((mut partial, _)) = take_over(&fixture.store, key(2), &content) else { return };
        _ = partial.file().sync();
        if partial.write(content.len() as u64, b"more").is_ok() {
            _ = partial.file().sync();
        }
    };
    at_every_step(setup, work, |fixture, step| still_has(&fixture, &content, step));
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_going_on_with_what_was_left_or_a_replica() {
    let content = content();
    for cut in [content.len(), 2 * GROUP, GROUP + 7] {
        for is_open in [true, false] {
            let setup = |fixture: &Fixture| match is_open {
                true => drop(writer(&fixture.store, key(1), &content)),
                false => store_block(&fixture.store, key(1), &content, true),
            };
            let work = |fixture: &Fixture| {
                let taken = take_over(&fixture.store, key(2), &content[..cut]);
                let Ok((mut partial, _)) = taken else { return };
                _ = partial.write(cut as u64, &[5; 100]);
                _ = partial.file().sync();
                let whole = [&content[..cut], &[5; 100]].concat();
                let (tree, digest) = tree_of(0, &whole);
                partial.advance(&tree, cut as u64);
                _ = partial.publish(&tree, &digest, true);
            };
            at_every_step(setup, work, |fixture, step| {
                if !is_open {
                    fixture.store.verify(key(1), None).unwrap();
                }
                still_has(&fixture, &content[..cut], step);
            });
        }
    }
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_recovering_and_finishing() {
    let content = content();
    let setup = |fixture: &Fixture| drop(writer(&fixture.store, key(1), &content));
    let work = |fixture: &Fixture| {
        let Ok(take) = fixture.store.begin_recovery(key(3)) else { return };
        let recovered = fixture.store.recover(&take, recover_order(3));
        drop(take);
        if recovered.is_ok() {
            _ = finish(&fixture.store, 3, &content[..GROUP + 5]);
        }
    };
    at_every_step(setup, work, |fixture, step| {
        fixture.store.sync_late();
        // The same orders come again, and end as they would have.
        let found = recover(&fixture.store, 3).unwrap();
        assert!(found.length >= GROUP as u64 + 5, "{step}");
        if fixture.store.find(key(3)).is_err() {
            finish(&fixture.store, 3, &content[..GROUP + 5]).unwrap();
        }
        fixture.store.verify(key(3), None).unwrap();
        assert!(read(&fixture.store, key(3), GROUP + 5) == content[..GROUP + 5], "{step}");
    });
}

#[test]
fn a_failed_sync_is_final() {
    let Fixture { disk, store, dir, .. } = fixture();
    let partial = writer(&store, key(1), &bytes(100));
    disk.fail(Fault { operation: Operation::Sync, path: "@0.data", after: 0, errno: 5 });
    partial.file().sync().unwrap_err();
    disk.heal();
    partial.file().sync().unwrap_err();
    let (tree, digest) = tree_of(0, &bytes(100));
    partial.publish(&tree, &digest, true).unwrap_err();
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn a_publication_that_fails_leaves_the_block_open() {
    for (operation, path) in [
        (Operation::Create, ".side"),
        (Operation::Sync, ".side"),
        (Operation::Rename, ".data"),
        (Operation::Rename, ".side"),
        (Operation::SyncDir, "blocks/"),
    ] {
        let Fixture { disk, store, dir, .. } = fixture();
        let content = bytes(GROUP + 1);
        let partial = writer(&store, key(1), &content);
        disk.fail(Fault { operation, path, after: 0, errno: 5 });
        let (tree, digest) = tree_of(0, &content);
        partial.publish(&tree, &digest, true).unwrap_err();
        disk.heal();
        let left: Vec<PathBuf> = files(dir.path()).into_iter().map(PathBuf::from).collect();
        assert_eq!(left, [PathBuf::from("writing/00000000000001ab_1@0.data")], "{operation:?}");
        assert!(read(&store, key(1), content.len()) == content);
    }
}
