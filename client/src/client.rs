//! The client: one cluster, and every operation on it.

use std::path::Path;

use doldam_proto::file::FileStatus;
use doldam_proto::id::ClusterId;

use crate::admin::{ClusterReport, FsckStream};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::get::{GetOptions, ReadReport};
use crate::listing::ListStream;
use crate::put::PutOptions;
use crate::reader::FileReader;
use crate::writer::{CreateOptions, WriteReport};

/// A connection to a cluster. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Client {}

/// Settings of a [`Client`] to be.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    namenodes: Vec<String>,
    config: ClientConfig,
}

impl ClientBuilder {
    /// Adds namenodes, as `HOST:PORT`; the first that answers is used, the others stand by.
    pub fn namenodes<S: Into<String>>(mut self, addresses: impl IntoIterator<Item = S>) -> Self {
        self.namenodes.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Deadlines and bounds.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Reaches a namenode and checks that it speaks this protocol.
    ///
    /// # Errors
    /// If no address was given, a setting is out of range, none of the namenodes answers within `connect_timeout`,
    /// or the one that does speaks another version.
    pub async fn connect(self) -> Result<Client, ClientError> {
        self.config.validate()?;
        unimplemented!()
    }
}

impl Client {
    /// Settings, then [`ClientBuilder::connect`].
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects with default settings to `HOST:PORT[,HOST:PORT...]`.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(namenodes: &str) -> Result<Self, ClientError> {
        Self::builder().namenodes(namenodes.split(',').map(str::trim)).connect().await
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        unimplemented!()
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        unimplemented!()
    }

    /// Block size of a file whose creator does not choose one.
    pub fn default_block_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Replicas of a file whose creator does not choose.
    pub fn default_replication(&self) -> u32 {
        unimplemented!()
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// [`FsError::NotFound`](crate::FsError::NotFound) if nothing is.
    pub async fn stat(&self, _path: impl AsRef<str>) -> Result<FileStatus, ClientError> {
        unimplemented!()
    }

    /// What is at `path`, if anything is.
    ///
    /// # Errors
    /// If the path is invalid or no namenode answers.
    pub async fn try_stat(&self, _path: impl AsRef<str>) -> Result<Option<FileStatus>, ClientError> {
        unimplemented!()
    }

    /// What is at each of `paths`, in order, with one round trip per thousand.
    ///
    /// # Errors
    /// If a path is invalid or no namenode answers.
    pub async fn stat_many<S: AsRef<str>>(
        &self,
        _paths: &[S],
    ) -> Result<Vec<Option<FileStatus>>, ClientError> {
        unimplemented!()
    }

    /// The entries of the directory at `path`, in byte order; errors arrive as the first item.
    pub fn list(&self, _path: impl AsRef<str>) -> ListStream {
        unimplemented!()
    }

    /// Makes a directory; tells whether it was made. With `parents` missing directories above it are made, and an
    /// existing one is no error.
    ///
    /// # Errors
    /// If something else is there, or the parent is missing.
    pub async fn mkdir(&self, _path: impl AsRef<str>, _parents: bool) -> Result<bool, ClientError> {
        unimplemented!()
    }

    /// Renames a file or directory, in one step. With `replace` a file, or an empty directory, at `to` is replaced.
    ///
    /// # Errors
    /// If `from` is missing, `to` exists, or a directory would end up inside itself.
    pub async fn rename(
        &self,
        _from: impl AsRef<str>,
        _to: impl AsRef<str>,
        _replace: bool,
    ) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Deletes a file or directory, with `recursive` everything below it.
    ///
    /// # Errors
    /// If nothing is there, or a directory is not empty.
    pub async fn delete(&self, _path: impl AsRef<str>, _recursive: bool) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// Asks for another number of replicas of a file; returns the previous one. The cluster then adds or trims.
    ///
    /// # Errors
    /// If nothing or a directory is there, or the number is out of range.
    pub async fn set_replication(
        &self,
        _path: impl AsRef<str>,
        _replication: u32,
    ) -> Result<u32, ClientError> {
        unimplemented!()
    }

    /// Sets the time of last change, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If nothing is there.
    pub async fn set_modified(
        &self,
        _path: impl AsRef<str>,
        _modified_ms: u64,
    ) -> Result<(), ClientError> {
        unimplemented!()
    }

    /// A new file at `path`: choose its options, then [`CreateOptions::open`].
    pub fn create(&self, path: impl AsRef<str>) -> CreateOptions {
        CreateOptions::new(self.clone(), path.as_ref().to_owned())
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// If nothing or a directory is there.
    pub async fn open(&self, _path: impl AsRef<str>) -> Result<FileReader, ClientError> {
        unimplemented!()
    }

    /// Stores the local file `source` at `target`, whole or not at all.
    ///
    /// # Errors
    /// If the source cannot be read or changes meanwhile, the namenode refuses, or no datanodes take the blocks.
    pub async fn put_file(
        &self,
        _source: &Path,
        _target: impl AsRef<str>,
        _options: PutOptions,
    ) -> Result<WriteReport, ClientError> {
        unimplemented!()
    }

    /// Fetches `source` into the local file `target`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be read or the local file not be written.
    pub async fn get_file(
        &self,
        _source: impl AsRef<str>,
        _target: &Path,
        _options: GetOptions,
    ) -> Result<ReadReport, ClientError> {
        unimplemented!()
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn report(&self) -> Result<ClusterReport, ClientError> {
        unimplemented!()
    }

    /// The health of every file at and below `path`, or only of those with findings; errors arrive as items.
    pub fn fsck(&self, _path: impl AsRef<str>, _only_findings: bool) -> FsckStream {
        unimplemented!()
    }
}
