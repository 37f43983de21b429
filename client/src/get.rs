//! `get_file`: fetches a file of the cluster into a local one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::BytesMut;
use doldam_proto::FsError;
use doldam_proto::digest::file::file_digest;
use doldam_proto::digest::group::group_value;
use doldam_proto::digest::{BlockDigest, ChainingValue};
use doldam_proto::file::FileStatus;
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::path::FsPath;
use doldam_runtime::tasks::spawn_detached;
use doldam_runtime::telemetry::request_span;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::Progress;
use crate::block_reader::BlockReader;
use crate::client::Inner;
use crate::error::ClientError;
use crate::metadata::bad_answer;
use crate::open_file::OpenFile;
use crate::put::check_parallel;
use crate::reader::Verification;

/// How a file is fetched.
#[derive(Clone)]
pub struct GetOptions {
    /// Blocks fetched at the same time, 1 to 64. Default 2.
    pub parallel: usize,
    /// Replace the local file if it exists. Default no.
    pub overwrite: bool,
    /// Put the local file on stable storage before it is given its name. Default no, as with `cp`.
    pub sync: bool,
    /// Told of every byte that was verified and written.
    pub progress: Option<Progress>,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self { parallel: 2, overwrite: false, sync: false, progress: None }
    }
}

impl fmt::Debug for GetOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GetOptions")
            .field("parallel", &self.parallel)
            .field("overwrite", &self.overwrite)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// What was fetched.
#[derive(Debug, Clone)]
pub struct ReadReport {
    /// The file as it was when it was opened.
    pub status: FileStatus,
    /// What was verified, and what went wrong on the way.
    pub verification: Verification,
}

/// Fetches a file; the bytes go to one beside the target, which gets the target's name at the end.
///
/// If the future is dropped half-way, that file is removed and the target is as it was.
pub(crate) async fn get_file(
    inner: &Arc<Inner>,
    source: FsPath,
    target: &Path,
    options: GetOptions,
) -> Result<ReadReport, ClientError> {
    check_parallel(options.parallel)?;
    let target = resolve_target(target, options.overwrite)?;
    let file = OpenFile::open(inner, source).await?;
    let part = Arc::new(PartFile::create(inner, &target, file.status.length)?);
    let fetch = Arc::new(Fetch {
        file: Arc::clone(&file),
        part: Arc::clone(&part),
        next: AtomicU32::new(0),
        progress: options.progress.clone(),
    });
    let mut workers: FuturesUnordered<_> = (0..options.parallel.min(file.block_count() as usize))
        .map(|_| Arc::clone(&fetch).run().instrument(request_span(&file.trace)))
        .map(|worker| AbortOnDropHandle::new(spawn_detached("get", worker)))
        .collect();
    drop(fetch);
    let mut values = BTreeMap::new();
    while let Some(worker) = workers.next().await {
        match worker.unwrap_or(Err(ClientError::Stopped { operation: "get" })) {
            Ok(blocks) => values.extend(blocks),
            Err(error) => {
                // When this returns nobody writes any more, and the temporary file is gone.
                workers.iter().for_each(AbortOnDropHandle::abort);
                while workers.next().await.is_some() {}
                return Err(error);
            }
        }
    }
    check_digest(&file, &values)?;
    part.publish(&target, &options).await?;
    let (status, verification) = (file.status.clone(), file.verification());
    Ok(ReadReport { status, verification })
}

/// Where the file really goes: links are followed, and only a regular file is ever replaced.
fn resolve_target(target: &Path, overwrite: bool) -> Result<PathBuf, ClientError> {
    let failed =
        |source| ClientError::Local { action: "write to", path: target.to_owned(), source };
    match target.metadata() {
        Ok(_) if !overwrite => Err(ClientError::LocalExists { path: target.to_owned() }),
        Ok(found) if found.is_file() => target.canonicalize().map_err(failed),
        Ok(found) if found.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(_) => Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file: bytes can only be streamed to it",
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target.to_owned()),
        Err(error) => Err(failed(error)),
    }
}

/// Checks that the blocks, each of which was verified, are all of this file: their values lead to its digest.
fn check_digest(file: &OpenFile, values: &BTreeMap<u32, BlockDigest>) -> Result<(), ClientError> {
    let mut blocks = values.values();
    let first = blocks.next();
    let rest: Vec<ChainingValue> = blocks.map(|block| block.chaining_value).collect();
    let (cluster, path) = (file.status.digest, file.path().to_string());
    match (cluster, file_digest(first, &rest)) {
        (Some(cluster), Some(local)) if cluster == local => Ok(()),
        (Some(_), Some(_)) if file.has_grown() => Err(FsError::FileChanged { path }.into()),
        (Some(cluster), Some(local)) => Err(ClientError::DigestMismatch { path, cluster, local }),
        _ => Err(bad_answer(format!("{path} has no digest"))),
    }
}

/// What the workers of one transfer share.
struct Fetch {
    file: Arc<OpenFile>,
    part: Arc<PartFile>,
    next: AtomicU32,
    progress: Option<Progress>,
}

impl Fetch {
    /// Takes one block after the other until none is left.
    async fn run(self: Arc<Self>) -> Result<BTreeMap<u32, BlockDigest>, ClientError> {
        let (mut buffer, mut values) = (BytesMut::new(), BTreeMap::new());
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.file.block_count() {
                return Ok(values);
            }
            values.insert(index, self.block(index, &mut buffer).await?);
        }
    }

    /// Each piece is written right here: from the cache of the processor to the page cache takes less time than
    /// handing it to another thread would.
    async fn block(&self, index: u32, buffer: &mut BytesMut) -> Result<BlockDigest, ClientError> {
        let length = self.file.block_length(index);
        let offset = u64::from(index) * self.file.status.block_bytes;
        let alone = self.file.block_count() == 1;
        let (mut groups, mut root_value) = (Vec::new(), None);
        let mut reader = BlockReader::open(&self.file, index, 0..length).await?;
        while let Some(bytes) = reader.next(buffer).await? {
            let start = reader.position() - bytes.len() as u64;
            if alone {
                groups.extend_from_slice(reader.group_values(start));
            }
            if alone && length <= GROUP_BYTES {
                root_value = group_value(0, &bytes).root_value;
            }
            self.part.write(offset + start, &bytes)?;
            if let Some(progress) = &self.progress {
                progress(bytes.len() as u64);
            }
        }
        if let Some((&chaining_value, rest)) = groups.split_first() {
            // The tree of a file of one block is the tree of its groups.
            root_value = file_digest(Some(&BlockDigest { chaining_value, root_value }), rest);
        }
        Ok(BlockDigest { chaining_value: reader.chaining_value(), root_value })
    }
}

/// The local file before it has its name; removed if it never gets it.
struct PartFile {
    path: PathBuf,
    file: File,
    published: AtomicBool,
    _unfinished: TaskTrackerToken,
}

impl PartFile {
    fn create(inner: &Inner, target: &Path, bytes: u64) -> Result<Self, ClientError> {
        let unique = inner.metadata.seams.random.next_u64();
        let path = folder_of(target).join(format!(".doldam-{unique:016x}.part"));
        let file = File::create_new(&path).map_err(|source| {
            let path = target.to_owned();
            ClientError::Local { action: "create", path, source }
        })?;
        let (published, unfinished) = (AtomicBool::new(false), inner.unfinished.token());
        let part = Self { path, file, published, _unfinished: unfinished };
        part.file.set_len(bytes).map_err(|source| part.failed(source))?;
        Ok(part)
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Local { action: "write to", path: self.path.clone(), source }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed(source))
    }

    /// Gives the file its name, in one step.
    async fn publish(
        self: &Arc<Self>,
        target: &Path,
        options: &GetOptions,
    ) -> Result<(), ClientError> {
        let (part, target) = (Arc::clone(self), target.to_owned());
        let (overwrite, sync) = (options.overwrite, options.sync);
        let published = doldam_runtime::tasks::run_blocking(move || {
            if sync {
                part.file.sync_all().map_err(|source| part.failed(source))?;
            }
            part.name(&target, overwrite)?;
            if sync {
                let folder = File::open(folder_of(&target)).and_then(|folder| folder.sync_all());
                folder.map_err(|source| part.failed(source))?;
            }
            Ok(())
        });
        published.await.map_err(|_| ClientError::Stopped { operation: "get" })?
    }

    fn name(&self, target: &Path, overwrite: bool) -> Result<(), ClientError> {
        let failed =
            |source| ClientError::Local { action: "create", path: target.to_owned(), source };
        if !overwrite {
            // Unlike a rename a link never replaces anything.
            match std::fs::hard_link(&self.path, target) {
                Ok(()) => return Ok(()), // The other name goes when `self` does.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(ClientError::LocalExists { path: target.to_owned() });
                }
                // A file system without hard links: the best that is left is to look first.
                Err(_) if target.symlink_metadata().is_ok() => {
                    return Err(ClientError::LocalExists { path: target.to_owned() });
                }
                Err(_) => {}
            }
        }
        std::fs::rename(&self.path, target).map_err(failed)?;
        self.published.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file is left behind");
        }
    }
}

/// The folder a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
