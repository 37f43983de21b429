//! What there is one of: the cluster's identity and the totals, each read at once.

use doldam_proto::id::ClusterId;

use crate::engine::records::meta;
use crate::engine::tables::{StoreError, Tables};

/// Totals that the commands keep up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Files with a name. Those below a deleted directory count until they are collected.
    pub files: u64,
    /// Directories with a name, and the root.
    pub directories: u64,
    /// Committed blocks, those waiting to be collected included.
    pub blocks: u64,
    /// Committed blocks with fewer good replicas than wanted, wherever these are.
    pub under_replicated: u64,
    /// Committed blocks with a replica known to be bad.
    pub corrupt: u64,
    /// Unlinked files and directories waiting to be collected.
    pub garbage: u64,
}

/// The cluster; `None` before the first command of the journal.
///
/// # Errors
/// If the store fails.
pub fn cluster_id(tables: &dyn Tables) -> Result<Option<ClusterId>, StoreError> {
    meta::cluster_id(tables)
}

/// The totals.
///
/// # Errors
/// If the store fails, or holds no namespace yet.
pub fn totals(tables: &dyn Tables) -> Result<Totals, StoreError> {
    let counters = meta::counters(tables)?;
    Ok(Totals {
        files: counters.files,
        directories: counters.directories,
        blocks: counters.blocks,
        under_replicated: counters.under_replicated,
        corrupt: counters.corrupt,
        garbage: counters.garbage_tail.saturating_sub(counters.garbage_head),
    })
}

/// Whether `CollectGarbage` has anything to do.
///
/// # Errors
/// If the store fails, or holds no namespace yet.
pub fn garbage_waits(tables: &dyn Tables) -> Result<bool, StoreError> {
    Ok(totals(tables)?.garbage > 0)
}
