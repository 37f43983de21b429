//! Blocks of a file being written: allocated, replaced when an attempt failed, committed.

use doldam_proto::FsError;
use doldam_proto::block::BlockCommit;
use doldam_proto::id::{BlockId, Generation, InodeId};
use doldam_proto::limits::{FILE_BLOCKS_MAX, LOCATE_BLOCKS_MAX, REPLICATION_MAX};
use doldam_proto::wire;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AllocateBlockCommand, AllocateOutcome, BlockRecord, CommitBlocksCommand, Done,
};

use super::draft::Draft;
use super::lease::{Write, require_write};
use super::resolve::ascend;
use super::{NamespaceError, replica_index};
use crate::engine::records::{block_owners, blocks, damaged};
use crate::engine::tables::Table;

/// The generation of every new block. A failed attempt is replaced by another block.
const FIRST_GENERATION: Generation = Generation(1);

/// Commits what is finished, then gives the write a block at `index`: any free index, or that of
/// the uncommitted block it names as replaced, whose targets are told to drop what they have of it.
pub(super) fn allocate(
    draft: &mut Draft<'_>,
    command: &AllocateBlockCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    commit_all(draft, &write, &command.commits)?;
    let index = command.index;
    if index >= FILE_BLOCKS_MAX {
        let why = format!("{index} is not below {FILE_BLOCKS_MAX}; use larger blocks");
        return Err(FsError::InvalidArgument { field: "index".to_owned(), why }.into());
    }
    let replaced = command.replaces_block_id;
    match blocks::get(&draft.set, write.id, index)? {
        None if replaced == 0 => {}
        None => {
            let why = format!("is to be replaced, but there is no block at index {index}");
            return Err(FsError::BlockMismatch { block: replaced, generation: 0, why }.into());
        }
        Some(existing) if existing.block_id == replaced && !existing.committed => {
            remove_uncommitted(draft, write.id, index, &existing);
        }
        Some(existing) => {
            let state = if existing.committed { "committed" } else { "allocated" };
            let why = format!("is {state} at index {index} already");
            return Err(mismatch(&existing, why).into());
        }
    }
    if command.targets.is_empty() {
        let path = ascend(&draft.set, write.id, &write.inode)?.for_people();
        return Err(FsError::NoDatanodes { path, refusals: Vec::new() }.into());
    }
    check_targets(draft, "targets", &command.targets)?;
    let wanted = write.file.replication;
    let (block, generation) =
        put_new_block(draft, write.id, index, wanted, command.targets.clone());
    let outcome = AllocateOutcome {
        block_id: block.0,
        generation: generation.0,
        targets: command.targets.clone(),
    };
    Ok(Kind::Allocate(outcome))
}

/// Commits finished blocks.
pub(super) fn commit_blocks(
    draft: &mut Draft<'_>,
    command: &CommitBlocksCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    commit_all(draft, &write, &command.commits)?;
    Ok(Kind::Done(Done {}))
}

/// Commits each of `commits`. What was committed before with the same content is left as it is.
pub(super) fn commit_all(
    draft: &mut Draft<'_>,
    write: &Write,
    commits: &[wire::BlockCommit],
) -> Result<(), NamespaceError> {
    if commits.len() > LOCATE_BLOCKS_MAX as usize {
        let why = format!("{} are more than {LOCATE_BLOCKS_MAX}", commits.len());
        return Err(FsError::InvalidArgument { field: "commits".to_owned(), why }.into());
    }
    for commit in commits {
        let commit = BlockCommit::try_from(commit.clone()).map_err(FsError::from)?;
        commit_one(draft, write, &commit)?;
    }
    Ok(())
}

fn commit_one(
    draft: &mut Draft<'_>,
    write: &Write,
    commit: &BlockCommit,
) -> Result<(), NamespaceError> {
    let refuse = |why: &str| {
        let (block, generation) = (commit.id.0, commit.generation.0);
        NamespaceError::from(FsError::BlockMismatch { block, generation, why: why.to_owned() })
    };
    let index = match block_owners::get(&draft.set, commit.id)? {
        Some((owner, index)) if owner == write.id => index,
        Some(_) | None => return Err(refuse("is no block of this write")),
    };
    let missing =
        || damaged(Table::Blocks, format!("block {} is not where it should be", commit.id));
    let before = blocks::get(&draft.set, write.id, index)?
        .filter(|block| block.block_id == commit.id.0)
        .ok_or_else(missing)?;
    if before.generation != commit.generation.0 {
        return Err(refuse(&format!("was allocated with generation {}", before.generation)));
    }
    if commit.length > write.file.block_bytes {
        let (length, most) = (commit.length, write.file.block_bytes);
        return Err(refuse(&format!("has {length} bytes in a file with blocks of {most}")));
    }
    if commit.root_value.is_some() != (index == 0) {
        return Err(refuse("the first block, and no other, has a root value"));
    }
    let nodes: Vec<u32> = commit.nodes.iter().map(|node| node.0).collect();
    check_targets(draft, "node_ids", &nodes)?;
    let wire = wire::BlockCommit::from(commit.clone());
    if before.committed {
        let same = before.length == wire.length
            && before.chaining_value == wire.chaining_value
            && before.root_value == wire.root_value;
        return if same { Ok(()) } else { Err(refuse("was committed with other content")) };
    }
    for node in before.replicas.iter().filter(|node| !nodes.contains(node)) {
        draft.drop_replica(*node, commit.id, commit.generation);
    }
    let after = BlockRecord {
        length: wire.length,
        chaining_value: wire.chaining_value,
        root_value: wire.root_value,
        replicas: nodes,
        committed: true,
        ..before.clone()
    };
    blocks::put(&mut draft.set, write.id, index, &after);
    replica_index::update(draft, Some(&before), Some(&after))
}

/// Puts a new block where there is none.
pub(super) fn put_new_block(
    draft: &mut Draft<'_>,
    inode: InodeId,
    index: u32,
    wanted: u32,
    targets: Vec<u32>,
) -> (BlockId, Generation) {
    let block = draft.next_block();
    let record = BlockRecord {
        block_id: block.0,
        generation: FIRST_GENERATION.0,
        wanted,
        replicas: targets,
        ..BlockRecord::default()
    };
    blocks::put(&mut draft.set, inode, index, &record);
    block_owners::put(&mut draft.set, block, inode, index);
    (block, FIRST_GENERATION)
}

/// Removes a block that was never committed; its targets drop what they have of it.
pub(super) fn remove_uncommitted(
    draft: &mut Draft<'_>,
    inode: InodeId,
    index: u32,
    block: &BlockRecord,
) {
    blocks::delete(&mut draft.set, inode, index);
    block_owners::delete(&mut draft.set, BlockId(block.block_id));
    for node in &block.replicas {
        draft.drop_replica(*node, BlockId(block.block_id), Generation(block.generation));
    }
}

/// Checks a list of nodes: each known, none twice, not too many.
pub(super) fn check_targets(draft: &Draft<'_>, field: &str, nodes: &[u32]) -> Result<(), FsError> {
    let refuse = |why| Err(FsError::InvalidArgument { field: field.to_owned(), why });
    if nodes.len() > REPLICATION_MAX as usize {
        return refuse(format!("{} nodes are more than {REPLICATION_MAX}", nodes.len()));
    }
    for (position, node) in nodes.iter().enumerate() {
        if nodes[..position].contains(node) {
            return refuse(format!("datanode {node} is named twice"));
        }
        if !draft.knows_node(*node) {
            return refuse(format!("datanode {node} never registered"));
        }
    }
    Ok(())
}

/// Refuses because of what a block's record says.
pub(super) fn mismatch(block: &BlockRecord, why: impl Into<String>) -> FsError {
    let (block, generation) = (block.block_id, block.generation);
    FsError::BlockMismatch { block, generation, why: why.into() }
}
