//! One block as it comes in: the order of its frames, their limits, the verification of every
//! group, and how far it may be acknowledged.
//!
//! A sender may do anything. Nothing that it sends reaches the digest tree, whose preconditions
//! panic, before it was checked here.

use doldam_proto::digest::block::BlockDigest;
use doldam_proto::digest::group::group_chaining_value;
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
    /// The start of a group that was sent again is not what was sent before.
    #[error("the bytes at offset {offset} came again, and are not what they were")]
    NotTheSame {
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
            Self::BadGroup { .. }
            | Self::NotTheSame { .. }
            | Self::BadBlock { .. }
            | Self::NotAsOrdered { .. } => true,
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
    /// Where the payload belongs in the block: behind all that is verified already.
    pub(crate) offset: u64,
    /// The new bytes, to be stored; there may be none in a frame with LAST or SYNC.
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

    /// For a block whose first bytes are here already, with `tree` over them.
    ///
    /// # Errors
    /// If it has more than `length_max` bytes already.
    pub(crate) fn resumed(tree: BlockTree, length_max: u64) -> Result<Self, ReceiveError> {
        let found = tree.length();
        if found > length_max {
            return Err(ReceiveError::TooLong { max: length_max, found });
        }
        Ok(Self { tree, length_max, ordered: None })
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
        let (length, payload_bytes) = (self.tree.length(), u64::from(header.payload_bytes));
        let expected = self.next_offset();
        if header.offset != expected && payload_bytes > 0 {
            return Err(ReceiveError::OutOfOrder { expected, found: header.offset });
        }
        let found = if payload_bytes > 0 { expected + payload_bytes } else { length };
        if found < length {
            let what = "a group that was not full comes again, with less than there is of it";
            return Err(ReceiveError::Protocol { what });
        }
        let max = self.ordered.map_or(self.length_max, |ordered| ordered.length);
        if found > max {
            return Err(ReceiveError::TooLong { max, found });
        }
        if header.last && found == 0 {
            return Err(ReceiveError::Protocol { what: "a block without a byte" });
        }
        Ok(())
    }

    /// Where the next frame with bytes starts: behind the last full group. Of one that is not full the bytes come
    /// again, with more behind them.
    fn next_offset(&self) -> u64 {
        self.tree.length() / GROUP_BYTES * GROUP_BYTES
    }

    /// The bytes of the last group, if it is not full.
    fn partial_bytes(&self) -> usize {
        (self.tree.length() % GROUP_BYTES) as usize
    }

    /// Verifies a frame whose header passed [`check_header`](Self::check_header); `body` is all
    /// that follows it.
    ///
    /// # Errors
    /// If any byte differs from what the values say. Of the block only what was verified by frames
    /// before this one may be kept, and this receiver takes no more.
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
        let known = if header.payload_bytes > 0 { self.partial_bytes() } else { 0 };
        let (values, rest) = body.split_at(header.groups() * VALUE_BYTES);
        let (payload, announced) = rest.split_at(header.payload_bytes as usize);
        if known > 0 {
            self.reopen_last_group(payload, known)?;
        }
        let groups = payload.chunks(GROUP_BYTES as usize).zip(values.chunks_exact(VALUE_BYTES));
        for (group, value) in groups {
            let offset = self.tree.length();
            if self.tree.push_group(group).0 != value {
                return Err(ReceiveError::BadGroup { offset });
            }
        }
        let finished = if header.last { Some(self.finish(announced)?) } else { None };
        Ok(Verified { offset, payload: &payload[known..], finished })
    }

    /// The last group comes again. Its first `known` bytes are stored and stay as they are, so they must be the same.
    fn reopen_last_group(&mut self, payload: &[u8], known: usize) -> Result<(), ReceiveError> {
        let offset = self.next_offset();
        let again = payload.get(..known).ok_or(ReceiveError::NotTheSame { offset })?;
        let value = group_chaining_value(self.tree.file_offset() + offset, again);
        if self.tree.groups().last() != Some(&value) {
            return Err(ReceiveError::NotTheSame { offset });
        }
        self.tree.keep_groups((offset / GROUP_BYTES) as usize);
        Ok(())
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

/// How far something is, here and behind this node; what may be acknowledged is the smaller of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    local: u64,
    downstream: Option<u64>,
}

impl Reached {
    fn both(self) -> u64 {
        self.local.min(self.downstream.unwrap_or(u64::MAX))
    }
}

/// What is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ack {
    /// Everything below is written on all nodes from here on.
    pub(crate) received: u64,
    /// Everything below is on stable storage on all of them.
    pub(crate) synced: u64,
}

/// How far a block is written and synced, here and behind this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    written: Reached,
    synced: Reached,
    acknowledged: Ack,
}

impl Progress {
    /// At the start of a block of which `here` bytes are here already, and `behind` with the node it is forwarded to,
    /// if it is.
    pub(crate) fn new(here: u64, behind: Option<u64>) -> Self {
        Self {
            written: Reached { local: here, downstream: behind },
            synced: Reached { local: 0, downstream: behind.map(|_| 0) },
            acknowledged: Ack { received: here, synced: 0 },
        }
    }

    /// Everything below `received` is written here.
    pub(crate) fn local(&mut self, received: u64) {
        self.written.local = received;
    }

    /// Everything below `synced` is on stable storage here.
    pub(crate) fn local_synced(&mut self, synced: u64) {
        self.synced.local = synced;
    }

    /// The next node has so much, and so have all behind it.
    ///
    /// # Errors
    /// If it went backwards, or claims more than it was sent.
    pub(crate) fn downstream(&mut self, ack: Ack, sent: u64) -> Result<(), ReceiveError> {
        let before = (self.written.downstream, self.synced.downstream);
        if before.0.is_some_and(|received| ack.received < received)
            || before.1.is_some_and(|synced| ack.synced < synced)
        {
            return Err(ReceiveError::Protocol { what: "acknowledgements went backwards" });
        }
        if ack.received > sent || ack.synced > ack.received {
            return Err(ReceiveError::Protocol { what: "more acknowledged than was sent" });
        }
        self.written.downstream = Some(ack.received);
        self.synced.downstream = Some(ack.synced);
        Ok(())
    }

    /// What the next node has not acknowledged of the `sent` bytes, of which it was asked to sync the first
    /// `to_sync`.
    pub(crate) fn outstanding(&self, sent: u64, to_sync: u64) -> u64 {
        let left = |reached: Reached, of: u64| {
            reached.downstream.map_or(0, |received| of.saturating_sub(received))
        };
        left(self.written, sent).max(left(self.synced, to_sync))
    }

    /// What was acknowledged last.
    pub(crate) fn acknowledged(&self) -> Ack {
        self.acknowledged
    }

    /// What to acknowledge now, if it is more than before.
    pub(crate) fn next_ack(&mut self) -> Option<Ack> {
        let Ack { received, synced } = self.acknowledged;
        // A node that is fed starts with less than what was acknowledged long ago.
        let received = self.written.both().max(received);
        let synced = self.synced.both().min(received).max(synced);
        let next = Ack { received, synced };
        if next == self.acknowledged {
            return None;
        }
        self.acknowledged = next;
        Some(next)
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod tests;
