//! Writing a file: the writer, and what it reports at the end.

mod filling;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use doldam_proto::FsError;
use doldam_proto::block::AllocatedBlock;
use doldam_proto::digest::BlockTree;
use doldam_proto::file::{Durability, FileStatus};
use doldam_proto::limits::FRAME_PAYLOAD_BYTES;
use doldam_proto::path::FsPath;
use doldam_runtime::tasks::spawn_detached;
use tokio::io::AsyncWrite;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::PollSemaphore;

use crate::append::Tail;
use crate::engine::write_pipeline::WriteStart;
use crate::error::ClientError;
use crate::feed::Feed;
use crate::session::{OpenWrite, Session};
use filling::Filling;
pub(crate) use filling::TailEnd;

/// A file being written.
///
/// Bytes are sent while they are written, in the background; [`close`](Self::close) makes them visible, or
/// [`flush`](Self::flush) on the way. What is not acknowledged yet is kept, up to
/// [`retained_bytes_max`](crate::ClientConfig::retained_bytes_max), so that a block can be gone on with, or sent again,
/// when datanodes fail; beyond that writing waits.
///
/// * `write` is cancel-safe. If it fails the file is given up, and every later call says why.
/// * `AsyncWrite::poll_flush` is [`flush`](Self::flush): a round trip to the namenode if anything was written since the
///   last one. [`tokio::io::copy`] flushes whenever its source has nothing to read.
/// * `shutdown` is `close`; its report is at [`report`](Self::report), and a `close` after it returns it again.
/// * Dropping it without either gives the write up in the background. What was never flushed is never visible then;
///   what was flushed, or there before, stays, and the cluster closes the file there or a little behind it.
pub struct FileWriter {
    path: FsPath,
    durability: Durability,
    feed: Arc<Feed>,
    permits: PollSemaphore,
    filling: Filling,
    length: u64,
    state: State,
}

enum State {
    Open(JoinHandle<Result<WriteReport, ClientError>>),
    /// All bytes are handed over, the end is awaited.
    Closing(JoinHandle<Result<WriteReport, ClientError>>),
    Closed(Box<WriteReport>),
    Failed(Arc<ClientError>),
}

impl FileWriter {
    /// Starts to drive a new file, keeping at most `bound` bytes.
    pub(crate) fn create(write: OpenWrite, first: Option<AllocatedBlock>, bound: u64) -> Self {
        Self::start(write, WriteStart::New { first }, None, None, bound)
    }

    /// Starts to drive a file that is written on, behind `length` bytes; keeps at most `bound` bytes.
    pub(crate) fn append(write: OpenWrite, length: u64, tail: Option<Tail>, bound: u64) -> Self {
        let (open, tree, end) = match tail {
            Some(Tail { open, tree, end }) => (Some(open), Some(tree), Some(end)),
            None => (None, None, None),
        };
        Self::start(write, WriteStart::Behind { length, tail: open }, tree, end, bound)
    }

    fn start(
        write: OpenWrite,
        start: WriteStart,
        tree: Option<BlockTree>,
        end: Option<TailEnd>,
        bound: u64,
    ) -> Self {
        let (path, durability) = (write.path.clone(), write.durability);
        let block_bytes = write.block_bytes.get();
        let (length, visible) = match &start {
            WriteStart::New { .. } => (0, None),
            WriteStart::Behind { length, .. } => (*length, Some(*length)),
        };
        let permits = Arc::new(Semaphore::new((bound / FRAME_PAYLOAD_BYTES as u64) as usize));
        let first_index = (length / block_bytes) as u32;
        let feed = Arc::new(Feed::new(Arc::clone(&permits), first_index, visible));
        let session = Session::new(write, start, tree, Arc::clone(&feed), 1, None);
        let ended = Arc::clone(&feed);
        let task = spawn_detached("write", async move {
            let outcome = session.run().await;
            ended.close();
            outcome
        });
        let filling = Filling::new(Arc::clone(&feed), block_bytes, end);
        let (permits, state) = (PollSemaphore::new(permits), State::Open(task));
        Self { path, durability, feed, permits, filling, length, state }
    }

    /// Where the file will be, or is.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Length of the file so far, with what was there before.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes everything written so far visible: when this returns, every reader that opens the file sees these bytes,
    /// and a digest of them, and all datanodes of each block have them, though not necessarily on stable storage: they
    /// survive the death of processes, and of all but one of the datanodes of each block. The first flush of a new file
    /// gives it its path, as `close` does, and replaces what is there if that was asked for.
    ///
    /// Costs a round trip to the datanodes and one to the namenode. Cancel-safe: if the future is dropped, the flush
    /// goes on in the background, and another waits for it.
    ///
    /// # Errors
    /// If anything failed since the writer was opened. The file is given up then; what an earlier flush made visible
    /// stays.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|context| self.poll_flush_to(context, false)).await.map_err(ClientError::Earlier)
    }

    /// [`flush`](Self::flush), and everything written so far is on stable storage on all datanodes of its block before
    /// it is visible: it survives a loss of power of all of them.
    ///
    /// # Errors
    /// As there; and, without any effect, if the file is not written with
    /// [`Durability::All`]: blocks that were finished with less are not on stable storage.
    pub async fn sync(&mut self) -> Result<(), ClientError> {
        if self.durability != Durability::All {
            let why = format!(
                "{} is written with durability {}, so that blocks finished before may not be on stable storage: \
                 sync needs all",
                self.path, self.durability
            );
            return Err(ClientError::InvalidOption { option: "durability", why });
        }
        poll_fn(|context| self.poll_flush_to(context, true)).await.map_err(ClientError::Earlier)
    }

    fn poll_flush_to(
        &mut self,
        context: &mut Context<'_>,
        sync: bool,
    ) -> Poll<Result<(), Arc<ClientError>>> {
        match &self.state {
            State::Open(_) if self.feed.is_closed() => self.poll_closed_early(context),
            State::Open(_) => {
                let length = self.length;
                if self.feed.is_flushed(length, sync) {
                    return Poll::Ready(Ok(()));
                }
                self.filling.flush(sync);
                self.feed.want_flush(length, sync);
                ready!(self.feed.poll_flushed(context, length, sync));
                if self.feed.is_flushed(length, sync) {
                    return Poll::Ready(Ok(()));
                }
                self.poll_closed_early(context)
            }
            State::Failed(error) => Poll::Ready(Err(Arc::clone(error))),
            State::Closing(_) => self.poll_ended(context),
            State::Closed(_) => Poll::Ready(Ok(())),
        }
    }

    /// What the write came to, after `shutdown`.
    pub fn report(&self) -> Option<&WriteReport> {
        match &self.state {
            State::Closed(report) => Some(report),
            State::Open(_) | State::Closing(_) | State::Failed(_) => None,
        }
    }

    /// Ends the write: when this returns the file is visible and as durable as its
    /// [`Durability`] says.
    ///
    /// Not cancel-safe: if the future is dropped, it is open whether the file becomes visible, whole.
    ///
    /// # Errors
    /// If anything failed since the writer was opened. Nothing is visible then, unless the error is
    /// [`ClientError::Unreachable`]: the namenode was lost at the last step, which may have been done.
    pub async fn close(mut self) -> Result<WriteReport, ClientError> {
        match poll_fn(|context| self.poll_close(context)).await {
            Ok(()) => match std::mem::replace(&mut self.state, State::Failed(stopped())) {
                State::Closed(report) => Ok(*report),
                State::Open(_) | State::Closing(_) | State::Failed(_) => {
                    Err(ClientError::Stopped { operation: "close" })
                }
            },
            // Alone with its cause, as it almost always is, it is returned itself.
            Err(error) => {
                self.state = State::Failed(stopped());
                Err(Arc::try_unwrap(error).unwrap_or_else(ClientError::Earlier))
            }
        }
    }

    /// Gives the write up; nothing becomes visible. What was flushed, or there before, stays.
    ///
    /// # Errors
    /// If the write had failed before, or ended with `shutdown` already.
    pub async fn abandon(mut self) -> Result<(), ClientError> {
        self.feed.abandon();
        match std::mem::replace(&mut self.state, State::Failed(stopped())) {
            State::Open(task) | State::Closing(task) => match task.await {
                Ok(Err(ClientError::Stopped { .. })) => Ok(()),
                Ok(Err(error)) => Err(error),
                Ok(Ok(report)) => Err(FsError::LeaseLost { inode: report.status.inode.0 }.into()),
                Err(_) => Err(ClientError::Stopped { operation: "abandon" }),
            },
            State::Closed(report) => {
                Err(FsError::LeaseLost { inode: report.status.inode.0 }.into())
            }
            State::Failed(error) => Err(ClientError::Earlier(error)),
        }
    }

    /// Takes as many of `bytes` as fit the piece being filled.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Arc<ClientError>>> {
        if !matches!(self.state, State::Open(_)) {
            return Poll::Ready(Err(self.not_open()));
        }
        if self.filling.needs_permit() {
            match self.permits.poll_acquire(context) {
                Poll::Ready(Some(permit)) => self.filling.give(permit),
                Poll::Ready(None) => {}
                Poll::Pending => {
                    self.feed.press();
                    return Poll::Pending;
                }
            }
        }
        if self.feed.is_closed() {
            return self.poll_closed_early(context).map_ok(|()| 0);
        }
        let taken = self.filling.take(bytes);
        self.length += taken as u64;
        Poll::Ready(Ok(taken))
    }

    /// Ends the block that is written on where it starts to be new, though nothing was written: what came behind is
    /// gone then.
    pub(crate) fn cut(&mut self) {
        self.filling.cut();
    }

    /// The driver has ended though it was not asked to: says why.
    fn poll_closed_early(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Arc<ClientError>>> {
        self.poll_ended(context).map(|ended| ended.and(Err(stopped())))
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Arc<ClientError>>> {
        match &self.state {
            State::Open(_) => {
                self.filling.end();
                self.feed.end(self.length);
                let state = std::mem::replace(&mut self.state, State::Failed(stopped()));
                if let State::Open(task) = state {
                    self.state = State::Closing(task);
                }
                self.poll_ended(context)
            }
            State::Closing(_) => self.poll_ended(context),
            State::Closed(_) => Poll::Ready(Ok(())),
            State::Failed(error) => Poll::Ready(Err(Arc::clone(error))),
        }
    }

    /// Waits for the driver's result.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Arc<ClientError>>> {
        let (State::Open(task) | State::Closing(task)) = &mut self.state else {
            return Poll::Ready(Err(self.not_open()));
        };
        let outcome = ready!(Pin::new(task).poll(context));
        let (state, result) = match outcome {
            Ok(Ok(report)) => (State::Closed(Box::new(report)), Ok(())),
            Ok(Err(error)) => {
                let error = Arc::new(error);
                (State::Failed(Arc::clone(&error)), Err(error))
            }
            Err(_) => (State::Failed(stopped()), Err(stopped())),
        };
        self.state = state;
        Poll::Ready(result)
    }

    fn not_open(&self) -> Arc<ClientError> {
        match &self.state {
            State::Failed(error) => Arc::clone(error),
            State::Open(_) | State::Closing(_) | State::Closed(_) => {
                Arc::new(ClientError::InvalidOption {
                    option: "write",
                    why: format!("{} was closed before", self.path),
                })
            }
        }
    }
}

fn stopped() -> Arc<ClientError> {
    Arc::new(ClientError::Stopped { operation: "write" })
}

fn io_error(error: Arc<ClientError>) -> io::Error {
    ClientError::Earlier(error).into()
}

impl AsyncWrite for FileWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_take(context, bytes).map_err(io_error)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_to(context, false).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context).map_err(io_error)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // The driver then tells the namenode; it outlives this.
        self.feed.abandon();
    }
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("FileWriter");
        debug.field("path", &self.path).field("length", &self.length).finish_non_exhaustive()
    }
}

/// What a finished write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteReport {
    /// The file as it is now, with its digest.
    pub status: FileStatus,
    /// Bytes written, without what was there before.
    pub bytes: u64,
    /// Blocks with fewer replicas than wanted: too few datanodes took part. Healed later by the cluster.
    pub under_replicated_blocks: u32,
    /// Blocks that had to be sent again from their start because no datanode was left that had a part of them.
    pub rewritten_blocks: u32,
    /// Blocks that other datanodes went on with because one failed or was too slow.
    pub recovered_blocks: u32,
}
