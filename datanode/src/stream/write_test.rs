//! Blocks through pipelines of real sockets, whole and broken.

use std::time::Duration;

use doldam_proto::convert::block_stream::{BlockOperation, ExpectedBlock};
use doldam_proto::file::Durability;
use doldam_proto::id::{Generation, NodeId};
use doldam_proto::node::{NodeAddress, NodeState};
use doldam_proto::wire;
use doldam_runtime::connection::StreamError;
use doldam_runtime::net::{Net, RealNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::engine::replica::ReplicaState;
use crate::stream::failure::Code;
use crate::testing::cluster::{
    TestNode, connect, frames, key, of_generation, put, read_verified, request, send_write, short,
    write_request,
};
use crate::testing::{Fault, Operation as DiskOperation, bytes, store_block, tree_of};

const MIB: usize = 1 << 20;
const GROUP: usize = 64 << 10;

async fn three() -> [TestNode; 3] {
    [TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await]
}

fn all(nodes: &[TestNode; 3]) -> [&TestNode; 3] {
    [&nodes[0], &nodes[1], &nodes[2]]
}

#[tokio::test]
async fn a_block_of_any_size_reaches_all_nodes_and_is_read_back_from_each() {
    let nodes = three().await;
    let sizes = [1, 1023, GROUP - 1, GROUP, GROUP + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5, 8 * MIB];
    for (size, block_id) in sizes.into_iter().zip(1..) {
        let (block, key) = (bytes(size), key(block_id));
        let digest = tree_of(0, &block).1;
        let done = put(key, &block, &all(&nodes), Durability::All).await.unwrap();
        assert_eq!(done.length, size as u64);
        assert_eq!(done.chaining_value[..], digest.chaining_value.0);
        let receipts: Vec<_> = done.replicas.iter().map(|r| (r.node_id, r.durable)).collect();
        assert_eq!(receipts, [(1, true), (2, true), (3, true)]);
        for node in &nodes {
            node.store.verify(key, None).unwrap();
            let mut connection = node.connect().await;
            let read = read_verified(&mut connection, key, &digest, 0, size as u64).await.unwrap();
            assert!(read == block, "{size} bytes from {}", node.address());
        }
    }
    for node in &nodes {
        assert_eq!(node.files().len(), 2 * sizes.len());
    }
}

#[tokio::test]
async fn each_durability_syncs_where_it_promises_and_says_so() {
    let nodes = three().await;
    for (durability, block_id, synced) in [
        (Durability::All, 1, [true, true, true]),
        (Durability::One, 2, [true, false, false]),
        (Durability::Memory, 3, [false, false, false]),
    ] {
        let before: Vec<u64> = nodes.iter().map(|node| node.disk.syncs()).collect();
        let done = put(key(block_id), &bytes(MIB), &all(&nodes), durability).await.unwrap();
        let durable: Vec<bool> = done.replicas.iter().map(|receipt| receipt.durable).collect();
        assert_eq!(durable, synced);
        for ((node, before), synced) in nodes.iter().zip(before).zip(synced) {
            let expected = if synced { ReplicaState::Final } else { ReplicaState::Unsynced };
            let held = node.store.state().inventory.get(key(block_id)).unwrap();
            assert_eq!(held.state, expected);
            // Data, sidecar, folder.
            assert_eq!(node.disk.syncs() - before, if synced { 3 } else { 0 });
        }
    }
    nodes[2].store.sync_late();
    for block_id in [2, 3] {
        let held = nodes[2].store.state().inventory.get(key(block_id)).unwrap();
        assert_eq!(held.state, ReplicaState::Final);
    }
}

/// There is one data thread: if the sync held it, nobody would be served.
#[tokio::test]
async fn while_one_block_is_synced_others_are_served() {
    let node = TestNode::start(1).await;
    put(key(1), &bytes(MIB), &[&node], Durability::All).await.unwrap();
    node.disk.hold_syncs();
    let mut slow = node.connect().await;
    let (reader, writer) = slow.halves();
    let write = write_request(key(2), &[&node], Durability::All);
    writer.queue_message(&request(BlockOperation::Write(write))).unwrap();
    writer.write_all_vectored(&[&frames(0, &bytes(MIB), MIB)[0]]).await.unwrap();
    // Its bytes are acknowledged; now it waits for the disk.
    let _: wire::BlockResponse = reader.recv_message().await.unwrap();

    let digest = tree_of(0, &bytes(MIB)).1;
    let mut other = node.connect().await;
    read_verified(&mut other, key(1), &digest, 0, MIB as u64).await.unwrap();
    put(key(3), &bytes(MIB), &[&node], Durability::Memory).await.unwrap();
    node.disk.release_syncs();
    let done: wire::BlockResponse = reader.recv_message().await.unwrap();
    assert!(matches!(done.kind, Some(wire::block_response::Kind::Done(_))), "{done:?}");
}

#[tokio::test]
async fn acknowledgements_grow_to_the_length_and_one_connection_serves_block_after_block() {
    let nodes = three().await;
    let mut connection = nodes[0].connect().await;
    for block_id in 1..4 {
        let block = bytes(3 * MIB + 7);
        let write = write_request(key(block_id), &all(&nodes), Durability::Memory);
        let frames = frames(0, &block, MIB);
        let (acks, done) = send_write(&mut connection, write, &frames).await;
        done.unwrap();
        assert!(acks.is_sorted() && acks.last().is_none_or(|last| *last <= block.len() as u64));
        assert!(connection.is_reusable());
    }
    let digest = tree_of(0, &bytes(3 * MIB + 7)).1;
    read_verified(&mut connection, key(2), &digest, 5, 10).await.unwrap();
}

#[tokio::test]
async fn a_block_far_into_its_file_has_the_values_of_its_place() {
    let node = TestNode::start(1).await;
    let (block, offset) = (bytes(GROUP + 9), 3 * (8 << 20));
    let write =
        WriteBlock { file_offset: offset, ..write_request(key(1), &[&node], Durability::All) };
    let mut connection = node.connect().await;
    let frames = frames(offset, &block, MIB);
    let done = send_write(&mut connection, write, &frames).await.1.unwrap();
    let digest = tree_of(offset, &block).1;
    assert_eq!(done.chaining_value[..], digest.chaining_value.0);
    let read = read_verified(&mut connection, key(1), &digest, GROUP as u64, 9).await.unwrap();
    assert_eq!(read, block[GROUP..]);
}

#[tokio::test]
async fn a_damaged_frame_is_refused_and_what_was_verified_before_it_stays() {
    let nodes = three().await;
    let block = bytes(2 * MIB + 100);
    // A value, a byte of the first and of the last group, and the block's value.
    let places = [(0, 16), (1, 16 + 16 * 32 + 5), (2, 16 + 32 + 99), (2, 16 + 32 + 100)];
    for ((frame, place), generation) in places.into_iter().zip(1..) {
        let mut frames = frames(0, &block, MIB);
        frames[frame][place] ^= 1;
        let mut connection = nodes[0].connect().await;
        let key = of_generation(key(1), generation);
        let write = write_request(key, &all(&nodes), Durability::All);
        let failure = send_write(&mut connection, write, &frames).await.1.unwrap_err();
        assert_eq!((failure.code(), failure.node_id), (Code::Checksum, 1), "{frame}, {place}");
        for node in &nodes {
            node.until(|node| node.node.active_streams() == 0).await;
            assert_eq!(node.store.state().inventory.len(), 0);
            assert!(node.left(key).is_none_or(|left| left <= (frame * MIB) as u64));
        }
        assert_eq!(nodes[0].left(key).unwrap_or(0), (frame * MIB) as u64);
    }
    // The same block can be written well afterwards, under a newer generation.
    put(key(1), &block, &all(&nodes), Durability::All).await.unwrap_err();
    put(of_generation(key(1), 5), &block, &all(&nodes), Durability::All).await.unwrap();
}

#[tokio::test]
async fn a_sender_that_leaves_in_mid_block_leaves_what_is_verified_and_the_namenode_is_told() {
    let nodes = three().await;
    let frames = frames(0, &bytes(3 * MIB), MIB);
    let mut connection = nodes[0].connect().await;
    let write = write_request(key(1), &all(&nodes), Durability::All);
    let (reader, writer) = connection.halves();
    writer.queue_message(&request(BlockOperation::Write(write))).unwrap();
    writer.write_all_vectored(&[&frames[0], &frames[1][..1000]]).await.unwrap();
    // Once the first frame is acknowledged, all three have it.
    let _: wire::BlockResponse = reader.recv_message().await.unwrap();
    for node in &nodes {
        assert!(!node.files().is_empty());
    }
    drop(connection);
    for node in &nodes {
        node.until_left(key(1), MIB as u64).await;
        let events = node.store.news().take(Duration::ZERO, 9).events;
        assert_eq!(events, [(key(1), ReplicaEvent::Open { length: MIB as u64 })]);
    }
}

#[tokio::test]
async fn a_node_that_dies_in_mid_block_is_named_and_the_others_keep_what_they_have() {
    let [one, two, three] = three().await;
    let frames = frames(0, &bytes(3 * MIB), MIB);
    let mut connection = one.connect().await;
    let write = write_request(key(1), &[&one, &two, &three], Durability::All);
    let (reader, writer) = connection.halves();
    writer.queue_message(&request(BlockOperation::Write(write))).unwrap();
    writer.write_all_vectored(&[&frames[0]]).await.unwrap();
    let _: wire::BlockResponse = reader.recv_message().await.unwrap();
    // Dropped with its tasks after no grace at all: its connections close as those of a killed
    // process.
    _ = three.tasks.shutdown(Duration::ZERO).await;
    let failure = loop {
        let response: wire::BlockResponse = reader.recv_message().await.unwrap();
        if let Some(wire::block_response::Kind::Failure(failure)) = response.kind {
            break failure;
        }
    };
    assert_eq!((failure.code(), failure.node_id), (Code::Downstream, 3), "{failure:?}");
    assert_eq!(failure.address, three.address().address);
    one.until_left(key(1), MIB as u64).await;
    two.until_left(key(1), MIB as u64).await;
}

/// A peer that accepts, reads and never says a word.
async fn silent_node(id: u32) -> NodeAddress {
    let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = async move {
        while let Ok(incoming) = listener.accept().await {
            let (mut read, write) = incoming.register().unwrap().into_halves();
            let mut sink = vec![0; 1 << 16];
            while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            drop(write);
        }
    };
    drop(doldam_runtime::tasks::spawn_detached("silent node", task));
    NodeAddress { id: NodeId(id), address, rack: "/r".to_owned(), state: NodeState::Live }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_named_by_the_one_before_it() {
    // Wide apart, so that a loaded machine does not make the first node lose patience with the
    // second.
    let impatient = |config: &mut crate::DatanodeConfig| {
        config.downstream_timeout = short(Duration::from_secs(2));
    };
    let one = TestNode::start_with(1, impatient).await;
    let two = TestNode::start_with(2, impatient).await;
    let silent = silent_node(9).await;
    let mut write = write_request(key(1), &[&one, &two], Durability::All);
    write.downstream.push(silent.clone());
    let mut connection = one.connect().await;
    let frames = &frames(0, &bytes(2 * MIB), MIB)[..1];
    let failure = send_write(&mut connection, write, frames).await.1.unwrap_err();
    assert_eq!((failure.code(), failure.node_id), (Code::Downstream, 9), "{failure:?}");
    assert_eq!(failure.address, silent.address);
    one.until_left(key(1), MIB as u64).await;
    two.until_left(key(1), MIB as u64).await;
}

#[tokio::test]
async fn an_unreachable_next_node_is_named() {
    let one = TestNode::start(1).await;
    let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut write = write_request(key(1), &[&one], Durability::All);
    let gone = NodeAddress { id: NodeId(7), address, rack: "/r".into(), state: NodeState::Live };
    write.downstream.push(gone);
    let mut connection = one.connect().await;
    let frames = frames(0, &bytes(100), MIB);
    let failure = send_write(&mut connection, write, &frames).await.1.unwrap_err();
    assert_eq!((failure.code(), failure.node_id), (Code::Downstream, 7));
    one.until_empty().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_by_its_reason() {
    let node = TestNode::start(1).await;
    let held = ReplicaKey { generation: Generation(5), ..key(1) };
    store_block(&node.store, held, &bytes(100), true);
    let code = |key| {
        let node = &node;
        async move { put(key, &bytes(100), &[node], Durability::All).await.unwrap_err().code() }
    };
    assert_eq!(code(held).await, Code::Exists);
    let older = ReplicaKey { generation: Generation(4), ..held };
    assert_eq!(code(older).await, Code::StaleGeneration);

    let writing = node.store.begin_write(key(2), 0, 100).unwrap();
    assert_eq!(code(key(2)).await, Code::Busy);
    drop(writing);
    put(key(2), &bytes(100), &[&node], Durability::All).await.unwrap();

    node.store.quarantine(held, "a test");
    put(held, &bytes(50), &[&node], Durability::All).await.unwrap();
    assert_eq!(node.store.find(held).unwrap().length, 50);
    assert_eq!(node.files().len(), 4, "the bad one is gone: {:?}", node.files());
}

#[tokio::test]
async fn a_writer_that_was_overtaken_cannot_publish() {
    let node = TestNode::start(1).await;
    let block = bytes(100);
    let (tree, digest) = tree_of(0, &block);
    let mut late = node.store.begin_write(key(1), 0, 100).unwrap();
    late.write(0, &block).unwrap();
    let newer = ReplicaKey { generation: Generation(2), ..key(1) };
    put(newer, &block, &[&node], Durability::All).await.unwrap();
    let refused = late.publish(&tree, &digest, true).unwrap_err();
    assert!(matches!(refused, StoreError::OtherGeneration { .. }), "{refused}");
    assert_eq!(node.files().len(), 2);
}

#[tokio::test]
async fn too_many_streams_are_refused_as_busy() {
    let node = TestNode::start_with(1, |config| config.streams_max = 1).await;
    let mut first = node.connect().await;
    let write = write_request(key(1), &[&node], Durability::All);
    first.send_message(&request(BlockOperation::Write(write))).await.unwrap();
    node.until(|node| node.node.active_streams() == 1).await;
    let refused = put(key(2), &bytes(10), &[&node], Durability::All).await.unwrap_err();
    assert_eq!(refused.code(), Code::Busy);
    drop(first);
    node.until(|node| node.node.active_streams() == 0).await;
    put(key(2), &bytes(10), &[&node], Durability::All).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_early_and_survives_filling_up_in_mid_block() {
    let node = TestNode::start(1).await;
    node.disk.set_available(1 << 20);
    let code = |result: Result<_, wire::BlockFailure>| result.unwrap_err().code();
    let refused = put(key(1), &bytes(100), &[&node], Durability::All).await;
    assert_eq!(code(refused), Code::NoSpace);

    // Room for the promise, then the disk fills up behind our back.
    node.disk.heal();
    let fault = Fault { operation: DiskOperation::Write, path: ".data", after: 1, errno: 28 };
    node.disk.fail(fault);
    let refused = put(key(1), &bytes(3 * MIB), &[&node], Durability::All).await;
    assert_eq!(code(refused), Code::NoSpace);
    node.until_left(key(1), MIB as u64).await;
    assert!(!node.store.volumes()[0].has_failed(), "a full disk is not a broken one");
    node.disk.heal();
    put(of_generation(key(1), 2), &bytes(3 * MIB), &[&node], Durability::All).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_at_any_step_fails_the_write_and_leaves_what_is_verified() {
    for (operation, path) in [
        (DiskOperation::Create, ".data"),
        (DiskOperation::Write, ".data"),
        (DiskOperation::Create, ".side"),
        (DiskOperation::Write, ".side"),
        (DiskOperation::Sync, ".data"),
        (DiskOperation::Sync, ".side"),
        (DiskOperation::Rename, ".data"),
        (DiskOperation::Rename, ".side"),
        (DiskOperation::SyncDir, "blocks/"),
    ] {
        let node = TestNode::start(1).await;
        node.disk.fail(Fault { operation, path, after: 0, errno: 5 });
        let failure = put(key(1), &bytes(MIB), &[&node], Durability::All).await.unwrap_err();
        assert_eq!(failure.code(), Code::Disk, "{operation:?} {path}");
        let has_verified =
            path != ".data" || [DiskOperation::Sync, DiskOperation::Rename].contains(&operation);
        if has_verified {
            node.until_left(key(1), MIB as u64).await;
        } else {
            node.until_empty().await;
        }
        assert!(node.store.volumes()[0].has_failed(), "{operation:?} {path}");
        assert_eq!(node.store.state().inventory.len(), 0);
        // It takes no more blocks, even though the disk would.
        node.disk.heal();
        let failure = put(key(2), &bytes(MIB), &[&node], Durability::All).await.unwrap_err();
        assert_eq!(failure.code(), Code::Disk, "{operation:?} {path}");
    }
}

#[tokio::test]
async fn a_repair_copy_must_be_as_ordered_and_is_reported() {
    let node = TestNode::start(1).await;
    let block = bytes(GROUP + 1);
    let value = tree_of(0, &block).1.chaining_value;
    let repair = |length, chaining_value| WriteBlock {
        repair: Some(ExpectedBlock { length, chaining_value }),
        ..write_request(key(1), &[&node], Durability::All)
    };
    let frames = frames(0, &block, MIB);
    let wrong = repair(block.len() as u64, ChainingValue([1; 32]));
    let failure = send_write(&mut node.connect().await, wrong, &frames).await.1.unwrap_err();
    assert_eq!(failure.code(), Code::Checksum);
    let longer = repair(GROUP as u64, value);
    let failure = send_write(&mut node.connect().await, longer, &frames).await.1.unwrap_err();
    assert_eq!(failure.code(), Code::BadRequest);
    let now = Duration::ZERO;
    assert!(node.store.news().take(now, 9).events.is_empty());

    let right = repair(block.len() as u64, value);
    send_write(&mut node.connect().await, right.clone(), &frames).await.1.unwrap();
    let stored = ReplicaEvent::Stored { length: block.len() as u64, value };
    assert_eq!(node.store.news().take(now, 9).events, [(key(1), stored.clone())]);
    // The namenode asks again: it seems not to know.
    let failure = send_write(&mut node.connect().await, right, &frames).await.1.unwrap_err();
    assert_eq!(failure.code(), Code::Exists);
    assert_eq!(node.store.news().take(now, 9).events, [(key(1), stored)]);
}

#[tokio::test]
async fn a_client_write_is_not_reported_for_the_client_commits_it() {
    let node = TestNode::start(1).await;
    put(key(1), &bytes(10), &[&node], Durability::All).await.unwrap();
    assert!(node.store.news().take(Duration::ZERO, 9).events.is_empty());
}

#[tokio::test]
async fn garbage_on_the_port_is_answered_by_a_closed_connection_and_nothing_else() {
    let node = TestNode::start(1).await;
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 5000],
        b"DLDM".iter().copied().chain([9; 100]).collect(),
    ];
    for bytes in garbage {
        let (mut read, mut write) =
            RealNet.connect(&node.address().address).await.unwrap().into_halves();
        write.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset, as the system likes; but it ends, and no more than the greeting came.
        _ = tokio::time::timeout(crate::testing::cluster::LONG, read.read_to_end(&mut answer))
            .await
            .expect("the connection ends");
        assert!(answer.len() <= 24, "{answer:?}");
    }
    // After a good greeting, nonsense is answered in the protocol.
    let mut connection = connect(&node.address().address).await;
    connection.write_all_vectored(&[&[0xff; 64]]).await.unwrap();
    let failure = connection.recv_message::<wire::BlockResponse>().await.unwrap();
    let Some(wire::block_response::Kind::Failure(failure)) = failure.kind else { panic!() };
    assert_eq!(failure.code(), Code::BadRequest);
    let mut connection = connect(&node.address().address).await;
    connection.send_message(&wire::BlockRequest::default()).await.unwrap();
    let failure = connection.recv_message::<wire::BlockResponse>().await.unwrap();
    let Some(wire::block_response::Kind::Failure(failure)) = failure.kind else { panic!() };
    assert_eq!(failure.code(), Code::BadRequest);
    put(key(1), &bytes(10), &[&node], Durability::All).await.unwrap();
}

#[tokio::test]
async fn frames_that_break_the_rules_are_refused_as_such() {
    let node = TestNode::start(1).await;
    let good = frames(0, &bytes(2 * MIB), MIB);
    let mut oversized = good[0].clone();
    oversized[4..8].copy_from_slice(&(5_u32 << 20).to_le_bytes());
    let bad = [
        (vec![good[1].clone()], None),
        (vec![good[0].clone(), good[0].clone()], Some(MIB as u64)),
        (vec![oversized], None),
    ];
    for ((frames, left), id) in bad.into_iter().zip(1..) {
        let write = write_request(key(id), &[&node], Durability::All);
        let failure = send_write(&mut node.connect().await, write, &frames).await.1.unwrap_err();
        assert_eq!(failure.code(), Code::BadRequest, "{failure:?}");
        node.until(|node| node.node.active_streams() == 0).await;
        assert_eq!(node.left(key(id)), left);
    }
}

#[tokio::test]
async fn a_connection_of_another_cluster_is_refused() {
    let node = TestNode::start(1).await;
    let other = doldam_proto::id::ClusterId([1; 16]);
    let deadlines = doldam_runtime::connection::Deadlines::default();
    let address = node.address().address;
    let mut stranger =
        BlockConnection::connect(&RealNet, &address, other, deadlines).await.unwrap();
    let write = write_request(key(1), &[&node], Durability::All);
    _ = stranger.send_message(&request(BlockOperation::Write(write))).await;
    let refused = stranger.recv_message::<wire::BlockResponse>().await.unwrap_err();
    assert!(matches!(refused, StreamError::Protocol { .. }), "{refused:?}");
}
