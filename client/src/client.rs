//! The client: one cluster, and every operation on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::file::FileStatus;
use doldam_proto::id::ClusterId;
use doldam_proto::path::FsPath;
use doldam_runtime::Seams;
use doldam_runtime::connection::Deadlines;
use doldam_runtime::pool::{ConnectionPool, PoolLimits};
use tokio_util::task::TaskTracker;

use crate::admin::{ClusterReport, FsckStream};
use crate::append::AppendOptions;
use crate::block_stream::Streams;
use crate::config::ClientConfig;
use crate::create::CreateOptions;
use crate::engine::slow_node::SlowNodeLimits;
use crate::error::ClientError;
use crate::get::{GetOptions, ReadReport};
use crate::listing::ListStream;
use crate::metadata::{Hello, Metadata};
use crate::open_file::OpenFile;
use crate::put::PutOptions;
use crate::reader::FileReader;
use crate::replica_choice::ReplicaChoice;
use crate::writer::WriteReport;

/// A connection to a cluster. Cheap to clone; clones share everything.
///
/// Metadata operations are tried again for [`operation_timeout`](ClientConfig::operation_timeout), each applied at
/// most once. Dropping the future of one half-way is safe; whether a change was made is then open.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What all clones of a client, its readers and its writers share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) streams: Streams,
    /// What was seen of datanodes that were read from.
    pub(crate) choice: ReplicaChoice,
    pub(crate) hello: Hello,
    /// Writes and local copies that would leave something behind if the process ended now.
    pub(crate) unfinished: TaskTracker,
}

/// Settings of a [`Client`] to be.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    namenodes: Vec<String>,
    config: ClientConfig,
    seams: Option<Seams>,
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

    /// Other doors to time, chance, disk and network than the system's, as a simulator needs.
    pub fn seams(mut self, seams: Seams) -> Self {
        self.seams = Some(seams);
        self
    }

    /// Reaches a namenode and checks that it speaks this protocol.
    ///
    /// # Errors
    /// If no address was given, a setting is out of range, none of the namenodes answers within `connect_timeout`,
    /// or the one that does speaks another version.
    pub async fn connect(self) -> Result<Client, ClientError> {
        self.config.validate()?;
        let seams = self.seams.unwrap_or_else(Seams::system);
        let mut namenodes = Vec::new();
        for address in self.namenodes {
            if !address.is_empty() && !namenodes.contains(&address) {
                namenodes.push(address);
            }
        }
        let net = Arc::clone(&seams.net);
        let choice = ReplicaChoice::new(&self.config, Arc::clone(&seams.clock));
        let (metadata, hello) = Metadata::connect(namenodes, self.config.clone(), seams).await?;
        let deadlines = Deadlines {
            connect: self.config.datanode_connect_timeout,
            progress: self.config.read_timeout,
            ..Deadlines::default()
        };
        let streams = Streams {
            pool: ConnectionPool::new(net, hello.cluster, deadlines, PoolLimits::default()),
            read_timeout: self.config.read_timeout,
            write_timeout: self.config.write_timeout,
            sync_timeout: self.config.sync_timeout,
            probe_after: self.config.probe_after,
            slow_node: SlowNodeLimits {
                factor: self.config.slow_node_factor,
                period: self.config.slow_node_after,
            },
            stall_timeout: self.config.stall_timeout,
            writer: metadata.holder().into(),
        };
        let (config, unfinished) = (self.config, TaskTracker::new());
        let inner = Inner { config, metadata, streams, choice, hello, unfinished };
        Ok(Client { inner: Arc::new(inner) })
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

    /// Waits until everything that was dropped half-way is cleaned up: writes are abandoned at the namenode,
    /// local copies removed. Transfers that still run count as well. Returns whether that was so in time.
    ///
    /// For a program that is about to end: without it the cluster keeps an unfinished write's path reserved until
    /// the lease runs out. Cancel-safe.
    pub async fn settle(&self, within: Duration) -> bool {
        let unfinished = &self.inner.unfinished;
        unfinished.close();
        let settled = tokio::time::timeout(within, unfinished.wait()).await.is_ok();
        unfinished.reopen();
        settled
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.hello.cluster
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// Block size of a file whose creator does not choose one.
    pub fn default_block_bytes(&self) -> u64 {
        self.inner.hello.default_block_bytes
    }

    /// Replicas of a file whose creator does not choose.
    pub fn default_replication(&self) -> u32 {
        self.inner.hello.default_replication
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// [`FsError::NotFound`](crate::FsError::NotFound) if nothing is.
    pub async fn stat(&self, path: impl AsRef<str>) -> Result<FileStatus, ClientError> {
        self.inner.metadata.stat(&parse(path.as_ref())?).await
    }

    /// What is at `path`, if anything is.
    ///
    /// # Errors
    /// If the path is invalid or no namenode answers.
    pub async fn try_stat(&self, path: impl AsRef<str>) -> Result<Option<FileStatus>, ClientError> {
        match self.stat(path).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is at each of `paths`, in order, with one round trip per thousand.
    ///
    /// # Errors
    /// If a path is invalid or no namenode answers.
    pub async fn stat_many<S: AsRef<str>>(
        &self,
        paths: &[S],
    ) -> Result<Vec<Option<FileStatus>>, ClientError> {
        let paths: Vec<FsPath> =
            paths.iter().map(|path| parse(path.as_ref())).collect::<Result<_, _>>()?;
        self.inner.metadata.stat_many(&paths).await
    }

    /// The entries of the directory at `path`, in byte order; errors arrive as the first item.
    pub fn list(&self, path: impl AsRef<str>) -> ListStream {
        match parse(path.as_ref()) {
            Ok(path) => ListStream::new(Arc::clone(&self.inner.metadata), path),
            Err(error) => ListStream::failed(error),
        }
    }

    /// Makes a directory; tells whether it was made. With `parents` missing directories above it are made, and an
    /// existing one is no error.
    ///
    /// # Errors
    /// If something else is there, or the parent is missing.
    pub async fn mkdir(&self, path: impl AsRef<str>, parents: bool) -> Result<bool, ClientError> {
        self.inner.metadata.mkdir(&parse(path.as_ref())?, parents).await
    }

    /// Renames a file or directory, in one step. With `replace` a file, or an empty directory, at `to` is replaced.
    ///
    /// # Errors
    /// If `from` is missing, `to` exists, or a directory would end up inside itself.
    pub async fn rename(
        &self,
        from: impl AsRef<str>,
        to: impl AsRef<str>,
        replace: bool,
    ) -> Result<(), ClientError> {
        let (from, to) = (parse(from.as_ref())?, parse(to.as_ref())?);
        self.inner.metadata.rename(&from, &to, replace).await
    }

    /// Deletes a file or directory, with `recursive` everything below it.
    ///
    /// # Errors
    /// If nothing is there, or a directory is not empty.
    pub async fn delete(&self, path: impl AsRef<str>, recursive: bool) -> Result<(), ClientError> {
        self.inner.metadata.delete(&parse(path.as_ref())?, recursive).await
    }

    /// Asks for another number of replicas of a file; returns the previous one. The cluster then adds or trims.
    ///
    /// # Errors
    /// If nothing or a directory is there, or the number is out of range.
    pub async fn set_replication(
        &self,
        path: impl AsRef<str>,
        replication: u32,
    ) -> Result<u32, ClientError> {
        self.inner.metadata.set_replication(&parse(path.as_ref())?, replication).await
    }

    /// Sets the time of last change, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If nothing is there.
    pub async fn set_modified(
        &self,
        path: impl AsRef<str>,
        modified_ms: u64,
    ) -> Result<(), ClientError> {
        self.inner.metadata.set_modified(&parse(path.as_ref())?, modified_ms).await
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// A new file at `path`: choose its options, then [`CreateOptions::open`].
    pub fn create(&self, path: impl AsRef<str>) -> CreateOptions {
        CreateOptions::new(self.clone(), path.as_ref().to_owned())
    }

    /// A file to be written on behind its end: see [`AppendOptions::open`].
    pub fn append(&self, path: impl AsRef<str>) -> AppendOptions {
        AppendOptions::new(self.clone(), path.as_ref().to_owned())
    }

    /// Cuts the file at `path` to its first `length` bytes, in one step: readers see it as it was until this is done.
    /// Nothing is copied but a part of one block.
    ///
    /// If the future is dropped half-way, it is open whether the file is cut.
    ///
    /// # Errors
    /// If nothing, a directory or a shorter file is there, another client writes it, or no datanode can give or take
    /// the block that is cut.
    pub async fn truncate(
        &self,
        path: impl AsRef<str>,
        length: u64,
    ) -> Result<WriteReport, ClientError> {
        crate::append::truncate(&self.inner, parse(path.as_ref())?, length).await
    }

    /// Opens a file for reading. Cancel-safe.
    ///
    /// # Errors
    /// If nothing or a directory is there.
    pub async fn open(&self, path: impl AsRef<str>) -> Result<FileReader, ClientError> {
        let path = parse(path.as_ref())?;
        Ok(FileReader::new(OpenFile::open(&self.inner, path).await?))
    }

    /// Stores the local file `source` at `target`, whole or not at all.
    ///
    /// If the future is dropped half-way the write is given up in the background; only if that happens while the
    /// file is being completed it is open whether it becomes visible, whole.
    ///
    /// # Errors
    /// If the source cannot be read or changes meanwhile, the namenode refuses, or no datanodes take the blocks.
    pub async fn put_file(
        &self,
        source: &Path,
        target: impl AsRef<str>,
        options: PutOptions,
    ) -> Result<WriteReport, ClientError> {
        crate::put::put_file(&self.inner, source, parse(target.as_ref())?, options).await
    }

    /// Fetches `source` into the local file `target`, whole or not at all: the bytes go to a temporary file beside
    /// it, which is removed if the future is dropped half-way.
    ///
    /// # Errors
    /// If it cannot be read or the local file not be written.
    pub async fn get_file(
        &self,
        source: impl AsRef<str>,
        target: &Path,
        options: GetOptions,
    ) -> Result<ReadReport, ClientError> {
        crate::get::get_file(&self.inner, parse(source.as_ref())?, target, options).await
    }

    /// The namenode's side.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn report(&self) -> Result<ClusterReport, ClientError> {
        self.inner.metadata.report().await
    }

    /// The health of every file at and below `path`, or only of those with findings; errors arrive as items.
    pub fn fsck(&self, path: impl AsRef<str>, only_findings: bool) -> FsckStream {
        match parse(path.as_ref()) {
            Ok(path) => FsckStream::new(Arc::clone(&self.inner.metadata), path, only_findings),
            Err(error) => FsckStream::failed(error),
        }
    }
}

/// Checks a path before anything is sent.
pub(crate) fn parse(path: &str) -> Result<FsPath, ClientError> {
    FsPath::parse(path).map_err(|source| ClientError::InvalidPath { path: path.to_owned(), source })
}
