//! The calls, each with what it means: typed arguments in, checked answers out.

use std::time::Duration;

use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit, LocatedBlock};
use doldam_proto::convert::BadMessage;
use doldam_proto::file::{Durability, FileStatus};
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::limits::{STAT_BATCH_MAX, TEXT_BYTES_MAX};
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_runtime::telemetry::TraceId;

use super::{Metadata, Patience};
use crate::create::WriteOptions;
use crate::engine::write_pipeline::Allocation;
use crate::error::ClientError;

/// A write that was begun.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) inode: InodeId,
    pub(crate) block_bytes: BlockBytes,
    pub(crate) durability: Durability,
    pub(crate) first: Option<AllocatedBlock>,
}

/// A page of a directory.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<FileStatus>,
    pub(crate) more: bool,
    pub(crate) directory: InodeId,
}

/// How long a report of a bad replica may hold up a read.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long giving up a write may hold up the error that is the reason.
const ABANDON_PATIENCE: Duration = Duration::from_secs(5);

/// Makes one call of `ClientService`.
macro_rules! call {
    ($self:ident.$method:ident($operation:literal, $patience:expr, $trace:expr, $request:expr)) => {
        $self.call($operation, $patience, $trace, $request, |mut service, request| async move {
            service.$method(request).await
        })
    };
}

pub(super) use call;

/// An answer that breaks the protocol.
pub(crate) fn bad_answer(what: impl Into<String>) -> ClientError {
    ClientError::BadAnswer { peer: "the namenode".to_owned(), what: what.into() }
}

impl From<BadMessage> for ClientError {
    fn from(bad: BadMessage) -> Self {
        bad_answer(bad.to_string())
    }
}

/// The status that an answer must have.
pub(super) fn status(status: Option<wire::FileStatus>) -> Result<FileStatus, ClientError> {
    Ok(status.ok_or_else(|| bad_answer("an answer without a status"))?.try_into()?)
}

impl Metadata {
    pub(crate) async fn create(
        &self,
        path: &FsPath,
        options: &WriteOptions,
        allocate_first: bool,
        excluded: &[NodeId],
        trace: &TraceId,
    ) -> Result<Created, ClientError> {
        let guard = self.requests.begin();
        let request = wire::CreateRequest {
            request: guard.id(),
            path: path.to_string(),
            replication: options.replication.unwrap_or(0),
            block_bytes: options.block_bytes.unwrap_or(0),
            durability: wire::Durability::from(options.durability) as i32,
            overwrite: options.overwrite,
            parents: options.parents,
            allocate_first,
            holder: self.holder().to_owned(),
            excluded_nodes: excluded.iter().map(|node| node.0).collect(),
            client_host: self.client_host(),
        };
        let patience = self.excluding_patience(excluded);
        let answer = call!(self.create("create", patience, trace, request)).await?;
        let block_bytes = BlockBytes::new(answer.block_bytes)
            .ok_or_else(|| bad_answer(format!("block size {}", answer.block_bytes)))?;
        let durability = answer.durability().into();
        let first: Option<AllocatedBlock> = answer.first.map(TryInto::try_into).transpose()?;
        if first.as_ref().is_some_and(|block| block.index != 0) {
            return Err(bad_answer("the first block has another index than 0"));
        }
        Ok(Created { inode: InodeId(answer.inode_id), block_bytes, durability, first })
    }

    pub(crate) async fn allocate(
        &self,
        inode: InodeId,
        allocation: &Allocation,
        trace: &TraceId,
    ) -> Result<AllocatedBlock, ClientError> {
        let guard = self.requests.begin();
        let request = wire::AllocateBlockRequest {
            request: guard.id(),
            inode_id: inode.0,
            index: allocation.index,
            commits: allocation.commits.iter().cloned().map(Into::into).collect(),
            replaces_block_id: allocation.replaces.map_or(0, |block| block.0),
            excluded_nodes: allocation.excluded.iter().map(|node| node.0).collect(),
            client_host: self.client_host(),
        };
        let patience = self.excluding_patience(&allocation.excluded);
        let answer = call!(self.allocate_block("allocate", patience, trace, request)).await?;
        let block = answer.block.ok_or_else(|| bad_answer("an allocation without a block"))?;
        let block: AllocatedBlock = block.try_into()?;
        if block.index != allocation.index {
            let what = format!("block {} where {} was asked for", block.index, allocation.index);
            return Err(bad_answer(what));
        }
        Ok(block)
    }

    pub(crate) async fn complete(
        &self,
        inode: InodeId,
        length: u64,
        commits: Vec<BlockCommit>,
        trace: &TraceId,
    ) -> Result<(FileStatus, u32), ClientError> {
        let guard = self.requests.begin();
        let request = wire::CompleteRequest {
            request: guard.id(),
            inode_id: inode.0,
            length,
            commits: commits.into_iter().map(Into::into).collect(),
        };
        let answer = call!(self.complete("complete", self.patience(), trace, request)).await?;
        Ok((status(answer.status)?, answer.under_replicated_blocks))
    }

    pub(crate) async fn abandon(&self, inode: InodeId, trace: &TraceId) -> Result<(), ClientError> {
        let guard = self.requests.begin();
        let request = wire::AbandonRequest { request: guard.id(), inode_id: inode.0 };
        let patience = Patience { total: ABANDON_PATIENCE, placement: Duration::ZERO };
        call!(self.abandon("abandon", patience, trace, request)).await?;
        Ok(())
    }

    pub(crate) async fn locate(
        &self,
        path: &FsPath,
        offset: u64,
        max_blocks: u32,
        expected: Option<InodeId>,
        trace: &TraceId,
    ) -> Result<(FileStatus, Vec<LocatedBlock>), ClientError> {
        let request = wire::LocateRequest {
            path: path.to_string(),
            offset,
            max_blocks,
            expected_inode_id: expected.map_or(0, |inode| inode.0),
            client_host: self.client_host(),
            client_rack: self.config.client_rack.clone().unwrap_or_default(),
        };
        let answer = call!(self.locate("locate", self.patience(), trace, request)).await?;
        if *self.rack.lock() != answer.client_rack {
            self.rack.lock().clone_from(&answer.client_rack);
        }
        let blocks = answer.blocks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok((status(answer.status)?, blocks))
    }

    pub(crate) async fn report_bad_replica(
        &self,
        block: BlockId,
        generation: Generation,
        node: NodeId,
        what: &str,
        trace: &TraceId,
    ) -> Result<(), ClientError> {
        let end = (0..=what.len().min(TEXT_BYTES_MAX)).rev().find(|&at| what.is_char_boundary(at));
        let request = wire::ReportBadReplicaRequest {
            block_id: block.0,
            generation: generation.0,
            node_id: node.0,
            what: what[..end.unwrap_or(0)].to_owned(),
        };
        let patience = Patience { total: REPORT_PATIENCE, placement: Duration::ZERO };
        call!(self.report_bad_replica("report bad replica", patience, trace, request)).await?;
        Ok(())
    }

    pub(crate) async fn stat(&self, path: &FsPath) -> Result<FileStatus, ClientError> {
        let request = wire::StatRequest { path: path.to_string() };
        let trace = self.new_trace();
        status(call!(self.stat("stat", self.patience(), &trace, request)).await?.status)
    }

    pub(crate) async fn stat_many(
        &self,
        paths: &[FsPath],
    ) -> Result<Vec<Option<FileStatus>>, ClientError> {
        let mut found = Vec::with_capacity(paths.len());
        for batch in paths.chunks(STAT_BATCH_MAX) {
            let paths = batch.iter().map(ToString::to_string).collect();
            let request = wire::StatBatchRequest { paths };
            let trace = self.new_trace();
            let answer = call!(self.stat_batch("stat", self.patience(), &trace, request)).await?;
            if answer.entries.len() != batch.len() {
                return Err(bad_answer("another number of entries than were asked for"));
            }
            for entry in answer.entries {
                found.push(entry.status.map(TryInto::try_into).transpose()?);
            }
        }
        Ok(found)
    }

    pub(crate) async fn list(
        &self,
        path: &FsPath,
        start_after: String,
        trace: &TraceId,
    ) -> Result<Page, ClientError> {
        let request = wire::ListRequest { path: path.to_string(), start_after, max_entries: 0 };
        let answer = call!(self.list("list", self.patience(), trace, request)).await?;
        let entries: Vec<FileStatus> =
            answer.entries.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        if answer.more && entries.is_empty() {
            return Err(bad_answer("an empty page that is not the last"));
        }
        Ok(Page { entries, more: answer.more, directory: InodeId(answer.inode_id) })
    }

    pub(crate) async fn mkdir(&self, path: &FsPath, parents: bool) -> Result<bool, ClientError> {
        let guard = self.requests.begin();
        let request = wire::MkdirRequest { request: guard.id(), path: path.to_string(), parents };
        let trace = self.new_trace();
        Ok(call!(self.mkdir("mkdir", self.patience(), &trace, request)).await?.created)
    }

    pub(crate) async fn rename(
        &self,
        from: &FsPath,
        to: &FsPath,
        replace: bool,
    ) -> Result<(), ClientError> {
        let guard = self.requests.begin();
        let request = wire::RenameRequest {
            request: guard.id(),
            from: from.to_string(),
            to: to.to_string(),
            replace,
        };
        let trace = self.new_trace();
        call!(self.rename("rename", self.patience(), &trace, request)).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, path: &FsPath, recursive: bool) -> Result<(), ClientError> {
        let guard = self.requests.begin();
        let request =
            wire::DeleteRequest { request: guard.id(), path: path.to_string(), recursive };
        let trace = self.new_trace();
        call!(self.delete("delete", self.patience(), &trace, request)).await?;
        Ok(())
    }

    pub(crate) async fn set_replication(
        &self,
        path: &FsPath,
        replication: u32,
    ) -> Result<u32, ClientError> {
        let guard = self.requests.begin();
        let request = wire::SetReplicationRequest {
            request: guard.id(),
            path: path.to_string(),
            replication,
        };
        let trace = self.new_trace();
        let answer =
            call!(self.set_replication("set replication", self.patience(), &trace, request));
        Ok(answer.await?.previous)
    }

    pub(crate) async fn set_modified(
        &self,
        path: &FsPath,
        modified_ms: u64,
    ) -> Result<(), ClientError> {
        let guard = self.requests.begin();
        let request =
            wire::SetTimesRequest { request: guard.id(), path: path.to_string(), modified_ms };
        let trace = self.new_trace();
        call!(self.set_times("set times", self.patience(), &trace, request)).await?;
        Ok(())
    }

    /// With nodes excluded, having none left is an answer: the caller then does with less.
    pub(super) fn excluding_patience(&self, excluded: &[NodeId]) -> Patience {
        if excluded.is_empty() { self.placement_patience() } else { self.patience() }
    }

    /// A block needs datanodes: right after a start they may take a moment to register.
    fn placement_patience(&self) -> Patience {
        Patience { placement: self.config.placement_timeout, ..self.patience() }
    }
}
