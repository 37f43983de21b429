//! `Garbage`: the queue of what was unlinked and still has blocks, children or its inode to be
//! collected.
//!
//! Key: position (8 bytes), counted up by the counters in `Meta`, which also know the oldest.
//! Value: `GarbageRecord`. It is a queue with a known head, and each entry keeps how far it has
//! come, because a scan from the start would pass over all that was collected since the last
//! checkpoint, again for every slice.

use std::ops::Bound;

use doldam_proto::wire::GarbageRecord;

use super::{Flow, decode, encode, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// The entry at `position`.
pub(crate) fn get(tables: &dyn Tables, position: u64) -> Result<Option<GarbageRecord>, StoreError> {
    let value = tables.get(Table::Garbage, &position.to_be_bytes())?;
    value.map(|value| decode(Table::Garbage, value)).transpose()
}

/// Sets the entry at `position`.
pub(crate) fn put(set: &mut WriteSet<'_>, position: u64, record: &GarbageRecord) {
    set.put(Table::Garbage, &position.to_be_bytes(), encode(record));
}

/// Removes the entry at `position`.
pub(crate) fn delete(set: &mut WriteSet<'_>, position: u64) {
    set.delete(Table::Garbage, &position.to_be_bytes());
}

/// Visits every entry in order of positions.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(u64, GarbageRecord) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Garbage, &[], Bound::Unbounded, &mut |key, value| {
        let position = u64::from_be_bytes(exactly(Table::Garbage, key)?);
        visit(position, decode(Table::Garbage, bytes::Bytes::copy_from_slice(value))?)
    })
}
