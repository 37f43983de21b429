//! Conversions of what `types.proto` shares between services.

use super::BadMessage;
use crate::block::{AllocatedBlock, BlockBytes, BlockCommit, LocatedBlock};
use crate::digest::{ChainingValue, FileDigest};
use crate::file::{Durability, FileKind, FileStatus};
use crate::id::{BlockId, Generation, InodeId, NodeId};
use crate::limits::{BLOCK_BYTES_MAX, REPLICATION_MAX, TEXT_BYTES_MAX};
use crate::node::{NodeAddress, NodeState};
use crate::wire;

/// Reads a field of exactly 32 bytes.
pub(crate) fn value32(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], BadMessage> {
    bytes.try_into().map_err(|_| BadMessage::new(field, format!("{} bytes, not 32", bytes.len())))
}

/// Refuses a text longer than the protocol allows.
///
/// # Errors
/// Names the field.
pub fn short_text(field: &'static str, text: String) -> Result<String, BadMessage> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadMessage::new(field, format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

impl From<Durability> for wire::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::All => Self::All,
            Durability::One => Self::One,
            Durability::Memory => Self::Memory,
        }
    }
}

impl From<wire::Durability> for Durability {
    fn from(durability: wire::Durability) -> Self {
        match durability {
            wire::Durability::Unspecified | wire::Durability::All => Self::All,
            wire::Durability::One => Self::One,
            wire::Durability::Memory => Self::Memory,
        }
    }
}

impl From<NodeState> for wire::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Live => Self::Live,
            NodeState::Suspect => Self::Suspect,
            NodeState::Dead => Self::Dead,
        }
    }
}

impl From<NodeAddress> for wire::NodeAddress {
    fn from(node: NodeAddress) -> Self {
        let state = wire::NodeState::from(node.state) as i32;
        Self { node_id: node.id.0, address: node.address, rack: node.rack, state }
    }
}

impl TryFrom<wire::NodeAddress> for NodeAddress {
    type Error = BadMessage;

    fn try_from(node: wire::NodeAddress) -> Result<Self, BadMessage> {
        let state = match node.state() {
            wire::NodeState::Live => NodeState::Live,
            wire::NodeState::Unspecified | wire::NodeState::Suspect => NodeState::Suspect,
            wire::NodeState::Dead => NodeState::Dead,
        };
        if node.node_id == 0 {
            return Err(BadMessage::new("node_id", "0 names no datanode"));
        }
        let address = short_text("address", node.address)?;
        let rack = short_text("rack", node.rack)?;
        Ok(Self { id: NodeId(node.node_id), address, rack, state })
    }
}

fn block_length(length: u64) -> Result<(), BadMessage> {
    if (1..=BLOCK_BYTES_MAX).contains(&length) {
        return Ok(());
    }
    Err(BadMessage::new("length", format!("{length} is not from 1 to {BLOCK_BYTES_MAX}")))
}

fn at_most_replication_max(field: &'static str, found: usize) -> Result<(), BadMessage> {
    if found <= REPLICATION_MAX as usize {
        return Ok(());
    }
    Err(BadMessage::new(field, format!("{found} nodes are more than {REPLICATION_MAX}")))
}

pub(crate) fn nodes(nodes: Vec<wire::NodeAddress>) -> Result<Vec<NodeAddress>, BadMessage> {
    nodes.into_iter().map(NodeAddress::try_from).collect()
}

impl From<AllocatedBlock> for wire::AllocatedBlock {
    fn from(block: AllocatedBlock) -> Self {
        let targets = block.targets.into_iter().map(Into::into).collect();
        Self { block_id: block.id.0, generation: block.generation.0, index: block.index, targets }
    }
}

impl TryFrom<wire::AllocatedBlock> for AllocatedBlock {
    type Error = BadMessage;

    fn try_from(block: wire::AllocatedBlock) -> Result<Self, BadMessage> {
        if block.targets.is_empty() {
            return Err(BadMessage::new("targets", "a block without a datanode"));
        }
        at_most_replication_max("targets", block.targets.len())?;
        Ok(Self {
            id: BlockId(block.block_id),
            generation: Generation(block.generation),
            index: block.index,
            targets: nodes(block.targets)?,
        })
    }
}

impl From<BlockCommit> for wire::BlockCommit {
    fn from(commit: BlockCommit) -> Self {
        Self {
            block_id: commit.id.0,
            generation: commit.generation.0,
            length: commit.length,
            chaining_value: commit.chaining_value.to_bytes(),
            root_value: commit.root_value.map(FileDigest::to_bytes).unwrap_or_default(),
            node_ids: commit.nodes.into_iter().map(|node| node.0).collect(),
        }
    }
}

impl TryFrom<wire::BlockCommit> for BlockCommit {
    type Error = BadMessage;

    fn try_from(commit: wire::BlockCommit) -> Result<Self, BadMessage> {
        block_length(commit.length)?;
        if commit.node_ids.is_empty() || commit.node_ids.contains(&0) {
            return Err(BadMessage::new("node_ids", "a block is committed with its holders"));
        }
        at_most_replication_max("node_ids", commit.node_ids.len())?;
        if (1..commit.node_ids.len()).any(|at| commit.node_ids[..at].contains(&commit.node_ids[at]))
        {
            return Err(BadMessage::new("node_ids", "a holder is named twice"));
        }
        let root_value = match commit.root_value.len() {
            0 => None,
            _ => Some(FileDigest(value32("root_value", &commit.root_value)?)),
        };
        Ok(Self {
            id: BlockId(commit.block_id),
            generation: Generation(commit.generation),
            length: commit.length,
            chaining_value: ChainingValue(value32("chaining_value", &commit.chaining_value)?),
            root_value,
            nodes: commit.node_ids.into_iter().map(NodeId).collect(),
        })
    }
}

impl From<LocatedBlock> for wire::LocatedBlock {
    fn from(block: LocatedBlock) -> Self {
        Self {
            block_id: block.id.0,
            generation: block.generation.0,
            index: block.index,
            offset: block.offset,
            length: block.length,
            chaining_value: block.chaining_value.to_bytes(),
            replicas: block.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::LocatedBlock> for LocatedBlock {
    type Error = BadMessage;

    fn try_from(block: wire::LocatedBlock) -> Result<Self, BadMessage> {
        block_length(block.length)?;
        if block.offset.checked_add(block.length).is_none() {
            return Err(BadMessage::new("offset", "the block ends beyond any file"));
        }
        Ok(Self {
            id: BlockId(block.block_id),
            generation: Generation(block.generation),
            index: block.index,
            offset: block.offset,
            length: block.length,
            chaining_value: ChainingValue(value32("chaining_value", &block.chaining_value)?),
            replicas: nodes(block.replicas)?,
        })
    }
}

impl From<FileStatus> for wire::FileStatus {
    fn from(status: FileStatus) -> Self {
        let kind = match status.kind {
            FileKind::Directory => wire::FileKind::Directory,
            FileKind::File => wire::FileKind::File,
        };
        let durability =
            status.durability.map_or(wire::Durability::Unspecified, wire::Durability::from);
        Self {
            path: status.path,
            inode_id: status.inode.0,
            kind: kind as i32,
            length: status.length,
            replication: status.replication,
            block_bytes: status.block_bytes,
            modified_ms: status.modified_ms,
            digest: status.digest.map(FileDigest::to_bytes).unwrap_or_default(),
            durability: durability as i32,
            created_ms: status.created_ms,
            being_written: status.being_written,
        }
    }
}

impl TryFrom<wire::FileStatus> for FileStatus {
    type Error = BadMessage;

    fn try_from(status: wire::FileStatus) -> Result<Self, BadMessage> {
        let kind = match status.kind() {
            wire::FileKind::Directory => FileKind::Directory,
            wire::FileKind::File => FileKind::File,
            wire::FileKind::Unspecified => return Err(BadMessage::new("kind", "unknown")),
        };
        let is_file = kind == FileKind::File;
        if is_file && BlockBytes::new(status.block_bytes).is_none() {
            return Err(BadMessage::new(
                "block_bytes",
                format!("{} is no block size", status.block_bytes),
            ));
        }
        let durability = is_file.then(|| Durability::from(status.durability()));
        let digest = match kind {
            FileKind::File => Some(FileDigest(value32("digest", &status.digest)?)),
            FileKind::Directory => None,
        };
        Ok(Self {
            path: status.path,
            inode: InodeId(status.inode_id),
            kind,
            length: status.length,
            replication: status.replication,
            block_bytes: status.block_bytes,
            modified_ms: status.modified_ms,
            created_ms: status.created_ms,
            digest,
            durability,
            being_written: status.being_written,
        })
    }
}
