//! Opening a closed file to be written on.

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{AppendCommand, AppendOutcome, OpenTail, outcome};

use super::placement::{Wish, check_placement_fields};
use crate::engine::namespace::view::{self, Tail};
use crate::rpc::locate::{best_first, located};
use crate::rpc::{Context, check_text, request_of, wrong_outcome};

/// Attempts to open a file whose end changes meanwhile.
const ATTEMPTS_MAX: usize = 5;

impl Context {
    pub(in crate::rpc) async fn append(
        &self,
        request: wire::AppendRequest,
    ) -> Result<wire::AppendResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        let (id, client) = request_of(request.request.clone())?;
        check_text("holder", &request.holder)?;
        check_placement_fields(&request.client_host, &request.excluded_nodes)?;
        self.hub.leases().renew(client, self.hub.now());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cut = request.truncate.then_some(request.truncate_to);
            let tail = self.driver.read(|tables| view::tail(tables, &path, cut)).await?;
            let command = self.append_command(&request, &path, &tail)?;
            let propose =
                |take_over| Change::Append(AppendCommand { take_over, ..command.clone() });
            let tried = self.propose_or_take_over(id.clone(), client, &path, propose).await;
            match tried.map(|outcome| outcome.kind) {
                Ok(Some(outcome::Kind::Append(opened))) => {
                    return self.opened(&request, opened, tail.block_bytes).await;
                }
                Ok(_) => return Err(wrong_outcome()),
                Err(refusal) if attempts == ATTEMPTS_MAX || !is_outdated(&refusal) => {
                    return Err(refusal);
                }
                Err(_) => {}
            }
        }
    }

    /// The command with the nodes for the block that is written on: who has it, and others.
    fn append_command(
        &self,
        request: &wire::AppendRequest,
        path: &FsPath,
        tail: &Tail,
    ) -> Result<AppendCommand, FsError> {
        let mut command = AppendCommand {
            path: request.path.clone(),
            holder: request.holder.clone(),
            take_over: false,
            truncate: request.truncate,
            truncate_to: request.truncate_to,
            expected_inode_id: request.expected_inode_id,
            ..AppendCommand::default()
        };
        if let Some(block) = &tail.block {
            let mut holders = self.usable(&block.good, &request.excluded_nodes);
            holders.truncate(tail.replication as usize);
            if holders.is_empty() {
                return Err(self.no_holder(path.as_str(), &block.good, &request.excluded_nodes));
            }
            let wish = Wish {
                replicas: tail.replication as usize,
                block_bytes: tail.block_bytes,
                client_host: &request.client_host,
                excluded: &request.excluded_nodes,
                holders: &holders,
            };
            command.tail_block_id = block.id.0;
            command.tail_generation = block.generation.0;
            command.tail_targets = self.place_behind(tail.replication, &wish);
            command.tail_holders = holders.iter().map(|node| node.0).collect();
        }
        Ok(command)
    }

    async fn opened(
        &self,
        request: &wire::AppendRequest,
        opened: AppendOutcome,
        block_bytes: u64,
    ) -> Result<wire::AppendResponse, FsError> {
        let length = opened.length;
        if opened.block_id == 0 {
            return Ok(wire::AppendResponse { status: opened.status, length, tail: None });
        }
        let id = BlockId(opened.block_id);
        let before = self.driver.read(|tables| Ok(view::seen_block(tables, id)?)).await?;
        let inode = InodeId(opened.status.as_ref().map_or(0, |status| status.inode_id));
        let before = before.ok_or(FsError::LeaseLost { inode: inode.0 })?;
        let block = (id, opened.generation);
        let block = self.allocated(inode, block, before.index, &opened.targets, block_bytes);
        let replicas = {
            let (mut chance, cluster) = (self.chance(), self.hub.cluster());
            let rack = cluster.rack_of_host(&request.client_host);
            best_first(&cluster, &before, (&request.client_host, rack), &mut chance)
        };
        let tail = OpenTail {
            block: Some(block),
            holders: opened.holders,
            length: length % block_bytes,
            before: Some(located(&before, replicas)),
        };
        Ok(wire::AppendResponse { status: opened.status, length, tail: Some(tail) })
    }
}

/// Whether the file ends with another block than the nodes were chosen for, or that is elsewhere by now.
fn is_outdated(refusal: &FsError) -> bool {
    match refusal {
        FsError::BlockMismatch { .. } => true,
        FsError::InvalidArgument { field, .. } => field == "tail_holders",
        _ => false,
    }
}
