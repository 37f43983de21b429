//! What a writer left, gone on with or dropped.

use std::fs;
use std::path::PathBuf;

use doldam_proto::id::Generation;

use super::*;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::VolumeIndex;
use crate::testing::open::{
    Fixture, append, events, fixture, key, read, restarted, start, take_over, writer,
};
use crate::testing::{Fault, Operation, bytes, files, store_block, tree_of};

const GROUP: usize = GROUP_BYTES as usize;
const MIB: u64 = 1 << 20;

fn open_keys(store: &BlockStore) -> Vec<ReplicaKey> {
    store.state().open.iter().map(|(key, _)| key).collect()
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
                fixture = restarted(fixture);
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
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(2 * GROUP);
    let nothing = take_over(store, ReplicaKey::new(9, 2), &content[..1]).err().unwrap();
    assert!(matches!(nothing, StoreError::NotFound { .. }), "{nothing}");
    drop(writer(store, key(1), &content[..GROUP + 5]));
    let too_few = take_over(store, key(2), &content[..GROUP + 6]).err().unwrap();
    assert!(matches!(too_few, StoreError::NotFound { .. }), "{too_few}");
    let other = take_over(store, key(3), &vec![1; GROUP]).err().unwrap();
    assert!(matches!(other, StoreError::OtherBytes { length: 65_536, .. }), "{other}");
    assert_eq!(open_keys(store), [key(1)]);
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
    let fixture = restarted(fixture);
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
fn where_a_file_has_no_second_name_its_bytes_are_copied() {
    let fixture = fixture();
    let content = bytes(GROUP + 5);
    store_block(&fixture.store, key(1), &content[..GROUP], true);
    // As the system says it where it has no links, or too many of this file.
    for (errno, of) in [(95, 2), (31, 3)] {
        fixture.disk.fail(Fault { operation: Operation::Link, path: "writing", after: 0, errno });
        append(&fixture.store, key(of), &content, GROUP);
        fixture.disk.heal();
        fixture.store.verify(key(of), None).unwrap();
    }
}

#[test]
fn an_append_does_not_write_into_the_file_of_a_longer_replica() {
    let fixture = fixture();
    let store = &fixture.store;
    let (content, other) = (bytes(2 * GROUP), vec![7; GROUP]);
    store_block(store, key(1), &content[..100], true);
    append(store, key(2), &content, 100);
    // The shorter one is gone on with, as if the longer one had never been.
    let divergent = [&content[..100], &other].concat();
    append(store, key(3), &divergent, 100);
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
    let refused = take_over(&store, key(2), &content[..GROUP]).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(!store.state().inventory.get(key(1)).unwrap().is_good());
    assert!(!store.volumes()[0].has_failed());
    assert!(open_keys(&store).is_empty());
}

#[test]
fn a_replica_that_lost_its_bytes_with_the_power_is_not_gone_on_with() {
    let Fixture { dir, store, .. } = fixture();
    let content = bytes(2 * GROUP);
    store_block(&store, key(1), &content, false);
    // Its sidecar reached the disk, and its bytes did not.
    fs::write(dir.path().join("blocks/2b/00000000000001ab_1_131072.data"), vec![0; 2 * GROUP])
        .unwrap();
    let refused = take_over(&store, key(2), &content).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(open_keys(&store).is_empty());
    assert!(!store.state().inventory.get(key(1)).unwrap().is_good());
}

#[tokio::test]
async fn nobody_gets_a_block_before_its_older_writer_is_out() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(100);
    let partial = writer(store, key(1), &content);
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
    assert_eq!(open_keys(store), [key(2)]);
}

#[test]
fn of_two_that_go_on_with_a_block_the_newer_one_does() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(100);
    drop(writer(store, key(1), &content));
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
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(100);
    drop(writer(store, key(1), &content));
    store_block(store, key(2), &content, true);
    assert_eq!(open_keys(store), [key(1)]);
    assert!(store.drop_replica(key(1)).unwrap());
    store.verify(key(2), None).unwrap();
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
