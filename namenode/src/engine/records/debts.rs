//! `Debts`: committed blocks whose replicas are not what is wanted: too few good ones, too many, or
//! a bad one.
//!
//! Key: block id (8 bytes). No value. It holds all that the repair planner has to look at after a
//! restart.

use std::ops::Bound;

use doldam_proto::id::BlockId;

use super::{Flow, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// Notes the block.
pub(crate) fn put(set: &mut WriteSet<'_>, block: BlockId) {
    set.put(Table::Debts, &block.0.to_be_bytes(), bytes::Bytes::new());
}

/// Forgets the block.
pub(crate) fn delete(set: &mut WriteSet<'_>, block: BlockId) {
    set.delete(Table::Debts, &block.0.to_be_bytes());
}

/// Visits the blocks after `after`, in order of ids; 0 starts at the first.
pub(crate) fn scan(
    tables: &dyn Tables,
    after: BlockId,
    visit: &mut dyn FnMut(BlockId) -> Flow,
) -> Result<(), StoreError> {
    let from = after.0.to_be_bytes();
    super::scan(tables, Table::Debts, &[], Bound::Excluded(&from), &mut |key, _| {
        visit(BlockId(u64::from_be_bytes(exactly(Table::Debts, key)?)))
    })
}
