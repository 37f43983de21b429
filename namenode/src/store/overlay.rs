//! Committed changes in memory, on their way to the database.

use std::collections::btree_map;
use std::iter::{Flatten, Peekable};

use bytes::Bytes;
use doldam_proto::id::JournalIndex;

use crate::engine::tables::{Change, Changes, Table};

/// What an entry costs beside its key and value: two `Bytes`, their share of a map node that is not
/// full, and what the allocator adds to two small allocations. From the resident memory of 50,000
/// creates.
const ENTRY_OVERHEAD_BYTES: usize = 184;

/// The changes of the commands up to one index.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    changes: Changes,
    applied: JournalIndex,
    bytes: usize,
}

impl Overlay {
    /// An empty overlay over a state in which the commands up to `applied` are.
    pub(super) fn after(applied: JournalIndex) -> Self {
        Self { changes: Changes::new(), applied, bytes: 0 }
    }

    /// Adds the changes of the commands up to `index`.
    pub(super) fn commit(&mut self, changes: Changes, index: JournalIndex) {
        assert!(
            index > self.applied,
            "command {index} is applied again; the state is at {}",
            self.applied,
        );
        self.applied = index;
        for (table, key, change) in changes.into_entries() {
            self.insert(table, key, change);
        }
    }

    fn insert(&mut self, table: Table, key: Bytes, change: Change) {
        let key_bytes = key.len() + ENTRY_OVERHEAD_BYTES;
        self.bytes += value_bytes(&change);
        match self.changes.insert(table, key, change) {
            Some(replaced) => self.bytes -= value_bytes(&replaced),
            None => self.bytes += key_bytes,
        }
    }

    pub(super) const fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) const fn applied(&self) -> JournalIndex {
        self.applied
    }

    /// Memory the changes take, roughly.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

fn value_bytes(change: &Change) -> usize {
    change.value().map_or(0, Bytes::len)
}

type Range<'a> = btree_map::Range<'a, Bytes, Change>;

/// The changes of two overlays in order of keys; where both change a key, only the newer counts.
#[derive(Debug)]
pub(super) struct Newest<'a> {
    newer: Peekable<Range<'a>>,
    older: Peekable<Flatten<std::option::IntoIter<Range<'a>>>>,
}

impl<'a> Newest<'a> {
    pub(super) fn new(newer: Range<'a>, older: Option<Range<'a>>) -> Self {
        Self { newer: newer.peekable(), older: older.into_iter().flatten().peekable() }
    }
}

impl<'a> Iterator for Newest<'a> {
    type Item = (&'a Bytes, &'a Change);

    fn next(&mut self) -> Option<Self::Item> {
        let (Some((newer, _)), Some((older, _))) = (self.newer.peek(), self.older.peek()) else {
            return self.newer.next().or_else(|| self.older.next());
        };
        match newer.cmp(older) {
            std::cmp::Ordering::Less => self.newer.next(),
            std::cmp::Ordering::Greater => self.older.next(),
            std::cmp::Ordering::Equal => {
                self.older.next();
                self.newer.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static str) -> Change {
        Change::Put(Bytes::from_static(value.as_bytes()))
    }

    fn changes(entries: &[(&'static str, Change)]) -> Changes {
        let mut changes = Changes::new();
        for (key, change) in entries {
            changes.insert(Table::Inodes, Bytes::from_static(key.as_bytes()), change.clone());
        }
        changes
    }

    #[test]
    fn the_size_follows_replacements_and_deletions() {
        let mut overlay = Overlay::after(JournalIndex(4));
        overlay.commit(changes(&[("key", put("four"))]), JournalIndex(5));
        assert_eq!(overlay.bytes(), 3 + 4 + ENTRY_OVERHEAD_BYTES);
        overlay.commit(changes(&[("key", put("1"))]), JournalIndex(6));
        assert_eq!(overlay.bytes(), 3 + 1 + ENTRY_OVERHEAD_BYTES);
        overlay.commit(changes(&[("key", Change::Delete)]), JournalIndex(7));
        assert_eq!(overlay.bytes(), 3 + ENTRY_OVERHEAD_BYTES, "the deletion itself is kept");
        assert_eq!(overlay.applied(), JournalIndex(7));
    }

    #[test]
    #[should_panic(expected = "command 7 is applied again")]
    fn a_command_is_not_applied_twice() {
        let mut overlay = Overlay::after(JournalIndex(7));
        overlay.commit(Changes::new(), JournalIndex(7));
    }

    #[test]
    fn the_newer_change_of_a_key_wins() {
        let newer = changes(&[("a", put("1")), ("c", Change::Delete)]);
        let older = changes(&[("b", put("2")), ("c", put("old")), ("d", put("3"))]);
        let all = std::ops::Bound::Unbounded;
        let merged: Vec<_> =
            Newest::new(newer.range(Table::Inodes, all), Some(older.range(Table::Inodes, all)))
                .map(|(key, change)| (key.clone(), change.clone()))
                .collect();
        let expected = [("a", put("1")), ("b", put("2")), ("c", Change::Delete), ("d", put("3"))];
        assert_eq!(merged, expected.map(|(key, change)| (Bytes::from(key), change)));
    }
}
