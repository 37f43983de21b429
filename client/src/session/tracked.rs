//! What the driver of a write keeps of a block over all tries, and hears of the one under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_proto::block::BlockCommit;
use doldam_proto::digest::BlockTree;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::Supply;
use crate::Progress;
use crate::block_stream::send::SendWatch;
use crate::engine::write_pipeline::WriteEvent;

/// A block that is not acknowledged.
#[derive(Debug)]
pub(super) struct Tracked {
    /// How much was reported as progress.
    highest: AtomicU64,
    /// Taken while the block is being sent.
    pub(super) tree: Mutex<Option<BlockTree>>,
    /// The latest that a flush waited for and the driver has not taken note of.
    reached: Mutex<Option<(BlockCommit, bool)>>,
}

impl Tracked {
    /// Of which `tree` is there already.
    pub(super) fn new(tree: BlockTree) -> Self {
        let (highest, reached) = (AtomicU64::new(tree.length()), Mutex::new(None));
        Self { highest, tree: Mutex::new(Some(tree)), reached }
    }

    /// What a flush waited for, as an event.
    pub(super) fn take_reached(&self, index: u32) -> Option<WriteEvent> {
        let (commit, synced) = self.reached.lock().take()?;
        Some(WriteEvent::Reached { index, commit, synced })
    }
}

/// Hears of the try under way.
pub(super) struct Watch {
    pub(super) tracked: Arc<Tracked>,
    pub(super) supply: Arc<dyn Supply>,
    pub(super) progress: Option<Progress>,
    pub(super) index: u32,
    pub(super) events: mpsc::Sender<WriteEvent>,
    pub(super) reached: Arc<Notify>,
}

impl SendWatch for Watch {
    fn acknowledged(&self, bytes: u64) {
        self.supply.acknowledged(self.index, bytes);
        let before = self.tracked.highest.fetch_max(bytes, Ordering::AcqRel);
        if let Some(progress) = &self.progress
            && bytes > before
        {
            progress(bytes - before);
        }
    }

    fn reached(&self, commit: BlockCommit, synced: bool) {
        *self.tracked.reached.lock() = Some((commit, synced));
        self.reached.notify_one();
    }

    fn all_sent(&self) {
        // Were there no room, the next block would start a little later.
        _ = self.events.try_send(WriteEvent::Sent { index: self.index });
    }
}
