//! Reading a file: streaming, ranges, and what was verified.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use doldam_proto::file::FileStatus;
use doldam_proto::id::BlockId;
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::node::NodeAddress;
use doldam_runtime::net::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::block_reader::BlockReader;
use crate::engine::ranges::{join, segments};
use crate::engine::read_plan::ReadAhead;
use crate::error::ClientError;
use crate::open_file::OpenFile;

/// Ranges at most this far apart are fetched together: whole groups are sent in any case.
const JOIN_GAP_BYTES: u64 = GROUP_BYTES;
/// Ranges are fetched together up to this many bytes.
const JOINED_BYTES_MAX: u64 = 8 << 20;

/// A replica that was found bad and reported to the namenode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadReplica {
    /// The block.
    pub block: BlockId,
    /// Who holds the replica.
    pub node: NodeAddress,
    /// What was wrong with it.
    pub what: String,
}

/// What a reader has verified so far. Every byte it handed out is among `bytes_verified`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Bytes checked against the namenode's values.
    pub bytes_verified: u64,
    /// Blocks read from, each time it was turned to.
    pub blocks: u64,
    /// How often the read went on from another replica.
    pub failovers: u64,
    /// How often a second replica was asked because the first one was late, and ...
    pub hedges: u64,
    /// ... how often that one was faster. Each of these is a failover, too.
    pub hedges_won: u64,
    /// Replicas that were found bad, and reported.
    pub bad_replicas: Vec<BadReplica>,
}

/// A file open for reading.
///
/// As a stream ([`AsyncRead`], [`read_chunk`](Self::read_chunk)) it reads ahead by what the connection
/// holds, after a seek by little. [`read_at`](Self::read_at) and [`read_ranges`](Self::read_ranges) go beside the
/// stream. Reading sees the file as it was when it was opened; if it is replaced meanwhile, reading fails with
/// [`FsError::FileChanged`](crate::FsError::FileChanged) where the old blocks are gone, and never mixes the two.
pub struct FileReader {
    file: Arc<OpenFile>,
    /// Verified bytes at `position`.
    chunk: Bytes,
    position: u64,
    // Only ever locked through `get_mut`: the lock makes the reader `Sync`, so that `read_at` may be shared.
    state: Mutex<State>,
}

type NextChunk = Result<Option<Bytes>, ClientError>;

enum State {
    Idle(Box<Stream>),
    Busy(BoxFuture<'static, (Box<Stream>, NextChunk)>),
    /// Between the two.
    Turning,
}

impl FileReader {
    pub(crate) fn new(file: Arc<OpenFile>) -> Self {
        let state = Mutex::new(State::Idle(Stream::at(&file, 0)));
        Self { file, chunk: Bytes::new(), position: 0, state }
    }

    /// The file as it was when it was opened.
    pub fn status(&self) -> &FileStatus {
        &self.file.status
    }

    /// What has been verified so far.
    pub fn verification(&self) -> Verification {
        self.file.verification()
    }

    /// The bytes from `offset`, at most `length`; fewer only at the end of the file. The position of the stream
    /// stays where it is, and several calls may run at once. Cancel-safe.
    ///
    /// # Errors
    /// If no replica of a block can be read, or the file was replaced.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, ClientError> {
        self.read_range(offset..offset.saturating_add(length as u64)).await
    }

    /// The bytes of each range, in the order asked for; cut at the end of the file. Close ranges are fetched
    /// together, and some at the same time. Cancel-safe.
    ///
    /// # Errors
    /// If any of them cannot be read.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ClientError> {
        let ranges: Vec<Range<u64>> = ranges.iter().map(|range| self.clip(range.clone())).collect();
        let joined = join(&ranges, JOIN_GAP_BYTES, JOINED_BYTES_MAX);
        let fetches = joined.into_iter().map(|joined| async move {
            let bytes = self.read_range(joined.range.clone()).await?;
            Ok::<_, ClientError>((joined, bytes))
        });
        let parallel = self.file.inner.config.read_parallel;
        let fetched: Vec<_> =
            futures::stream::iter(fetches).buffer_unordered(parallel).try_collect().await?;
        let mut found = vec![Bytes::new(); ranges.len()];
        for (joined, bytes) in fetched {
            for part in joined.parts {
                let start = (ranges[part].start - joined.range.start) as usize;
                let end = (ranges[part].end - joined.range.start) as usize;
                found[part] = bytes.slice(start..end);
            }
        }
        Ok(found)
    }

    /// The next bytes of the stream as they arrived, without a copy; `None` at the end of the file. Drop them
    /// before the next call and their memory is used again. Cancel-safe.
    ///
    /// # Errors
    /// If no replica of the block can be read, or the file was replaced. Another call tries again.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.chunk.is_empty() {
            let next = std::future::poll_fn(|context| self.poll_chunk(context)).await?;
            self.chunk = next.unwrap_or_default();
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.position += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn clip(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.file.status.length);
        range.start.min(end)..end
    }

    async fn read_range(&self, range: Range<u64>) -> Result<Bytes, ClientError> {
        let range = self.clip(range);
        let (length, mut buffer) = ((range.end - range.start) as usize, BytesMut::new());
        let mut whole = BytesMut::new();
        for segment in segments(range, self.file.status.block_bytes) {
            let mut reader = BlockReader::open(&self.file, segment.index, segment.range).await?;
            while let Some(bytes) = reader.next(&mut buffer).await? {
                if bytes.len() == length {
                    return Ok(bytes);
                }
                whole.reserve(length - whole.len());
                whole.extend_from_slice(&bytes);
            }
        }
        Ok(whole.freeze())
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<NextChunk> {
        let state = self.state.get_mut();
        loop {
            match state {
                State::Idle(_) => {
                    if let State::Idle(mut stream) = std::mem::replace(state, State::Turning) {
                        *state = State::Busy(Box::pin(async move {
                            let next = stream.next().await;
                            (stream, next)
                        }));
                    }
                }
                State::Busy(next) => {
                    let (stream, next) = ready!(next.as_mut().poll(context));
                    *state = State::Idle(stream);
                    return Poll::Ready(next);
                }
                State::Turning => {
                    *state = State::Idle(Stream::at(&self.file, self.position));
                }
            }
        }
    }

    /// Moves the stream; what was read ahead is kept if the way leads forward into it.
    fn move_to(&mut self, position: u64) {
        let ahead = position.checked_sub(self.position);
        if let Some(ahead) = ahead.filter(|ahead| *ahead <= self.chunk.len() as u64) {
            self.chunk.advance(ahead as usize);
        } else {
            self.chunk.clear();
            *self.state.get_mut() = State::Idle(Stream::at(&self.file, position));
        }
        self.position = position;
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("FileReader");
        debug.field("path", self.file.path()).field("position", &self.position);
        debug.finish_non_exhaustive()
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() && buffer.remaining() > 0 {
            // Lets go of the last chunk's memory before the next one is read.
            self.chunk = Bytes::new();
            self.chunk = ready!(self.poll_chunk(context))?.unwrap_or_default();
        }
        let bytes = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(&self.chunk[..bytes]);
        self.chunk.advance(bytes);
        self.position += bytes as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for FileReader {
    /// To anywhere from 0 on, also beyond the end, where reading finds the end.
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        let target = match position {
            io::SeekFrom::Start(offset) => Some(offset),
            io::SeekFrom::End(offset) => self.file.status.length.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let target = target.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the start of the file")
        })?;
        self.move_to(target);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

/// Reads a file from a position to its end, block by block.
struct Stream {
    file: Arc<OpenFile>,
    position: u64,
    ahead: ReadAhead,
    block: Option<(u32, BlockReader)>,
    buffer: BytesMut,
}

impl Stream {
    fn at(file: &Arc<OpenFile>, position: u64) -> Box<Self> {
        let (file, buffer) = (Arc::clone(file), BytesMut::new());
        let ahead = ReadAhead::starting_at(position);
        Box::new(Self { file, position, ahead, block: None, buffer })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while self.position < self.file.status.length {
            let block_bytes = self.file.status.block_bytes;
            let index = (self.position / block_bytes) as u32;
            let start = self.position % block_bytes;
            let end = self.request_end(index, start);
            let reader = match &mut self.block {
                Some((at, reader)) if *at == index => reader,
                block => {
                    let reader = BlockReader::open(&self.file, index, start..end).await?;
                    &mut block.insert((index, reader)).1
                }
            };
            if let Some(bytes) = reader.next(&mut self.buffer).await? {
                self.position += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            let length = self.file.block_length(index);
            if reader.position() < length {
                let ahead = self.ahead.take(length - reader.position());
                reader.extend(round_up(reader.position() + ahead, length));
            }
        }
        Ok(None)
    }

    /// Where the first request to a block ends.
    fn request_end(&mut self, index: u32, start: u64) -> u64 {
        if matches!(&self.block, Some((at, _)) if *at == index) {
            return 0; // It is under way.
        }
        let length = self.file.block_length(index);
        round_up(start + self.ahead.take(length - start), length)
    }
}

/// A request ends with a group, so that none is asked for twice.
fn round_up(end: u64, length: u64) -> u64 {
    end.next_multiple_of(GROUP_BYTES).min(length)
}
