//! Ranges of replicas, read and verified over real sockets.

use doldam_proto::convert::block_stream::BlockOperation;
use doldam_proto::file::Durability;
use doldam_proto::id::Generation;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::engine::outbox::ReplicaEvent;
use crate::testing::cluster::{
    ReadError, TestNode, key, put, read_request, read_verified, request,
};
use crate::testing::{Fault, Operation as DiskOperation, bytes, store_block, tree_of};

const GROUP: usize = GROUP_BYTES as usize;

#[tokio::test]
async fn every_range_around_the_boundaries_is_read_and_proved() {
    let node = TestNode::start(1).await;
    let block = bytes(3 * (1 << 20) + GROUP + 77);
    let digest = tree_of(0, &block).1;
    store_block(&node.store, key(1), &block, true);
    let mut connection = node.connect().await;
    let edges = [0, 1, GROUP - 1, GROUP, GROUP + 1, 1 << 20, (1 << 20) + 1, block.len() - 1];
    for offset in edges {
        for length in [1, 4096, GROUP, GROUP + 1, (1 << 20) + 1, block.len()] {
            let length = length.min(block.len() - offset);
            let read =
                read_verified(&mut connection, key(1), &digest, offset as u64, length as u64).await;
            assert!(read.unwrap() == block[offset..offset + length], "{length} at {offset}");
        }
    }
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_its_reason_and_the_connection_goes_on() {
    let node = TestNode::start(1).await;
    let block = bytes(100);
    let digest = tree_of(0, &block).1;
    store_block(&node.store, key(1), &block, true);
    store_block(&node.store, key(2), &block, true);
    node.store.quarantine(key(2), "a test");
    let mut connection = node.connect().await;
    let newer = ReplicaKey { generation: Generation(2), ..key(1) };
    for (key, offset, length, expected) in [
        (key(9), 0, 1, Code::NotFound),
        (newer, 0, 1, Code::StaleGeneration),
        (key(2), 0, 1, Code::Corrupt),
        (key(1), 100, 1, Code::BadRequest),
        (key(1), 99, 2, Code::BadRequest),
    ] {
        let refused = read_verified(&mut connection, key, &digest, offset, length).await;
        let Err(ReadError::Refused(failure)) = refused else { panic!("{refused:?}") };
        assert_eq!((failure.code(), failure.node_id), (expected, 1));
    }
    let read = read_verified(&mut connection, key(1), &digest, 99, 1).await.unwrap();
    assert_eq!(read, block[99..]);
}

#[tokio::test]
async fn a_replica_without_its_sync_is_read_like_any_other_also_while_it_is_synced() {
    let node = TestNode::start(1).await;
    let block = bytes(GROUP + 1);
    let digest = tree_of(0, &block).1;
    put(key(1), &block, &[&node], Durability::Memory).await.unwrap();
    let mut connection = node.connect().await;
    read_verified(&mut connection, key(1), &digest, 0, 5).await.unwrap();
    // Its sidecar has its final name, but the inventory does not say so yet.
    let name = format!("{:016x}_1_{}", 1, block.len());
    let folder = node.dir.path().join("blocks/01");
    let (old, new) = (folder.join(format!("{name}.unsynced")), folder.join(format!("{name}.side")));
    std::fs::rename(old, new).unwrap();
    read_verified(&mut connection, key(1), &digest, 0, 5).await.unwrap();
}

#[tokio::test]
async fn an_unreadable_sector_ends_the_read_quarantines_the_replica_and_reports_it() {
    let node = TestNode::start(1).await;
    let block = bytes(3 << 20);
    let digest = tree_of(0, &block).1;
    store_block(&node.store, key(1), &block, true);
    node.disk.fail(Fault { operation: DiskOperation::Read, path: ".data", after: 2, errno: 5 });
    let mut connection = node.connect().await;
    let cut = read_verified(&mut connection, key(1), &digest, 0, 3 << 20).await;
    let Err(ReadError::CutShort(failure)) = cut else { panic!("{cut:?}") };
    assert_eq!(failure.code(), Code::Corrupt);
    let events = node.store.news().take(Duration::ZERO, 9).events;
    assert!(
        matches!(&events[..], [(bad, ReplicaEvent::Bad { .. })] if *bad == key(1)),
        "{events:?}"
    );
    let names: Vec<_> =
        node.files().into_iter().map(|path| path.starts_with("quarantine")).collect();
    assert_eq!(names, [true, true]);
    assert!(!node.store.volumes()[0].has_failed(), "one bad sector is not a bad disk");
}

#[tokio::test]
async fn what_fails_before_the_first_byte_is_refused_plainly_and_the_connection_goes_on() {
    let node = TestNode::start(1).await;
    let block = bytes(2 * GROUP);
    let digest = tree_of(0, &block).1;
    let mut connection = node.connect().await;
    // The sidecar is read twice: its header, then the nodes of the proof.
    for (id, path, after) in [(1, ".data", 0), (2, ".side", 0), (3, ".side", 1)] {
        store_block(&node.store, key(id), &block, true);
        node.disk.fail(Fault { operation: DiskOperation::Read, path, after, errno: 5 });
        let refused = read_verified(&mut connection, key(id), &digest, 0, 1).await;
        let Err(ReadError::Refused(failure)) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.code(), Code::Corrupt, "{path} {after}");
        node.disk.heal();
    }
    store_block(&node.store, key(4), &block, true);
    read_verified(&mut connection, key(4), &digest, 0, 1).await.unwrap();
}

#[tokio::test]
async fn files_that_vanished_are_found_missing_and_reported() {
    let node = TestNode::start(1).await;
    let digest = tree_of(0, &bytes(100)).1;
    for (block_id, end) in [(1, "data"), (2, "side")] {
        store_block(&node.store, key(block_id), &bytes(100), true);
        let name = format!("blocks/{block_id:02x}/{block_id:016x}_1_100.{end}");
        std::fs::remove_file(node.dir.path().join(name)).unwrap();
        let mut connection = node.connect().await;
        let refused = read_verified(&mut connection, key(block_id), &digest, 0, 1).await;
        let Err(ReadError::Refused(failure)) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.code(), Code::Corrupt);
    }
    assert_eq!(node.store.news().take(Duration::ZERO, 9).events.len(), 2);
}

/// Every byte of both files of a small replica, and of a larger one its sidecar and a sample of its
/// data, flipped one at a time: neither a verifying reader nor the datanode's own check lets it pass.
#[tokio::test]
async fn a_flipped_bit_anywhere_passes_neither_the_reader_nor_the_verification() {
    let node = TestNode::start(1).await;
    let ids = std::cell::Cell::new(1);
    flip_each(&node, &ids, &bytes(300), |_| true).await;
    let near_boundary = |at: usize| at % GROUP < 3 || at % GROUP > GROUP - 3;
    flip_each(&node, &ids, &bytes(GROUP + 300), |at| at % 997 == 0 || near_boundary(at)).await;
}

async fn flip_each(
    node: &TestNode,
    ids: &std::cell::Cell<u64>,
    block: &[u8],
    wanted: impl Fn(usize) -> bool,
) {
    let digest = tree_of(0, block).1;
    let side_bytes = crate::blocks::sidecar::sidecar_bytes(block.len() as u64) as usize;
    let data = (0..block.len()).filter(|at| wanted(*at)).map(|at| ("data", at));
    let mut connection = node.connect().await;
    for (end, at) in data.chain((0..side_bytes).map(|at| ("side", at))) {
        let id = ids.replace(ids.get() + 1);
        store_block(&node.store, key(id), block, false);
        node.store.sync_late(); // Into its final name.
        let name = format!("blocks/{:02x}/{id:016x}_1_{}.{end}", id % 64, block.len());
        let path = node.dir.path().join(name);
        let mut content = std::fs::read(&path).unwrap();
        content[at] ^= 1 << (at % 8);
        std::fs::write(path, content).unwrap();

        let read = read_verified(&mut connection, key(id), &digest, 0, block.len() as u64).await;
        match read {
            // A node of the sidecar that no proof of the whole block needs, or the hash of all.
            Ok(bytes) => assert!(end == "side" && bytes == block, "{end} byte {at}"),
            Err(ReadError::Unproved) => connection = node.connect().await,
            Err(ReadError::Refused(_) | ReadError::CutShort(_)) => {}
        }
        assert!(node.store.verify(key(id), None).is_err(), "{end} byte {at}");
        let held = node.store.state().inventory.get(key(id));
        assert_eq!(held.map(|held| held.is_good()), Some(false), "{end} byte {at}");
        node.store.drop_replica(key(id)).unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_stream() {
    let node = TestNode::start(1).await;
    store_block(&node.store, key(1), &bytes(16 << 20), true);
    let mut connection = node.connect().await;
    let read = read_request(key(1), 0, 16 << 20);
    connection.send_message(&request(BlockOperation::Read(read))).await.unwrap();
    let _: wire::BlockResponse = connection.recv_message().await.unwrap();
    drop(connection);
    node.until(|node| node.node.active_streams() == 0).await;
}

#[test]
fn any_range_of_any_block_is_read_and_proved() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = runtime.block_on(TestNode::start(1));
    let ids = std::cell::Cell::new(1);
    let place = any::<prop::sample::Index>;
    let read = |(length, from, to): (usize, prop::sample::Index, prop::sample::Index)| {
        let key = key(ids.replace(ids.get() + 1));
        let block = bytes(length);
        store_block(&node.store, key, &block, false);
        let (from, to) = (from.index(length), to.index(length));
        let (start, end) = (from.min(to), from.max(to) + 1);
        let digest = tree_of(0, &block).1;
        let read = runtime.block_on(async {
            let mut connection = node.connect().await;
            let length = (end - start) as u64;
            read_verified(&mut connection, key, &digest, start as u64, length).await
        });
        assert!(read.unwrap() == block[start..end]);
        Ok(())
    };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(40));
    runner.run(&(1..20 * GROUP, place(), place()), read).unwrap();
}
