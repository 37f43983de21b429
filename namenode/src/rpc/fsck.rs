//! The condition of every file below a path, as a stream: in bounded memory, a slice at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::file::FileStatus;
use doldam_proto::id::NodeId;
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_proto::wire::BlockHealth;
use futures::{Stream, stream};

use super::Context;
use crate::engine::cluster::Cluster;
use crate::engine::namespace::view::{self, Block, WalkCursor};
use crate::engine::repair::assess::{Assessment, Health};

/// Entries of directories visited under one lock.
const ENTRIES_AT_ONCE: usize = 128;
/// Blocks looked at under one lock.
const BLOCKS_AT_ONCE: usize = 256;
/// Blocks of one file that are listed; the others are only counted.
const BLOCKS_LISTED_MAX: usize = 10_000;

/// A walk that is under way.
struct Walk {
    context: Arc<Context>,
    path: FsPath,
    only_findings: bool,
    ahead: VecDeque<FileStatus>,
    next: Next,
}

enum Next {
    Start,
    From(WalkCursor),
    End,
}

/// Every file below `path`, or only those with a finding.
pub(super) fn files(
    context: Arc<Context>,
    path: FsPath,
    only_findings: bool,
) -> impl Stream<Item = Result<wire::FsckFile, FsError>> + Send {
    let (ahead, next) = (VecDeque::new(), Next::Start);
    let walk = Walk { context, path, only_findings, ahead, next };
    stream::try_unfold(walk, |mut walk| async {
        let file = walk.next_file().await?;
        Ok(file.map(|file| (file, walk)))
    })
}

impl Walk {
    async fn next_file(&mut self) -> Result<Option<wire::FsckFile>, FsError> {
        loop {
            while let Some(status) = self.ahead.pop_front() {
                let file = self.check(status).await?;
                if !self.only_findings || file.health() != BlockHealth::Healthy {
                    return Ok(Some(file));
                }
            }
            let cursor = match std::mem::replace(&mut self.next, Next::End) {
                Next::Start => None,
                Next::From(cursor) => Some(cursor),
                Next::End => return Ok(None),
            };
            let path = &self.path;
            let walk = self
                .context
                .driver
                .read(|tables| view::walk(tables, path, cursor, ENTRIES_AT_ONCE));
            let slice = walk.await?;
            self.ahead.extend(slice.files);
            if let Some(cursor) = slice.next {
                self.next = Next::From(cursor);
            }
        }
    }

    async fn check(&self, status: FileStatus) -> Result<wire::FsckFile, FsError> {
        let mut file = wire::FsckFile {
            path: status.path,
            length: status.length,
            replication: status.replication,
            health: BlockHealth::Healthy as i32,
            blocks: Vec::new(),
            block_count: 0,
        };
        let mut first = Some(0);
        while let Some(from) = first {
            let read = self
                .context
                .driver
                .read(|tables| Ok(view::file_blocks(tables, status.inode, from, BLOCKS_AT_ONCE)?));
            let blocks = read.await?;
            let is_full = blocks.len() == BLOCKS_AT_ONCE;
            first = blocks.last().filter(|_| is_full).map(|block| block.index + 1);
            let cluster = self.context.hub.cluster();
            for block in blocks {
                self.add_block(&mut file, &block, &cluster);
            }
        }
        Ok(file)
    }

    fn add_block(&self, file: &mut wire::FsckFile, block: &Block, cluster: &Cluster) {
        let health = health_of(Assessment::of(block, cluster).health());
        file.block_count += 1;
        file.health = file.health.max(health as i32);
        let is_listed = !self.only_findings || health != BlockHealth::Healthy;
        if !is_listed || file.blocks.len() >= BLOCKS_LISTED_MAX {
            return;
        }
        let addresses = |nodes: &[NodeId]| -> Vec<wire::NodeAddress> {
            nodes.iter().filter_map(|node| cluster.address(*node)).map(Into::into).collect()
        };
        let is_live = |node: &&NodeId| cluster.standing(**node).is_live();
        file.blocks.push(wire::FsckBlock {
            block_id: block.id.0,
            generation: block.generation.0,
            index: block.index,
            health: health as i32,
            live: block.good.iter().filter(is_live).count() as u32,
            replicas: addresses(&block.good),
            bad_replicas: addresses(&block.bad),
        });
    }
}

/// The worst that can be said; the numbers of the variants rise with it.
fn health_of(health: Health) -> BlockHealth {
    if health.is_missing() {
        BlockHealth::Missing
    } else if health.is_corrupt() {
        BlockHealth::Corrupt
    } else if health.is_under_replicated() {
        BlockHealth::UnderReplicated
    } else {
        BlockHealth::Healthy
    }
}
