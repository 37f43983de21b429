//! Where the bytes of a block come from, as often as it has to be sent: a local file that is read again, or
//! buffers that are kept until the block is acknowledged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use doldam_proto::limits::FRAME_PAYLOAD_BYTES;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::error::ClientError;

/// The next bytes of a block, at most a frame of them; all but the last are whole frames.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// The first `bytes` of the scratch buffer.
    Scratch { bytes: usize, last: bool },
    /// Bytes that are kept for another try.
    Retained { bytes: Bytes, last: bool },
    /// Nothing more: the block ended with the chunk before.
    End,
}

/// The bytes of one block.
#[derive(Debug, Clone)]
pub(crate) enum BlockSource {
    /// A part of a local file.
    File { file: Arc<LocalFile>, start: u64, bytes: u64 },
    /// What an application has written.
    Retained(Arc<RetainedBlock>),
}

impl BlockSource {
    /// Room for [`next`](Self::next), if this source needs any.
    pub(crate) fn scratch(&self) -> Vec<u8> {
        match self {
            Self::File { bytes, .. } => vec![0; (*bytes).min(FRAME_PAYLOAD_BYTES as u64) as usize],
            Self::Retained(_) => Vec::new(),
        }
    }

    /// The bytes from `offset` of the block, where the chunk before ended. Cancel-safe.
    ///
    /// A local file is read right here: copying a frame from the page cache takes less time than handing it to
    /// another thread would.
    pub(crate) async fn next(&self, offset: u64, scratch: &mut [u8]) -> Result<Chunk, ClientError> {
        match self {
            Self::File { file, start, bytes } => {
                let length = (bytes - offset).min(FRAME_PAYLOAD_BYTES as u64) as usize;
                file.read(start + offset, &mut scratch[..length])?;
                Ok(Chunk::Scratch { bytes: length, last: offset + length as u64 == *bytes })
            }
            Self::Retained(block) => Ok(block.chunk(offset).await),
        }
    }
}

/// A local file that is being stored.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl LocalFile {
    /// Opens a regular file and notes its size.
    pub(crate) fn open(path: PathBuf) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Local { action: "read", path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() {
                io::Error::from(io::ErrorKind::IsADirectory)
            } else {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "not a regular file: its bytes can only be streamed",
                )
            };
            return Err(failed(what));
        }
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        Ok(Self { path, file, bytes, modified })
    }

    /// Its size when it was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ClientError> {
        self.file.read_exact_at(buffer, offset).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                let what = format!("it had {} bytes and is shorter now", self.bytes);
                return ClientError::SourceChanged { path: self.path.clone(), what };
            }
            ClientError::Local { action: "read", path: self.path.clone(), source }
        })
    }

    /// Fails if the file is not what it was when it was opened, as far as its size and time of change show.
    pub(crate) fn check_unchanged(&self) -> Result<(), ClientError> {
        let metadata = self.file.metadata().map_err(|source| {
            let path = self.path.clone();
            ClientError::Local { action: "read", path, source }
        })?;
        let changed = |what| Err(ClientError::SourceChanged { path: self.path.clone(), what });
        if metadata.len() != self.bytes {
            return changed(format!("it had {} bytes and has {} now", self.bytes, metadata.len()));
        }
        if metadata.modified().ok() != self.modified {
            return changed("its time of change is another now".to_owned());
        }
        Ok(())
    }
}

/// A block as an application writes it: grows at its end, and is read from its start as often as it is sent.
///
/// All chunks but the last are whole frames.
#[derive(Debug, Default)]
pub(crate) struct RetainedBlock {
    content: Mutex<Content>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Content {
    chunks: Vec<Bytes>,
    /// What the chunks take of the bound on memory.
    permits: Vec<OwnedSemaphorePermit>,
    ended: bool,
}

impl RetainedBlock {
    /// Appends a chunk.
    pub(crate) fn push(&self, chunk: Bytes, permit: OwnedSemaphorePermit, last: bool) {
        let mut content = self.content.lock();
        content.chunks.push(chunk);
        content.permits.push(permit);
        content.ended |= last;
        drop(content);
        self.grown.notify_waiters();
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.content.lock().ended = true;
        self.grown.notify_waiters();
    }

    /// The chunk at `offset`, as soon as there is one.
    async fn chunk(&self, offset: u64) -> Chunk {
        let at = (offset as usize).div_ceil(FRAME_PAYLOAD_BYTES);
        loop {
            let grown = self.grown.notified();
            {
                let content = self.content.lock();
                if let Some(bytes) = content.chunks.get(at) {
                    let last = content.ended && at + 1 == content.chunks.len();
                    return Chunk::Retained { bytes: bytes.clone(), last };
                }
                if content.ended {
                    return Chunk::End;
                }
            }
            grown.await;
        }
    }

    /// Gives the memory back; to be called when the block is acknowledged.
    pub(crate) fn release(&self, buffers: &Buffers) {
        let mut content = self.content.lock();
        let chunks = std::mem::take(&mut content.chunks);
        for chunk in chunks {
            // Still held elsewhere only if a try is being cancelled right now; then it is simply dropped there.
            if let Ok(mut buffer) = chunk.try_into_mut() {
                buffer.clear();
                buffers.put(buffer);
            }
        }
        content.permits.clear();
    }
}

/// Buffers that are used again: on virtual machines memory that was given back is dear to touch again.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    /// A buffer with nothing in it; small if none is free, as most files are.
    pub(crate) fn take(&self) -> BytesMut {
        self.free.lock().pop().unwrap_or_default()
    }

    fn put(&self, buffer: BytesMut) {
        self.free.lock().push(buffer);
    }
}
