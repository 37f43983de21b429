//! Blocks as they are allocated, committed and located.

use crate::digest::{ChainingValue, FileDigest};
use crate::id::{BlockId, Generation, NodeId};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use crate::node::NodeAddress;

/// A block size: a power of two within the protocol's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockBytes(u64);

impl BlockBytes {
    /// Accepts a power of two from 64 KiB to 1 GiB.
    pub fn new(bytes: u64) -> Option<Self> {
        let in_range = (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes);
        (bytes.is_power_of_two() && in_range).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn get(self) -> u64 {
        self.0
    }

    /// How many blocks a file of `length` bytes has.
    pub fn blocks_of(self, length: u64) -> u64 {
        length.div_ceil(self.0)
    }
}

/// A block to write: where, and under which identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatedBlock {
    /// Its id.
    pub id: BlockId,
    /// The attempt.
    pub generation: Generation,
    /// Position in the file.
    pub index: u32,
    /// The pipeline in order. May be shorter than the replication, never empty.
    pub targets: Vec<NodeAddress>,
}

/// What a writer knows of a block once its pipeline has acknowledged all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockCommit {
    /// Its id.
    pub id: BlockId,
    /// The attempt.
    pub generation: Generation,
    /// In bytes, not 0; full for all but the last block of a file.
    pub length: u64,
    /// The block's non-root value in the tree of its file.
    pub chaining_value: ChainingValue,
    /// Block 0 only: the digest of the file if the file ends with this block.
    pub root_value: Option<FileDigest>,
    /// Who acknowledged it; never empty.
    pub nodes: Vec<NodeId>,
}

/// A block to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedBlock {
    /// Its id.
    pub id: BlockId,
    /// The generation that was committed.
    pub generation: Generation,
    /// Position in the file.
    pub index: u32,
    /// Where it starts in the file.
    pub offset: u64,
    /// In bytes, not 0.
    pub length: u64,
    /// What every byte read is verified against.
    pub chaining_value: ChainingValue,
    /// Holders, best first; empty if none is known to be good.
    pub replicas: Vec<NodeAddress>,
}
