//! `BlockOwners`: where a block is, by its id.
//!
//! Key: block id (8 bytes). Value: inode id (8 bytes), block index (4 bytes), which is the key in
//! `Blocks`.

use std::ops::Bound;

use doldam_proto::id::{BlockId, InodeId};

use super::{Flow, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// Whose block it is, and at which index.
pub(crate) fn get(
    tables: &dyn Tables,
    block: BlockId,
) -> Result<Option<(InodeId, u32)>, StoreError> {
    let value = tables.get(Table::BlockOwners, &block.0.to_be_bytes())?;
    value.map(|value| decode_owner(&value)).transpose()
}

/// Sets the owner of a block.
pub(crate) fn put(set: &mut WriteSet<'_>, block: BlockId, inode: InodeId, index: u32) {
    let value = [&inode.0.to_be_bytes()[..], &index.to_be_bytes()[..]].concat();
    set.put(Table::BlockOwners, &block.0.to_be_bytes(), value);
}

/// Forgets a block.
pub(crate) fn delete(set: &mut WriteSet<'_>, block: BlockId) {
    set.delete(Table::BlockOwners, &block.0.to_be_bytes());
}

/// Visits the blocks after `after`, in order of ids; 0 starts at the first.
pub(crate) fn scan_after(
    tables: &dyn Tables,
    after: BlockId,
    visit: &mut dyn FnMut(BlockId) -> Flow,
) -> Result<(), StoreError> {
    let from = after.0.to_be_bytes();
    super::scan(tables, Table::BlockOwners, &[], Bound::Excluded(&from), &mut |key, _| {
        visit(BlockId(u64::from_be_bytes(exactly(Table::BlockOwners, key)?)))
    })
}

/// Visits every block.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(BlockId, InodeId, u32) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::BlockOwners, &[], Bound::Unbounded, &mut |key, value| {
        let block = BlockId(u64::from_be_bytes(exactly(Table::BlockOwners, key)?));
        let (inode, index) = decode_owner(value)?;
        visit(block, inode, index)
    })
}

fn decode_owner(value: &[u8]) -> Result<(InodeId, u32), StoreError> {
    let (inode, index) = split(Table::BlockOwners, value)?;
    let index = u32::from_be_bytes(exactly(Table::BlockOwners, index)?);
    Ok((InodeId(u64::from_be_bytes(inode)), index))
}
