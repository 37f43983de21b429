//! Creating a file: what it is to be like.

use doldam_proto::block::BlockBytes;
use doldam_proto::file::Durability;
use doldam_proto::limits::REPLICATION_MAX;

use crate::client::{Client, parse};
use crate::error::ClientError;
use crate::session::OpenWrite;
use crate::writer::FileWriter;

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

    /// Starts the write. Nothing is visible at the path until [`FileWriter::close`] or [`FileWriter::flush`].
    ///
    /// # Errors
    /// If the namenode refuses (the path exists, its parent does not, another client writes there), or an
    /// option is out of range.
    pub async fn open(self) -> Result<FileWriter, ClientError> {
        let path = parse(&self.path)?;
        check_options(&self.options)?;
        let inner = self.client.inner();
        let (write, first) = OpenWrite::create(inner, path, &self.options, true).await?;
        Ok(FileWriter::create(write, first, inner.config.retained_bytes_max))
    }
}

/// Checks options before anything is sent.
pub(crate) fn check_options(options: &WriteOptions) -> Result<(), ClientError> {
    let refuse = |option, why| Err(ClientError::InvalidOption { option, why });
    if let Some(replicas) = options.replication
        && !(1..=REPLICATION_MAX).contains(&replicas)
    {
        return refuse("replication", format!("{replicas} is not in 1..={REPLICATION_MAX}"));
    }
    if let Some(bytes) = options.block_bytes
        && BlockBytes::new(bytes).is_none()
    {
        let why = format!("{bytes} is no power of two from 64 KiB to 1 GiB");
        return refuse("block size", why);
    }
    Ok(())
}
