//! The scrubber finds every kind of damage by itself and keeps its place.

use doldam_runtime::config::{ByteSize, HumanDuration};

use super::*;
use crate::engine::outbox::ReplicaEvent;
use crate::testing::cluster::{LONG, TestNode, key};
use crate::testing::{bytes, store_block};

async fn node() -> TestNode {
    TestNode::start_with(1, |config| {
        config.scrub_bytes_per_sec = ByteSize(1 << 40);
        config.scrub_interval = HumanDuration(Duration::from_hours(1));
    })
    .await
}

fn saved(node: &TestNode) -> ScrubPosition {
    load_position(&node.store.volumes()[0])
}

/// Runs the scrubber until it has nothing to do, then stops it.
async fn one_pass(node: &TestNode) -> ScrubPosition {
    let scrubbing = scrub_folders(Arc::clone(&node.node));
    let running = doldam_runtime::tasks::spawn_detached("scrubber", scrubbing);
    node.until(|node| node.dir.path().join("SCRUB").exists() && saved(node).passes > 0).await;
    node.tasks.stop();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    saved(node)
}

fn bad_blocks(node: &TestNode) -> Vec<u64> {
    let events = node.store.news().take(Duration::ZERO, 100).events;
    let bad = events.into_iter().filter(|(_, event)| matches!(event, ReplicaEvent::Bad { .. }));
    bad.map(|(key, _)| key.block.0).collect()
}

#[tokio::test]
async fn a_pass_finds_flipped_bits_missing_cut_and_exchanged_files() {
    let node = node().await;
    for block in 1..=9 {
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
    for (block, end) in [(5, "data"), (6, "side")] {
        let content = std::fs::read(path(block, end)).unwrap();
        std::fs::write(path(block, end), &content[..content.len() - 1]).unwrap();
    }
    std::fs::copy(path(9, "side"), path(7, "side")).unwrap();
    let mut longer = std::fs::read(path(8, "side")).unwrap();
    longer.push(0);
    std::fs::write(path(8, "side"), longer).unwrap();

    let position = one_pass(&node).await;
    assert_eq!((position.passes, position.under_way), (1, false));
    assert_eq!(bad_blocks(&node), [2, 3, 4, 5, 6, 7, 8]);
    assert!(node.store.find(key(1)).is_ok() && node.store.find(key(9)).is_ok());
}

#[tokio::test]
async fn the_bytes_of_another_block_are_found_though_their_own_tree_is_right() {
    let node = node().await;
    store_block(&node.store, key(1), &bytes(100), true);
    store_block(&node.store, key(65), &[7; 100], true);
    let path =
        |block: &str| node.dir.path().join(format!("blocks/01/00000000000000{block}_1_100.data"));
    std::fs::copy(path("41"), path("01")).unwrap();
    one_pass(&node).await;
    assert_eq!(bad_blocks(&node), [1]);
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
    let position = ScrubPosition {
        last: Some(key(2)),
        started_ms: node.node.seams.clock.wall_ms(),
        under_way: true,
        pass_bytes: 200,
        ..Default::default()
    };
    save_position(&node.store.volumes()[0], &position).unwrap();
    assert_eq!(saved(&node), position);
    let after = one_pass(&node).await;
    assert_eq!(bad_blocks(&node), [0_u64; 0]);
    assert_eq!((after.pass_bytes, after.completed_ms), (300, position.started_ms));
}

#[tokio::test]
async fn a_position_that_cannot_be_read_costs_a_pass_and_nothing_else() {
    let node = node().await;
    for damage in [&b""[..], b"garbage", &[0; 48], &[0xff; 64], &[1; 4096]] {
        std::fs::write(node.dir.path().join("SCRUB"), damage).unwrap();
        assert_eq!(saved(&node), ScrubPosition::default());
    }
}

#[tokio::test]
async fn each_folder_is_walked_by_itself_and_a_failed_one_not_at_all() {
    let node = node().await;
    store_block(&node.store, key(1), &bytes(100), true);
    assert_eq!(next_good(&node.store, VolumeIndex(0), None), Some(key(1)));
    assert_eq!(next_good(&node.store, VolumeIndex(1), None), None);
    node.store.volumes()[0].give_up_silent(Duration::from_secs(1));
    let path = node.dir.path().join("blocks/01/0000000000000001_1_100.data");
    std::fs::write(path, vec![0; 100]).unwrap();
    let scrubbing = scrub_folders(Arc::clone(&node.node));
    let running = doldam_runtime::tasks::spawn_detached("scrubber", scrubbing);
    tokio::task::yield_now().await;
    node.tasks.stop();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    assert_eq!(bad_blocks(&node), [0_u64; 0]);
    assert!(!node.dir.path().join("SCRUB").exists());
}

/// Not a test of anything: prints how fast this machine verifies.
#[test]
#[ignore = "measures; to be run alone, in a release build"]
fn time_to_scrub() {
    const BLOCKS: u64 = 32;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(doldam_runtime::disk::RealDisk);
    let store = crate::testing::open_store(disk, &[dir.path()]);
    let content = bytes(32 << 20);
    for block in 1..=BLOCKS {
        store_block(&store, key(block), &content, true);
    }
    let clock = doldam_runtime::clock::SystemClock::default();
    let began = doldam_runtime::clock::Clock::now(&clock);
    for block in 1..=BLOCKS {
        store.verify(key(block), None).unwrap();
    }
    let took = doldam_runtime::clock::Clock::now(&clock).saturating_sub(began);
    let mib = BLOCKS * 32;
    println!("{mib} MiB verified in {took:?}: {:.0} MiB/s", mib as f64 / took.as_secs_f64());
}
