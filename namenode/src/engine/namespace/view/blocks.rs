//! Blocks by id and by file, and what is to be made of a replica that a datanode reports.

use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::wire::{BlockRecord, FileRecord, InodeRecord};

use super::is_linked;
use crate::engine::namespace::aside::{index_for_readers, position};
use crate::engine::namespace::open_block::{Seen, committed, is_in_use, newest, seen};
use crate::engine::records::{
    BREAK, CONTINUE, block_owners, blocks, damaged, debts as debt_records, inodes, meta,
};
use crate::engine::tables::{StoreError, Table, Tables};

/// A block as it is committed, or as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// The generation of this content.
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
    /// Whether it is written on under a newer generation, or that is being recovered.
    pub being_written: bool,
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

/// Blocks of a file as readers see them, from position `first` on, in order, at most `max`; none if `inode` is no file,
/// or has never had a name.
///
/// # Errors
/// If the store fails.
pub fn file_blocks(
    tables: &dyn Tables,
    inode: InodeId,
    first: u32,
    max: usize,
) -> Result<Vec<Block>, StoreError> {
    let Some(owner) = inodes::get(tables, inode)? else { return Ok(Vec::new()) };
    match &owner.file {
        Some(file) => seen_blocks(tables, inode, &owner, file, first, max),
        None => Ok(Vec::new()),
    }
}

/// Blocks of a file with a name as readers see them, from position `first` on, in order, at most `max`.
pub(super) fn seen_blocks(
    tables: &dyn Tables,
    inode: InodeId,
    owner: &InodeRecord,
    file: &FileRecord,
    first: u32,
    max: usize,
) -> Result<Vec<Block>, StoreError> {
    let end = file.block_count;
    let mut found = Vec::new();
    while found.len() < max && first + (found.len() as u32) < end {
        let index = index_for_readers(file, first + found.len() as u32);
        let before = found.len();
        blocks::scan(tables, inode, index, &mut |index, record| {
            let next = first + found.len() as u32;
            if found.len() == max || next == end || index != index_for_readers(file, next) {
                return BREAK;
            }
            if let Some(seen) = seen(&record) {
                found.push(of_content(inode, owner, index, &record, &seen)?);
            }
            CONTINUE
        })?;
        if found.len() == before {
            let next = first + before as u32;
            let what = format!("inode {inode} has no block {next} of {end} to show");
            return Err(damaged(Table::Blocks, what));
        }
    }
    Ok(found)
}

/// What readers see of the block `id`; `None` if it is unknown, collected or shown to nobody.
///
/// # Errors
/// If the store fails.
pub fn seen_block(tables: &dyn Tables, id: BlockId) -> Result<Option<Block>, StoreError> {
    let Some((inode, index, record)) = find(tables, id)? else { return Ok(None) };
    let owner = inodes::require(tables, inode)?;
    seen(&record).map(|seen| of_content(inode, &owner, index, &record, &seen)).transpose()
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

/// Blocks after `after` (0: from the first), committed or not, in order of ids.
///
/// # Errors
/// If the store fails.
pub fn blocks_after(
    tables: &dyn Tables,
    after: BlockId,
    max: usize,
) -> Result<Vec<BlockId>, StoreError> {
    let mut found = Vec::new();
    if max == 0 {
        return Ok(found);
    }
    block_owners::scan_after(tables, after, &mut |block| {
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
    /// Of a generation that is being written, or a part of a block that writers or readers may need: to be left alone.
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
    let generation = replica.generation.0;
    Ok(if generation > newest(&record) {
        Standing::Contradiction
    } else if generation != record.generation || !record.committed {
        if is_in_use(&record, node.0, generation) {
            Standing::BeingWritten
        } else {
            Standing::Unowned
        }
    } else if replica.length != record.length {
        Standing::Contradiction
    } else if record.replicas.contains(&node.0) {
        Standing::Good
    } else if record.bad_replicas.contains(&node.0) {
        Standing::Bad
    } else {
        Standing::Unlisted
    })
}

pub(super) fn find(
    tables: &dyn Tables,
    id: BlockId,
) -> Result<Option<(InodeId, u32, BlockRecord)>, StoreError> {
    let Some((inode, index)) = block_owners::get(tables, id)? else { return Ok(None) };
    let missing = || damaged(Table::Blocks, format!("block {id} is not where it should be"));
    let record = blocks::get(tables, inode, index)?.ok_or_else(missing)?;
    Ok(Some((inode, index, record)))
}

/// A block as it is committed.
fn from_record(
    inode: InodeId,
    owner: &InodeRecord,
    index: u32,
    record: &BlockRecord,
) -> Result<Block, StoreError> {
    of_content(inode, owner, index, record, &committed(record))
}

/// A block with this content.
fn of_content(
    inode: InodeId,
    owner: &InodeRecord,
    index: u32,
    record: &BlockRecord,
    content: &Seen<'_>,
) -> Result<Block, StoreError> {
    let no_file = || damaged(Table::Inodes, format!("inode {inode} has blocks but is no file"));
    let file = owner.file.as_ref().ok_or_else(no_file)?;
    let wrong =
        || damaged(Table::Blocks, format!("block {} has no 32-byte value", record.block_id));
    let chaining_value = ChainingValue::from_slice(content.chaining_value).ok_or_else(wrong)?;
    let index = position(index);
    if index == 0 && FileDigest::from_slice(content.root_value).is_none() {
        return Err(wrong());
    }
    let beyond = || damaged(Table::Blocks, format!("block {index} of {inode} is beyond any file"));
    let offset = u64::from(index).checked_mul(file.block_bytes).ok_or_else(beyond)?;
    let nodes = |ids: &[u32]| ids.iter().map(|node| NodeId(*node)).collect();
    Ok(Block {
        id: BlockId(record.block_id),
        generation: Generation(content.generation),
        length: content.length,
        chaining_value,
        inode,
        index,
        offset,
        block_bytes: file.block_bytes,
        wanted: record.wanted,
        good: nodes(content.good),
        bad: nodes(content.bad),
        unlinked: !is_linked(inode, owner),
        being_written: record.open.is_some(),
    })
}
