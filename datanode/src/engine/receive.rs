//! One block as it comes in: the order of its frames, their limits, the verification of every
//! group, and how far it may be acknowledged.
//!
//! A sender may do anything. Nothing that it sends reaches the digest tree, whose preconditions
//! panic, before it was checked here.

use doldam_proto::digest::block::BlockDigest;
use doldam_proto::digest::{BlockTree, ChainingValue, VALUE_BYTES};
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::limits::GROUP_BYTES;

/// Why a block is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The sender broke the protocol.
    #[error("{what}")]
    Protocol {
        /// Which rule.
        what: &'static str,
    },
    /// A frame is not where the one before it ended.
    #[error("a frame at offset {found} where {expected} is next")]
    OutOfOrder {
        /// Where the block ends so far.
        expected: u64,
        /// As announced.
        found: u64,
    },
    /// The block would grow beyond what was announced.
    #[error("{found} bytes where the block has {max} at the most")]
    TooLong {
        /// What the request allows.
        max: u64,
        /// What the frame would make of it.
        found: u64,
    },
    /// A group's bytes do not match its value.
    #[error("the bytes at offset {offset} do not match their chaining value")]
    BadGroup {
        /// In the block.
        offset: u64,
    },
    /// The groups do not lead to the block's value.
    #[error("the block's value is {found} where the sender announced {announced}")]
    BadBlock {
        /// By the sender.
        announced: ChainingValue,
        /// By the bytes.
        found: ChainingValue,
    },
    /// A copy that is not what the namenode ordered.
    #[error(
        "a copy of {found_length} bytes with value {found}, where {length} with {value} are ordered"
    )]
    NotAsOrdered {
        /// Ordered length.
        length: u64,
        /// Ordered value.
        value: ChainingValue,
        /// Length that came.
        found_length: u64,
        /// Value that came.
        found: ChainingValue,
    },
}

impl ReceiveError {
    /// Whether bytes were damaged on the way, rather than the protocol broken.
    pub(crate) fn is_checksum(&self) -> bool {
        match self {
            Self::BadGroup { .. } | Self::BadBlock { .. } | Self::NotAsOrdered { .. } => true,
            Self::Protocol { .. } | Self::OutOfOrder { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// What a repair copy must turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// In bytes.
    pub(crate) length: u64,
    /// The block's value.
    pub(crate) value: ChainingValue,
}

/// A block that is being received.
#[derive(Debug)]
pub(crate) struct BlockReceiver {
    tree: BlockTree,
    length_max: u64,
    ordered: Option<Ordered>,
}

/// A frame that was verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified<'a> {
    /// Where the payload belongs in the block.
    pub(crate) offset: u64,
    /// The bytes to store; may be empty in the last frame.
    pub(crate) payload: &'a [u8],
    /// With the last frame: what identifies the whole block.
    pub(crate) finished: Option<BlockDigest>,
}

impl BlockReceiver {
    /// For a block that starts at `file_offset` of its file and has `length_max` bytes at the most.
    ///
    /// # Errors
    /// If no block can start there.
    pub(crate) fn new(
        file_offset: u64,
        length_max: u64,
        ordered: Option<Ordered>,
    ) -> Result<Self, ReceiveError> {
        let end = file_offset.checked_add(length_max);
        if !file_offset.is_multiple_of(GROUP_BYTES) || end.is_none() {
            return Err(ReceiveError::Protocol { what: "no block starts at this offset" });
        }
        Ok(Self { tree: BlockTree::new(file_offset), length_max, ordered })
    }

    /// Bytes verified so far.
    pub(crate) fn length(&self) -> u64 {
        self.tree.length()
    }

    /// Whether it is a repair copy, ordered by the namenode.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.is_some()
    }

    /// The tree over the groups verified so far.
    pub(crate) fn tree(&self) -> &BlockTree {
        &self.tree
    }

    /// Checks the header of the next frame, before its body is read.
    ///
    /// # Errors
    /// If the frame cannot follow those before it.
    pub(crate) fn check_header(&self, header: &FrameHeader) -> Result<(), ReceiveError> {
        if header.kind != FrameKind::Data {
            return Err(ReceiveError::Protocol { what: "a frame other than data in a write" });
        }
        let (expected, payload_bytes) = (self.tree.length(), u64::from(header.payload_bytes));
        if header.offset != expected && payload_bytes > 0 {
            return Err(ReceiveError::OutOfOrder { expected, found: header.offset });
        }
        if payload_bytes > 0 && !expected.is_multiple_of(GROUP_BYTES) {
            return Err(ReceiveError::Protocol { what: "bytes after a group that was not full" });
        }
        let found = expected + payload_bytes;
        let max = self.ordered.map_or(self.length_max, |ordered| ordered.length);
        if found > max {
            return Err(ReceiveError::TooLong { max, found });
        }
        if header.last && found == 0 {
            return Err(ReceiveError::Protocol { what: "a block without a byte" });
        }
        Ok(())
    }

    /// Verifies a frame whose header passed [`check_header`](Self::check_header); `body` is all
    /// that follows it.
    ///
    /// # Errors
    /// If any byte differs from what the values say. The block is then lost: nothing of it may be
    /// kept.
    pub(crate) fn verify<'a>(
        &mut self,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Verified<'a>, ReceiveError> {
        if body.len() != header.write_body_bytes() {
            return Err(ReceiveError::Protocol {
                what: "a body of another length than its header's",
            });
        }
        let offset = self.tree.length();
        let (values, rest) = body.split_at(header.groups() * VALUE_BYTES);
        let (payload, announced) = rest.split_at(header.payload_bytes as usize);
        let groups = payload.chunks(GROUP_BYTES as usize).zip(values.chunks_exact(VALUE_BYTES));
        for (group, value) in groups {
            let offset = self.tree.length();
            if self.tree.push_group(group).0 != value {
                return Err(ReceiveError::BadGroup { offset });
            }
        }
        let finished = if header.last { Some(self.finish(announced)?) } else { None };
        Ok(Verified { offset, payload, finished })
    }

    fn finish(&self, announced: &[u8]) -> Result<BlockDigest, ReceiveError> {
        let (Some(digest), Some(announced)) =
            (self.tree.digest(), ChainingValue::from_slice(announced))
        else {
            return Err(ReceiveError::Protocol { what: "a block without a byte or a value" });
        };
        let found = digest.chaining_value;
        if found != announced {
            return Err(ReceiveError::BadBlock { announced, found });
        }
        let found_length = self.tree.length();
        match self.ordered {
            Some(Ordered { length, value }) if (length, value) != (found_length, found) => {
                Err(ReceiveError::NotAsOrdered { length, value, found_length, found })
            }
            _ => Ok(digest),
        }
    }
}

/// How far a block is written, here and behind this node; what may be acknowledged is the smaller
/// of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    local: u64,
    downstream: Option<u64>,
    acknowledged: u64,
}

impl Progress {
    /// At the start of a block, with or without a node to forward to.
    pub(crate) fn new(forwards: bool) -> Self {
        Self { local: 0, downstream: forwards.then_some(0), acknowledged: 0 }
    }

    /// Everything below `received` is written here.
    pub(crate) fn local(&mut self, received: u64) {
        self.local = received;
    }

    /// The next node has `received` bytes, and so have all behind it.
    ///
    /// # Errors
    /// If it went backwards, or claims more than it was sent.
    pub(crate) fn downstream(&mut self, received: u64, sent: u64) -> Result<(), ReceiveError> {
        match self.downstream {
            Some(before) if received < before => {
                Err(ReceiveError::Protocol { what: "acknowledgements went backwards" })
            }
            _ if received > sent => {
                Err(ReceiveError::Protocol { what: "more acknowledged than was sent" })
            }
            _ => {
                self.downstream = Some(received);
                Ok(())
            }
        }
    }

    /// What the next node has not acknowledged of the `sent` bytes.
    pub(crate) fn outstanding(&self, sent: u64) -> u64 {
        self.downstream.map_or(0, |received| sent.saturating_sub(received))
    }

    /// What to acknowledge now, if it is more than before.
    pub(crate) fn next_ack(&mut self) -> Option<u64> {
        let both = self.local.min(self.downstream.unwrap_or(u64::MAX));
        if both <= self.acknowledged {
            return None;
        }
        self.acknowledged = both;
        Some(both)
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod tests;
