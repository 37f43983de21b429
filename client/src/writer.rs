//! Writing a file: the writer, and what it reports at the end.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use doldam_proto::FsError;
use doldam_proto::block::AllocatedBlock;
use doldam_proto::file::FileStatus;
use doldam_proto::limits::FRAME_PAYLOAD_BYTES;
use doldam_proto::path::FsPath;
use doldam_runtime::tasks::spawn_detached;
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::PollSemaphore;

use crate::error::ClientError;
use crate::feed::Feed;
use crate::session::{OpenWrite, Session};
use crate::source::RetainedBlock;

/// A file being written.
///
/// Bytes are sent while they are written, in the background; [`close`](Self::close) makes them visible. What is not
/// acknowledged yet is kept, up to [`retained_bytes_max`](crate::ClientConfig::retained_bytes_max), so that
/// a block can be sent again to other datanodes; beyond that writing waits.
///
/// * `write` is cancel-safe. If it fails the file is given up, and every later call says why.
/// * `flush` waits for nothing and promises nothing: bytes become visible and durable with `close` only.
/// * `shutdown` is `close`; its report is at [`report`](Self::report), and a `close` after it returns it again.
/// * Dropping it without either gives the write up in the background; nothing is ever visible then.
pub struct FileWriter {
    path: FsPath,
    block_bytes: u64,
    feed: Arc<Feed>,
    permits: PollSemaphore,
    /// For the chunk being filled.
    permit: Option<OwnedSemaphorePermit>,
    chunk: BytesMut,
    /// The block being filled, once it has a chunk.
    block: Option<Arc<RetainedBlock>>,
    /// Bytes of the block being filled, the chunk included.
    block_filled: u64,
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
    /// Starts to drive `write`, keeping at most `bound` bytes.
    pub(crate) fn start(write: OpenWrite, first: Option<AllocatedBlock>, bound: u64) -> Self {
        let (path, block_bytes) = (write.path.clone(), write.block_bytes.get());
        let permits = Arc::new(Semaphore::new((bound / FRAME_PAYLOAD_BYTES as u64) as usize));
        let feed = Arc::new(Feed::new(Arc::clone(&permits)));
        let session = Session::new(write, first, Arc::clone(&feed), 1, None);
        let ended = Arc::clone(&feed);
        let task = spawn_detached("write", async move {
            let outcome = session.run().await;
            ended.close();
            outcome
        });
        Self {
            path,
            block_bytes,
            feed,
            permits: PollSemaphore::new(permits),
            permit: None,
            chunk: BytesMut::new(),
            block: None,
            block_filled: 0,
            length: 0,
            state: State::Open(task),
        }
    }

    /// Where the file will be.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What the write came to, after `shutdown`.
    pub fn report(&self) -> Option<&WriteReport> {
        match &self.state {
            State::Closed(report) => Some(report),
            State::Open(_) | State::Closing(_) | State::Failed(_) => None,
        }
    }

    /// Ends the write: when this returns the file is visible and as durable as its
    /// [`Durability`](crate::Durability) says.
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

    /// Gives the write up; nothing becomes visible.
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

    /// Takes as many of `bytes` as fit the chunk being filled.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Arc<ClientError>>> {
        if !matches!(self.state, State::Open(_)) {
            return Poll::Ready(Err(self.not_open()));
        }
        if self.permit.is_none() {
            self.permit = ready!(self.permits.poll_acquire(context));
        }
        if self.permit.is_none() || self.feed.is_closed() {
            return self.poll_ended(context).map(|ended| match ended {
                Ok(()) => Err(stopped()),
                Err(error) => Err(error),
            });
        }
        if self.chunk.capacity() == 0 {
            self.chunk = self.feed.buffers().take();
            if self.length > 0 {
                // Not so for the first chunk, as most files are small.
                self.chunk.reserve(self.block_bytes.min(FRAME_PAYLOAD_BYTES as u64) as usize);
            }
        }
        let chunk_room = FRAME_PAYLOAD_BYTES - self.chunk.len();
        let room = (self.block_bytes - self.block_filled).min(chunk_room as u64) as usize;
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        self.block_filled += taken as u64;
        self.length += taken as u64;
        if taken == room {
            self.push_chunk(self.block_filled == self.block_bytes);
        }
        Poll::Ready(Ok(taken))
    }

    /// Hands the chunk over; `last` if the block ends with it.
    fn push_chunk(&mut self, last: bool) {
        if let Some(permit) = self.permit.take() {
            let chunk = std::mem::take(&mut self.chunk).freeze();
            let new = self.block.is_none();
            let block = self.block.get_or_insert_default();
            block.push(chunk, permit, last);
            if new {
                self.feed.start(Arc::clone(block));
            }
        }
        if last {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        if self.block.take().is_some() {
            self.feed.whole();
        }
        self.block_filled = 0;
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Arc<ClientError>>> {
        match &self.state {
            State::Open(_) => {
                if !self.chunk.is_empty() {
                    self.push_chunk(true);
                } else if let Some(block) = &self.block {
                    block.end();
                    self.end_block();
                }
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
        match &self.state {
            State::Open(_) if self.feed.is_closed() => self.poll_ended(context).map_err(io_error),
            State::Failed(error) => Poll::Ready(Err(io_error(Arc::clone(error)))),
            State::Open(_) | State::Closing(_) | State::Closed(_) => Poll::Ready(Ok(())),
        }
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
    /// Bytes written.
    pub bytes: u64,
    /// Blocks with fewer replicas than wanted: too few datanodes took part. Healed later by the cluster.
    pub under_replicated_blocks: u32,
    /// Blocks that had to be written again because a pipeline failed.
    pub rewritten_blocks: u32,
}
