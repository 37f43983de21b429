//! The state the engine decides on, as ordered tables of bytes: the seam to the store.
//!
//! `get` and `scan` are all that [`apply`](super::namespace) needs to know the past; what it
//! changes goes to a [`WriteSet`], which becomes part of the state only as a whole. Keys are
//! big-endian so that their byte order is the order of what they name; the layout of each key
//! stands in the file of its table.

mod changes;
mod memory;

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

pub use self::changes::{Change, Changes, WriteSet};
pub use self::memory::MemoryTables;

/// A table. The numbers are persistent: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Counters and the identity of the cluster: name -> value.
    Meta = 1,
    /// Inode id -> `InodeRecord`.
    Inodes = 2,
    /// (parent inode id, name) -> inode id.
    Children = 3,
    /// (parent inode id, name) -> inode id of the write that will appear there: one writer per
    /// path.
    Pending = 4,
    /// (client id, inode id) -> nothing: what a client is writing.
    Leases = 5,
    /// (inode id, block index) -> `BlockRecord`.
    Blocks = 6,
    /// Block id -> (inode id, block index).
    BlockOwners = 7,
    /// (node id, bucket, block id) -> (generation, length) of every good replica.
    Replicas = 8,
    /// (node id, bucket) -> fingerprint and count.
    Fingerprints = 9,
    /// Node id -> `NodeRecord`.
    Nodes = 10,
    /// Node uuid -> node id.
    NodeUuids = 11,
    /// Position -> `GarbageRecord`: unlinked, its blocks and children still to be collected.
    Garbage = 12,
    /// (client id, sequence) -> `RequestRecord`.
    Requests = 13,
    /// Block id -> nothing: committed, and its replicas are not what is wanted.
    Debts = 14,
}

impl Table {
    /// How many tables there are.
    pub const COUNT: usize = 14;

    /// Every table, in order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Meta,
        Self::Inodes,
        Self::Children,
        Self::Pending,
        Self::Leases,
        Self::Blocks,
        Self::BlockOwners,
        Self::Replicas,
        Self::Fingerprints,
        Self::Nodes,
        Self::NodeUuids,
        Self::Garbage,
        Self::Requests,
        Self::Debts,
    ];

    /// The place of the table in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

/// The store failed. The namenode stops: it must not answer from a state it cannot read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium or the storage engine failed.
    #[error("the metadata store failed at {what}")]
    Storage {
        /// Which operation.
        what: &'static str,
        /// The engine's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record that does not decode or contradicts another.
    #[error("damaged metadata in table {table:?}: {what}")]
    Damaged {
        /// Where.
        table: Table,
        /// What is wrong.
        what: String,
    },
    /// Written by another version of Doldam.
    #[error("the metadata store has format version {found}; this program knows {known}")]
    UnknownVersion {
        /// What the store says.
        found: u64,
        /// What this program reads and writes.
        known: u64,
    },
    /// The bookkeeping of the store itself is missing or does not decode.
    #[error("the metadata store is damaged: {what}")]
    DamagedStore {
        /// What is wrong.
        what: String,
    },
}

/// Called with each entry of a scan, in order of keys.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Read access to a state.
pub trait Tables {
    /// The value at `key`.
    ///
    /// # Errors
    /// If the store fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the entries from `from` on, in order of keys, until `visit` breaks or the table ends.
    ///
    /// # Errors
    /// If the store fails.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

#[cfg(test)]
#[path = "tables/tables_test.rs"]
mod tables_test;
