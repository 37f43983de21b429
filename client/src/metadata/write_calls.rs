//! The calls of a write that goes on: recovery of a block, flush, append.

use doldam_proto::block::{AllocatedBlock, BlockBytes, LocatedBlock};
use doldam_proto::file::{Durability, FileStatus};
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_runtime::telemetry::TraceId;

use super::Metadata;
use super::calls::{bad_answer, call, status};
use crate::engine::write_pipeline::{Flush, OpenTail, Recovery, ResumeAt};
use crate::error::ClientError;

/// A block that was given a new generation and pipeline.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) block: AllocatedBlock,
    /// Bytes that the holders have.
    pub(crate) length: u64,
    pub(crate) holders: Vec<NodeId>,
}

/// A file that is written on.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) inode: InodeId,
    pub(crate) block_bytes: BlockBytes,
    pub(crate) durability: Durability,
    /// Before the write.
    pub(crate) status: FileStatus,
    /// The write goes on here.
    pub(crate) length: u64,
    /// The block it goes on inside of, and how that is.
    pub(crate) tail: Option<(OpenTail, LocatedBlock)>,
}

impl Metadata {
    pub(crate) async fn recover_block(
        &self,
        inode: InodeId,
        recovery: &Recovery,
        trace: &TraceId,
    ) -> Result<Recovered, ClientError> {
        let guard = self.requests.begin();
        let request = wire::RecoverBlockRequest {
            request: guard.id(),
            inode_id: inode.0,
            block_id: recovery.block.0,
            generation: recovery.generation.0,
            acknowledged: recovery.acknowledged,
            survivors: recovery.survivors.iter().map(|node| node.0).collect(),
            excluded_nodes: recovery.excluded.iter().map(|node| node.0).collect(),
            client_host: self.client_host(),
        };
        let patience = self.excluding_patience(&recovery.excluded);
        let answer = call!(self.recover_block("recover block", patience, trace, request)).await?;
        let block = answer.block.ok_or_else(|| bad_answer("a recovery without a block"))?;
        let block: AllocatedBlock = block.try_into()?;
        let holders: Vec<NodeId> = answer.holders.into_iter().map(NodeId).collect();
        if (block.id, block.index) != (recovery.block, recovery.index) {
            let what = format!("block {} where {} was to be recovered", block.id, recovery.block);
            return Err(bad_answer(what));
        }
        if block.generation <= recovery.generation || answer.length > recovery.acknowledged {
            return Err(bad_answer(format!(
                "block {}: generation {} and {} bytes where generation {} had {}",
                block.id,
                block.generation,
                answer.length,
                recovery.generation,
                recovery.acknowledged
            )));
        }
        check_holders(&block, answer.length, &holders)?;
        Ok(Recovered { block, length: answer.length, holders })
    }

    pub(crate) async fn flush(
        &self,
        inode: InodeId,
        flush: Flush,
        trace: &TraceId,
    ) -> Result<FileStatus, ClientError> {
        let guard = self.requests.begin();
        let length = flush.length;
        let request = wire::FlushRequest {
            request: guard.id(),
            inode_id: inode.0,
            length,
            commits: flush.commits.into_iter().map(Into::into).collect(),
            open: flush.open.map(Into::into),
            synced: flush.sync,
        };
        let answer = call!(self.flush("flush", self.patience(), trace, request)).await?;
        let status = status(answer.status)?;
        if status.length != length {
            let what = format!("{} bytes visible where {length} were flushed", status.length);
            return Err(bad_answer(what));
        }
        Ok(status)
    }

    /// Opens a file to be written on; with `truncate_to` behind so many bytes of it.
    pub(crate) async fn append(
        &self,
        path: &FsPath,
        truncate_to: Option<u64>,
        trace: &TraceId,
    ) -> Result<Appended, ClientError> {
        let guard = self.requests.begin();
        let request = wire::AppendRequest {
            request: guard.id(),
            path: path.to_string(),
            holder: self.holder().to_owned(),
            client_host: self.client_host(),
            excluded_nodes: Vec::new(),
            truncate: truncate_to.is_some(),
            truncate_to: truncate_to.unwrap_or(0),
            expected_inode_id: 0,
        };
        let answer =
            call!(self.append("append", self.excluding_patience(&[]), trace, request)).await?;
        let (length, status) = (answer.length, status(answer.status)?);
        let block_bytes = BlockBytes::new(status.block_bytes)
            .ok_or_else(|| bad_answer(format!("block size {}", status.block_bytes)))?;
        let durability = status.durability.unwrap_or_default();
        let due = truncate_to.unwrap_or(status.length);
        let tail = answer.tail.map(|tail| check_tail(tail, length, block_bytes)).transpose()?;
        let inside = !length.is_multiple_of(block_bytes.get());
        if length != due || length > status.length || tail.is_some() != inside {
            return Err(bad_answer(format!(
                "the write of {path} is to go on behind {length} of {} bytes where {due} were asked for",
                status.length
            )));
        }
        Ok(Appended { inode: status.inode, block_bytes, durability, status, length, tail })
    }
}

fn check_tail(
    tail: wire::OpenTail,
    length: u64,
    block_bytes: BlockBytes,
) -> Result<(OpenTail, LocatedBlock), ClientError> {
    let missing = || bad_answer("the end of a file without its block");
    let block: AllocatedBlock = tail.block.ok_or_else(missing)?.try_into()?;
    let before: LocatedBlock = tail.before.ok_or_else(missing)?.try_into()?;
    let start = length - length % block_bytes.get();
    let holders: Vec<NodeId> = tail.holders.into_iter().map(NodeId).collect();
    let fits = before.id == block.id
        && u64::from(block.index) * block_bytes.get() == start
        && before.offset == start
        && tail.length == length - start
        && tail.length <= before.length
        && before.length <= block_bytes.get();
    if !fits {
        return Err(bad_answer(format!(
            "{} of {} bytes of block {} at {} for a file of {length} bytes",
            tail.length, before.length, block.id, before.offset
        )));
    }
    check_holders(&block, tail.length, &holders)?;
    Ok((OpenTail { block, resume: ResumeAt { length: tail.length, holders } }, before))
}

/// The holders are the first of the pipeline, and there are some if there is anything to hold.
fn check_holders(
    block: &AllocatedBlock,
    length: u64,
    holders: &[NodeId],
) -> Result<(), ClientError> {
    let targets = block.targets.iter().map(|target| target.id);
    let first = holders.len() <= block.targets.len()
        && holders.iter().copied().eq(targets.take(holders.len()));
    if first && (length == 0) == holders.is_empty() {
        return Ok(());
    }
    Err(bad_answer(format!(
        "block {}: nodes {holders:?} hold {length} bytes, in another order than the pipeline's",
        block.id
    )))
}
