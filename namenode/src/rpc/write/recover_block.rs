//! Going on with a block whose pipeline broke.

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, InodeId, NodeId};
use doldam_proto::limits::REPLICATION_MAX;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome;

use super::placement::{Wish, check_placement_fields};
use crate::engine::namespace::view::{self, WriteView, WritingBlock};
use crate::rpc::{Context, request_of, wrong_outcome};

impl Context {
    pub(in crate::rpc) async fn recover_block(
        &self,
        request: wire::RecoverBlockRequest,
    ) -> Result<wire::RecoverBlockResponse, FsError> {
        let (id, client) = request_of(request.request.clone())?;
        check_placement_fields(&request.client_host, &request.excluded_nodes)?;
        if request.survivors.len() > REPLICATION_MAX as usize {
            let why = format!("{} are more than {REPLICATION_MAX}", request.survivors.len());
            return Err(FsError::InvalidArgument { field: "survivors".to_owned(), why });
        }
        let (inode, block) = (InodeId(request.inode_id), BlockId(request.block_id));
        let read = self.driver.read(|tables| {
            let write = view::unfinished_write(tables, inode)?;
            Ok((write, view::writing_block(tables, inode, block)?))
        });
        let (write, writing) = read.await?;
        let write = write.ok_or(FsError::LeaseLost { inode: inode.0 })?;
        self.hub.leases().renew(client, self.hub.now());
        let command = self.recovery_of(&request, &write, writing.as_ref())?;
        let outcome = self.driver.propose(Some(id), Change::RecoverBlock(command)).await?;
        let Some(outcome::Kind::RecoverBlock(recovered)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        let (index, targets) = (recovered.index, &recovered.targets);
        let bytes = write.block_bytes;
        let block = self.allocated(inode, (block, recovered.generation), index, targets, bytes);
        Ok(wire::RecoverBlockResponse {
            block: Some(block),
            length: recovered.length,
            holders: recovered.holders,
        })
    }

    /// Where the block is gone on with: behind what all survivors have, or behind what is never given up, with who
    /// has that.
    fn recovery_of(
        &self,
        request: &wire::RecoverBlockRequest,
        write: &WriteView,
        writing: Option<&WritingBlock>,
    ) -> Result<wire::RecoverBlockCommand, FsError> {
        let excluded = &request.excluded_nodes;
        let survivors: Vec<NodeId> = request.survivors.iter().copied().map(NodeId).collect();
        let (floor, known) = writing.map_or((0, &[][..]), |it| (it.floor, it.holders.as_slice()));
        let (length, holders) = if !survivors.is_empty() && request.acknowledged >= floor.max(1) {
            (request.acknowledged, survivors)
        } else {
            let first = survivors.iter().filter(|node| known.contains(node));
            let others = known.iter().filter(|node| !survivors.contains(node));
            let all: Vec<NodeId> = first.chain(others).copied().collect();
            let mut usable = self.usable(&all, excluded);
            usable.truncate(write.replication as usize);
            if floor > 0 && usable.is_empty() {
                return Err(self.no_holder(&write.path, known, excluded));
            }
            (floor, usable)
        };
        let wish = Wish {
            replicas: write.replication as usize,
            block_bytes: write.block_bytes,
            client_host: &request.client_host,
            excluded,
            holders: &holders,
        };
        let targets = if holders.is_empty() {
            self.place(&write.path, &wish)?
        } else {
            self.place_behind(write.replication, &wish)
        };
        Ok(wire::RecoverBlockCommand {
            inode_id: request.inode_id,
            block_id: request.block_id,
            generation: request.generation,
            length,
            holders: holders.iter().map(|node| node.0).collect(),
            targets,
        })
    }
}
