//! What must hold after every step of the namespace.
//!
//! | property | file |
//! |---|---|
//! | every inode has exactly one place: a name, a reservation or the queue of garbage | [`tree`] |
//! | every unfinished write has its reservation and its lease, and nothing else has | [`writes`] |
//! | every block has one owner, and the blocks of a complete file are all of it | [`blocks`] |
//! | replicas, fingerprints and debts follow from the records of the blocks | [`replicas`] |
//! | ids not given yet are above those given, and totals are sums | [`totals`] |
//!
//! Each check recomputes what the commands keep up to date, from the records that are the truth,
//! and compares. It reads the whole state: for tests, and for an administrator who doubts a store.

mod blocks;
mod replicas;
mod totals;
mod tree;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::id::{ClientId, InodeId};
use doldam_proto::wire::{BlockRecord, CountersRecord, GarbageRecord, InodeRecord};

use super::records::{self, CONTINUE};
use super::tables::{StoreError, Table, Tables};

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where it shows.
    pub table: Table,
    /// What is wrong.
    pub what: String,
}

/// Everything that does not hold in `tables`; nothing in a state that commands led to.
pub fn check(tables: &dyn Tables) -> Vec<Violation> {
    let mut found = Findings::default();
    if let Err(error) = check_all(tables, &mut found) {
        let (table, what) = match error {
            StoreError::Damaged { table, what } => (table, what),
            other @ (StoreError::Storage { .. }
            | StoreError::UnknownVersion { .. }
            | StoreError::DamagedStore { .. }) => (Table::Meta, other.to_string()),
        };
        found.add(table, what);
    }
    found.0
}

fn check_all(tables: &dyn Tables, found: &mut Findings) -> Result<(), StoreError> {
    let state = Snapshot::read(tables)?;
    tree::check(&state, found);
    writes::check(&state, tables, found)?;
    blocks::check(&state, tables, found)?;
    replicas::check(&state, tables, found)?;
    totals::check(&state, tables, found)
}

/// Collects violations.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, table: Table, what: impl Into<String>) {
        self.0.push(Violation { table, what: what.into() });
    }

    /// Both sides of what must be equal, entry by entry.
    fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
        &mut self,
        table: Table,
        expected: &BTreeMap<K, V>,
        stored: &BTreeMap<K, V>,
    ) {
        for (key, value) in expected {
            match stored.get(key) {
                Some(there) if there == value => {}
                there => self.add(table, format!("{key:?} is {there:?}, should be {value:?}")),
            }
        }
        for (key, value) in stored.iter().filter(|(key, _)| !expected.contains_key(key)) {
            self.add(table, format!("{key:?} -> {value:?} should not be there"));
        }
    }

    /// Both sides of what must be equal.
    fn compare_sets<K: Ord + std::fmt::Debug>(
        &mut self,
        table: Table,
        expected: &BTreeSet<K>,
        stored: &BTreeSet<K>,
    ) {
        for key in expected.difference(stored) {
            self.add(table, format!("{key:?} is missing"));
        }
        for key in stored.difference(expected) {
            self.add(table, format!("{key:?} should not be there"));
        }
    }
}

/// The records that several checks need.
struct Snapshot {
    counters: CountersRecord,
    inodes: BTreeMap<InodeId, InodeRecord>,
    children: BTreeMap<(InodeId, String), InodeId>,
    pending: BTreeMap<(InodeId, String), InodeId>,
    leases: BTreeSet<(ClientId, InodeId)>,
    blocks: BTreeMap<(InodeId, u32), BlockRecord>,
    garbage: BTreeMap<u64, GarbageRecord>,
}

impl Snapshot {
    fn read(tables: &dyn Tables) -> Result<Self, StoreError> {
        let mut state = Self {
            counters: records::meta::counters(tables)?,
            inodes: BTreeMap::new(),
            children: BTreeMap::new(),
            pending: BTreeMap::new(),
            leases: BTreeSet::new(),
            blocks: BTreeMap::new(),
            garbage: BTreeMap::new(),
        };
        records::inodes::scan_all(tables, &mut |id, record| {
            state.inodes.insert(id, record);
            CONTINUE
        })?;
        records::children::scan_all(tables, &mut |parent, name, inode| {
            state.children.insert((parent, name.to_owned()), inode);
            CONTINUE
        })?;
        records::pending::scan_all(tables, &mut |parent, name, inode| {
            state.pending.insert((parent, name.to_owned()), inode);
            CONTINUE
        })?;
        records::leases::scan_all(tables, &mut |client, inode| {
            state.leases.insert((client, inode));
            CONTINUE
        })?;
        records::blocks::scan_all(tables, &mut |inode, index, record| {
            state.blocks.insert((inode, index), record);
            CONTINUE
        })?;
        records::garbage::scan_all(tables, &mut |position, record| {
            state.garbage.insert(position, record);
            CONTINUE
        })?;
        Ok(state)
    }

    /// Whether the inode was unlinked itself.
    fn is_unlinked(id: InodeId, record: &InodeRecord) -> bool {
        record.parent_id == 0 && id != doldam_proto::id::ROOT_INODE
    }
}

#[cfg(test)]
#[path = "invariant/invariant_test.rs"]
mod invariant_test;
