//! Reading a file: streaming, ranges, and what was verified.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use doldam_proto::file::FileStatus;
use doldam_proto::id::BlockId;
use doldam_proto::node::NodeAddress;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::error::ClientError;

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
    /// Replicas that were found bad, and reported.
    pub bad_replicas: Vec<BadReplica>,
}

/// A file open for reading.
pub struct FileReader {}

impl FileReader {
    /// The file as it was when it was opened.
    pub fn status(&self) -> &FileStatus {
        unimplemented!()
    }

    /// What has been verified so far.
    pub fn verification(&self) -> Verification {
        unimplemented!()
    }

    /// The bytes from `offset`, at most `length`; fewer only at the end of the file. The position of the stream
    /// stays where it is, and several calls may run at once.
    ///
    /// # Errors
    /// If no replica of a block can be read, or the file was replaced.
    pub async fn read_at(&self, _offset: u64, _length: usize) -> Result<Bytes, ClientError> {
        unimplemented!()
    }

    /// The bytes of each range, in the order asked for; cut at the end of the file. Close ranges are fetched
    /// together, and some at the same time.
    ///
    /// # Errors
    /// If any of them cannot be read.
    pub async fn read_ranges(&self, _ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ClientError> {
        unimplemented!()
    }

    /// The next bytes of the stream as they arrived, without a copy; `None` at the end of the file.
    ///
    /// # Errors
    /// If no replica of the block can be read, or the file was replaced.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        unimplemented!()
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        unimplemented!()
    }
}

impl AsyncSeek for FileReader {
    fn start_seek(self: Pin<&mut Self>, _position: io::SeekFrom) -> io::Result<()> {
        unimplemented!()
    }

    fn poll_complete(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        unimplemented!()
    }
}
