//! `Inodes`: every file, directory and unfinished write.
//!
//! Key: inode id (8 bytes). Value: `InodeRecord`. `parent_id` 0 marks what is unlinked and waits in
//! `Garbage`; only the root directory has it by nature.

use std::ops::Bound;

use doldam_proto::id::InodeId;
use doldam_proto::wire::InodeRecord;

use super::{Flow, damaged, decode, encode, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// The inode.
pub(crate) fn get(tables: &dyn Tables, id: InodeId) -> Result<Option<InodeRecord>, StoreError> {
    let value = tables.get(Table::Inodes, &id.0.to_be_bytes())?;
    value.map(|value| decode(Table::Inodes, value)).transpose()
}

/// The inode that another record refers to.
pub(crate) fn require(tables: &dyn Tables, id: InodeId) -> Result<InodeRecord, StoreError> {
    get(tables, id)?.ok_or_else(|| damaged(Table::Inodes, format!("inode {id} is missing")))
}

/// Sets the inode.
pub(crate) fn put(set: &mut WriteSet<'_>, id: InodeId, record: &InodeRecord) {
    set.put(Table::Inodes, &id.0.to_be_bytes(), encode(record));
}

/// Removes the inode.
pub(crate) fn delete(set: &mut WriteSet<'_>, id: InodeId) {
    set.delete(Table::Inodes, &id.0.to_be_bytes());
}

/// Visits every inode in order of ids.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(InodeId, InodeRecord) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Inodes, &[], Bound::Unbounded, &mut |key, value| {
        let id = InodeId(u64::from_be_bytes(exactly(Table::Inodes, key)?));
        visit(id, decode(Table::Inodes, bytes::Bytes::copy_from_slice(value))?)
    })
}
