//! A datanode that keeps replicas in memory.
//!
//! Instead of forwarding to the rest of a pipeline it stores the replicas of all of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock};
use doldam_proto::digest::proof::proof_places;
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::id::NodeId;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::wire::{self, block_failure::Code, block_response::Kind};
use doldam_runtime::connection::{BlockConnection, Deadlines, StreamError};
use doldam_runtime::net::Net;
use doldam_runtime::tasks::spawn_detached;
use parking_lot::Mutex;
use prost::Message;
use tokio_util::task::AbortOnDropHandle;

use super::CLUSTER;
use super::datanode_write::serve_write;
use super::state::{State, tree_over};

/// How the next exchange goes wrong. Frames count from 0.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is closed in front of this frame.
    Reset { frame: usize },
    /// Nothing more happens from this frame on, and nothing is said.
    Stall { frame: usize },
    /// From this frame on each comes so much later.
    Slow { frame: usize, by: Duration },
    /// A failure instead of this frame; of another node if that is not 0.
    Fail { frame: usize, code: Code, node: u32 },
    /// All bytes are taken, but never acknowledged as a whole.
    NeverDone,
    /// The block is acknowledged with another value.
    WrongValue,
    /// The block is acknowledged without being durable.
    NotDurable,
    /// The block is acknowledged by fewer nodes.
    FewerReceipts,
    /// One byte of this frame is flipped.
    FlipByte { frame: usize },
    /// One byte of the proof is flipped.
    FlipProof,
    /// The replica claims another length.
    WrongLength,
    /// This node is far slower than the others.
    SlowWrite { node: u32 },
    /// A frame comes twice.
    RepeatFrame,
    /// The answer is no answer to this request.
    WrongAnswer,
}

pub(crate) struct FakeDatanode {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) state: Arc<State>,
    faults: Mutex<VecDeque<Option<Fault>>>,
    writes: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) syncs: AtomicUsize,
    reads: AtomicUsize,
    connections: AtomicUsize,
    open: Arc<AtomicUsize>,
    frozen: AtomicBool,
    delay: Mutex<Duration>,
    serving: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// Counts a connection while it is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeDatanode {
    pub(crate) async fn start(id: NodeId, state: Arc<State>, net: &dyn Net, address: &str) -> Self {
        let listener = net.bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        state.register(id, address.clone());
        let shared = Arc::new(Shared {
            id,
            state,
            faults: Mutex::default(),
            writes: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: Arc::default(),
            frozen: AtomicBool::new(false),
            delay: Mutex::default(),
            serving: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        let accept = async move {
            while let Ok(incoming) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::SeqCst);
                let stream = incoming.register().unwrap();
                let shared = Arc::clone(&served);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let open = Open(Arc::clone(&shared.open));
                let serve = async move {
                    let _open = open;
                    if shared.frozen.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    let accepted =
                        BlockConnection::accept(stream, "client", CLUSTER, Deadlines::default());
                    if let Ok(connection) = accepted.await {
                        // What a client does to a connection is its business.
                        _ = serve(&shared, connection).await;
                    }
                };
                let task = AbortOnDropHandle::new(spawn_detached("fake stream", serve));
                served.serving.lock().push(task);
            }
        };
        let task = AbortOnDropHandle::new(spawn_detached("fake datanode", accept));
        Self { id, address, shared, task: Mutex::new(Some(task)) }
    }

    /// The next exchange goes wrong like this; the ones after it as queued later, or well.
    pub(crate) fn next_fails(&self, fault: Fault) {
        self.shared.faults.lock().push_back(Some(fault));
    }

    /// The next exchange, among those with faults, goes well.
    pub(crate) fn next_is_well(&self) {
        self.shared.faults.lock().push_back(None);
    }

    /// Dies: connections break, new ones are refused.
    pub(crate) fn kill(&self) {
        self.task.lock().take();
        self.break_connections();
    }

    /// Takes new connections and says nothing on them, as a stopped process does.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::SeqCst);
    }

    /// Answers every read so much later from now on.
    pub(crate) fn delay_reads(&self, by: Duration) {
        *self.shared.delay.lock() = by;
    }

    /// Closes all connections; new ones are taken.
    pub(crate) fn break_connections(&self) {
        self.shared.serving.lock().clear();
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Requests so far, to write and to read.
    pub(crate) fn requests(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.shared.writes), count(&self.shared.reads))
    }

    /// Frames so far that asked for stable storage.
    pub(crate) fn syncs(&self) -> usize {
        self.shared.syncs.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Flips one byte of every replica this node holds.
    pub(crate) fn rot(&self) {
        let mut tables = self.shared.state.tables.lock();
        for ((node, _), replica) in &mut tables.replicas {
            if *node == self.id {
                let mut content = replica.content.to_vec();
                content[0] ^= 1;
                replica.content = content.into();
            }
        }
    }
}

async fn serve(shared: &Shared, mut connection: BlockConnection) -> Result<(), StreamError> {
    while let Some(request) = connection.recv_request::<wire::BlockRequest>().await? {
        let request = BlockRequest::try_from(request).expect("a client keeps to the protocol");
        let fault = shared.faults.lock().pop_front().flatten();
        let over = match request.operation {
            BlockOperation::Write(write) => {
                shared.writes.fetch_add(1, Ordering::SeqCst);
                serve_write(shared, &mut connection, write, fault).await?
            }
            BlockOperation::Read(read) => {
                shared.reads.fetch_add(1, Ordering::SeqCst);
                let delay = *shared.delay.lock();
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                serve_read(shared, &mut connection, read, fault).await?
            }
        };
        if over {
            connection.linger().await;
            return Ok(());
        }
    }
    Ok(())
}

pub(crate) fn failure(shared: &Shared, code: Code, node: u32) -> wire::BlockFailure {
    let node_id = if node == 0 { shared.id.0 } else { node };
    let message = "as the test wants it".to_owned();
    wire::BlockFailure { code: code as i32, message, node_id, address: String::new() }
}

pub(crate) async fn respond(
    connection: &mut BlockConnection,
    kind: Kind,
) -> Result<(), StreamError> {
    connection.send_message(&wire::BlockResponse { kind: Some(kind) }).await
}

/// Says whether the connection is to be closed.
async fn serve_read(
    shared: &Shared,
    connection: &mut BlockConnection,
    read: ReadBlock,
    fault: Option<Fault>,
) -> Result<bool, StreamError> {
    let found = shared.state.tables.lock().replicas.get(&(shared.id, read.id)).cloned();
    let Some(replica) = found else {
        let failure = failure(shared, Code::NotFound, 0);
        respond(connection, Kind::Failure(failure)).await?;
        return Ok(false);
    };
    let length = read.block_length.unwrap_or(replica.content.len() as u64);
    if read.generation != replica.generation && length > replica.content.len() as u64 {
        respond(connection, Kind::Failure(failure(shared, Code::StaleGeneration, 0))).await?;
        return Ok(false);
    }
    assert!(length <= replica.content.len() as u64, "a client asks only for what there is");
    assert!(read.offset + read.length <= length, "a client asks only for what there is");
    let start = read.offset - read.offset % GROUP_BYTES;
    let end = (read.offset + read.length).next_multiple_of(GROUP_BYTES).min(length);
    if let Some(Fault::Fail { frame: 0, code, node }) = fault {
        respond(connection, Kind::Failure(failure(shared, code, node))).await?;
        return Ok(false);
    }
    if matches!(fault, Some(Fault::WrongAnswer)) {
        respond(connection, Kind::Progress(wire::WriteProgress::default())).await?;
        return Ok(true);
    }
    let block_length = length + u64::from(matches!(fault, Some(Fault::WrongLength)));
    let byte_count = end - start;
    let file_offset = replica.file_offset;
    let generation = replica.generation.0;
    let announced =
        wire::ReadStart { offset: start, byte_count, block_length, file_offset, generation };
    respond(connection, Kind::Read(announced)).await?;

    let leaves = length.div_ceil(GROUP_BYTES) as usize;
    let range = (start / GROUP_BYTES) as usize..end.div_ceil(GROUP_BYTES) as usize;
    let mut proof = BytesMut::new();
    let nodes = tree_over(file_offset, &replica.content[..length as usize]).nodes();
    for place in proof_places(leaves, range).unwrap() {
        proof.extend_from_slice(&nodes[place].0);
    }
    if matches!(fault, Some(Fault::FlipProof)) {
        proof[0] ^= 1;
    }
    let header = FrameHeader::plain(FrameKind::Proof, proof.len()).encode();
    connection.write_all_vectored(&[&header, &proof]).await?;
    if read.values_only {
        return Ok(false);
    }
    let wanted = replica.content.slice(start as usize..end as usize);
    send_frames(shared, connection, start, &wanted, fault).await
}

async fn send_frames(
    shared: &Shared,
    connection: &mut BlockConnection,
    start: u64,
    wanted: &Bytes,
    fault: Option<Fault>,
) -> Result<bool, StreamError> {
    for (number, payload) in wanted.chunks(FRAME_PAYLOAD_BYTES).enumerate() {
        let mut payload = payload.to_vec();
        let offset = start + (number * FRAME_PAYLOAD_BYTES) as u64;
        match &fault {
            Some(Fault::Reset { frame }) if *frame == number => return Ok(true),
            Some(Fault::Stall { frame }) if *frame == number => std::future::pending().await,
            Some(Fault::Slow { frame, by }) if number >= *frame => tokio::time::sleep(*by).await,
            Some(Fault::Fail { frame, code, node }) if *frame == number => {
                let failure = failure(shared, *code, *node).encode_to_vec();
                let header = FrameHeader::plain(FrameKind::Error, failure.len()).encode();
                connection.write_all_vectored(&[&header, &failure]).await?;
                return Ok(true);
            }
            Some(Fault::FlipByte { frame }) if *frame == number => payload[0] ^= 1,
            _ => {}
        }
        let header = FrameHeader::data(offset, payload.len(), false).encode();
        connection.write_all_vectored(&[&header, &payload]).await?;
        if matches!(fault, Some(Fault::RepeatFrame)) {
            connection.write_all_vectored(&[&header, &payload]).await?;
        }
    }
    Ok(false)
}
