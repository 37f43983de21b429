//! Drives one write: asks the engine what to do, does it, and tells it what came of it.
//!
//! A task per block sends; this driver, which alone talks to the namenode, only waits and passes on.

mod tracked;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit};
use doldam_proto::digest::BlockTree;
use doldam_proto::file::Durability;
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::path::FsPath;
use doldam_runtime::net::BoxFuture;
use doldam_runtime::retry::Backoff;
use doldam_runtime::tasks::spawn_detached;
use doldam_runtime::telemetry::{TraceId, request_span};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::Progress;
use crate::block_stream::StreamFailure;
use crate::block_stream::send::{Outgoing, SendFailure, SentBlock, send_block};
use crate::client::Inner;
use crate::create::WriteOptions;
use crate::engine::write_pipeline::{
    Allocation, Flush, Recovery, ResumeAt, WriteAction, WriteEvent, WriteLimits, WritePipeline,
    WriteStart,
};
use crate::error::ClientError;
use crate::metadata::{Appended, Created, Lease, Recovered, bad_answer};
use crate::source::BlockSource;
use crate::writer::WriteReport;
use tracked::{Tracked, Watch};

/// First and longest pause before a block is sent again although every node has failed already.
const ROUND_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Where the driver gets the blocks from.
pub(crate) trait Supply: Send + Sync {
    /// How far the source is, as events for the engine; an error if it was given up.
    fn poll_events(&self) -> Result<Vec<WriteEvent>, ClientError>;
    /// Resolves when [`poll_events`](Self::poll_events) may have something new. Cancel-safe.
    fn changed(&self) -> BoxFuture<'_, ()>;
    /// The bytes of a block that was reported as available.
    fn block(&self, index: u32) -> Option<BlockSource>;
    /// The first `bytes` of a block are acknowledged.
    fn acknowledged(&self, _index: u32, _bytes: u64) {}
    /// The block is acknowledged: its bytes are not needed again.
    fn release(&self, index: u32);
    /// The first `length` bytes of the file are visible, with `sync` also on stable storage.
    fn flushed(&self, _length: u64, _sync: bool) {}
    /// The last chance to object before the file becomes visible.
    fn check(&self) -> Result<(), ClientError>;
}

/// A file that the namenode keeps for this writer. If it is dropped before it is complete it is abandoned in the
/// background; if even that is lost, when the lease ends.
#[derive(Debug)]
pub(crate) struct OpenWrite {
    pub(crate) inner: Arc<Inner>,
    pub(crate) path: FsPath,
    pub(crate) inode: InodeId,
    pub(crate) block_bytes: BlockBytes,
    pub(crate) durability: Durability,
    pub(crate) trace: TraceId,
    settled: bool,
    unfinished: TaskTrackerToken,
    _lease: Lease,
}

impl OpenWrite {
    /// Begins a write; also returns block 0 if `allocate_first`.
    pub(crate) async fn create(
        inner: &Arc<Inner>,
        path: FsPath,
        options: &WriteOptions,
        allocate_first: bool,
    ) -> Result<(Self, Option<AllocatedBlock>), ClientError> {
        let trace = inner.metadata.new_trace();
        let lease = Lease::hold(&inner.metadata);
        let shunned = if allocate_first { inner.choice.shunned() } else { Vec::new() };
        let create =
            |excluded| inner.metadata.create(&path, options, allocate_first, excluded, &trace);
        let created = match create(&shunned).await {
            // Better one that may not answer than none.
            Err(ClientError::Refused(FsError::NoDatanodes { .. })) if !shunned.is_empty() => {
                create(&[]).await?
            }
            created => created?,
        };
        let Created { inode, block_bytes, durability, first } = created;
        let write = Self::new(inner, path, inode, block_bytes, durability, trace, lease);
        Ok((write, first))
    }

    /// Begins to write on behind the end of a file, or behind its first `truncate_to` bytes.
    pub(crate) async fn append(
        inner: &Arc<Inner>,
        path: FsPath,
        truncate_to: Option<u64>,
    ) -> Result<(Self, Appended), ClientError> {
        let trace = inner.metadata.new_trace();
        let lease = Lease::hold(&inner.metadata);
        let appended = inner.metadata.append(&path, truncate_to, &trace).await?;
        let Appended { inode, block_bytes, durability, .. } = appended;
        let write = Self::new(inner, path, inode, block_bytes, durability, trace, lease);
        Ok((write, appended))
    }

    fn new(
        inner: &Arc<Inner>,
        path: FsPath,
        inode: InodeId,
        block_bytes: BlockBytes,
        durability: Durability,
        trace: TraceId,
        lease: Lease,
    ) -> Self {
        let unfinished = inner.unfinished.token();
        let (inner, settled) = (Arc::clone(inner), false);
        Self {
            inner,
            path,
            inode,
            block_bytes,
            durability,
            trace,
            settled,
            unfinished,
            _lease: lease,
        }
    }

    /// Gives the write up.
    pub(crate) async fn abandon(mut self) -> Result<(), ClientError> {
        let abandoned = self.inner.metadata.abandon(self.inode, &self.trace).await;
        self.settled = true;
        abandoned
    }
}

impl Drop for OpenWrite {
    fn drop(&mut self) {
        if self.settled || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (inner, inode, trace) = (Arc::clone(&self.inner), self.inode, self.trace.clone());
        let unfinished = self.unfinished.clone();
        // Runs to its end unless the runtime ends first; the lease then does the same, later.
        drop(spawn_detached("abandon write", async move {
            let _unfinished = unfinished;
            if let Err(error) = inner.metadata.abandon(inode, &trace).await {
                tracing::warn!(%inode, %error, "an unfinished write is left to its lease");
            }
        }));
    }
}

type Answer = BoxFuture<'static, Result<WriteEvent, ClientError>>;

/// The driver of one write.
pub(crate) struct Session<S> {
    write: OpenWrite,
    supply: Arc<S>,
    pipeline: WritePipeline,
    /// Bytes of the file before the write.
    behind: u64,
    /// Senders of blocks under way.
    senders: BTreeMap<u32, AbortOnDropHandle<()>>,
    blocks: BTreeMap<u32, Arc<Tracked>>,
    events: (mpsc::Sender<WriteEvent>, mpsc::Receiver<WriteEvent>),
    fatal: (mpsc::Sender<ClientError>, mpsc::Receiver<ClientError>),
    /// Some block has what a flush waits for.
    reached: Arc<Notify>,
    /// The request to the namenode that is under way.
    request: Option<Answer>,
    progress: Option<Progress>,
}

impl<S: Supply + 'static> Session<S> {
    /// `tree` is that of the bytes before `start`, if it is inside a block.
    pub(crate) fn new(
        write: OpenWrite,
        start: WriteStart,
        tree: Option<BlockTree>,
        supply: Arc<S>,
        parallel: usize,
        progress: Option<Progress>,
    ) -> Self {
        let limits = WriteLimits {
            sending_max: parallel,
            unfinished_max: parallel + 1,
            attempts_max: write.inner.config.block_attempts_max,
        };
        let behind = match &start {
            WriteStart::New { .. } => 0,
            WriteStart::Behind { length, .. } => *length,
        };
        let first_index = (behind / write.block_bytes.get()) as u32;
        let blocks = tree.map(|tree| (first_index, Arc::new(Tracked::new(tree))));
        Self {
            pipeline: WritePipeline::new(limits, write.block_bytes, start),
            write,
            supply,
            behind,
            senders: BTreeMap::new(),
            blocks: blocks.into_iter().collect(),
            // Each sender has at most two events waiting: all sent, and its end.
            events: mpsc::channel(2 * limits.unfinished_max),
            reached: Arc::default(),
            fatal: mpsc::channel(1),
            request: None,
            progress,
        }
    }

    /// Runs the write to its end. Whatever goes wrong, the write is given up before the error is returned.
    pub(crate) async fn run(self) -> Result<WriteReport, ClientError> {
        let span = request_span(&self.write.trace);
        self.run_inside().instrument(span).await
    }

    async fn run_inside(mut self) -> Result<WriteReport, ClientError> {
        let outcome = self.drive().await;
        self.senders.clear();
        let Err(error) = outcome else { return outcome };
        if !self.write.settled
            && let Err(abandon) = self.write.abandon().await
        {
            tracing::debug!(error = %abandon, "an unfinished write is left to its lease");
        }
        Err(error)
    }

    async fn drive(&mut self) -> Result<WriteReport, ClientError> {
        loop {
            for event in self.supply.poll_events()? {
                self.pipeline.handle(event);
            }
            for (index, tracked) in &self.blocks {
                if let Some(event) = tracked.take_reached(*index) {
                    self.pipeline.handle(event);
                }
            }
            while let Some(action) = self.pipeline.poll() {
                match action {
                    WriteAction::Allocate(allocation) => self.allocate(allocation),
                    WriteAction::Recover(recovery) => self.recover(recovery),
                    WriteAction::Send { block, resume } => self.send(block, resume)?,
                    WriteAction::Flush(flush) => self.flush(flush),
                    WriteAction::Complete { length, commits } => {
                        return self.complete(length, commits).await;
                    }
                    WriteAction::Fail { index, tried } => {
                        let path = self.write.path.to_string();
                        return Err(ClientError::BlockUnwritable { path, index, tried });
                    }
                }
            }
            self.wait().await?;
        }
    }

    /// Waits for whatever comes first, and tells the engine.
    async fn wait(&mut self) -> Result<(), ClientError> {
        let request = async {
            match &mut self.request {
                Some(request) => request.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // One history of inputs has one outcome; no arm below is ready for ever.
            Some(event) = self.events.1.recv() => self.ended(event),
            Some(error) = self.fatal.1.recv() => return Err(error),
            answer = request => {
                self.request = None;
                let event = answer?;
                if let WriteEvent::Flushed { length, sync } = event {
                    self.supply.flushed(length, sync);
                }
                self.pipeline.handle(event);
            }
            () = self.reached.notified() => {}
            () = self.supply.changed() => {}
        }
        Ok(())
    }

    fn ended(&mut self, event: WriteEvent) {
        match &event {
            WriteEvent::Done { index, .. } => {
                self.senders.remove(index);
                self.blocks.remove(index);
                self.supply.release(*index);
            }
            WriteEvent::Failed { index, cause, acknowledged, .. } => {
                tracing::debug!(path = %self.write.path, index, %cause, acknowledged, "a pipeline failed");
                self.senders.remove(index);
            }
            WriteEvent::Stalled { index, .. } | WriteEvent::Gone { index, .. } => {
                self.senders.remove(index);
            }
            WriteEvent::Sent { .. }
            | WriteEvent::Reached { .. }
            | WriteEvent::Available { .. }
            | WriteEvent::Ended { .. }
            | WriteEvent::FlushWanted { .. }
            | WriteEvent::Allocated { .. }
            | WriteEvent::Recovered { .. }
            | WriteEvent::NoneLeft
            | WriteEvent::Flushed { .. } => {}
        }
        self.pipeline.handle(event);
    }

    fn allocate(&mut self, mut allocation: Allocation) {
        self.shun(allocation.rounds, &mut allocation.excluded, &[]);
        let (inner, inode) = (Arc::clone(&self.write.inner), self.write.inode);
        let trace = self.write.trace.clone();
        self.request = Some(Box::pin(async move {
            pause(&inner, allocation.rounds).await;
            let allocated = inner.metadata.allocate(inode, &allocation, &trace).await;
            unless_none_left(
                allocated.map(|block| WriteEvent::Allocated { block }),
                &allocation.excluded,
            )
        }));
    }

    /// Other writes of this client may have found nodes that do not answer: no new replica goes there, unless there are
    /// no others.
    fn shun(&self, rounds: u32, excluded: &mut Vec<NodeId>, survivors: &[NodeId]) {
        if rounds == 0 {
            let shunned = self.write.inner.choice.shunned();
            excluded.extend(shunned.into_iter().filter(|node| !survivors.contains(node)));
            excluded.sort_unstable();
            excluded.dedup();
        }
    }

    fn recover(&mut self, mut recovery: Recovery) {
        self.shun(recovery.rounds, &mut recovery.excluded, &recovery.survivors);
        let (inner, inode) = (Arc::clone(&self.write.inner), self.write.inode);
        let trace = self.write.trace.clone();
        self.request = Some(Box::pin(async move {
            pause(&inner, recovery.rounds).await;
            let recovered = inner.metadata.recover_block(inode, &recovery, &trace).await;
            let recovered = recovered.map(|Recovered { block, length, holders }| {
                WriteEvent::Recovered { block, length, holders }
            });
            unless_none_left(recovered, &recovery.excluded)
        }));
    }

    fn flush(&mut self, flush: Flush) {
        let (inner, inode) = (Arc::clone(&self.write.inner), self.write.inode);
        let trace = self.write.trace.clone();
        let (length, sync) = (flush.length, flush.sync);
        self.request = Some(Box::pin(async move {
            inner.metadata.flush(inode, flush, &trace).await?;
            Ok(WriteEvent::Flushed { length, sync })
        }));
    }

    fn send(&mut self, block: AllocatedBlock, resume: Option<ResumeAt>) -> Result<(), ClientError> {
        let index = block.index;
        let Some(source) = self.supply.block(index) else {
            // The engine starts only what the supply has announced.
            return Err(ClientError::Stopped { operation: "write" });
        };
        let file_offset = u64::from(index) * self.write.block_bytes.get();
        let tracked = self.blocks.entry(index);
        let tracked =
            tracked.or_insert_with(|| Arc::new(Tracked::new(BlockTree::new(file_offset))));
        let watch = Watch {
            tracked: Arc::clone(tracked),
            supply: Arc::clone(&self.supply) as Arc<dyn Supply>,
            progress: self.progress.clone(),
            index,
            events: self.events.0.clone(),
            reached: Arc::clone(&self.reached),
        };
        let outgoing = Outgoing {
            block,
            resume,
            block_bytes: self.write.block_bytes,
            durability: self.write.durability,
            trace: self.write.trace.as_str().to_owned(),
        };
        let (inner, fatal) = (Arc::clone(&self.write.inner), self.fatal.0.clone());
        let sender = async move {
            let tree = watch.tracked.tree.lock().take();
            let tree = tree.unwrap_or_else(|| BlockTree::new(file_offset));
            let mut sent = SentBlock { tree, acknowledged: 0 };
            let outcome = send_block(&inner.streams, &outgoing, &source, &mut sent, &watch).await;
            drop(source);
            let SentBlock { tree, acknowledged } = sent;
            *watch.tracked.tree.lock() = Some(tree);
            let event = match outcome {
                Ok(commit) => WriteEvent::Done { index, commit },
                Err(SendFailure::Pipeline(StreamFailure { node, cause, stuck, .. })) => {
                    if let Some(node) = node.filter(|_| stuck) {
                        inner.choice.stuck(node);
                    }
                    WriteEvent::Failed { index, node, cause, acknowledged }
                }
                Err(SendFailure::Stalled) => WriteEvent::Stalled { index, acknowledged },
                Err(SendFailure::Gone { kept_from }) => WriteEvent::Gone { index, kept_from },
                Err(SendFailure::Source(error)) => {
                    // If the driver is gone, nobody is left to be told.
                    _ = fatal.send(error).await;
                    return;
                }
            };
            _ = watch.events.send(event).await;
        };
        let sender = spawn_detached("send block", sender.in_current_span());
        self.senders.insert(index, AbortOnDropHandle::new(sender));
        Ok(())
    }

    async fn complete(
        &mut self,
        length: u64,
        commits: Vec<BlockCommit>,
    ) -> Result<WriteReport, ClientError> {
        self.supply.check()?;
        let local = self.pipeline.digest();
        let write = &mut self.write;
        // From here on it is open whether the file is complete, until the namenode says so.
        write.settled = true;
        let completed =
            write.inner.metadata.complete(write.inode, length, commits, &write.trace).await;
        let (status, under_replicated_blocks) = completed.inspect_err(|error| {
            write.settled = error.refusal().is_none();
        })?;
        let path = write.path.to_string();
        if status.length != length {
            return Err(bad_answer(format!("{path} has {} bytes, not {length}", status.length)));
        }
        match (status.digest, local) {
            // Of blocks that were there before the values are not known here.
            (Some(cluster), Some(local)) if cluster != local => {
                Err(ClientError::DigestMismatch { path, cluster, local })
            }
            (Some(_), _) => Ok(WriteReport {
                status,
                bytes: length - self.behind,
                under_replicated_blocks,
                rewritten_blocks: self.pipeline.rewritten_blocks(),
                recovered_blocks: self.pipeline.recovered_blocks(),
            }),
            (None, _) => Err(bad_answer(format!("{path} is a directory"))),
        }
    }
}

/// Waits the longer before a request, the more often every node has failed.
async fn pause(inner: &Inner, rounds: u32) {
    let mut backoff = Backoff::new(ROUND_PAUSE.0, ROUND_PAUSE.1);
    let random = &*inner.metadata.seams.random;
    let pause = (0..rounds).map(|_| backoff.next_pause(random)).last();
    tokio::time::sleep(pause.unwrap_or_default()).await;
}

/// With nodes excluded, having none left is an answer.
fn unless_none_left(
    answer: Result<WriteEvent, ClientError>,
    excluded: &[NodeId],
) -> Result<WriteEvent, ClientError> {
    match answer {
        Err(ClientError::Refused(FsError::NoDatanodes { .. })) if !excluded.is_empty() => {
            Ok(WriteEvent::NoneLeft)
        }
        answer => answer,
    }
}
