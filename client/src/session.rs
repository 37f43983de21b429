//! Drives one write: asks the engine what to do, does it, and tells it what came of it.
//!
//! A task per block sends; this driver, which alone talks to the namenode, only waits and passes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit};
use doldam_proto::file::Durability;
use doldam_proto::id::InodeId;
use doldam_proto::path::FsPath;
use doldam_runtime::net::BoxFuture;
use doldam_runtime::retry::Backoff;
use doldam_runtime::tasks::spawn_detached;
use doldam_runtime::telemetry::{TraceId, request_span};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::Progress;
use crate::block_stream::send::{Outgoing, SendFailure, SendWatch, send_block};
use crate::client::Inner;
use crate::create::WriteOptions;
use crate::engine::write_pipeline::{
    Allocation, WriteAction, WriteEvent, WriteLimits, WritePipeline,
};
use crate::error::ClientError;
use crate::metadata::{Created, Lease, bad_answer};
use crate::source::BlockSource;
use crate::writer::WriteReport;

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
    /// The block is acknowledged: its bytes are not needed again.
    fn release(&self, index: u32);
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
        let created = inner.metadata.create(&path, options, allocate_first, &trace).await?;
        let Created { inode, block_bytes, durability, first } = created;
        let (inner, settled) = (Arc::clone(inner), false);
        let unfinished = inner.unfinished.token();
        let write = Self {
            inner,
            path,
            inode,
            block_bytes,
            durability,
            trace,
            settled,
            unfinished,
            _lease: lease,
        };
        Ok((write, first))
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

/// The driver of one write.
pub(crate) struct Session<S> {
    write: OpenWrite,
    supply: Arc<S>,
    pipeline: WritePipeline,
    /// Senders of blocks under way.
    senders: BTreeMap<u32, AbortOnDropHandle<()>>,
    meters: BTreeMap<u32, Arc<Meter>>,
    events: (mpsc::Sender<WriteEvent>, mpsc::Receiver<WriteEvent>),
    fatal: (mpsc::Sender<ClientError>, mpsc::Receiver<ClientError>),
    /// The allocation under way; it comes to nothing if no node is left beyond those excluded.
    request: Option<BoxFuture<'static, Result<Option<AllocatedBlock>, ClientError>>>,
    progress: Option<Progress>,
}

impl<S: Supply + 'static> Session<S> {
    pub(crate) fn new(
        write: OpenWrite,
        first: Option<AllocatedBlock>,
        supply: Arc<S>,
        parallel: usize,
        progress: Option<Progress>,
    ) -> Self {
        let limits = WriteLimits {
            sending_max: parallel,
            unfinished_max: parallel + 1,
            attempts_max: write.inner.config.block_attempts_max,
        };
        Self {
            write,
            supply,
            pipeline: WritePipeline::new(limits, first),
            senders: BTreeMap::new(),
            meters: BTreeMap::new(),
            // Each sender has at most two events waiting: all sent, and its end.
            events: mpsc::channel(2 * limits.unfinished_max),
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
            while let Some(action) = self.pipeline.poll() {
                match action {
                    WriteAction::Allocate(allocation) => self.allocate(allocation),
                    WriteAction::Send { block } => self.send(block)?,
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
                self.pipeline.handle(match answer? {
                    Some(block) => WriteEvent::Allocated { block },
                    None => WriteEvent::NoneLeft,
                });
            }
            () = self.supply.changed() => {}
        }
        Ok(())
    }

    fn ended(&mut self, event: WriteEvent) {
        match &event {
            WriteEvent::Done { index, .. } => {
                self.senders.remove(index);
                self.meters.remove(index);
                self.supply.release(*index);
            }
            WriteEvent::Failed { index, cause, .. } => {
                tracing::debug!(path = %self.write.path, index, %cause, "a pipeline failed");
                self.senders.remove(index);
            }
            WriteEvent::Stalled { index } => {
                self.senders.remove(index);
            }
            WriteEvent::Sent { .. }
            | WriteEvent::Available { .. }
            | WriteEvent::Ended { .. }
            | WriteEvent::Allocated { .. }
            | WriteEvent::NoneLeft => {}
        }
        self.pipeline.handle(event);
    }

    fn allocate(&mut self, allocation: Allocation) {
        let (inner, inode) = (Arc::clone(&self.write.inner), self.write.inode);
        let trace = self.write.trace.clone();
        self.request = Some(Box::pin(async move {
            let mut backoff = Backoff::new(ROUND_PAUSE.0, ROUND_PAUSE.1);
            let random = &*inner.metadata.seams.random;
            let pause = (0..allocation.rounds).map(|_| backoff.next_pause(random)).last();
            tokio::time::sleep(pause.unwrap_or_default()).await;
            match inner.metadata.allocate(inode, &allocation, &trace).await {
                Err(ClientError::Refused(FsError::NoDatanodes { .. }))
                    if !allocation.excluded.is_empty() =>
                {
                    Ok(None)
                }
                allocated => allocated.map(Some),
            }
        }));
    }

    fn send(&mut self, block: AllocatedBlock) -> Result<(), ClientError> {
        let index = block.index;
        let Some(source) = self.supply.block(index) else {
            // The engine starts only what the supply has announced.
            return Err(ClientError::Stopped { operation: "write" });
        };
        let meter = self.meters.entry(index).or_insert_with(|| Arc::new(Meter::default()));
        let watch = Watch {
            meter: Arc::clone(meter),
            progress: self.progress.clone(),
            index,
            events: self.events.0.clone(),
        };
        let outgoing = Outgoing {
            block,
            block_bytes: self.write.block_bytes,
            durability: self.write.durability,
            trace: self.write.trace.as_str().to_owned(),
        };
        let (inner, fatal) = (Arc::clone(&self.write.inner), self.fatal.0.clone());
        let sender = async move {
            let sent = send_block(&inner.streams, &outgoing, &source, &watch).await;
            drop(source);
            let event = match sent {
                Ok(commit) => WriteEvent::Done { index, commit },
                Err(SendFailure::Pipeline(failure)) => {
                    WriteEvent::Failed { index, node: failure.node, cause: failure.cause }
                }
                Err(SendFailure::Stalled) => WriteEvent::Stalled { index },
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
        let local = self.pipeline.digest().ok_or_else(|| bad_answer("a file without a digest"))?;
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
        match status.digest {
            Some(cluster) if cluster != local => {
                Err(ClientError::DigestMismatch { path, cluster, local })
            }
            Some(_) => Ok(WriteReport {
                status,
                bytes: length,
                under_replicated_blocks,
                rewritten_blocks: self.pipeline.rewritten_blocks(),
            }),
            None => Err(bad_answer(format!("{path} is a directory"))),
        }
    }
}

/// How much of a block was reported as progress, over all tries.
#[derive(Debug, Default)]
struct Meter {
    highest: AtomicU64,
}

struct Watch {
    meter: Arc<Meter>,
    progress: Option<Progress>,
    index: u32,
    events: mpsc::Sender<WriteEvent>,
}

impl SendWatch for Watch {
    fn acknowledged(&self, bytes: u64) {
        let before = self.meter.highest.fetch_max(bytes, Ordering::AcqRel);
        if let Some(progress) = &self.progress
            && bytes > before
        {
            progress(bytes - before);
        }
    }

    fn all_sent(&self) {
        // Were there no room, the next block would start a little later.
        _ = self.events.try_send(WriteEvent::Sent { index: self.index });
    }
}
