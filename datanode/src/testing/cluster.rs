//! Datanodes without a namenode, and a client that speaks the block stream by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use doldam_proto::block::BlockBytes;
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock, WriteBlock};
use doldam_proto::digest::ChainingValue;
use doldam_proto::digest::block::BlockDigest;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::proof::verify_proof;
use doldam_proto::file::Durability;
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::id::{BlockId, ClusterId, Generation, NodeId};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::node::{NodeAddress, NodeState};
use doldam_proto::wire;
use doldam_proto::wire::block_response::Kind;
use doldam_runtime::Seams;
use doldam_runtime::config::HumanDuration;
use doldam_runtime::connection::{BlockConnection, Deadlines, StreamError};
use doldam_runtime::net::{Net, RealNet};
use doldam_runtime::tasks::{BackgroundTasks, DataRuntimes};
use prost::Message;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::{FaultyDisk, open_store, tree_of};
use crate::blocks::store::BlockStore;
use crate::blocks::version_file::FolderIdentity;
use crate::config::DatanodeConfig;
use crate::engine::replica::ReplicaKey;
use crate::metrics::Metrics;
use crate::node::{Membership, Node, Repairs};
use crate::stream::buffers::BufferPool;
use crate::stream::listener::listen;

/// The cluster of all test nodes.
pub(crate) const CLUSTER: ClusterId = ClusterId([0xcc; 16]);
/// Long enough for a loaded machine, short enough to see a hang.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A datanode's block stream server over a folder of its own.
pub(crate) struct TestNode {
    pub(crate) node: Arc<Node>,
    pub(crate) store: Arc<BlockStore>,
    pub(crate) disk: FaultyDisk,
    pub(crate) dir: TempDir,
    pub(crate) tasks: BackgroundTasks,
}

impl TestNode {
    pub(crate) async fn start(id: u32) -> Self {
        Self::start_with(id, |_| {}).await
    }

    pub(crate) async fn start_with(id: u32, change: impl FnOnce(&mut DatanodeConfig)) -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
        let store = open_store(disk.handle(), &[dir.path()]);
        let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
        let mut config = DatanodeConfig { dirs: vec![dir.path().into()], ..Default::default() };
        change(&mut config);
        let tasks = BackgroundTasks::default();
        let seams = Seams { disk: disk.handle(), ..Seams::system() };
        let address = listener.local_addr().unwrap();
        let version = std::fs::read(dir.path().join("VERSION")).unwrap();
        let uuid = FolderIdentity::decode(&version).unwrap().node;
        let membership = Membership::new(uuid, address);
        membership.join(CLUSTER, &seams, config.forwarding_deadlines());
        membership.register(NodeId(id));
        let node = Arc::new(Node {
            streams: Arc::new(Semaphore::new(config.streams_max)),
            config,
            seams,
            store: Arc::clone(&store),
            metrics: Metrics::new().0,
            buffers: BufferPool::default(),
            repairs: Repairs::default(),
            membership,
            stopping: tasks.stopping(),
        });
        let runtimes = Arc::new(DataRuntimes::start(&tasks, "data", 1, 4).unwrap());
        tasks.spawn_critical("listener", listen(Arc::clone(&node), listener, runtimes));
        Self { node, store, disk, dir, tasks }
    }

    pub(crate) fn address(&self) -> NodeAddress {
        NodeAddress {
            id: self.node.membership.node_id().unwrap(),
            address: self.node.membership.address.clone(),
            rack: "/r".to_owned(),
            state: NodeState::Live,
        }
    }

    pub(crate) async fn connect(&self) -> BlockConnection {
        connect(&self.address().address).await
    }

    /// All files of replicas, finished or not, as paths below the data folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let places = ["blocks", "writing", "quarantine", "trash"];
        let mut folders: Vec<_> = places.iter().map(|place| self.dir.path().join(place)).collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(self.dir.path()).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Waits until nothing of a block is being received, and nothing of any is left.
    pub(crate) async fn until_empty(&self) {
        self.until(|node| node.files().is_empty() && node.node.active_streams() == 0).await;
    }

    /// Verified bytes of what a writer left of a block; `None` while it is being written, or if there is nothing.
    pub(crate) fn left(&self, key: ReplicaKey) -> Option<u64> {
        let state = self.store.state();
        let mut left = state.open.without_writer();
        left.find(|(found, _)| *found == key).map(|(_, file)| file.length())
    }

    /// Waits until the writer of a block has left `length` bytes of it.
    pub(crate) async fn until_left(&self, key: ReplicaKey, length: u64) {
        self.until(|node| node.left(key) == Some(length) && node.node.active_streams() == 0).await;
    }

    /// Waits until something is so; there is no event for what others do to files.
    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("it never came so");
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

pub(crate) fn short(duration: Duration) -> HumanDuration {
    HumanDuration(duration)
}

pub(crate) async fn connect(address: &str) -> BlockConnection {
    let deadlines = Deadlines { progress: LONG, ..Deadlines::default() };
    BlockConnection::connect(&RealNet, address, CLUSTER, deadlines).await.unwrap()
}

/// A write of a block through `pipeline`, as the client asks the first of it.
pub(crate) fn write_request(
    key: ReplicaKey,
    pipeline: &[&TestNode],
    durability: Durability,
) -> WriteBlock {
    WriteBlock {
        id: key.block,
        generation: key.generation,
        file_offset: 0,
        block_bytes: BlockBytes::new(8 << 20).unwrap(),
        durability,
        downstream: pipeline[1..].iter().map(|node| node.address()).collect(),
        position: 0,
        writer: "test".to_owned(),
        repair: None,
        resume: None,
    }
}

pub(crate) fn request(operation: BlockOperation) -> wire::BlockRequest {
    BlockRequest { trace: "test".to_owned(), operation }.into()
}

/// The frames of a block, as an honest sender makes them.
pub(crate) fn frames(file_offset: u64, block: &[u8], frame_bytes: usize) -> Vec<Vec<u8>> {
    frames_behind(file_offset, block, 0, frame_bytes)
}

/// The frames of a block behind what is there of it already.
pub(crate) fn frames_behind(
    file_offset: u64,
    block: &[u8],
    there: u64,
    frame_bytes: usize,
) -> Vec<Vec<u8>> {
    let value = tree_of(file_offset, block).1.chaining_value;
    let start = there / GROUP_BYTES * GROUP_BYTES;
    let rest = &block[start as usize..];
    let count = rest.len().div_ceil(frame_bytes);
    let pieces = rest.chunks(frame_bytes).zip(1..);
    pieces
        .scan(start, |offset, (payload, number)| {
            let header = FrameHeader::data(*offset, payload.len(), number == count);
            let mut frame = header.encode().to_vec();
            for (group, index) in payload.chunks(GROUP_BYTES as usize).zip(0..) {
                let at = file_offset + *offset + index * GROUP_BYTES;
                frame.extend_from_slice(&group_chaining_value(at, group).0);
            }
            frame.extend_from_slice(payload);
            if number == count {
                frame.extend_from_slice(&value.0);
            }
            *offset += payload.len() as u64;
            Some(frame)
        })
        .collect()
}

/// Sends a request and frames while taking answers, until the write has ended; returns its
/// acknowledgements too.
pub(crate) async fn send_write(
    connection: &mut BlockConnection,
    write: WriteBlock,
    frames: &[Vec<u8>],
) -> (Vec<u64>, Result<wire::WriteDone, wire::BlockFailure>) {
    let (reader, writer) = connection.halves();
    writer.queue_message(&request(BlockOperation::Write(write))).unwrap();
    let mut acks = Vec::new();
    let sending = async {
        writer.flush().await?;
        for frame in frames {
            writer.write_all_vectored(&[frame]).await?;
        }
        Ok::<_, StreamError>(())
    };
    let answers = async {
        loop {
            let response: wire::BlockResponse = reader.recv_message().await.unwrap();
            match response.kind.unwrap() {
                Kind::Progress(progress) if acks.last() == Some(&progress.received) => {}
                Kind::Progress(progress) => acks.push(progress.received),
                Kind::Done(done) => return Ok(done),
                Kind::Failure(failure) => return Err(failure),
                Kind::Read(_) => panic!("a read was not asked for"),
            }
        }
    };
    let (sent, answer) = tokio::join!(sending, answers);
    if answer.is_ok() {
        sent.unwrap(); // After a failure the other side may close while we still send.
    }
    (acks, answer)
}

/// Writes a block through a pipeline.
pub(crate) async fn put(
    key: ReplicaKey,
    block: &[u8],
    pipeline: &[&TestNode],
    durability: Durability,
) -> Result<wire::WriteDone, wire::BlockFailure> {
    let mut connection = pipeline[0].connect().await;
    let write = write_request(key, pipeline, durability);
    send_write(&mut connection, write, &frames(0, block, 1 << 20)).await.1
}

/// What a verifying reader gets.
#[derive(Debug)]
pub(crate) enum ReadError {
    Refused(wire::BlockFailure),
    CutShort(wire::BlockFailure),
    Unproved,
}

/// Reads a range and verifies every byte of it against the block's value.
pub(crate) async fn read_verified(
    connection: &mut BlockConnection,
    key: ReplicaKey,
    digest: &BlockDigest,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, ReadError> {
    let read = read_request(key, offset, length);
    read_as_asked(connection, read, digest).await.map(|(_, bytes)| bytes)
}

/// A read of a replica as it is.
pub(crate) fn read_request(key: ReplicaKey, offset: u64, length: u64) -> ReadBlock {
    let (block_length, values_only) = (None, false);
    let (id, generation) = (key.block, key.generation);
    ReadBlock { id, generation, offset, length, block_length, values_only }
}

/// The same for any read; says what the datanode said first.
pub(crate) async fn read_as_asked(
    connection: &mut BlockConnection,
    read: ReadBlock,
    digest: &BlockDigest,
) -> Result<(wire::ReadStart, Vec<u8>), ReadError> {
    let (offset, length) = (read.offset, read.length);
    connection.send_message(&request(BlockOperation::Read(read))).await.unwrap();
    let response: wire::BlockResponse = connection.recv_message().await.unwrap();
    let start = match response.kind.unwrap() {
        Kind::Read(start) => start,
        Kind::Failure(failure) => return Err(ReadError::Refused(failure)),
        other => panic!("{other:?}"),
    };
    let mut values: Option<Vec<ChainingValue>> = None;
    let mut payload = BytesMut::new();
    let mut bytes = Vec::new();
    while bytes.len() as u64 != start.byte_count {
        let header = connection.recv_frame_header().await.unwrap();
        payload.clear();
        let length = header.payload_bytes as usize;
        connection.read_exact_into(&mut payload, length).await.unwrap();
        match header.kind {
            FrameKind::Proof => {
                let groups = |bytes: u64| bytes.div_ceil(GROUP_BYTES) as usize;
                let range = groups(start.offset)..groups(start.offset + start.byte_count);
                let leaves = groups(start.block_length);
                let found = verify_proof(&digest.chaining_value, leaves, range, &payload);
                values = Some(found.map_err(|_| ReadError::Unproved)?);
            }
            FrameKind::Data => {
                let values = values.as_ref().expect("the proof comes first");
                assert_eq!(header.offset, start.offset + bytes.len() as u64);
                for group in payload.chunks(GROUP_BYTES as usize) {
                    let index = bytes.len() / GROUP_BYTES as usize;
                    let at = start.file_offset + start.offset + bytes.len() as u64;
                    if group_chaining_value(at, group) != values[index] {
                        return Err(ReadError::Unproved);
                    }
                    bytes.extend_from_slice(group);
                }
            }
            FrameKind::Error => {
                let failure = wire::BlockFailure::decode(&payload[..]).unwrap();
                return Err(ReadError::CutShort(failure));
            }
        }
    }
    let skip = (offset - start.offset) as usize;
    Ok((start, bytes[skip..skip + length as usize].to_vec()))
}

/// A block under a generation.
pub(crate) fn of_generation(key: ReplicaKey, generation: u64) -> ReplicaKey {
    ReplicaKey { generation: Generation(generation), ..key }
}

/// The replica of a block.
pub(crate) fn key(block: u64) -> ReplicaKey {
    ReplicaKey { block: BlockId(block), generation: Generation(1) }
}
