//! The block that an application is filling.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use tokio::sync::OwnedSemaphorePermit;

use crate::feed::Feed;
use crate::source::{RetainedBlock, Then};

/// The end of a block that is gone on with: its length and the bytes of its last group.
#[derive(Debug)]
pub(crate) struct TailEnd {
    pub(crate) length: u64,
    pub(crate) last_group: Bytes,
}

/// Takes bytes up in pieces of a frame and hands these over, earlier if a flush wants them.
#[derive(Debug)]
pub(super) struct Filling {
    feed: Arc<Feed>,
    block_bytes: u64,
    /// Given to the feed with its first piece.
    block: Option<Arc<RetainedBlock>>,
    /// Where the block starts to be new.
    behind: u64,
    /// What is being filled, from `offset` of the block on, and its share of the bound on memory.
    piece: BytesMut,
    offset: u64,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes of the block, and how many of them were handed over.
    filled: u64,
    handed_over: u64,
    /// Whether this is more than the first bytes: most files are small, and take no large buffer.
    large: bool,
}

impl Filling {
    pub(super) fn new(feed: Arc<Feed>, block_bytes: u64, tail: Option<TailEnd>) -> Self {
        let (behind, last_group) =
            tail.map_or((0, Bytes::new()), |tail| (tail.length, tail.last_group));
        Self {
            feed,
            block_bytes,
            block: None,
            behind,
            offset: behind - last_group.len() as u64,
            piece: last_group.into(),
            permit: None,
            filled: behind,
            handed_over: behind,
            large: behind > 0,
        }
    }

    /// Whether memory has to be got before anything is taken.
    pub(super) fn needs_permit(&self) -> bool {
        self.permit.is_none()
    }

    pub(super) fn give(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// Takes as many of `bytes` as fit the piece being filled.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.piece.capacity() == 0 {
            self.piece = self.feed.buffers().take();
            if self.large {
                self.piece.reserve(self.block_bytes.min(FRAME_PAYLOAD_BYTES as u64) as usize);
            }
        }
        let piece_room = FRAME_PAYLOAD_BYTES - self.piece.len();
        let room = (self.block_bytes - self.filled).min(piece_room as u64) as usize;
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        self.filled += taken as u64;
        self.large = true;
        if taken == room {
            let whole = self.filled == self.block_bytes;
            self.hand_over(whole.then_some(Then::End));
        }
        taken
    }

    /// Ends the block where it is.
    pub(super) fn end(&mut self) {
        if self.filled > self.handed_over {
            self.hand_over(Some(Then::End));
        } else if let Some(block) = &self.block {
            block.then(Then::End);
            self.ended();
        }
    }

    /// Ends the block where it was before, though nothing was written.
    pub(super) fn cut(&mut self) {
        if self.behind > 0 && self.block.is_none() {
            self.hand_over(Some(Then::End));
        }
    }

    /// Hands over what there is, for a flush that waits for it.
    pub(super) fn flush(&mut self, sync: bool) {
        if self.filled > self.handed_over {
            self.hand_over(Some(Then::Flush { sync }));
        } else if let Some(block) = &self.block {
            block.then(Then::Flush { sync });
            self.feed.grown();
        }
    }

    fn hand_over(&mut self, then: Option<Then>) {
        let piece = std::mem::take(&mut self.piece).freeze();
        // A group that is cut comes again, longer, with the next piece.
        let cut = piece.len() - piece.len() % GROUP_BYTES as usize;
        let offset = self.offset;
        self.offset += cut as u64;
        if then != Some(Then::End) && cut < piece.len() {
            self.piece = BytesMut::from(&piece[cut..]);
        }
        self.handed_over = self.filled;
        let new = self.block.is_none();
        let behind = self.behind;
        let block =
            self.block.get_or_insert_with(|| Arc::new(RetainedBlock::behind(behind))).clone();
        block.push(offset, piece, self.permit.take(), then);
        if new {
            self.feed.start(block);
        } else {
            self.feed.grown();
        }
        if then == Some(Then::End) {
            self.ended();
        }
    }

    fn ended(&mut self) {
        self.feed.whole();
        self.block = None;
        self.piece.clear();
        (self.behind, self.offset, self.filled, self.handed_over) = (0, 0, 0, 0);
    }
}
