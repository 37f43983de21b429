//! A file that is open for reading: where its blocks are, and what reading it has shown so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doldam_proto::FsError;
use doldam_proto::block::LocatedBlock;
use doldam_proto::file::FileStatus;
use doldam_proto::node::NodeAddress;
use doldam_proto::path::FsPath;
use doldam_runtime::telemetry::TraceId;
use parking_lot::Mutex;

use crate::block_stream::StreamFailure;
use crate::client::Inner;
use crate::error::ClientError;
use crate::metadata::bad_answer;
use crate::reader::{BadReplica, Verification};

/// Blocks asked for at once.
const PAGE_BLOCKS: u32 = 256;
/// Blocks whose locations are kept; beyond these the first ones are forgotten.
const KEPT_BLOCKS_MAX: usize = 4 * PAGE_BLOCKS as usize;

/// Shared by everything that reads one open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) inner: Arc<Inner>,
    pub(crate) status: FileStatus,
    pub(crate) trace: TraceId,
    path: FsPath,
    blocks: Mutex<BTreeMap<u32, LocatedBlock>>,
    /// A block is known only as it is now, longer than it was when the file was opened.
    grown: AtomicBool,
    /// Held while a page is fetched, so that nobody fetches the same.
    fetching: tokio::sync::Mutex<()>,
    seen: Mutex<Verification>,
}

impl OpenFile {
    /// Opens the file at `path`.
    pub(crate) async fn open(inner: &Arc<Inner>, path: FsPath) -> Result<Arc<Self>, ClientError> {
        let trace = inner.metadata.new_trace();
        let located = inner.metadata.locate(&path, 0, PAGE_BLOCKS, None, &trace).await?;
        let (status, blocks) = located;
        if status.is_dir() {
            return Err(FsError::IsADirectory { path: path.to_string() }.into());
        }
        let file = Self {
            inner: Arc::clone(inner),
            status,
            trace,
            path,
            blocks: Mutex::new(BTreeMap::new()),
            grown: AtomicBool::new(false),
            fetching: tokio::sync::Mutex::new(()),
            seen: Mutex::new(Verification::default()),
        };
        file.keep(blocks)?;
        Ok(Arc::new(file))
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &FsPath {
        &self.path
    }

    /// Number of blocks.
    pub(crate) fn block_count(&self) -> u32 {
        self.status.length.div_ceil(self.status.block_bytes.max(1)) as u32
    }

    /// Bytes of the block at `index`.
    pub(crate) fn block_length(&self, index: u32) -> u64 {
        let start = u64::from(index) * self.status.block_bytes;
        self.status.length.saturating_sub(start).min(self.status.block_bytes)
    }

    /// Where a block is, as far as is known.
    pub(crate) async fn block(&self, index: u32) -> Result<LocatedBlock, ClientError> {
        if let Some(block) = self.blocks.lock().get(&index) {
            return Ok(block.clone());
        }
        let _fetching = self.fetching.lock().await;
        if let Some(block) = self.blocks.lock().get(&index) {
            return Ok(block.clone());
        }
        self.fetch(index, PAGE_BLOCKS).await
    }

    /// Where a block is now.
    pub(crate) async fn relocate(&self, index: u32) -> Result<LocatedBlock, ClientError> {
        self.fetch(index, 1).await
    }

    async fn fetch(&self, index: u32, max_blocks: u32) -> Result<LocatedBlock, ClientError> {
        let offset = u64::from(index) * self.status.block_bytes;
        let expected = Some(self.status.inode);
        let metadata = &self.inner.metadata;
        let located =
            metadata.locate(&self.path, offset, max_blocks, expected, &self.trace).await?;
        let (status, blocks) = located;
        // It may have grown meanwhile; what it had when it was opened is there, and is read.
        if status.inode != self.status.inode || status.length < self.status.length {
            return Err(FsError::FileChanged { path: self.path.to_string() }.into());
        }
        self.keep(blocks)?;
        let found = self.blocks.lock().get(&index).cloned();
        found.ok_or_else(|| bad_answer(format!("{}: no block {index}", self.path)))
    }

    /// Whether the blocks may be known with other values than the file had when it was opened.
    pub(crate) fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    fn keep(&self, located: Vec<LocatedBlock>) -> Result<(), ClientError> {
        let mut blocks = self.blocks.lock();
        if blocks.len() + located.len() > KEPT_BLOCKS_MAX {
            blocks.clear();
        }
        for mut block in located {
            let due =
                (u64::from(block.index) * self.status.block_bytes, self.block_length(block.index));
            if due.1 == 0 {
                continue; // Behind the end as it was.
            }
            if block.offset != due.0 || block.length < due.1 {
                return Err(bad_answer(format!(
                    "{}: block {} has {} bytes at {}, not {} at {}",
                    self.path, block.index, block.length, block.offset, due.1, due.0
                )));
            }
            // What is known of its content stays what it was, whatever it grew to.
            if let Some(known) = blocks.get(&block.index)
                && known.id == block.id
            {
                (block.length, block.chaining_value) = (known.length, known.chaining_value);
            }
            if block.length > due.1 {
                self.grown.store(true, Ordering::Relaxed);
            }
            blocks.insert(block.index, block);
        }
        Ok(())
    }

    /// The replicas of a block, the best first.
    pub(crate) fn ordered(&self, block: &LocatedBlock) -> Vec<NodeAddress> {
        let mut replicas = block.replicas.clone();
        self.order(&mut replicas);
        replicas
    }

    /// Sorts replicas, the best first.
    pub(crate) fn order(&self, replicas: &mut [NodeAddress]) {
        self.inner.choice.order(replicas, |node| self.inner.metadata.nearness(node));
    }

    /// What has been verified so far.
    pub(crate) fn verification(&self) -> Verification {
        self.seen.lock().clone()
    }

    pub(crate) fn note_block(&self) {
        self.seen.lock().blocks += 1;
    }

    pub(crate) fn note_verified(&self, bytes: u64) {
        self.seen.lock().bytes_verified += bytes;
    }

    pub(crate) fn note_failover(&self) {
        self.seen.lock().failovers += 1;
    }

    /// A second replica was asked for what another one owed.
    pub(crate) fn note_hedge(&self) {
        self.seen.lock().hedges += 1;
    }

    /// It was the first to deliver.
    pub(crate) fn note_hedge_won(&self) {
        let mut seen = self.seen.lock();
        seen.hedges_won += 1;
        seen.failovers += 1;
    }

    /// Takes note of a replica that failed, and reports it to the namenode if its data is at fault.
    pub(crate) async fn note_failure(
        &self,
        block: &LocatedBlock,
        node: &NodeAddress,
        failure: &StreamFailure,
    ) {
        self.inner.choice.failed(node.id);
        let StreamFailure { cause, bad_data, .. } = failure;
        tracing::debug!(path = %self.path, block = %block.id, %node, %cause, "a replica failed");
        if !bad_data {
            return;
        }
        self.seen.lock().bad_replicas.push(BadReplica {
            block: block.id,
            node: node.clone(),
            what: cause.clone(),
        });
        let metadata = &self.inner.metadata;
        let reported =
            metadata.report_bad_replica(block.id, block.generation, node.id, cause, &self.trace);
        if let Err(error) = reported.await {
            // The read goes on; the datanode's own scrubber finds the replica in time.
            tracing::warn!(block = %block.id, %node, %error, "a bad replica could not be reported");
        }
    }
}
