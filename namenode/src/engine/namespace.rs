//! The namespace as a deterministic state machine: [`apply()`] is a pure function of the state and a
//! command.
//!
//! What a command may do and what it answers is decided here and nowhere else; a refusal is as
//! deterministic as a success, and changes nothing. Everything that is not in the state (time,
//! chosen datanodes, ids from outside) was decided before the command was made.
//!
//! Rules that are not obvious:
//!
//! * A file being written has an inode but no name until it is flushed; its path is reserved in
//!   `Pending`. Readers do not see it, and nobody but another writer of the same path is refused because of it: a
//!   directory may be made there, something may be renamed there, what is there may be deleted.
//!   `complete` looks again: it replaces a file only if its `create` said so, and is refused where
//!   a directory is by then.
//! * A write belongs to its parent directory by id: if that is renamed, the file appears in the
//!   renamed directory; if it is deleted, `complete` is refused with `NotFound`, and with
//!   `LeaseLost` once the write was collected.
//! * A file that was flushed, or is appended to, has its name and is seen as of the last flush. It
//!   may be renamed, replaced and deleted like any; then its writer goes on, or finds its lease
//!   lost. If the writer goes, it is closed, not given up.
//! * A directory in which files are being written is not empty: it is deleted only recursively,
//!   never replaced.
//! * Deleting unlinks at once. Blocks and children are collected later, in slices, in the order of
//!   deletion. Files below a deleted directory count as files until their slice.
//! * Renaming a directory may push what is below it past the limits of a path; it can then be
//!   reached again by renaming the directory back up. Deleting and collecting go by id and are not
//!   affected.
//! * A last replica is never removed from its block, good or bad.

mod append;
pub mod apply;
pub(in crate::engine) mod aside;
mod attributes;
mod block;
mod complete;
mod content;
mod create;
mod delete;
mod draft;
mod flush;
mod format;
mod garbage;
mod lease;
mod mkdir;
mod node;
pub(in crate::engine) mod open_block;
mod recover_block;
mod recovery;
mod rename;
mod replica;
mod replica_index;
mod requests;
mod resolve;
pub mod view;

#[cfg(test)]
mod append_test;
#[cfg(test)]
mod attributes_test;
#[cfg(test)]
mod block_test;
#[cfg(test)]
mod complete_test;
#[cfg(test)]
mod create_test;
#[cfg(test)]
mod delete_test;
#[cfg(test)]
mod flush_test;
#[cfg(test)]
mod garbage_test;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod node_test;
#[cfg(test)]
mod open_history_test;
#[cfg(test)]
mod recover_block_test;
#[cfg(test)]
mod recovery_test;
#[cfg(test)]
mod rename_test;
#[cfg(test)]
mod replica_test;
#[cfg(test)]
mod requests_test;
#[cfg(test)]
mod stream_model_test;
#[cfg(test)]
mod view_test;
#[cfg(test)]
pub(in crate::engine) mod world;

use doldam_proto::FsError;
use doldam_proto::wire::Outcome;

pub use apply::apply;

use super::tables::{Changes, StoreError};

/// What a command comes to.
#[derive(Debug)]
pub struct Applied {
    /// The answer, or the refusal.
    pub outcome: Result<Outcome, FsError>,
    /// What becomes part of the state. Empty for a refusal, for a retry of an applied request, and
    /// for one of the namenode's own commands that found nothing to do: such a command need not be
    /// journaled. Its answer may still rest on earlier commands that are not durable yet.
    pub changes: Changes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] FsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
