//! Folders that break, vanish, fill up and hang while nobody writes.

use super::*;
use crate::blocks::startup::open_folders;
use crate::testing::cluster::{TestNode, key, short};
use crate::testing::{Fault, Operation, bytes, store_block, try_store_block};

async fn node() -> TestNode {
    TestNode::start(1).await
}

fn watch(node: &TestNode) -> Watch {
    Watch::new(Arc::clone(&node.node), Arc::clone(&node.store.volumes()[0]))
}

fn failure(node: &TestNode) -> Option<String> {
    node.store.volumes()[0].failure()
}

#[tokio::test]
async fn a_folder_that_works_is_left_alone_however_often_it_is_looked_at() {
    let node = node().await;
    store_block(&node.store, key(1), &bytes(100), true);
    let mut watch = watch(&node);
    for _ in 0..3 {
        watch.checked_at = None;
        watch.look().await;
    }
    assert_eq!(failure(&node), None);
    assert_eq!(node.files().len(), 2);
}

#[tokio::test]
async fn a_folder_that_is_removed_is_noticed_without_any_traffic() {
    let node = node().await;
    watch(&node).look().await;
    std::fs::remove_dir_all(node.dir.path()).unwrap();
    watch(&node).look().await;
    assert!(failure(&node).unwrap().contains("asking for its space"), "{:?}", failure(&node));
}

#[tokio::test]
async fn an_empty_mount_point_in_its_place_is_noticed() {
    let node = node().await;
    std::fs::remove_dir_all(node.dir.path()).unwrap();
    std::fs::create_dir(node.dir.path()).unwrap();
    watch(&node).look().await;
    assert!(failure(&node).unwrap().contains("whose folder it is"), "{:?}", failure(&node));
}

#[tokio::test]
async fn the_folder_of_another_node_in_its_place_is_noticed_and_not_written() {
    let node = node().await;
    let other = tempfile::tempdir().unwrap();
    drop(open_folders(&doldam_runtime::Seams::system(), &[other.path().into()], 0).map(|_| ()));
    std::fs::copy(other.path().join("VERSION"), node.dir.path().join("VERSION")).unwrap();
    watch(&node).look().await;
    assert!(failure(&node).unwrap().contains("it belongs to datanode"), "{:?}", failure(&node));
    assert!(!node.dir.path().join("CHECK").exists());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_synced_or_read_is_noticed_and_a_full_one_is_not_broken() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Read] {
        for (errno, is_broken) in [(5, true), (30, true), (28, false), (24, false)] {
            let node = node().await;
            node.disk.fail(Fault { operation, path: "CHECK", after: 0, errno });
            watch(&node).look().await;
            assert_eq!(failure(&node).is_some(), is_broken, "{operation:?} {errno}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_given_up_and_asked_nothing_more() {
    let node = TestNode::start_with(1, |config| {
        config.disk_timeout = short(Duration::from_millis(20));
    })
    .await;
    node.disk.hold_syncs();
    watch(&node).look().await;
    assert!(failure(&node).unwrap().contains("no answer"), "{:?}", failure(&node));
    let volume = &node.store.volumes()[0];
    assert!(volume.is_silent() && volume.space().available == 0);
    let watch = watch(&node);
    watch.take_out().await;
    watch.look_again().await; // Or it would wait for ever.
    node.disk.release_syncs();
}

#[tokio::test]
async fn last_copies_on_a_folder_that_can_only_be_read_are_vouched_for_again() {
    let node = node().await;
    for block in 1..=3 {
        store_block(&node.store, key(block), &bytes(100), true);
    }
    node.disk.fail(Fault { operation: Operation::Create, path: "", after: 0, errno: 30 });
    assert!(try_store_block(&node.store, key(9), &bytes(10), true).is_err());
    let watch = watch(&node);
    watch.take_out().await;
    assert!(node.store.state().inventory.root().is_empty());
    assert!(node.store.drop_bad_replica(key(1)).unwrap());
    watch.look_again().await;
    let inventory = &node.store.state().inventory;
    assert_eq!((inventory.len(), inventory.withdrawn_count()), (2, 0));
    assert!(!inventory.root().is_empty());
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_searched_for_last_copies() {
    let node = node().await;
    store_block(&node.store, key(1), &bytes(100), true);
    std::fs::remove_dir_all(node.dir.path()).unwrap();
    let mut watch = watch(&node);
    watch.look().await;
    watch.take_out().await;
    watch.look_again().await;
    let inventory = &node.store.state().inventory;
    assert_eq!((inventory.withdrawn_count(), inventory.quarantined_count()), (1, 0));
}

#[tokio::test]
async fn the_namenode_is_told_nothing_of_a_folder_by_asking_its_disk() {
    let node = node().await;
    let before = node.store.volumes()[0].seen_space();
    node.disk.set_available(before.total);
    assert_eq!(node.store.volumes()[0].seen_space(), before);
    watch(&node).look().await;
    assert_eq!(node.store.volumes()[0].seen_space().total, 1 << 40);
}
