//! How the fake namenode answers a write that goes on: recovery, flush, append.

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockCommit};
use doldam_proto::digest::ChainingValue;
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;

use super::super::state::{Part, Pending, Tables, digest_of};
use super::{Outcome, Shared, commit, finish};

impl Shared {
    pub(super) fn recover(
        &self,
        request: &wire::RecoverBlockRequest,
    ) -> Result<wire::RecoverBlockResponse, FsError> {
        if let Some(Outcome::Recover(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        let inode = request.inode_id;
        let id = BlockId(request.block_id);
        let pending = tables.pending.get(&inode).ok_or(FsError::LeaseLost { inode })?.clone();
        let (index, (block, committed)) =
            pending.blocks.iter().find(|(_, (block, _))| block.id == id).expect("a block of it");
        assert_eq!(*committed, None, "only what is open is recovered");
        assert_eq!(request.generation, block.generation.0);
        for survivor in &request.survivors {
            let replica = tables.replicas.get(&(NodeId(*survivor), id)).expect("it survived");
            assert!(replica.content.len() as u64 >= request.acknowledged);
            assert!(!request.excluded_nodes.contains(survivor));
        }
        let flushed = pending.parts.get(&id);
        let (length, holders) = if request.survivors.is_empty() {
            let part = flushed.expect("nobody has anything of it");
            (part.length, part.nodes.clone())
        } else {
            let survivors = request.survivors.iter().copied().map(NodeId).collect();
            (request.acknowledged, survivors)
        };
        let targets = targets(&tables, &pending, &holders, &request.excluded_nodes);
        let (generation, index) = (Generation(block.generation.0 + 1), *index);
        let block = AllocatedBlock { id, generation, index, targets };
        if let Some(pending) = tables.pending.get_mut(&inode) {
            pending.blocks.insert(index, (block.clone(), None));
        }
        let holders = holders.into_iter().map(|node| node.0).collect();
        let response = wire::RecoverBlockResponse { block: Some(block.into()), length, holders };
        self.keep(request.request.as_ref(), Outcome::Recover(response.clone()));
        Ok(response)
    }

    pub(super) fn flush(
        &self,
        request: &wire::FlushRequest,
    ) -> Result<wire::FlushResponse, FsError> {
        if let Some(Outcome::Flush(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        let inode = request.inode_id;
        commit(&mut tables, inode, &request.commits)?;
        let open = request.open.clone().map(|open| BlockCommit::try_from(open).expect("valid"));
        if let Some(open) = &open {
            check_part(&tables, open);
            let part = Part { length: open.length, nodes: open.nodes.clone() };
            let pending = tables.pending.get_mut(&inode).ok_or(FsError::LeaseLost { inode })?;
            let current = pending.blocks.values().find(|(block, _)| block.id == open.id);
            assert_eq!(current.map(|(block, _)| block.generation), Some(open.generation));
            pending.parts.insert(open.id, part);
        }
        let pending = tables.pending.get(&inode).ok_or(FsError::LeaseLost { inode })?.clone();
        let file = finish(&tables, InodeId(inode), &pending, request.length, open.as_ref());
        let status = Some(file.status.clone().into());
        tables.files.insert(pending.path, file);
        let response = wire::FlushResponse { status };
        self.keep(request.request.as_ref(), Outcome::Flush(response.clone()));
        Ok(response)
    }

    pub(super) fn append(
        &self,
        request: &wire::AppendRequest,
    ) -> Result<wire::AppendResponse, FsError> {
        if let Some(Outcome::Append(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        let path = request.path.clone();
        let not_found = FsError::NotFound { path: path.clone() };
        let file = tables.files.get(&path).ok_or(not_found)?.clone();
        if file.status.being_written {
            let holder = "another".to_owned();
            return Err(FsError::LeaseHeld { path, holder, ends_in_secs: 1 });
        }
        let length = if request.truncate { request.truncate_to } else { file.status.length };
        if length > file.status.length {
            let why = format!("{length} is beyond the {} bytes of the file", file.status.length);
            return Err(FsError::InvalidArgument { field: "truncate_to".to_owned(), why });
        }
        let mut pending = Pending {
            path: path.clone(),
            block_bytes: file.status.block_bytes,
            replication: file.status.replication,
            durability: file.status.durability.unwrap_or_default(),
            ..Pending::default()
        };
        let mut tail = None;
        for before in file.blocks.iter().filter(|block| block.offset < length) {
            let nodes: Vec<NodeId> = before.replicas.iter().map(|node| node.id).collect();
            let (id, index) = (before.id, before.index);
            if before.offset + file.status.block_bytes <= length {
                let block =
                    AllocatedBlock { id, generation: before.generation, index, targets: vec![] };
                let (chaining_value, root_value) = (before.chaining_value, None);
                let (generation, length) = (before.generation, before.length);
                let committed =
                    BlockCommit { id, generation, length, chaining_value, root_value, nodes };
                pending.blocks.insert(index, (block, Some(committed)));
                continue;
            }
            let part = length - before.offset;
            let targets = targets(&tables, &pending, &nodes, &request.excluded_nodes);
            let generation = Generation(before.generation.0 + 1);
            let block = AllocatedBlock { id, generation, index, targets };
            pending.blocks.insert(index, (block.clone(), None));
            pending.parts.insert(id, Part { length: part, nodes: nodes.clone() });
            tail = Some(wire::OpenTail {
                block: Some(block.into()),
                holders: nodes.into_iter().map(|node| node.0).collect(),
                length: part,
                before: Some(before.clone().into()),
            });
        }
        tables.pending.insert(file.status.inode.0, pending);
        if let Some(file) = tables.files.get_mut(&path) {
            file.status.being_written = true;
        }
        let status = Some(file.status.into());
        let response = wire::AppendResponse { status, length, tail };
        self.keep(request.request.as_ref(), Outcome::Append(response.clone()));
        Ok(response)
    }
}

/// The holders, and others up to what is wanted.
fn targets(
    tables: &Tables,
    pending: &Pending,
    holders: &[NodeId],
    excluded: &[u32],
) -> Vec<NodeAddress> {
    let others = tables.nodes.keys().filter(|node| !excluded.contains(&node.0));
    let mut ids = holders.to_vec();
    for node in others {
        if ids.len() < pending.replication as usize && !ids.contains(node) {
            ids.push(*node);
        }
    }
    ids.iter().map(|id| tables.nodes[id].clone()).collect()
}

/// Who flushes a part of a block has it, and knows its value.
fn check_part(tables: &Tables, open: &BlockCommit) {
    for node in &open.nodes {
        let replica = tables.replicas.get(&(*node, open.id)).expect("who flushes has it");
        assert!(replica.content.len() as u64 >= open.length);
        let content: Bytes = replica.content.slice(..open.length as usize);
        let digest = digest_of(replica.file_offset, &content);
        let ChainingValue(value) = digest.chaining_value;
        assert_eq!(open.chaining_value.0, value);
        assert_eq!(open.root_value, digest.root_value);
    }
}
