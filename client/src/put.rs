//! `put_file`: stores a local file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use doldam_proto::path::FsPath;
use doldam_runtime::net::BoxFuture;

use crate::Progress;
use crate::client::Inner;
use crate::create::{WriteOptions, check_options};
use crate::engine::write_pipeline::{WriteEvent, WriteStart};
use crate::error::ClientError;
use crate::session::{OpenWrite, Session, Supply};
use crate::source::{BlockSource, LocalFile};
use crate::writer::WriteReport;

/// How a local file is stored.
#[derive(Clone)]
pub struct PutOptions {
    /// What the file in the cluster is like.
    pub create: WriteOptions,
    /// Blocks sent at the same time, 1 to 64; the next one starts in any case while the last one is synced.
    /// Default 2: a little faster than 1, while more only compete.
    pub parallel: usize,
    /// Told of every acknowledged byte.
    pub progress: Option<Progress>,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { create: WriteOptions::default(), parallel: 2, progress: None }
    }
}

impl fmt::Debug for PutOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PutOptions")
            .field("create", &self.create)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

/// Checks a number of blocks at the same time.
pub(crate) fn check_parallel(parallel: usize) -> Result<(), ClientError> {
    if (1..=64).contains(&parallel) {
        return Ok(());
    }
    let why = format!("{parallel} is not in 1..=64");
    Err(ClientError::InvalidOption { option: "parallel", why })
}

pub(crate) async fn put_file(
    inner: &Arc<Inner>,
    source: &Path,
    target: FsPath,
    options: PutOptions,
) -> Result<WriteReport, ClientError> {
    check_parallel(options.parallel)?;
    check_options(&options.create)?;
    let file = Arc::new(LocalFile::open(source.to_owned())?);
    let allocate_first = file.bytes() > 0;
    let created = OpenWrite::create(inner, target, &options.create, allocate_first);
    let (write, first) = created.await?;
    let supply = Arc::new(FileSupply { file, block_bytes: write.block_bytes.get() });
    let parallel = options.parallel;
    Box::pin(
        Session::new(write, WriteStart::New { first }, None, supply, parallel, options.progress)
            .run(),
    )
    .await
}

/// All of a local file, from the start.
struct FileSupply {
    file: Arc<LocalFile>,
    block_bytes: u64,
}

impl Supply for FileSupply {
    fn poll_events(&self) -> Result<Vec<WriteEvent>, ClientError> {
        let length = self.file.bytes();
        let blocks = length.div_ceil(self.block_bytes) as u32;
        let available = WriteEvent::Available { started: blocks, whole: blocks, filled: 0 };
        Ok(vec![available, WriteEvent::Ended { length }])
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn block(&self, index: u32) -> Option<BlockSource> {
        let start = u64::from(index) * self.block_bytes;
        let bytes = self.file.bytes().checked_sub(start)?.min(self.block_bytes);
        (bytes > 0).then(|| BlockSource::File { file: Arc::clone(&self.file), start, bytes })
    }

    fn release(&self, _index: u32) {}

    fn check(&self) -> Result<(), ClientError> {
        self.file.check_unchanged()
    }
}
