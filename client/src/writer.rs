//! Writing a file: options, the writer, and what it reports at the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use doldam_proto::file::{Durability, FileStatus};
use tokio::io::AsyncWrite;

use crate::client::Client;
use crate::error::ClientError;

/// What a new file is like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Replicas of each block, 1 to 16; `None`: the cluster's default.
    pub replication: Option<u32>,
    /// Block size: a power of two from 64 KiB to 1 GiB; `None`: the cluster's default.
    pub block_bytes: Option<u64>,
    /// How many replicas are on stable storage before a write is acknowledged. Default all.
    pub durability: Durability,
    /// Replace a file at the path, in one step when the new one is complete. Default no.
    pub overwrite: bool,
    /// Create missing directories above it. Default no.
    pub parents: bool,
}

/// A file about to be created: see [`Client::create`].
#[derive(Debug, Clone)]
#[must_use = "nothing is created before `open`"]
pub struct CreateOptions {
    client: Client,
    path: String,
    options: WriteOptions,
}

impl CreateOptions {
    pub(crate) fn new(client: Client, path: String) -> Self {
        Self { client, path, options: WriteOptions::default() }
    }

    /// All options at once.
    pub fn options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// Replicas of each block, 1 to 16. Default: the cluster's.
    pub fn replication(mut self, replicas: u32) -> Self {
        self.options.replication = Some(replicas);
        self
    }

    /// Block size: a power of two from 64 KiB to 1 GiB. Default: the cluster's.
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.options.block_bytes = Some(bytes);
        self
    }

    /// How many replicas are on stable storage before a write is acknowledged. Default all.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Replace a file at the path, in one step when the new one is complete. Default no.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.overwrite = overwrite;
        self
    }

    /// Create missing directories above it. Default no.
    pub fn parents(mut self, parents: bool) -> Self {
        self.options.parents = parents;
        self
    }

    /// Starts the write. Nothing is visible at the path until [`FileWriter::close`].
    ///
    /// # Errors
    /// If the namenode refuses (the path exists, its parent does not, another client writes there), or an
    /// option is out of range, or a block would not fit `retained_bytes_max`.
    pub async fn open(self) -> Result<FileWriter, ClientError> {
        unimplemented!()
    }
}

/// A file being written.
pub struct FileWriter {}

impl FileWriter {
    /// Ends the write: when this returns the file is visible and as durable as its [`Durability`] says.
    ///
    /// # Errors
    /// If anything failed since the writer was opened; nothing is visible then.
    pub async fn close(self) -> Result<WriteReport, ClientError> {
        unimplemented!()
    }

    /// Gives the write up, at once.
    ///
    /// # Errors
    /// If the namenode could not be told; the lease then runs out, with the same end.
    pub async fn abandon(self) -> Result<(), ClientError> {
        unimplemented!()
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        unimplemented!()
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        unimplemented!()
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
