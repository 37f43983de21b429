//! Sends one block to its pipeline.
//!
//! Frames of 1 MiB are hashed group by group just before they go out, and nothing is copied on the way. At most
//! [`WRITE_WINDOW_BYTES`] are unacknowledged. The acknowledgements are received side by side in the same task, so
//! that a failure is noticed while sending. The datanodes' value of the block must equal ours.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit};
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, WriteBlock};
use doldam_proto::digest::{BlockTree, VALUE_BYTES};
use doldam_proto::file::Durability;
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::id::NodeId;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES, WRITE_WINDOW_BYTES};
use doldam_proto::wire::{self, block_response::Kind};
use doldam_runtime::connection::{ConnectionReader, ConnectionWriter, StreamError};
use doldam_runtime::pool::PooledConnection;
use futures::future::{Either, select};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::probe::find_stuck;
use super::{StreamFailure, Streams, is_disconnect};
use crate::error::ClientError;
use crate::source::{BlockSource, Chunk};

/// How long to wait for the reason after a datanode stopped taking data.
const REASON_WAIT: Duration = Duration::from_secs(1);
const HEAD_BYTES: usize =
    HEADER_BYTES + FRAME_PAYLOAD_BYTES.div_ceil(GROUP_BYTES as usize) * VALUE_BYTES;

/// A block and where it goes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) block: AllocatedBlock,
    pub(crate) block_bytes: BlockBytes,
    pub(crate) durability: Durability,
    pub(crate) trace: String,
}

impl Outgoing {
    fn file_offset(&self) -> u64 {
        u64::from(self.block.index) * self.block_bytes.get()
    }
}

/// Why a block was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The pipeline failed: elsewhere it may succeed.
    Pipeline(StreamFailure),
    /// The source had nothing to send for too long; nobody is to blame.
    Stalled,
    /// The source cannot be read.
    Source(ClientError),
}

/// Told how a block is getting on.
pub(crate) trait SendWatch: Send + Sync {
    /// All bytes below this offset of the block are acknowledged.
    fn acknowledged(&self, bytes: u64);
    /// All bytes are on their way.
    fn all_sent(&self);
}

/// Sends `outgoing` from `source`; returns what to commit.
///
/// Dropping the future closes the connection, upon which the datanodes discard what they have.
pub(crate) async fn send_block(
    streams: &Streams,
    outgoing: &Outgoing,
    source: &BlockSource,
    watch: &dyn SendWatch,
) -> Result<BlockCommit, SendFailure> {
    let targets = &outgoing.block.targets;
    let Some(first) = targets.first() else {
        return Err(pipeline(StreamFailure::protocol("a pipeline without datanodes")));
    };
    let mut connection = streams.pool.get(&first.address).await.map_err(stream_error)?;
    let sent = match send_over(streams, &mut connection, outgoing, source, watch).await {
        Err(Failure::Stream(error, 0)) if connection.is_reused() && is_disconnect(&error) => {
            connection = streams.pool.get_fresh(&first.address).await.map_err(stream_error)?;
            send_over(streams, &mut connection, outgoing, source, watch).await
        }
        sent => sent,
    };
    let (tree, done) = sent.map_err(|failure| match failure {
        Failure::Stream(error, _) => stream_error(error),
        Failure::Other(failure) => failure,
    })?;
    let commit = check_done(outgoing, &tree, &done).map_err(pipeline)?;
    connection.put_back();
    Ok(commit)
}

fn pipeline(failure: StreamFailure) -> SendFailure {
    SendFailure::Pipeline(failure)
}

fn stream_error(error: StreamError) -> SendFailure {
    SendFailure::Pipeline(error.into())
}

enum Failure {
    /// The connection failed after so many bytes were acknowledged.
    Stream(StreamError, u64),
    Other(SendFailure),
}

impl From<SendFailure> for Failure {
    fn from(failure: SendFailure) -> Self {
        Self::Other(failure)
    }
}

/// What sender and receiver of one stream share.
#[derive(Default)]
struct Window {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    all_sent: AtomicBool,
    /// Responses so far.
    heard: AtomicU64,
    /// The sender waits here for acknowledgements.
    opened: Notify,
    /// The receiver waits here, beside the socket, for the end of sending.
    ended: Notify,
}

impl Window {
    /// Whether the datanodes have something to answer.
    fn is_owed(&self) -> bool {
        self.all_sent.load(Ordering::Acquire)
            || self.sent.load(Ordering::Acquire) > self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until `bytes` more may be sent.
    async fn room(&self, bytes: u64) {
        loop {
            let opened = self.opened.notified();
            let sent = self.sent.load(Ordering::Acquire);
            let open = sent - self.acknowledged.load(Ordering::Acquire);
            if open == 0 || open + bytes <= WRITE_WINDOW_BYTES {
                return;
            }
            opened.await;
        }
    }
}

async fn send_over(
    streams: &Streams,
    connection: &mut PooledConnection,
    outgoing: &Outgoing,
    source: &BlockSource,
    watch: &dyn SendWatch,
) -> Result<(BlockTree, wire::WriteDone), Failure> {
    let (reader, writer) = connection.halves();
    let nodes = outgoing.block.targets.len() as u32;
    reader.set_progress_deadline(streams.write_timeout * nodes);
    writer.set_progress_deadline(streams.write_timeout * nodes);
    let request = write_request(streams, outgoing);
    let window = Window::default();
    writer.queue_message(&request).map_err(|error| Failure::Stream(error, 0))?;

    let stuck = std::pin::pin!(watch_silence(streams, outgoing, &window));
    let exchange =
        std::pin::pin!(exchange(streams, reader, writer, outgoing, source, &window, watch));
    match select(exchange, stuck).await {
        Either::Left((sent, _)) => sent,
        Either::Right((stuck, _)) => Err(pipeline(stuck).into()),
    }
}

/// Ends when a datanode of the pipeline turns out to be stuck.
async fn watch_silence(streams: &Streams, outgoing: &Outgoing, window: &Window) -> StreamFailure {
    let mut heard = 0;
    loop {
        tokio::time::sleep(streams.probe_after).await;
        let heard_now = window.heard.load(Ordering::Acquire);
        let silent = std::mem::replace(&mut heard, heard_now) == heard_now && window.is_owed();
        if silent && let Some(stuck) = find_stuck(streams, &outgoing.block, &outgoing.trace).await {
            return stuck;
        }
    }
}

/// Sends and receives side by side.
async fn exchange(
    streams: &Streams,
    reader: &mut ConnectionReader,
    writer: &mut ConnectionWriter,
    outgoing: &Outgoing,
    source: &BlockSource,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<(BlockTree, wire::WriteDone), Failure> {
    let acknowledged = |window: &Window| window.acknowledged.load(Ordering::Acquire);
    let sync_timeout = streams.sync_timeout * outgoing.block.targets.len() as u32;
    let send = std::pin::pin!(send_frames(streams, writer, outgoing, source, window, watch));
    let receive = std::pin::pin!(receive_done(reader, sync_timeout, window, watch));
    match select(receive, send).await {
        // What was acknowledged must be all that is sent: see `check_done`.
        Either::Left((Ok(done), send)) => Ok((send.await?, done)),
        Either::Right((Ok(tree), receive)) => Ok((tree, receive.await?)),
        Either::Right((Err(Failure::Stream(error, _)), receive)) => {
            // It stopped taking data; most likely it has said why, and that names the node at fault.
            match timeout(REASON_WAIT, receive).await {
                Ok(Err(Failure::Other(reason))) => Err(Failure::Other(reason)),
                _ => Err(Failure::Stream(error, acknowledged(window))),
            }
        }
        Either::Left((Err(failure), _)) | Either::Right((Err(failure), _)) => Err(failure),
    }
}

fn write_request(streams: &Streams, outgoing: &Outgoing) -> wire::BlockRequest {
    let block = &outgoing.block;
    let write = WriteBlock {
        id: block.id,
        generation: block.generation,
        file_offset: outgoing.file_offset(),
        block_bytes: outgoing.block_bytes,
        durability: outgoing.durability,
        downstream: block.targets.iter().skip(1).cloned().collect(),
        position: 0,
        writer: streams.writer.to_string(),
        repair: None,
    };
    let operation = BlockOperation::Write(write);
    BlockRequest { trace: outgoing.trace.clone(), operation }.into()
}

async fn send_frames(
    streams: &Streams,
    writer: &mut ConnectionWriter,
    outgoing: &Outgoing,
    source: &BlockSource,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<BlockTree, Failure> {
    let mut tree = BlockTree::new(outgoing.file_offset());
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let mut scratch = source.scratch();
    loop {
        // No acknowledgement is due while nothing is sent, so the wait for the source must be the shorter one.
        let chunk = timeout(streams.stall_timeout, source.next(tree.length(), &mut scratch));
        let chunk = match chunk.await {
            Ok(chunk) => chunk.map_err(SendFailure::Source)?,
            Err(_elapsed) => return Err(SendFailure::Stalled.into()),
        };
        let (payload, last): (&[u8], bool) = match &chunk {
            Chunk::Scratch { bytes, last } => (&scratch[..*bytes], *last),
            Chunk::Retained { bytes, last } => (bytes, *last),
            Chunk::End => (&[], true),
        };
        window.room(payload.len() as u64).await;
        head.clear();
        head.put_slice(&FrameHeader::data(tree.length(), payload.len(), last).encode());
        for group in payload.chunks(GROUP_BYTES as usize) {
            head.put_slice(&tree.push_group(group).0);
        }
        // Over all groups, so only once.
        let value = if last { tree.digest().map(|digest| digest.chaining_value.0) } else { None };
        window.sent.store(tree.length(), Ordering::Release);
        let value = value.as_ref().map_or(&[][..], |value| value);
        let sent = writer.write_all_vectored(&[&head, payload, value]).await;
        sent.map_err(|error| Failure::Stream(error, window.acknowledged.load(Ordering::Acquire)))?;
        if last {
            window.all_sent.store(true, Ordering::Release);
            window.ended.notify_one();
            watch.all_sent();
            return Ok(tree);
        }
    }
}

async fn receive_done(
    reader: &mut ConnectionReader,
    sync_timeout: Duration,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<wire::WriteDone, Failure> {
    loop {
        let message = if window.all_sent.load(Ordering::Acquire) {
            reader.set_progress_deadline(sync_timeout);
            reader.recv_message().await
        } else {
            tokio::select! {
                biased;
                message = reader.recv_message() => message,
                () = window.ended.notified() => continue,
            }
        };
        window.heard.fetch_add(1, Ordering::AcqRel);
        let response: wire::BlockResponse = message
            .map_err(|error| Failure::Stream(error, window.acknowledged.load(Ordering::Acquire)))?;
        match response.kind {
            Some(Kind::Progress(progress)) => {
                let before = window.acknowledged.load(Ordering::Acquire);
                let sent = window.sent.load(Ordering::Acquire);
                if progress.received < before || progress.received > sent {
                    let cause = format!(
                        "acknowledged {} bytes after {before}, of {sent} sent",
                        progress.received
                    );
                    return Err(pipeline(StreamFailure::protocol(cause)).into());
                }
                window.acknowledged.store(progress.received, Ordering::Release);
                window.opened.notify_one();
                watch.acknowledged(progress.received);
            }
            Some(Kind::Done(done)) => {
                watch.acknowledged(window.sent.load(Ordering::Acquire));
                return Ok(done);
            }
            Some(Kind::Failure(failure)) => return Err(pipeline(failure.into()).into()),
            Some(Kind::Read(_)) | None => {
                let failure = StreamFailure::protocol("answered a write with something else");
                return Err(pipeline(failure).into());
            }
        }
    }
}

/// Believes an acknowledgement only if it says what was asked for.
fn check_done(
    outgoing: &Outgoing,
    tree: &BlockTree,
    done: &wire::WriteDone,
) -> Result<BlockCommit, StreamFailure> {
    let Some(digest) = tree.digest() else {
        return Err(StreamFailure::protocol("acknowledged an empty block"));
    };
    if done.length != tree.length() || done.chaining_value[..] != digest.chaining_value.0 {
        return Err(StreamFailure::bad_data(format!(
            "acknowledged {} bytes with another value than the {} that were sent",
            done.length,
            tree.length()
        )));
    }
    let targets = &outgoing.block.targets;
    let holders: Vec<NodeId> =
        done.replicas.iter().map(|receipt| NodeId(receipt.node_id)).collect();
    if !holders.iter().eq(targets.iter().map(|target| &target.id)) {
        let cause = format!("acknowledged by nodes {holders:?}, which are not the pipeline");
        return Err(StreamFailure::protocol(cause));
    }
    for (position, receipt) in done.replicas.iter().enumerate() {
        if outgoing.durability.syncs_at(position as u32) && !receipt.durable {
            let cause = "acknowledged without the durability that was asked for".to_owned();
            let node = Some(NodeId(receipt.node_id));
            return Err(StreamFailure { node, cause, bad_data: false });
        }
    }
    Ok(BlockCommit {
        id: outgoing.block.id,
        generation: outgoing.block.generation,
        length: tree.length(),
        chaining_value: digest.chaining_value,
        root_value: digest.root_value,
        nodes: holders,
    })
}
