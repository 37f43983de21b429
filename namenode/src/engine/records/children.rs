//! `Children`: what a directory holds: (parent inode, name) -> inode of a complete file or a
//! directory.
//!
//! The layout stands in [`names`](super::names).

use doldam_proto::id::InodeId;

use super::{Flow, names};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// What is called \`name\` in \`parent\`.
pub(crate) fn get(
    tables: &dyn Tables,
    parent: InodeId,
    name: &str,
) -> Result<Option<InodeId>, StoreError> {
    names::get(tables, Table::Children, parent, name)
}

/// Sets the entry.
pub(crate) fn put(set: &mut WriteSet<'_>, parent: InodeId, name: &str, inode: InodeId) {
    names::put(set, Table::Children, parent, name, inode);
}

/// Removes the entry.
pub(crate) fn delete(set: &mut WriteSet<'_>, parent: InodeId, name: &str) {
    names::delete(set, Table::Children, parent, name);
}

/// Visits the names in `parent` after `after` in byte order; an empty `after` starts at the first.
pub(crate) fn scan(
    tables: &dyn Tables,
    parent: InodeId,
    after: &str,
    visit: &mut dyn FnMut(&str, InodeId) -> Flow,
) -> Result<(), StoreError> {
    names::scan(tables, Table::Children, parent, after, visit)
}

/// Visits every entry of the table as (parent, name, inode).
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(InodeId, &str, InodeId) -> Flow,
) -> Result<(), StoreError> {
    names::scan_all(tables, Table::Children, visit)
}
