//! Where the bytes of a block come from, from wherever they have to be sent (again): a local file that is read again,
//! or what an application has written, which is kept until the block is acknowledged.

mod retained;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};

use crate::error::ClientError;
pub(crate) use retained::{Buffers, RetainedBlock, Then};

/// A length of a block that a flush waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// In bytes.
    pub(crate) length: u64,
    /// Whether they have to be on stable storage.
    pub(crate) sync: bool,
}

/// Bytes to be sent.
#[derive(Debug)]
pub(crate) enum Payload {
    /// The first so many of the scratch buffer.
    Scratch(usize),
    /// Bytes that are kept for another try.
    Kept(Bytes),
}

/// What comes next of a block, at most a frame.
#[derive(Debug)]
pub(crate) struct Next {
    /// From the start of the group of the position on. Reaches beyond the position, unless this is about an end or a
    /// mark that is there.
    pub(crate) payload: Payload,
    /// Whether the block ends with it.
    pub(crate) last: bool,
    /// A flush waits for the bytes up to its end.
    pub(crate) mark: Option<Mark>,
}

/// Why there is nothing to send.
#[derive(Debug)]
pub(crate) enum SourceFailure {
    /// The bytes asked for were given up; those from `kept_from` on are there.
    Gone { kept_from: u64 },
    /// They cannot be read.
    Unreadable(ClientError),
}

impl From<ClientError> for SourceFailure {
    fn from(error: ClientError) -> Self {
        Self::Unreadable(error)
    }
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

    /// What comes behind `position` of the block, up to which it is sent; a mark that is `noted` is none any more.
    /// Cancel-safe.
    ///
    /// A local file is read right here: copying a frame from the page cache takes less time than handing it to
    /// another thread would.
    pub(crate) async fn next(
        &self,
        position: u64,
        noted: Option<Mark>,
        scratch: &mut [u8],
    ) -> Result<Next, SourceFailure> {
        match self {
            Self::File { file, start, bytes } => {
                let from = position - position % GROUP_BYTES;
                let length = (bytes - from).min(FRAME_PAYLOAD_BYTES as u64);
                file.read(start + from, &mut scratch[..length as usize])?;
                let (payload, last) = (Payload::Scratch(length as usize), from + length == *bytes);
                Ok(Next { payload, last, mark: None })
            }
            Self::Retained(block) => block.next(position, noted).await,
        }
    }

    /// The bytes of the group that `length` cuts, from its start to there.
    pub(crate) fn cut_group(&self, length: u64) -> Result<Bytes, SourceFailure> {
        match self {
            Self::File { file, start, .. } => {
                let mut group = vec![0; (length % GROUP_BYTES) as usize];
                file.read(start + length - group.len() as u64, &mut group)?;
                Ok(group.into())
            }
            Self::Retained(block) => block.cut_group(length),
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
