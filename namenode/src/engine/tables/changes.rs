//! Changes that are not yet part of a state, and a view of a state with such changes on top.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{StoreError, Table, Tables, Visit};

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has this value from now on.
    Put(Bytes),
    /// It is not there any more.
    Delete,
}

impl Change {
    /// The new value; `None` for a deletion.
    pub const fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }

    /// Visits the new entry, if there is one.
    pub(crate) fn visit(&self, key: &[u8], visit: &mut Visit<'_>) -> ControlFlow<()> {
        match self {
            Self::Put(value) => visit(key, value),
            Self::Delete => ControlFlow::Continue(()),
        }
    }

    /// Visits the changes up to `key`, then the entry of the state below unless it was changed.
    pub(crate) fn visit_merged<'a>(
        changes: &mut Peekable<impl Iterator<Item = (&'a Bytes, &'a Self)>>,
        key: &[u8],
        value: &[u8],
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        while let Some((changed, change)) = changes.next_if(|(changed, _)| changed.as_ref() <= key)
        {
            change.visit(changed, visit)?;
            if changed.as_ref() == key {
                return ControlFlow::Continue(());
            }
        }
        visit(key, value)
    }
}

/// Changes of one or more commands, ordered by table and key; at most one for each key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    tables: [BTreeMap<Bytes, Change>; Table::COUNT],
}

impl Changes {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the change of `key`, and returns the one it replaces.
    pub fn insert(&mut self, table: Table, key: Bytes, change: Change) -> Option<Change> {
        self.tables[table.index()].insert(key, change)
    }

    /// The change of `key`, if there is one.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Change> {
        self.tables[table.index()].get(key)
    }

    /// The changes of one table from `from` on, in order of keys.
    pub fn range(&self, table: Table, from: Bound<&[u8]>) -> btree_map::Range<'_, Bytes, Change> {
        self.tables[table.index()].range::<[u8], _>((from, Bound::Unbounded))
    }

    /// How many keys change.
    pub fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// Every change, in order of tables and keys.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &Bytes, &Change)> {
        Table::ALL.into_iter().zip(&self.tables).flat_map(|(table, changes)| {
            changes.iter().map(move |(key, change)| (table, key, change))
        })
    }

    /// Every change, in order of tables and keys.
    pub fn into_entries(self) -> impl Iterator<Item = (Table, Bytes, Change)> {
        Table::ALL.into_iter().zip(self.tables).flat_map(|(table, changes)| {
            changes.into_iter().map(move |(key, change)| (table, key, change))
        })
    }

    /// Adds later changes: where both change a key, `later` counts.
    pub fn merge(&mut self, later: Self) {
        for (earlier, later) in self.tables.iter_mut().zip(later.tables) {
            earlier.extend(later);
        }
    }
}

/// A state with uncommitted changes on top, read as if they were part of it.
pub struct WriteSet<'a> {
    base: &'a dyn Tables,
    changes: Changes,
}

impl std::fmt::Debug for WriteSet<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WriteSet").field("changes", &self.changes.len()).finish()
    }
}

impl<'a> WriteSet<'a> {
    /// Starts without changes.
    pub fn new(base: &'a dyn Tables) -> Self {
        Self { base, changes: Changes::new() }
    }

    /// Sets the value at `key`.
    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) {
        self.changes.insert(table, Bytes::copy_from_slice(key), Change::Put(value.into()));
    }

    /// Removes `key`; no error if it is not there.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.insert(table, Bytes::copy_from_slice(key), Change::Delete);
    }

    /// What was changed so far.
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What was changed; the caller makes it part of the state, or drops it.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl Tables for WriteSet<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changes.get(table, key) {
            Some(change) => Ok(change.value().cloned()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut changes = self.changes.range(table, from).peekable();
        let mut broke = false;
        self.base.scan(table, from, &mut |key, value| {
            let flow = Change::visit_merged(&mut changes, key, value, visit);
            broke = flow.is_break();
            flow
        })?;
        if !broke {
            // A break here ends the scan just as the end of the changes does.
            let _ = changes.try_for_each(|(key, change)| change.visit(key, visit));
        }
        Ok(())
    }
}
