//! Writes that go on: behind what a broken pipeline left, behind a replica, and over nodes that have nothing of it.

use std::time::Duration;

use doldam_proto::block::BlockBytes;
use doldam_proto::convert::block_stream::{BlockOperation, ReadBlock};
use doldam_proto::file::Durability;
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::wire;
use doldam_proto::wire::block_response::Kind;
use doldam_runtime::connection::BlockConnection;

use super::*;
use crate::testing::cluster::{
    LONG, TestNode, frames, frames_behind, key, of_generation, read_as_asked, request, send_write,
    write_request,
};
use crate::testing::{bytes, store_block, tree_of};

const GROUP: usize = GROUP_BYTES as usize;
const MIB: usize = 1 << 20;

async fn four() -> [TestNode; 4] {
    [
        TestNode::start(1).await,
        TestNode::start(2).await,
        TestNode::start(3).await,
        TestNode::start(4).await,
    ]
}

/// A writer by hand.
struct Stream {
    connection: BlockConnection,
}

impl Stream {
    async fn begin(node: &TestNode, write: WriteBlock) -> Self {
        let mut connection = node.connect().await;
        connection.send_message(&request(BlockOperation::Write(write))).await.unwrap();
        Self { connection }
    }

    async fn send(&mut self, frame: &[u8]) {
        self.connection.write_all_vectored(&[frame]).await.unwrap();
    }

    async fn answer(&mut self) -> Option<Kind> {
        let received = self.connection.recv_message::<wire::BlockResponse>();
        let response = tokio::time::timeout(LONG, received).await.expect("an answer");
        response.ok().map(|response| response.kind.unwrap())
    }

    /// Waits until so much is acknowledged; nothing goes backwards on the way.
    async fn until_acknowledged(&mut self, received: u64, synced: u64) {
        let mut before = (0, 0);
        while before.0 < received || before.1 < synced {
            let progress = match self.answer().await {
                Some(Kind::Progress(progress)) => progress,
                other => panic!("{other:?} instead of progress to {received} and {synced}"),
            };
            let now = (progress.received, progress.synced);
            assert!(now.0 >= before.0 && now.1 >= before.1 && now.1 <= now.0);
            before = now;
        }
    }

    /// How it ends; `None` if the connection does.
    async fn end(&mut self) -> Option<Result<wire::WriteDone, wire::BlockFailure>> {
        loop {
            match self.answer().await? {
                Kind::Progress(_) => {}
                Kind::Done(done) => return Some(Ok(done)),
                Kind::Failure(failure) => return Some(Err(failure)),
                Kind::Read(_) => panic!("a read was not asked for"),
            }
        }
    }
}

/// A write that goes on behind the first `there` bytes of `block`.
fn resume_request(
    key: ReplicaKey,
    block: &[u8],
    there: usize,
    pipeline: &[&TestNode],
    holders: &[&TestNode],
) -> WriteBlock {
    let chaining_value = tree_of(0, &block[..there]).1.chaining_value;
    let holders = holders.iter().map(|node| node.address().id).collect();
    let resume = Some(Resume { length: there as u64, chaining_value, holders });
    WriteBlock { resume, ..write_request(key, pipeline, Durability::All) }
}

async fn go_on(
    key: ReplicaKey,
    block: &[u8],
    there: usize,
    pipeline: &[&TestNode],
    holders: &[&TestNode],
) -> Result<wire::WriteDone, wire::BlockFailure> {
    let write = resume_request(key, block, there, pipeline, holders);
    let frames = frames_behind(0, block, there as u64, GROUP);
    let mut connection = pipeline[0].connect().await;
    let (acks, ended) = send_write(&mut connection, write, &frames).await;
    assert!(acks.iter().all(|ack| *ack >= there as u64), "{acks:?}");
    ended
}

fn read_request(key: ReplicaKey, block_length: usize, offset: u64, length: u64) -> ReadBlock {
    let block_length = Some(block_length as u64);
    let (id, generation) = (key.block, key.generation);
    ReadBlock { id, generation, offset, length, block_length, values_only: false }
}

/// Reads all of a block as a reader does that knows its length and value.
async fn read_all(node: &TestNode, key: ReplicaKey, block: &[u8]) -> wire::ReadStart {
    let mut connection = node.connect().await;
    let read = read_request(key, block.len(), 0, block.len() as u64);
    let digest = tree_of(0, block).1;
    let (start, found) = read_as_asked(&mut connection, read, &digest).await.unwrap();
    assert!(found == block);
    start
}

async fn check_all(nodes: &[&TestNode], key: ReplicaKey, block: &[u8], done: &wire::WriteDone) {
    let expected: Vec<u32> = nodes.iter().map(|node| node.address().id.0).collect();
    let receipts: Vec<u32> = done.replicas.iter().map(|receipt| receipt.node_id).collect();
    assert_eq!(receipts, expected);
    for node in nodes {
        node.store.verify(key, None).unwrap();
        assert_eq!(read_all(node, key, block).await.generation, key.generation.0);
    }
}

/// One of three nodes dies after each frame of a block; the two that are left go on, alone or with a fourth that they
/// feed.
async fn lose_at_any_frame(lost: usize) {
    let block = bytes(3 * GROUP + 100);
    let all_frames = frames(0, &block, GROUP);
    for acknowledged in 1..all_frames.len() {
        for with_replacement in [false, true] {
            let nodes = four().await;
            let pipeline = [&nodes[0], &nodes[1], &nodes[2]];
            let write = write_request(key(1), &pipeline, Durability::All);
            let mut stream = Stream::begin(&nodes[0], write).await;
            for frame in &all_frames[..acknowledged] {
                stream.send(frame).await;
            }
            let there = acknowledged * GROUP;
            stream.until_acknowledged(there as u64, 0).await;
            _ = nodes[lost].tasks.shutdown(Duration::ZERO).await;
            if lost > 0 {
                let failure = stream.end().await.unwrap().unwrap_err();
                assert_eq!(failure.node_id, nodes[lost].address().id.0, "{failure:?}");
            }
            let survivors: Vec<&TestNode> =
                (0..3).filter(|node| *node != lost).map(|node| &nodes[node]).collect();
            let mut pipeline = survivors.clone();
            if with_replacement {
                pipeline.push(&nodes[3]);
            }
            let key = of_generation(key(1), 2);
            let done = go_on(key, &block, there, &pipeline, &survivors).await.unwrap();
            check_all(&pipeline, key, &block, &done).await;
        }
    }
}

#[tokio::test]
async fn a_block_survives_the_loss_of_the_first_node_at_any_frame() {
    lose_at_any_frame(0).await;
}

#[tokio::test]
async fn a_block_survives_the_loss_of_the_second_node_at_any_frame() {
    lose_at_any_frame(1).await;
}

#[tokio::test]
async fn a_block_survives_the_loss_of_the_third_node_at_any_frame() {
    lose_at_any_frame(2).await;
}

#[tokio::test]
async fn two_nodes_are_lost_one_after_the_other_and_the_last_feeds_two_new_ones() {
    let nodes = four().await;
    let block = bytes(5 * GROUP + 7);
    let all_frames = frames(0, &block, GROUP);
    let pipeline = [&nodes[0], &nodes[1], &nodes[2]];
    let write = write_request(key(1), &pipeline, Durability::All);
    let mut stream = Stream::begin(&nodes[0], write).await;
    stream.send(&all_frames[0]).await;
    stream.until_acknowledged(GROUP_BYTES, 0).await;
    _ = nodes[0].tasks.shutdown(Duration::ZERO).await;

    let (two, three) = (&nodes[1], &nodes[2]);
    let next = of_generation(key(1), 2);
    let write = resume_request(next, &block, GROUP, &[two, three], &[two, three]);
    let mut stream = Stream::begin(two, write).await;
    stream.send(&all_frames[1]).await;
    stream.until_acknowledged(2 * GROUP_BYTES, 0).await;
    _ = two.tasks.shutdown(Duration::ZERO).await;

    let fifth = TestNode::start(5).await;
    let last = of_generation(key(1), 3);
    let pipeline = [three, &nodes[3], &fifth];
    let done = go_on(last, &block, 2 * GROUP, &pipeline, &[three]).await.unwrap();
    check_all(&pipeline, last, &block, &done).await;
}

/// A writer that does not know that it was overtaken goes on sending as fast as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_writer_of_an_older_generation_is_refused_and_changes_nothing() {
    let nodes = four().await;
    let [one, two, three, _] = &nodes;
    let pipeline = [one, two, three];
    let old = vec![0xaa; 8 * MIB];
    let there = 5 * GROUP;
    let new: Vec<u8> = [&old[..there], &bytes(2 * MIB)].concat();
    for id in 1..8 {
        let write = write_request(key(id), &pipeline, Durability::All);
        let mut late = Stream::begin(one, write).await;
        let frames = frames(0, &old, GROUP);
        for frame in &frames[..5] {
            late.send(frame).await;
        }
        late.until_acknowledged(there as u64, 0).await;
        let (reader, writer) = late.connection.halves();
        let sending = async {
            // All but the last: it never ends by itself.
            for frame in &frames[5..frames.len() - 1] {
                if writer.write_all_vectored(&[frame]).await.is_err() {
                    return;
                }
            }
        };
        let listening = async {
            loop {
                let response: wire::BlockResponse = reader.recv_message().await.unwrap();
                match response.kind.unwrap() {
                    Kind::Progress(_) => {}
                    Kind::Failure(failure) => return failure,
                    other => panic!("{other:?}"),
                }
            }
        };
        let next = of_generation(key(id), 2);
        let going_on = go_on(next, &new, there, &pipeline, &pipeline);
        let ((), refused, done) = tokio::join!(sending, listening, going_on);
        assert_eq!(refused.code(), Code::StaleGeneration, "{refused:?}");
        check_all(&pipeline, next, &new, &done.unwrap()).await;
        // Later still it is refused at once.
        let write = write_request(key(id), &pipeline, Durability::All);
        let refused = send_write(&mut one.connect().await, write, &frames).await.1.unwrap_err();
        assert_eq!(refused.code(), Code::StaleGeneration);
        let again = go_on(key(id), &old, there, &pipeline, &pipeline).await.unwrap_err();
        assert_eq!(again.code(), Code::StaleGeneration);
    }
}

#[tokio::test]
async fn who_cannot_go_on_says_why_and_keeps_what_it_has() {
    let nodes = four().await;
    let [one, two, ..] = &nodes;
    let block = bytes(2 * GROUP);
    let mut stream = Stream::begin(one, write_request(key(1), &[one], Durability::All)).await;
    stream.send(&frames(0, &block, GROUP)[0]).await;
    stream.until_acknowledged(GROUP_BYTES, 0).await;
    drop(stream);
    one.until_left(key(1), GROUP_BYTES).await;
    let next = of_generation(key(1), 2);
    let code = async |block: &[u8], there, holders: &[&TestNode]| {
        go_on(next, block, there, &[one], holders).await.unwrap_err().code()
    };
    assert_eq!(code(&block, GROUP, &[two]).await, Code::BadRequest);
    assert_eq!(code(&block, GROUP + 1, &[one]).await, Code::NotFound);
    assert_eq!(code(&vec![7; 2 * GROUP], GROUP, &[one]).await, Code::Checksum);
    assert_eq!(one.left(key(1)), Some(GROUP_BYTES));
    let nobody = go_on(of_generation(key(9), 2), &block, GROUP, &[one], &[one]).await;
    assert_eq!(nobody.unwrap_err().code(), Code::NotFound);
    go_on(next, &block, GROUP, &[one], &[one]).await.unwrap();
}

/// A frame with all of `block` behind the full groups of its first `there` bytes.
fn flush_frame(block: &[u8], there: usize, sync: bool) -> Vec<u8> {
    let start = there / GROUP * GROUP;
    let payload = &block[start..];
    let header = FrameHeader { sync, ..FrameHeader::data(start as u64, payload.len(), false) };
    let mut frame = header.encode().to_vec();
    for value in &tree_of(start as u64, payload).0.groups().to_vec() {
        frame.extend_from_slice(&value.0);
    }
    frame.extend_from_slice(payload);
    assert_eq!(frame.len(), HEADER_BYTES + header.write_body_bytes());
    frame
}

#[tokio::test]
async fn what_is_flushed_at_any_length_is_read_from_every_node_while_more_comes() {
    let nodes = four().await;
    let pipeline = [&nodes[0], &nodes[1], &nodes[2]];
    let block = bytes(4 * GROUP + 1);
    let mut stream =
        Stream::begin(&nodes[0], write_request(key(1), &pipeline, Durability::All)).await;
    let lengths = [1, 1023, 1025, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP - 5, 3 * GROUP + 5];
    let mut before = 0;
    for (length, index) in lengths.into_iter().zip(0..) {
        let sync = index % 2 == 1;
        stream.send(&flush_frame(&block[..length], before, sync)).await;
        let synced = if sync { length as u64 } else { 0 };
        stream.until_acknowledged(length as u64, synced).await;
        for node in &pipeline {
            for known in &lengths[..=index] {
                read_all(node, key(1), &block[..*known]).await;
            }
            let too_much = read_request(key(1), length + 1, 0, 1);
            let digest = tree_of(0, &block[..1]).1;
            let refused = read_as_asked(&mut node.connect().await, too_much, &digest).await;
            assert!(refused.is_err());
        }
        before = length;
    }
    // Nothing new, but to be synced.
    stream.send(&FrameHeader::sync(0, 0).encode()).await;
    stream.until_acknowledged(before as u64, before as u64).await;
    for frame in frames_behind(0, &block, before as u64, GROUP) {
        stream.send(&frame).await;
    }
    let done = stream.end().await.unwrap().unwrap();
    check_all(&pipeline, key(1), &block, &done).await;
    for node in &pipeline {
        for known in lengths {
            read_all(node, key(1), &block[..known]).await;
        }
    }
}

#[tokio::test]
async fn a_sync_is_acknowledged_when_all_nodes_have_synced_and_not_before() {
    let nodes = four().await;
    let pipeline = [&nodes[0], &nodes[1], &nodes[2]];
    let block = bytes(GROUP + 5);
    for (slow, id) in (0..3).zip(1..) {
        let mut stream =
            Stream::begin(&nodes[0], write_request(key(id), &pipeline, Durability::All)).await;
        nodes[slow].disk.hold_syncs();
        let before: Vec<u64> = pipeline.iter().map(|node| node.disk.syncs()).collect();
        stream.send(&flush_frame(&block, 0, true)).await;
        stream.until_acknowledged(block.len() as u64, 0).await;
        for (node, before) in pipeline.iter().zip(&before) {
            if node.address().id != nodes[slow].address().id {
                // Its data, and the folder of open blocks.
                node.until(|node| node.disk.syncs() == before + 2).await;
            }
        }
        nodes[slow].disk.release_syncs();
        stream.until_acknowledged(block.len() as u64, block.len() as u64).await;
        // The folder is synced the first time only.
        stream.send(&FrameHeader::sync(0, 0).encode()).await;
        stream.send(&flush_frame(&bytes(GROUP + 9), GROUP + 5, true)).await;
        stream.until_acknowledged(GROUP_BYTES + 9, GROUP_BYTES + 9).await;
        for (node, before) in pipeline.iter().zip(&before) {
            assert_eq!(node.disk.syncs(), before + 4);
        }
    }
}

#[tokio::test]
async fn a_replica_is_appended_to_and_cut_and_stays_readable_as_it_was() {
    let nodes = four().await;
    let [one, two, three, _] = &nodes;
    let block = bytes(4 * GROUP + 9);
    for ((length, there), id) in [
        (GROUP + 5, GROUP + 5),
        (2 * GROUP, 2 * GROUP),
        (3 * GROUP + 1, GROUP + 7),
        (3 * GROUP, 2 * GROUP),
        (3, 1),
    ]
    .into_iter()
    .zip(1..)
    {
        for node in [one, two] {
            store_block(&node.store, key(id), &block[..length], true);
        }
        let mut written = block[..there].to_vec();
        written.extend_from_slice(&bytes(GROUP + 100));
        let next = of_generation(key(id), 2);
        let pipeline = [one, two, three];
        let done = go_on(next, &written, there, &pipeline, &[one, two]).await.unwrap();
        check_all(&pipeline, next, &written, &done).await;
        for node in [one, two] {
            read_all(node, key(id), &block[..length]).await;
            node.store.verify(key(id), None).unwrap();
        }
    }
}

#[tokio::test]
async fn a_reader_gets_another_generation_if_it_knows_the_length_and_is_told_which() {
    let one = TestNode::start(1).await;
    let block = bytes(2 * GROUP);
    store_block(&one.store, key(1), &block[..GROUP + 5], true);
    let next = of_generation(key(1), 2);
    go_on(next, &block, GROUP + 5, &[&one], &[&one]).await.unwrap();
    assert!(one.store.drop_replica(key(1)).unwrap());
    assert_eq!(read_all(&one, key(1), &block[..GROUP + 5]).await.generation, 2);
    assert_eq!(read_all(&one, of_generation(key(1), 7), &block).await.generation, 2);
    let exact = ReadBlock { block_length: None, ..read_request(key(1), 5, 0, 5) };
    let digest = tree_of(0, &block).1;
    let refused = read_as_asked(&mut one.connect().await, exact, &digest).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn values_are_read_alone_and_the_connection_goes_on() {
    let one = TestNode::start(1).await;
    let block = bytes(3 * GROUP + 5);
    store_block(&one.store, key(1), &block, true);
    let mut connection = one.connect().await;
    for length in [3 * GROUP + 5, 2 * GROUP, GROUP + 1] {
        let (offset, values_only) = (0, true);
        let read = read_request(key(1), length, offset, length as u64);
        let read = ReadBlock { values_only, ..read };
        connection.send_message(&request(BlockOperation::Read(read))).await.unwrap();
        let response: wire::BlockResponse = connection.recv_message().await.unwrap();
        let Some(Kind::Read(start)) = response.kind else { panic!("{response:?}") };
        assert_eq!((start.byte_count, start.block_length), (length as u64, length as u64));
        let header = connection.recv_frame_header().await.unwrap();
        let mut proof = bytes::BytesMut::new();
        connection.read_exact_into(&mut proof, header.payload_bytes as usize).await.unwrap();
        let expected: Vec<u8> =
            tree_of(0, &block[..length]).0.groups().iter().flat_map(|value| value.0).collect();
        assert_eq!(&proof[..], &expected[..]);
    }
    read_all(&one, key(1), &block).await;
}

#[tokio::test]
async fn the_timings_of_all_nodes_reach_the_writer() {
    let nodes = four().await;
    let pipeline = [&nodes[0], &nodes[1], &nodes[2]];
    let block = bytes(96 * MIB);
    let block_bytes = BlockBytes::new(128 << 20).unwrap();
    let write = WriteBlock { block_bytes, ..write_request(key(1), &pipeline, Durability::Memory) };
    let mut stream = Stream::begin(&nodes[0], write).await;
    let mut seen = Vec::new();
    for (frame, number) in frames(0, &block, MIB).into_iter().zip(1..) {
        stream.send(&frame).await;
        let mut received = 0;
        while received < number * MIB as u64 && seen.len() < 3 {
            let Some(Kind::Progress(progress)) = stream.answer().await else { break };
            (received, seen) = (progress.received, progress.timings);
        }
        if seen.len() == 3 {
            break;
        }
    }
    let ids: Vec<u32> = seen.iter().map(|timing| timing.node_id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(seen.iter().all(|timing| timing.bytes > 0 && timing.store_us > 0), "{seen:?}");
    assert_eq!(seen[2].forward_us, 0);
}
