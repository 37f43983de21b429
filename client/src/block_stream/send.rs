//! Sends one block to its pipeline, from its start or behind what the pipeline has of it.
//!
//! Frames of 1 MiB are hashed group by group just before they go out, and nothing is copied on the way. At most
//! [`WRITE_WINDOW_BYTES`](doldam_proto::limits::WRITE_WINDOW_BYTES) are unacknowledged. The acknowledgements are
//! received side by side in the same task, so that a failure is noticed while sending. The datanodes' value of the
//! block must equal ours.
//!
//! The tree of a block is kept over all tries ([`SentBlock`]): what was acknowledged is not hashed again.

mod acknowledgements;
mod frames;
mod window;

use std::time::Duration;

use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit};
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, Resume, WriteBlock};
use doldam_proto::digest::{BlockTree, ChainingValue};
use doldam_proto::file::Durability;
use doldam_proto::id::NodeId;
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::wire;
use doldam_runtime::connection::{ConnectionReader, ConnectionWriter, StreamError};
use doldam_runtime::pool::PooledConnection;
use futures::future::{Either, select};
use tokio::time::{Instant, timeout};

use super::probe::find_stuck;
use super::{StreamFailure, Streams, is_disconnect};
use crate::engine::silence::Silence;
use crate::engine::write_pipeline::ResumeAt;
use crate::error::ClientError;
use crate::source::{BlockSource, SourceFailure};
use acknowledgements::receive_done;
use frames::send_frames;
use window::Window;

/// How long to wait for the reason after a datanode stopped taking data.
const REASON_WAIT: Duration = Duration::from_secs(1);
/// How often is looked whether anything was heard, within the time after which a silent pipeline is looked into.
const LOOKS_PER_WAIT: u32 = 4;

/// A block and where it goes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) block: AllocatedBlock,
    pub(crate) resume: Option<ResumeAt>,
    pub(crate) block_bytes: BlockBytes,
    pub(crate) durability: Durability,
    pub(crate) trace: String,
}

impl Outgoing {
    fn file_offset(&self) -> u64 {
        u64::from(self.block.index) * self.block_bytes.get()
    }

    /// Bytes of the block before the first that is sent.
    fn start(&self) -> u64 {
        self.resume.as_ref().map_or(0, |resume| resume.length)
    }
}

/// What is known of a block over all tries.
#[derive(Debug)]
pub(crate) struct SentBlock {
    /// Over everything that was sent; at least over what was acknowledged.
    pub(crate) tree: BlockTree,
    /// Bytes all of the pipeline has, in the last try.
    pub(crate) acknowledged: u64,
}

impl SentBlock {
    /// Goes back to the first `length` bytes; returns their value, if there are any.
    fn go_back(
        &mut self,
        length: u64,
        source: &BlockSource,
    ) -> Result<Option<ChainingValue>, SourceFailure> {
        self.acknowledged = length;
        self.tree.keep_groups((length / GROUP_BYTES) as usize);
        if !length.is_multiple_of(GROUP_BYTES) {
            self.tree.push_group(&source.cut_group(length)?);
        }
        Ok(self.tree.digest().map(|digest| digest.chaining_value))
    }
}

/// Why a block was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The pipeline failed: elsewhere it may succeed.
    Pipeline(StreamFailure),
    /// The source had nothing to send for too long; nobody is to blame.
    Stalled,
    /// The source has given up the bytes that were to be sent.
    Gone { kept_from: u64 },
    /// The source cannot be read.
    Source(ClientError),
}

impl From<SourceFailure> for SendFailure {
    fn from(failure: SourceFailure) -> Self {
        match failure {
            SourceFailure::Gone { kept_from } => Self::Gone { kept_from },
            SourceFailure::Unreadable(error) => Self::Source(error),
        }
    }
}

/// Told how a block is getting on.
pub(crate) trait SendWatch: Send + Sync {
    /// All bytes below this offset of the block are acknowledged.
    fn acknowledged(&self, bytes: u64);
    /// All of the pipeline has what a flush waits for, with `synced` on stable storage.
    fn reached(&self, commit: BlockCommit, synced: bool);
    /// All bytes are on their way.
    fn all_sent(&self);
}

/// Sends `outgoing` from `source`; returns what to commit. `sent` then tells how far it got, in any case.
///
/// Dropping the future closes the connection; the datanodes keep what they have for a while.
pub(crate) async fn send_block(
    streams: &Streams,
    outgoing: &Outgoing,
    source: &BlockSource,
    sent: &mut SentBlock,
    watch: &dyn SendWatch,
) -> Result<BlockCommit, SendFailure> {
    let start = outgoing.start();
    sent.acknowledged = start;
    let targets = &outgoing.block.targets;
    let Some(first) = targets.first() else {
        return Err(pipeline(StreamFailure::protocol("a pipeline without datanodes")));
    };
    let mut connection = connect(streams, outgoing, streams.pool.get(&first.address)).await?;
    let done = match send_over(streams, &mut connection, outgoing, source, sent, watch).await {
        Err(Failure::Stream(error))
            if connection.is_reused() && is_disconnect(&error) && sent.acknowledged == start =>
        {
            let connecting = streams.pool.get_fresh(&first.address);
            connection = connect(streams, outgoing, connecting).await?;
            send_over(streams, &mut connection, outgoing, source, sent, watch).await
        }
        done => done,
    };
    let done = done.map_err(|failure| match failure {
        Failure::Stream(error) => stream_error(error),
        Failure::Other(failure) => failure,
    })?;
    let commit = check_done(outgoing, &sent.tree, &done)?;
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
    /// The connection failed.
    Stream(StreamError),
    Other(SendFailure),
}

impl From<SendFailure> for Failure {
    fn from(failure: SendFailure) -> Self {
        Self::Other(failure)
    }
}

async fn send_over(
    streams: &Streams,
    connection: &mut PooledConnection,
    outgoing: &Outgoing,
    source: &BlockSource,
    sent: &mut SentBlock,
    watch: &dyn SendWatch,
) -> Result<wire::WriteDone, Failure> {
    let start = outgoing.start();
    let value = sent.go_back(start, source).map_err(SendFailure::from)?;
    let (reader, writer) = connection.halves();
    let nodes = outgoing.block.targets.len() as u32;
    writer.set_progress_deadline(streams.write_timeout * nodes);
    let request = write_request(streams, outgoing, value);
    let window = Window::new(start);
    writer.queue_message(&request).map_err(Failure::Stream)?;

    let tree = &mut sent.tree;
    let outcome = {
        let stuck =
            std::pin::pin!(watch_silence(streams, outgoing, || (window.heard(), window.is_owed())));
        let exchange = exchange(streams, reader, writer, outgoing, source, tree, &window, watch);
        match select(std::pin::pin!(exchange), stuck).await {
            Either::Left((done, _)) => done,
            Either::Right((stuck, _)) => Err(pipeline(stuck).into()),
        }
    };
    sent.acknowledged = window.acknowledged();
    outcome
}

/// Connects to the first datanode, unless one of the pipeline turns out to be stuck meanwhile.
async fn connect(
    streams: &Streams,
    outgoing: &Outgoing,
    connecting: impl Future<Output = Result<PooledConnection, StreamError>>,
) -> Result<PooledConnection, SendFailure> {
    let stuck = std::pin::pin!(watch_silence(streams, outgoing, || (0, true)));
    match select(std::pin::pin!(connecting), stuck).await {
        Either::Left((connected, _)) => connected.map_err(stream_error),
        Either::Right((stuck, _)) => Err(pipeline(stuck)),
    }
}

/// Ends when a datanode of the pipeline turns out to be stuck. `heard` tells how many answers have come, and whether
/// more are owed.
async fn watch_silence(
    streams: &Streams,
    outgoing: &Outgoing,
    heard: impl Fn() -> (u64, bool),
) -> StreamFailure {
    let began = Instant::now();
    let mut silence = Silence::new(streams.probe_after);
    loop {
        let (answers, is_owed) = heard();
        if silence.handle(began.elapsed(), answers, is_owed)
            && let Some(stuck) = find_stuck(streams, &outgoing.block, &outgoing.trace).await
            && heard().0 == answers
        {
            return stuck;
        }
        tokio::time::sleep(streams.probe_after / LOOKS_PER_WAIT).await;
    }
}

/// Sends and receives side by side.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one stream, each used by one of the halves"
)]
async fn exchange(
    streams: &Streams,
    reader: &mut ConnectionReader,
    writer: &mut ConnectionWriter,
    outgoing: &Outgoing,
    source: &BlockSource,
    tree: &mut BlockTree,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<wire::WriteDone, Failure> {
    let send = std::pin::pin!(send_frames(streams, writer, outgoing, source, tree, window, watch));
    let receive = std::pin::pin!(receive_done(streams, reader, outgoing, window, watch));
    match select(receive, send).await {
        // What was acknowledged must be all that is sent: see `check_done`.
        Either::Left((Ok(done), send)) => {
            send.await?;
            Ok(done)
        }
        Either::Right((Ok(()), receive)) => receive.await,
        Either::Right((Err(Failure::Stream(error)), receive)) => {
            // It stopped taking data; most likely it has said why, and that names the node at fault.
            match timeout(REASON_WAIT, receive).await {
                Ok(Err(Failure::Other(reason))) => Err(Failure::Other(reason)),
                _ => Err(Failure::Stream(error)),
            }
        }
        Either::Left((Err(failure), _)) | Either::Right((Err(failure), _)) => Err(failure),
    }
}

fn write_request(
    streams: &Streams,
    outgoing: &Outgoing,
    value: Option<ChainingValue>,
) -> wire::BlockRequest {
    let block = &outgoing.block;
    let resume = outgoing.resume.as_ref().zip(value).map(|(resume, chaining_value)| Resume {
        length: resume.length,
        chaining_value,
        holders: resume.holders.clone(),
    });
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
        resume,
    };
    let operation = BlockOperation::Write(write);
    BlockRequest { trace: outgoing.trace.clone(), operation }.into()
}

/// What the namenode is to know of the block as far as it is sent.
fn commit_of(outgoing: &Outgoing, tree: &BlockTree) -> Result<BlockCommit, SendFailure> {
    let block = &outgoing.block;
    let Some(digest) = tree.digest() else {
        return Err(pipeline(StreamFailure::protocol("acknowledged an empty block")));
    };
    Ok(BlockCommit {
        id: block.id,
        generation: block.generation,
        length: tree.length(),
        chaining_value: digest.chaining_value,
        root_value: digest.root_value,
        nodes: block.targets.iter().map(|target| target.id).collect(),
    })
}

/// Believes an acknowledgement only if it says what was asked for.
fn check_done(
    outgoing: &Outgoing,
    tree: &BlockTree,
    done: &wire::WriteDone,
) -> Result<BlockCommit, SendFailure> {
    let commit = commit_of(outgoing, tree)?;
    if done.length != commit.length || done.chaining_value[..] != commit.chaining_value.0 {
        return Err(pipeline(StreamFailure::bad_data(format!(
            "acknowledged {} bytes with another value than the {} that were sent",
            done.length, commit.length
        ))));
    }
    let holders: Vec<NodeId> =
        done.replicas.iter().map(|receipt| NodeId(receipt.node_id)).collect();
    if holders != commit.nodes {
        let cause = format!("acknowledged by nodes {holders:?}, which are not the pipeline");
        return Err(pipeline(StreamFailure::protocol(cause)));
    }
    for (position, receipt) in done.replicas.iter().enumerate() {
        if outgoing.durability.syncs_at(position as u32) && !receipt.durable {
            let cause = "acknowledged without the durability that was asked for".to_owned();
            let node = Some(NodeId(receipt.node_id));
            return Err(pipeline(StreamFailure { node, cause, ..StreamFailure::default() }));
        }
    }
    Ok(commit)
}
