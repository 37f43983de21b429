//! Files and directories as a client sees them.

use serde::{Deserialize, Serialize};

use crate::digest::FileDigest;
use crate::id::InodeId;

/// File or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Holds names.
    Directory,
    /// Holds bytes.
    File,
}

/// How many replicas are on stable storage before a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// All of the pipeline: survives a power loss of every node.
    #[default]
    All,
    /// The first of the pipeline; the others follow within seconds.
    One,
    /// None: survives the death of processes, not a power loss of all nodes at once.
    Memory,
}

impl Durability {
    /// Whether the datanode at `position` of the pipeline syncs before it acknowledges.
    pub fn syncs_at(self, position: u32) -> bool {
        match self {
            Self::All => true,
            Self::One => position == 0,
            Self::Memory => false,
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::All => "all",
            Self::One => "one",
            Self::Memory => "memory",
        })
    }
}

/// What `stat` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// As asked for; in a listing the entry's name only.
    pub path: String,
    /// Names this very file, whatever happens to its path.
    pub inode: InodeId,
    /// File or directory.
    pub kind: FileKind,
    /// In bytes; 0 for a directory.
    pub length: u64,
    /// Wanted replicas; 0 for a directory.
    pub replication: u32,
    /// Block size; 0 for a directory.
    pub block_bytes: u64,
    /// Last change, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Creation, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What `b3sum` prints for the content; `None` for a directory.
    pub digest: Option<FileDigest>,
    /// What the file was closed with; `None` for a directory.
    pub durability: Option<Durability>,
    /// Whether somebody writes it: made visible by a flush, or open for append. Length and digest may change.
    pub being_written: bool,
}

impl FileStatus {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}
