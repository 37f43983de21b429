//! Blocks by id and by file, and what is to be made of a replica that a datanode reports.

use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::wire::{BlockRecord, InodeRecord};

use super::is_linked;
use crate::engine::records::{
    BREAK, CONTINUE, block_owners, blocks, damaged, debts as debt_records, inodes, meta,
};
use crate::engine::tables::{StoreError, Table, Tables};

/// A committed block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// The generation that was committed.
    pub generation: Generation,
    /// In bytes.
    pub length: u64,
    /// What its bytes are verified against.
    pub chaining_value: ChainingValue,
    /// The file it belongs to.
    pub inode: InodeId,
    /// Position in the file.
    pub index: u32,
    /// Where it starts in the file: part of every hash.
    pub offset: u64,
    /// Block size of the file.
    pub block_bytes: u64,
    /// Replicas there should be.
    pub wanted: u32,
    /// Nodes with a good replica, as far as is known.
    pub good: Vec<NodeId>,
    /// Nodes with a replica known to be bad or lost.
    pub bad: Vec<NodeId>,
    /// Whether its file was deleted or replaced: it only waits to be collected, and repairing it is
    /// wasted.
    pub unlinked: bool,
}

impl Block {
    /// What a datanode that holds it reports.
    pub fn replica_id(&self) -> ReplicaId {
        ReplicaId { block: self.id, generation: self.generation, length: self.length }
    }
}

/// The committed block `id`; `None` if it is unknown, collected or not committed.
///
/// # Errors
/// If the store fails.
pub fn block(tables: &dyn Tables, id: BlockId) -> Result<Option<Block>, StoreError> {
    let Some((inode, index, record)) = find(tables, id)? else { return Ok(None) };
    if !record.committed {
        return Ok(None);
    }
    let owner = inodes::require(tables, inode)?;
    from_record(inode, &owner, index, &record).map(Some)
}

/// Blocks of a file from `first` on, in order, at most `max`; none if `inode` is no file.
///
/// # Errors
/// If the store fails.
pub fn file_blocks(
    tables: &dyn Tables,
    inode: InodeId,
    first: u32,
    max: usize,
) -> Result<Vec<Block>, StoreError> {
    match inodes::get(tables, inode)? {
        Some(owner) => blocks_of(tables, inode, &owner, first, max),
        None => Ok(Vec::new()),
    }
}

/// As [`file_blocks`], for a file whose record is at hand.
pub(super) fn blocks_of(
    tables: &dyn Tables,
    inode: InodeId,
    owner: &InodeRecord,
    first: u32,
    max: usize,
) -> Result<Vec<Block>, StoreError> {
    let mut found = Vec::new();
    if max == 0 {
        return Ok(found);
    }
    blocks::scan(tables, inode, first, &mut |index, record| {
        if record.committed {
            found.push(from_record(inode, owner, index, &record)?);
        }
        if found.len() == max { BREAK } else { CONTINUE }
    })?;
    Ok(found)
}

/// Committed blocks after `after` (0: from the first) whose replicas are not what is wanted, in
/// order of ids: too few good ones, too many, or a bad one.
///
/// # Errors
/// If the store fails.
pub fn debts(tables: &dyn Tables, after: BlockId, max: usize) -> Result<Vec<BlockId>, StoreError> {
    let mut found = Vec::new();
    if max == 0 {
        return Ok(found);
    }
    debt_records::scan(tables, after, &mut |block| {
        found.push(block);
        if found.len() == max { BREAK } else { CONTINUE }
    })?;
    Ok(found)
}

/// What a replica on a datanode is to this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In the set of its block.
    Good,
    /// In the set of its block, as bad.
    Bad,
    /// A replica of a committed block that its set does not list: to be added.
    Unlisted,
    /// Its block is being written: to be left alone.
    BeingWritten,
    /// Its block is gone, or it is of an older generation: nobody owns it, it may be dropped.
    Unowned,
    /// Its block was never allocated, or its generation is newer or its length another than this
    /// state knows. Never to be dropped: the state may be the one that is wrong.
    Contradiction,
}

/// What to make of a replica that `node` reports.
///
/// # Errors
/// If the store fails.
pub fn standing(
    tables: &dyn Tables,
    node: NodeId,
    replica: &ReplicaId,
) -> Result<Standing, StoreError> {
    if !(1..meta::counters(tables)?.next_block).contains(&replica.block.0) {
        return Ok(Standing::Contradiction);
    }
    let Some((_, _, record)) = find(tables, replica.block)? else { return Ok(Standing::Unowned) };
    Ok(if replica.generation.0 < record.generation {
        Standing::Unowned
    } else if !record.committed {
        Standing::BeingWritten
    } else if replica.generation.0 > record.generation || replica.length != record.length {
        Standing::Contradiction
    } else if record.replicas.contains(&node.0) {
        Standing::Good
    } else if record.bad_replicas.contains(&node.0) {
        Standing::Bad
    } else {
        Standing::Unlisted
    })
}

fn find(
    tables: &dyn Tables,
    id: BlockId,
) -> Result<Option<(InodeId, u32, BlockRecord)>, StoreError> {
    let Some((inode, index)) = block_owners::get(tables, id)? else { return Ok(None) };
    let missing = || damaged(Table::Blocks, format!("block {id} is not where it should be"));
    let record = blocks::get(tables, inode, index)?.ok_or_else(missing)?;
    Ok(Some((inode, index, record)))
}

fn from_record(
    inode: InodeId,
    owner: &InodeRecord,
    index: u32,
    record: &BlockRecord,
) -> Result<Block, StoreError> {
    let no_file = || damaged(Table::Inodes, format!("inode {inode} has blocks but is no file"));
    let file = owner.file.as_ref().ok_or_else(no_file)?;
    let wrong =
        || damaged(Table::Blocks, format!("block {} has no 32-byte value", record.block_id));
    let chaining_value = ChainingValue::from_slice(&record.chaining_value).ok_or_else(wrong)?;
    if index == 0 && FileDigest::from_slice(&record.root_value).is_none() {
        return Err(wrong());
    }
    let beyond = || damaged(Table::Blocks, format!("block {index} of {inode} is beyond any file"));
    let offset = u64::from(index).checked_mul(file.block_bytes).ok_or_else(beyond)?;
    let nodes = |ids: &[u32]| ids.iter().map(|node| NodeId(*node)).collect();
    Ok(Block {
        id: BlockId(record.block_id),
        generation: Generation(record.generation),
        length: record.length,
        chaining_value,
        inode,
        index,
        offset,
        block_bytes: file.block_bytes,
        wanted: record.wanted,
        good: nodes(&record.replicas),
        bad: nodes(&record.bad_replicas),
        unlinked: !is_linked(inode, owner),
    })
}
