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

use super::aside::is_aside;
use super::draft::Draft;
use super::lease::{Write, require_write};
use super::open_block::{
    Seen, committed, drop_all, floor, in_progress, newest, promoted, seen_of_commit,
};
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
        Some(existing)
            if existing.block_id == replaced
                && !existing.committed
                && existing.flushed.is_none() =>
        {
            remove(draft, write.id, index, &existing)?;
        }
        Some(existing) => {
            let state = match (existing.committed, &existing.flushed) {
                (true, _) => "committed",
                (false, Some(_)) => "flushed",
                (false, None) => "allocated",
            };
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
    let (index, before) = own_block(draft, write, commit.id, commit.generation)?;
    let wire = wire::BlockCommit::from(commit.clone());
    let writing = in_progress(&before);
    if writing.is_none_or(|writing| writing.generation != commit.generation.0) {
        let earlier = match before.open.as_ref().and_then(|open| open.commit.as_ref()) {
            Some(waiting) if waiting.generation == wire.generation => Some(seen_of_commit(waiting)),
            Some(_) | None => before.committed.then(|| committed(&before)),
        };
        return refuse_unless_same(&wire, earlier, &before);
    }
    check_content(draft, write, index, commit)?;
    if commit.length < floor(&before) {
        let why = format!("has fewer than the {} bytes it starts with", floor(&before));
        return Err(mismatch_of(commit, why).into());
    }
    let mut after = before.clone();
    match &mut after.open {
        Some(open) if write.pending.untouched => {
            open.commit = Some(wire);
        }
        Some(_) | None => {
            after = promoted(draft, &before, &wire);
            // Until the next flush readers see what they saw.
            let shown = before.flushed.clone().or_else(|| as_flushed(&before));
            after.flushed = shown.map(|shown| wire::FlushedBlock { nodes: Vec::new(), ..shown });
        }
    }
    blocks::put(&mut draft.set, write.id, index, &after);
    replica_index::update(draft, Some(&before), Some(&after))
}

/// A commit of something that is not being written: done before, or wrong.
fn refuse_unless_same(
    commit: &wire::BlockCommit,
    earlier: Option<Seen<'_>>,
    before: &BlockRecord,
) -> Result<(), NamespaceError> {
    let generation = commit.generation;
    let refuse = |why| {
        let block = commit.block_id;
        Err(NamespaceError::from(FsError::BlockMismatch { block, generation, why }))
    };
    let Some(earlier) = earlier.filter(|earlier| earlier.generation == generation) else {
        return refuse(format!("is of generation {} by now", newest(before)));
    };
    let is_same = earlier.length == commit.length
        && earlier.chaining_value == commit.chaining_value
        && earlier.root_value == commit.root_value;
    if is_same { Ok(()) } else { refuse("was committed with other content".to_owned()) }
}

/// What readers see of a block before its open generation is in force.
fn as_flushed(block: &BlockRecord) -> Option<wire::FlushedBlock> {
    let seen = block.committed.then(|| committed(block))?;
    Some(wire::FlushedBlock {
        generation: seen.generation,
        length: seen.length,
        chaining_value: block.chaining_value.clone(),
        root_value: block.root_value.clone(),
        nodes: Vec::new(),
    })
}

/// The block `id` of a write, and where it is.
pub(super) fn own_block(
    draft: &Draft<'_>,
    write: &Write,
    id: BlockId,
    generation: Generation,
) -> Result<(u32, BlockRecord), NamespaceError> {
    let index = match block_owners::get(&draft.set, id)? {
        Some((owner, index)) if owner == write.id && !is_aside(index) => index,
        Some(_) | None => {
            let (block, generation) = (id.0, generation.0);
            let why = "is no block of this write".to_owned();
            return Err(FsError::BlockMismatch { block, generation, why }.into());
        }
    };
    let missing = || damaged(Table::Blocks, format!("block {id} is not where it should be"));
    let record = blocks::get(&draft.set, write.id, index)?
        .filter(|block| block.block_id == id.0)
        .ok_or_else(missing)?;
    Ok((index, record))
}

/// Checks what a writer says of the bytes of a block, as far as it can be checked.
pub(super) fn check_content(
    draft: &Draft<'_>,
    write: &Write,
    index: u32,
    commit: &BlockCommit,
) -> Result<(), FsError> {
    if commit.length > write.file.block_bytes {
        let (length, most) = (commit.length, write.file.block_bytes);
        let why = format!("has {length} bytes in a file with blocks of {most}");
        return Err(mismatch_of(commit, why));
    }
    if commit.root_value.is_some() != (index == 0) {
        let why = "the first block, and no other, has a root value".to_owned();
        return Err(mismatch_of(commit, why));
    }
    let nodes: Vec<u32> = commit.nodes.iter().map(|node| node.0).collect();
    check_targets(draft, "node_ids", &nodes)
}

/// Refuses a commit.
pub(super) fn mismatch_of(commit: &BlockCommit, why: String) -> FsError {
    FsError::BlockMismatch { block: commit.id.0, generation: commit.generation.0, why }
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

/// Removes a block; all that is there of it is dropped.
pub(super) fn remove(
    draft: &mut Draft<'_>,
    inode: InodeId,
    index: u32,
    block: &BlockRecord,
) -> Result<(), NamespaceError> {
    blocks::delete(&mut draft.set, inode, index);
    block_owners::delete(&mut draft.set, BlockId(block.block_id));
    drop_all(draft, block);
    replica_index::update(draft, Some(block), None)
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
