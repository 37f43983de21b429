//! What the sender and the receiver of one stream share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use doldam_proto::block::BlockCommit;
use doldam_proto::limits::WRITE_WINDOW_BYTES;
use doldam_proto::wire::WriteProgress;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::block_stream::StreamFailure;
use crate::source::Mark;

/// How far a stream is. All lengths are of the block, with what came before this stream.
pub(super) struct Window {
    /// Where the stream went on.
    start: u64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// Up to where stable storage was asked for, and is told of.
    sync_sent: AtomicU64,
    synced: AtomicU64,
    all_sent: AtomicBool,
    /// Responses so far.
    heard: AtomicU64,
    /// What a flush waits for.
    noted: Mutex<Option<(Mark, BlockCommit)>>,
    /// The sender waits here for acknowledgements.
    opened: Notify,
    /// The receiver waits here, beside the socket, for a change of what is owed.
    pub(super) owed: Notify,
}

impl Window {
    /// For a stream that goes on behind `start` bytes.
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            sent: AtomicU64::new(start),
            acknowledged: AtomicU64::new(start),
            sync_sent: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            all_sent: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            noted: Mutex::new(None),
            opened: Notify::new(),
            owed: Notify::new(),
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// Whether all of this pipeline has what comes before the stream: it has more, or has put it on stable storage.
    /// Until then a node may still be given it by another, whatever is acknowledged of it.
    pub(super) fn is_confirmed(&self) -> bool {
        let synced = self.synced.load(Ordering::Acquire);
        self.acknowledged() > self.start || (self.start > 0 && synced >= self.start)
    }

    pub(super) fn is_all_sent(&self) -> bool {
        self.all_sent.load(Ordering::Acquire)
    }

    /// Whether stable storage is waited for.
    pub(super) fn is_syncing(&self) -> bool {
        self.is_all_sent()
            || self.sync_sent.load(Ordering::Acquire) > self.synced.load(Ordering::Acquire)
    }

    /// Whether stable storage is waited for and nothing else: all bytes have arrived everywhere.
    pub(super) fn is_at_disks(&self) -> bool {
        self.is_syncing() && self.acknowledged() >= self.sent()
    }

    /// Whether the datanodes have something to answer.
    pub(super) fn is_owed(&self) -> bool {
        self.is_syncing() || self.sent() > self.acknowledged()
    }

    /// Waits until `bytes` more may be sent.
    pub(super) async fn room(&self, bytes: u64) {
        loop {
            let opened = self.opened.notified();
            let open = self.sent() - self.acknowledged();
            if open == 0 || open + bytes <= WRITE_WINDOW_BYTES {
                return;
            }
            opened.await;
        }
    }

    /// Everything below `length` is about to be sent, with `sync` to be put on stable storage.
    pub(super) fn sending(&self, length: u64, sync: bool) {
        self.sent.store(length, Ordering::Release);
        if sync {
            self.sync_sent.store(length, Ordering::Release);
            self.owed.notify_one();
        }
    }

    /// The block is sent.
    pub(super) fn ended(&self) {
        self.all_sent.store(true, Ordering::Release);
        self.owed.notify_one();
    }

    /// A response came.
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes note of what the datanodes say they have.
    pub(super) fn progress(&self, progress: &WriteProgress) -> Result<(), StreamFailure> {
        let (before, synced) = (self.acknowledged(), self.synced.load(Ordering::Acquire));
        let sent = self.sent();
        let due = |found: u64, before: u64| (before..=sent).contains(&found);
        // Without a sync nothing is said of one.
        if !due(progress.received, before) || !due(progress.synced, synced) {
            return Err(StreamFailure::protocol(format!(
                "acknowledged {} bytes ({} of them on stable storage) after {before} ({synced}), of {sent} sent",
                progress.received, progress.synced
            )));
        }
        self.acknowledged.store(progress.received, Ordering::Release);
        self.synced.store(progress.synced, Ordering::Release);
        self.opened.notify_one();
        Ok(())
    }

    /// A flush waits for what `commit` tells.
    pub(super) fn note(&self, mark: Mark, commit: BlockCommit) {
        *self.noted.lock() = Some((mark, commit));
    }

    /// What a flush waited for, once all of the pipeline has it, and whether it is on stable storage.
    pub(super) fn take_reached(&self) -> Option<(BlockCommit, bool)> {
        let synced = |mark: &Mark| self.synced.load(Ordering::Acquire) >= mark.length;
        let mut noted = self.noted.lock();
        let reached = self.is_confirmed()
            && noted.as_ref().is_some_and(|(mark, _)| {
                self.acknowledged() >= mark.length && (!mark.sync || synced(mark))
            });
        let (mark, commit) = if reached { noted.take()? } else { return None };
        Some((commit, synced(&mark)))
    }
}

#[cfg(test)]
#[path = "window_test.rs"]
mod tests;
