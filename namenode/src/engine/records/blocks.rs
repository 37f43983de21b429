//! `Blocks`: the blocks of every file in order.
//!
//! Key: inode id (8 bytes), block index (4 bytes). Value: `BlockRecord`. Blocks are under their
//! file and not under their own id, because opening, closing and deleting a file read them all in
//! order.

use std::ops::Bound;

use doldam_proto::id::InodeId;
use doldam_proto::wire::BlockRecord;

use super::{Flow, decode, encode, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

const INODE_BYTES: usize = size_of::<u64>();
const KEY_BYTES: usize = INODE_BYTES + size_of::<u32>();

fn key(inode: InodeId, index: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..INODE_BYTES].copy_from_slice(&inode.0.to_be_bytes());
    key[INODE_BYTES..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The block of `inode` at `index`.
pub(crate) fn get(
    tables: &dyn Tables,
    inode: InodeId,
    index: u32,
) -> Result<Option<BlockRecord>, StoreError> {
    let value = tables.get(Table::Blocks, &key(inode, index))?;
    value.map(|value| decode(Table::Blocks, value)).transpose()
}

/// Sets the block of `inode` at `index`.
pub(crate) fn put(set: &mut WriteSet<'_>, inode: InodeId, index: u32, record: &BlockRecord) {
    set.put(Table::Blocks, &key(inode, index), encode(record));
}

/// Removes the block of `inode` at `index`.
pub(crate) fn delete(set: &mut WriteSet<'_>, inode: InodeId, index: u32) {
    set.delete(Table::Blocks, &key(inode, index));
}

/// Visits the blocks of `inode` from `from` on, in order.
pub(crate) fn scan(
    tables: &dyn Tables,
    inode: InodeId,
    from: u32,
    visit: &mut dyn FnMut(u32, BlockRecord) -> Flow,
) -> Result<(), StoreError> {
    let from = key(inode, from);
    let prefix = &from[..INODE_BYTES];
    super::scan(tables, Table::Blocks, prefix, Bound::Included(&from), &mut |index, value| {
        let index = u32::from_be_bytes(exactly(Table::Blocks, index)?);
        visit(index, decode(Table::Blocks, bytes::Bytes::copy_from_slice(value))?)
    })
}

/// Visits every block of every file.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(InodeId, u32, BlockRecord) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Blocks, &[], Bound::Unbounded, &mut |key, value| {
        let (inode, index) = split(Table::Blocks, key)?;
        let index = u32::from_be_bytes(exactly(Table::Blocks, index)?);
        let record = decode(Table::Blocks, bytes::Bytes::copy_from_slice(value))?;
        visit(InodeId(u64::from_be_bytes(inode)), index, record)
    })
}
