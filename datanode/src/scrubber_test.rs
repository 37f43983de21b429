//! The scrubber finds every kind of damage by itself and keeps its place.

use doldam_runtime::config::{ByteSize, HumanDuration};

use super::*;
use crate::engine::outbox::ReplicaEvent;
use crate::testing::cluster::{LONG, TestNode, key};
use crate::testing::{Fault, Operation, bytes, store_block};

async fn node() -> TestNode {
    TestNode::start_with(1, |config| {
        config.scrub_bytes_per_sec = ByteSize(1 << 40);
        config.scrub_interval = HumanDuration(Duration::from_hours(1));
    })
    .await
}

/// Runs the scrubber until it has nothing to do, then stops it.
async fn one_pass(node: &TestNode) -> ScrubPosition {
    let scrubber = Scrubber::load(Arc::clone(&node.node));
    let running = doldam_runtime::tasks::spawn_detached("scrubber", scrubber.run());
    let passed = |node: &TestNode| {
        let path = node.dir.path().join("SCRUB");
        std::fs::read(path)
            .ok()
            .and_then(|bytes| decode_position(&bytes))
            .is_some_and(|at| at.passes > 0)
    };
    node.until(passed).await;
    node.tasks.stop();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    load_position(&node.store)
}

fn bad_blocks(node: &TestNode) -> Vec<u64> {
    let events = node.store.news().take(Duration::ZERO, 100).events;
    let bad = events.into_iter().filter(|(_, event)| matches!(event, ReplicaEvent::Bad { .. }));
    bad.map(|(key, _)| key.block.0).collect()
}

#[tokio::test]
async fn a_pass_finds_flipped_bits_in_data_and_sidecar_and_missing_files() {
    let node = node().await;
    for block in 1..=5 {
        store_block(&node.store, key(block), &bytes(150_000), true);
    }
    let path = |block: u64, end| {
        node.dir.path().join(format!("blocks/{block:02x}/{block:016x}_1_150000.{end}"))
    };
    for (block, end, at) in [(2, "data", 149_999), (3, "side", 200)] {
        let mut content = std::fs::read(path(block, end)).unwrap();
        content[at] ^= 1;
        std::fs::write(path(block, end), content).unwrap();
    }
    std::fs::remove_file(path(4, "data")).unwrap();
    let position = one_pass(&node).await;
    assert_eq!((position.passes, position.under_way), (1, false));
    assert_eq!(bad_blocks(&node), [2, 3, 4]);
    assert!(node.store.find(key(1)).is_ok() && node.store.find(key(5)).is_ok());
}

#[tokio::test]
async fn the_scrubber_takes_up_where_it_was() {
    let node = node().await;
    for block in 1..=3 {
        store_block(&node.store, key(block), &bytes(100), true);
    }
    // Block 1 is damaged behind the position: this pass does not come by.
    let path = node.dir.path().join("blocks/01/0000000000000001_1_100.data");
    std::fs::write(path, vec![0; 100]).unwrap();
    let last = Some(key(2));
    let started_ms = node.node.seams.clock.wall_ms();
    let position = ScrubPosition { last, passes: 0, started_ms, under_way: true };
    assert!(save_position(&node.store, &position));
    assert_eq!(load_position(&node.store), position);
    one_pass(&node).await;
    assert_eq!(bad_blocks(&node), [0_u64; 0]);
}

#[tokio::test]
async fn what_cannot_be_read_on_a_failed_folder_is_reported_at_once() {
    let node = node().await;
    for block in 1..=3 {
        store_block(&node.store, key(block), &bytes(100), true);
    }
    for operation in [Operation::Rename, Operation::Create] {
        node.disk.fail(Fault { operation, path: "", after: 0, errno: 5 });
    }
    let dead = "0000000000000002_1_100.data";
    node.disk.fail(Fault { operation: Operation::Read, path: dead, after: 0, errno: 5 });
    assert!(node.store.begin_write(key(9), 0, 100).is_err());
    assert!(node.store.volumes()[0].has_failed());

    let mut scrubber = Scrubber::load(Arc::clone(&node.node));
    scrubber.probe_failed_folders().await;
    assert_eq!(bad_blocks(&node), [2]);
    // The others are still served.
    assert!(node.store.open(key(1)).is_ok() && node.store.open(key(3)).is_ok());
}
