//! The life of a write: create, allocate, commit, flush, complete, abandon; placement and leases around the commands.

mod append;
mod placement;
mod recover_block;
mod take_over;

use doldam_proto::FsError;
use doldam_proto::block::BlockBytes;
use doldam_proto::id::{BlockId, ClientId, InodeId, NodeId};
use doldam_proto::limits::REPLICATION_MAX;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome;

use self::placement::{Wish, check_placement_fields};
use super::{Context, check_text, request_of, wrong_outcome};
use crate::engine::namespace::{apply, view};

impl Context {
    pub(super) async fn create(
        &self,
        request: wire::CreateRequest,
    ) -> Result<wire::CreateResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        let (id, client) = request_of(request.request.clone())?;
        let mut command = self.create_command(&request)?;
        let wish = Wish {
            replicas: command.replication as usize,
            block_bytes: command.block_bytes,
            client_host: &request.client_host,
            excluded: &request.excluded_nodes,
            holders: &[],
        };
        if command.allocate_first {
            match self.place(path.as_str(), &wish) {
                Ok(targets) => command.first_targets = targets,
                Err(nobody) => return Err(self.what_else_is_wrong(&id, command, nobody).await),
            }
        }
        self.hub.leases().renew(client, self.hub.now());
        let (durability, replication) = (command.durability, command.replication);
        let propose =
            |take_over| Change::Create(wire::CreateCommand { take_over, ..command.clone() });
        let outcome = self.propose_or_take_over(id, client, &path, propose).await?;
        let Some(outcome::Kind::Create(created)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        let inode = InodeId(created.inode_id);
        let first = (created.block_id != 0).then(|| {
            let block = (BlockId(created.block_id), created.generation);
            self.allocated(inode, block, 0, &created.targets, wish.block_bytes)
        });
        Ok(wire::CreateResponse {
            inode_id: created.inode_id,
            replication,
            block_bytes: wish.block_bytes,
            durability,
            first,
        })
    }

    /// The command as asked for, with the cluster's defaults where nothing is.
    fn create_command(
        &self,
        request: &wire::CreateRequest,
    ) -> Result<wire::CreateCommand, FsError> {
        check_text("holder", &request.holder)?;
        check_placement_fields(&request.client_host, &request.excluded_nodes)?;
        let replication = match request.replication {
            0 => self.config.default_replication,
            asked => asked,
        };
        if replication > REPLICATION_MAX {
            let why = format!("{replication} is more than {REPLICATION_MAX}");
            return Err(FsError::InvalidArgument { field: "replication".to_owned(), why });
        }
        let block_bytes = match request.block_bytes {
            0 => self.config.default_block_bytes.0,
            asked => asked,
        };
        if BlockBytes::new(block_bytes).is_none() {
            let why = format!("{block_bytes} is no power of two from 64 KiB to 1 GiB");
            return Err(FsError::InvalidArgument { field: "block_bytes".to_owned(), why });
        }
        let durability = match request.durability() {
            wire::Durability::Unspecified => wire::Durability::All,
            known => known,
        };
        Ok(wire::CreateCommand {
            path: request.path.clone(),
            replication,
            block_bytes,
            durability: durability as i32,
            overwrite: request.overwrite,
            parents: request.parents,
            holder: request.holder.clone(),
            allocate_first: request.allocate_first,
            first_targets: Vec::new(),
            take_over: false,
        })
    }

    /// No datanode can take the first block. If the request is wrong anyway, that is what its sender should know.
    async fn what_else_is_wrong(
        &self,
        id: &wire::RequestId,
        command: wire::CreateCommand,
        nobody: FsError,
    ) -> FsError {
        let command = wire::CreateCommand { allocate_first: false, ..command };
        let command = wire::Command {
            time_ms: 0,
            request: Some(id.clone()),
            change: Some(Change::Create(command)),
        };
        let tried = self.driver.read(|tables| Ok(apply(tables, &command)?.outcome)).await;
        match tried {
            Ok(Err(refusal)) if !matches!(refusal, FsError::LeaseHeld { .. }) => refusal,
            Ok(_) => nobody,
            Err(failure) => failure,
        }
    }

    pub(super) async fn allocate_block(
        &self,
        request: wire::AllocateBlockRequest,
    ) -> Result<wire::AllocateBlockResponse, FsError> {
        let (id, client) = request_of(request.request)?;
        check_placement_fields(&request.client_host, &request.excluded_nodes)?;
        let inode = InodeId(request.inode_id);
        let write = self.driver.read(|tables| view::unfinished_write(tables, inode)).await?;
        let write = write.ok_or(FsError::LeaseLost { inode: inode.0 })?;
        self.hub.leases().renew(client, self.hub.now());
        let wish = Wish {
            replicas: write.replication as usize,
            block_bytes: write.block_bytes,
            client_host: &request.client_host,
            excluded: &request.excluded_nodes,
            holders: &[],
        };
        let targets = self.place(&write.path, &wish)?;
        let command = wire::AllocateBlockCommand {
            inode_id: inode.0,
            index: request.index,
            commits: request.commits.clone(),
            replaces_block_id: request.replaces_block_id,
            targets,
        };
        let outcome = self.driver.propose(Some(id), Change::AllocateBlock(command)).await?;
        let Some(outcome::Kind::Allocate(allocated)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        self.committed(inode, &request.commits);
        if request.replaces_block_id != 0 {
            self.hub.release_blocks(inode, [BlockId(request.replaces_block_id)]);
        }
        let block = (BlockId(allocated.block_id), allocated.generation);
        let (index, targets) = (request.index, &allocated.targets);
        let block = self.allocated(inode, block, index, targets, write.block_bytes);
        Ok(wire::AllocateBlockResponse { block: Some(block) })
    }

    pub(super) async fn commit_blocks(
        &self,
        request: wire::CommitBlocksRequest,
    ) -> Result<wire::CommitBlocksResponse, FsError> {
        let (id, client) = request_of(request.request)?;
        self.hub.leases().renew(client, self.hub.now());
        let (inode_id, commits) = (request.inode_id, request.commits.clone());
        let command = wire::CommitBlocksCommand { inode_id, commits };
        self.driver.propose(Some(id), Change::CommitBlocks(command)).await?;
        self.committed(InodeId(inode_id), &request.commits);
        Ok(wire::CommitBlocksResponse {})
    }

    pub(super) async fn complete(
        &self,
        request: wire::CompleteRequest,
    ) -> Result<wire::CompleteResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let wire::CompleteRequest { inode_id, length, commits, .. } = request;
        let command = wire::CompleteCommand { inode_id, length, commits: commits.clone() };
        let outcome = self.driver.propose(Some(id), Change::Complete(command)).await?;
        let Some(outcome::Kind::Complete(completed)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        self.look_at_commits(&commits);
        self.hub.release_write(InodeId(inode_id));
        Ok(wire::CompleteResponse {
            status: completed.status,
            under_replicated_blocks: completed.under_replicated_blocks,
        })
    }

    pub(super) async fn flush(
        &self,
        request: wire::FlushRequest,
    ) -> Result<wire::FlushResponse, FsError> {
        let (id, client) = request_of(request.request)?;
        self.hub.leases().renew(client, self.hub.now());
        let wire::FlushRequest { inode_id, length, commits, open, synced, .. } = request;
        let told = commits.clone();
        let command = wire::FlushCommand { inode_id, length, commits: told, open, synced };
        let outcome = self.driver.propose(Some(id), Change::Flush(command)).await?;
        let Some(outcome::Kind::Flush(flushed)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        self.committed(InodeId(inode_id), &commits);
        Ok(wire::FlushResponse { status: flushed.status })
    }

    pub(super) async fn abandon(
        &self,
        request: wire::AbandonRequest,
    ) -> Result<wire::AbandonResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let command = wire::AbandonCommand { inode_id: request.inode_id };
        self.driver.propose(Some(id), Change::Abandon(command)).await?;
        self.hub.note_abandoned();
        self.hub.release_write(InodeId(request.inode_id));
        Ok(wire::AbandonResponse {})
    }

    pub(super) async fn renew_lease(
        &self,
        request: wire::RenewLeaseRequest,
    ) -> Result<wire::RenewLeaseResponse, FsError> {
        let bad = || FsError::InvalidArgument {
            field: "client_id".to_owned(),
            why: format!("{} bytes, not 16", request.client_id.len()),
        };
        let client = ClientId::from_slice(&request.client_id).ok_or_else(bad)?;
        // Only writers are remembered, whoever may ask.
        let is_known = self.hub.leases().is_known(client);
        let writes =
            |tables: &dyn crate::engine::tables::Tables| Ok(view::writes_anything(tables, client)?);
        if is_known || self.driver.read(writes).await? {
            self.hub.leases().renew(client, self.hub.now());
        }
        Ok(wire::RenewLeaseResponse {})
    }

    fn committed(&self, inode: InodeId, commits: &[wire::BlockCommit]) {
        self.look_at_commits(commits);
        let blocks = commits.iter().map(|commit| BlockId(commit.block_id));
        self.hub.release_blocks(inode, blocks);
    }

    fn allocated(
        &self,
        inode: InodeId,
        (block, generation): (BlockId, u64),
        index: u32,
        targets: &[u32],
        bytes: u64,
    ) -> wire::AllocatedBlock {
        let nodes: Vec<NodeId> = targets.iter().copied().map(NodeId).collect();
        self.hub.reserve(inode, block, &nodes, bytes);
        let targets = self.addresses(targets);
        wire::AllocatedBlock { block_id: block.0, generation, index, targets }
    }
}
