//! What `Children` and `Pending` share: (parent inode, name) -> inode.
//!
//! Key: parent inode id (8 bytes), then the name as it is (1 to 255 bytes of UTF-8). So the entries
//! of one directory stand together, in byte order of their names. Value: inode id (8 bytes).

use std::ops::Bound;

use doldam_proto::id::InodeId;
use doldam_proto::limits::NAME_BYTES_MAX;

use super::{Flow, damaged, exactly, scan as scan_records};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

const PARENT_BYTES: usize = size_of::<u64>();

/// A key without an allocation: path resolution builds one for each component.
pub(super) struct NameKey {
    bytes: [u8; PARENT_BYTES + NAME_BYTES_MAX],
    length: usize,
}

impl NameKey {
    /// # Panics
    /// If `name` is longer than a name may be: names come from an `FsPath` or are checked by the
    /// caller.
    pub(super) fn new(parent: InodeId, name: &str) -> Self {
        assert!(name.len() <= NAME_BYTES_MAX, "a name has at most {NAME_BYTES_MAX} bytes");
        let length = PARENT_BYTES + name.len();
        let mut bytes = [0; PARENT_BYTES + NAME_BYTES_MAX];
        bytes[..PARENT_BYTES].copy_from_slice(&parent.0.to_be_bytes());
        bytes[PARENT_BYTES..length].copy_from_slice(name.as_bytes());
        Self { bytes, length }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

pub(super) fn get(
    tables: &dyn Tables,
    table: Table,
    parent: InodeId,
    name: &str,
) -> Result<Option<InodeId>, StoreError> {
    let value = tables.get(table, NameKey::new(parent, name).as_slice())?;
    value.map(|value| decode_inode(table, &value)).transpose()
}

pub(super) fn put(
    set: &mut WriteSet<'_>,
    table: Table,
    parent: InodeId,
    name: &str,
    inode: InodeId,
) {
    let value = inode.0.to_be_bytes().to_vec();
    set.put(table, NameKey::new(parent, name).as_slice(), value);
}

pub(super) fn delete(set: &mut WriteSet<'_>, table: Table, parent: InodeId, name: &str) {
    set.delete(table, NameKey::new(parent, name).as_slice());
}

/// Visits the names in `parent` after `after` in byte order; an empty `after` starts at the first.
pub(super) fn scan(
    tables: &dyn Tables,
    table: Table,
    parent: InodeId,
    after: &str,
    visit: &mut dyn FnMut(&str, InodeId) -> Flow,
) -> Result<(), StoreError> {
    let prefix = parent.0.to_be_bytes();
    let from = NameKey::new(parent, after);
    scan_records(tables, table, &prefix, Bound::Excluded(from.as_slice()), &mut |name, value| {
        visit(decode_name(table, name)?, decode_inode(table, value)?)
    })
}

/// Visits every entry of the table.
pub(super) fn scan_all(
    tables: &dyn Tables,
    table: Table,
    visit: &mut dyn FnMut(InodeId, &str, InodeId) -> Flow,
) -> Result<(), StoreError> {
    scan_records(tables, table, &[], Bound::Unbounded, &mut |key, value| {
        let (parent, name) = super::split(table, key)?;
        let name = decode_name(table, name)?;
        visit(InodeId(u64::from_be_bytes(parent)), name, decode_inode(table, value)?)
    })
}

/// Whoever gets a name may build a key of it again: one that no key can hold is damage.
fn decode_name(table: Table, name: &[u8]) -> Result<&str, StoreError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let what = format!("a name has {} bytes, not 1 to {NAME_BYTES_MAX}", name.len());
        return Err(damaged(table, what));
    }
    std::str::from_utf8(name).map_err(|_| damaged(table, "a name is no UTF-8"))
}

fn decode_inode(table: Table, value: &[u8]) -> Result<InodeId, StoreError> {
    exactly(table, value).map(|bytes| InodeId(u64::from_be_bytes(bytes)))
}
