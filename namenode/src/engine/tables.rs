//! The state the engine decides on, as ordered tables of bytes: the seam to the store.
//!
//! `get` and `scan` are all that [`apply`](super::namespace) needs to know the past; what it changes goes to a
//! [`WriteSet`], which becomes part of the state only as a whole. Keys are big-endian so that their byte order is
//! the order of what they name; the layout of each key stands in the file of its table.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

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
    /// (parent inode id, name) -> inode id of the write that will appear there: one writer per path.
    Pending = 4,
    /// (client id, inode id) -> nothing: what a client is writing.
    Leases = 5,
    /// (inode id, block index) -> `BlockRecord`.
    Blocks = 6,
    /// Block id -> (inode id, block index).
    BlockOwners = 7,
    /// (node id, bucket, block id) -> (generation, length) of every committed replica.
    Replicas = 8,
    /// (node id, bucket) -> fingerprint and count.
    Fingerprints = 9,
    /// Node id -> `NodeRecord`.
    Nodes = 10,
    /// Node uuid -> node id.
    NodeUuids = 11,
    /// Inode id -> nothing: unlinked, its blocks and children still to be collected.
    Garbage = 12,
    /// (client id, sequence) -> `RequestRecord`.
    Requests = 13,
    /// Block id -> nothing: committed with fewer good replicas than wanted.
    Debts = 14,
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
    fn scan(&self, table: Table, from: Bound<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// Changes of one or more commands: a value, or `None` for a deletion, per table and key.
pub type Changes = BTreeMap<(Table, Bytes), Option<Bytes>>;

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
        self.changes.insert((table, Bytes::copy_from_slice(key)), Some(value.into()));
    }

    /// Removes `key`; no error if it is not there.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.insert((table, Bytes::copy_from_slice(key)), None);
    }

    /// What was changed; the caller makes it part of the state, or drops it.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}
