//! A state held in memory alone: the simplest [`Tables`], for tests and models.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Change, Changes, StoreError, Table, Tables, Visit};

/// A state in ordered maps, gone when dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTables {
    tables: [BTreeMap<Bytes, Bytes>; Table::COUNT],
}

impl MemoryTables {
    /// An empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `changes` part of the state.
    pub fn apply_changes(&mut self, changes: Changes) {
        for (table, key, change) in changes.into_entries() {
            match change {
                Change::Put(value) => self.tables[table.index()].insert(key, value),
                Change::Delete => self.tables[table.index()].remove(&key),
            };
        }
    }

    /// The entries of one table, in order of keys.
    pub fn entries(&self, table: Table) -> &BTreeMap<Bytes, Bytes> {
        &self.tables[table.index()]
    }
}

impl Tables for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables[table.index()].get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        // A break and the end of the table are the same to the caller, who knows which it was.
        let _ = self.tables[table.index()]
            .range::<[u8], _>((from, Bound::Unbounded))
            .try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}
