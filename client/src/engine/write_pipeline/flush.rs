//! When a flush may be told to the namenode.

use super::WritePipeline;
use super::block::Reached;
use super::messages::{Flush, WriteAction};

/// What the application waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) length: u64,
    pub(super) sync: bool,
}

impl WritePipeline {
    /// The block that ends with the flush, and how much of it; 0 if it ends with the block before.
    fn end_of(&self, wanted: Wanted) -> (u32, u64) {
        ((wanted.length / self.block_bytes) as u32, wanted.length % self.block_bytes)
    }

    /// Whether a flush waits for bytes of this block, or for them to be on stable storage.
    pub(super) fn flush_waits_for(&self, index: u32) -> bool {
        self.wanted
            .is_some_and(|wanted| self.end_of(wanted) == (index, self.acknowledged_of(index)))
    }

    fn acknowledged_of(&self, index: u32) -> u64 {
        self.blocks.get(&index).map_or(0, |block| block.acknowledged)
    }

    /// The flush that is wanted, once everything before its end is acknowledged.
    pub(super) fn poll_flush(&mut self) -> Option<WriteAction> {
        let wanted = self.wanted?;
        // The end of the file tells more.
        if self.request.is_some() || self.length.is_some() {
            return None;
        }
        let (index, part) = self.end_of(wanted);
        let before_done = self.blocks.keys().next().is_none_or(|first| *first >= index);
        if !before_done || self.next_index < index {
            return None;
        }
        let open = match part {
            0 => None,
            part => {
                let Reached { commit, synced } = self.blocks.get(&index)?.reached.as_ref()?;
                if commit.length != part || (wanted.sync && !synced) {
                    return None;
                }
                Some(commit.clone())
            }
        };
        let Wanted { length, sync } = wanted;
        self.request = Some(super::Request::Flush);
        self.telling = std::mem::take(&mut self.commits);
        Some(WriteAction::Flush(Flush { length, sync, commits: self.telling.clone(), open }))
    }

    /// The namenode knows of all that a flush told.
    pub(super) fn flushed(&mut self, length: u64, sync: bool) {
        if self.request != Some(super::Request::Flush) {
            return;
        }
        self.request = None;
        self.telling.clear();
        let (index, part) = self.end_of(Wanted { length, sync });
        if let Some(block) = self.blocks.get_mut(&index) {
            block.flushed(part);
        }
        if self.wanted.is_some_and(|wanted| wanted.length <= length && (sync || !wanted.sync)) {
            self.wanted = None;
        }
    }
}
