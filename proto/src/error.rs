//! What the namenode answers when it does not do as asked.
//!
//! A variant carries what the caller needs to act on it. [`FsError::kind`] sorts them by what to do next.

pub mod status;

#[cfg(test)]
mod error_test;

use serde::{Deserialize, Serialize};

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong, or wrong in this state of the namespace: a retry gives the same answer.
    Request,
    /// The cluster cannot right now; a later retry may succeed.
    Unavailable,
    /// This writer or reader is out of date: start over.
    Stale,
    /// Client and cluster do not belong together.
    Mismatch,
    /// Data or state is damaged: an administrator must look.
    Damaged,
}

/// Why a node was passed over in placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The datanode's address.
    pub node: String,
    /// For people: "suspect", "full", ...
    pub reason: String,
}

/// A refusal or failure of the namenode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "snake_case")]
pub enum FsError {
    /// Nothing at `path`, or one of its parents is missing.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// As asked for.
        path: String,
    },
    /// Something is at `path` already.
    #[error("{path}: already exists")]
    AlreadyExists {
        /// As asked for.
        path: String,
    },
    /// A file where a directory is needed.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The file.
        path: String,
    },
    /// A directory where a file is needed.
    #[error("{path}: is a directory")]
    IsADirectory {
        /// The directory.
        path: String,
    },
    /// Deleting or replacing needs an empty directory, or the recursive option.
    #[error("{path}: directory not empty")]
    DirectoryNotEmpty {
        /// The directory.
        path: String,
    },
    /// Renaming a directory into itself, or touching the root.
    #[error("{path}: {why}")]
    NotAllowed {
        /// What the request is about.
        path: String,
        /// The rule.
        why: String,
    },
    /// The path breaks a rule of [`crate::path`].
    #[error("{path:?}: {why}")]
    InvalidPath {
        /// As sent, shortened.
        path: String,
        /// The rule.
        why: String,
    },
    /// A field of the request is out of range.
    #[error("{field}: {why}")]
    InvalidArgument {
        /// Which.
        field: String,
        /// The rule, with both numbers.
        why: String,
    },
    /// Another client is writing `path`. The lease is free again after `ends_in_secs` without a renewal.
    #[error(
        "{path}: being written by {holder}, whose lease ends in {ends_in_secs} s unless renewed"
    )]
    LeaseHeld {
        /// The target of both.
        path: String,
        /// Who writes, for people.
        holder: String,
        /// Seconds.
        ends_in_secs: u64,
    },
    /// This write was given up or taken over: its handle is no longer valid.
    #[error("the write of inode {inode} was abandoned, completed or taken over by another client")]
    LeaseLost {
        /// The handle.
        inode: u64,
    },
    /// A block of this write is unknown, of another generation or not where it should be.
    #[error("block {block} (generation {generation}): {why}")]
    BlockMismatch {
        /// The block.
        block: u64,
        /// As the client named it.
        generation: u64,
        /// What does not fit.
        why: String,
    },
    /// The path names another file than when it was opened.
    #[error("{path}: replaced while it was read")]
    FileChanged {
        /// As asked for.
        path: String,
    },
    /// No datanode can take a block.
    #[error("no datanode can take a block of {path}: {}", list(refusals))]
    NoDatanodes {
        /// The file.
        path: String,
        /// Each candidate with its reason; empty if none ever registered.
        refusals: Vec<Refusal>,
    },
    /// This namenode may not decide; the one at `leader` may.
    #[error("not the leader; ask the namenode at {leader}")]
    NotLeader {
        /// `HOST:PORT`, empty if unknown.
        leader: String,
    },
    /// Too much is waiting already, or the server is stopping.
    #[error("the namenode is busy or stopping: {why}")]
    Unavailable {
        /// Which limit.
        why: String,
    },
    /// A datanode or client of another cluster.
    #[error("this is cluster {expected}, the peer belongs to {found}")]
    WrongCluster {
        /// The namenode's.
        expected: String,
        /// The peer's.
        found: String,
    },
    /// The peers speak different protocols.
    #[error(
        "protocol version {found} where {expected} is spoken; use the same release on both sides"
    )]
    WrongVersion {
        /// The namenode's.
        expected: u32,
        /// The peer's.
        found: u32,
    },
    /// A datanode that must register (again) before it may heartbeat.
    #[error("datanode {node} is not registered in this epoch")]
    NotRegistered {
        /// Its id.
        node: u32,
    },
    /// State that cannot be: a bug or a damaged store.
    #[error("internal error at the namenode: {what}")]
    Internal {
        /// For the log and the bug report.
        what: String,
    },
}

impl FsError {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::NotADirectory { .. }
            | Self::IsADirectory { .. }
            | Self::DirectoryNotEmpty { .. }
            | Self::NotAllowed { .. }
            | Self::InvalidPath { .. }
            | Self::InvalidArgument { .. }
            | Self::LeaseHeld { .. } => ErrorKind::Request,
            Self::LeaseLost { .. } | Self::BlockMismatch { .. } | Self::FileChanged { .. } => {
                ErrorKind::Stale
            }
            Self::NoDatanodes { .. }
            | Self::NotLeader { .. }
            | Self::Unavailable { .. }
            | Self::NotRegistered { .. } => ErrorKind::Unavailable,
            Self::WrongCluster { .. } | Self::WrongVersion { .. } => ErrorKind::Mismatch,
            Self::Internal { .. } => ErrorKind::Damaged,
        }
    }
}

fn list(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "none has registered".to_owned();
    }
    let each: Vec<String> =
        refusals.iter().map(|refusal| format!("{} ({})", refusal.node, refusal.reason)).collect();
    each.join(", ")
}
