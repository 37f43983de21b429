//! What the parts of one write share: how far it is, and how long this node has worked on it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use doldam_proto::limits::REPLICATION_MAX;
use doldam_proto::wire;
use doldam_runtime::connection::{ConnectionWriter, StreamError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::receive::{Ack, Progress, ReceiveError};

/// How often the sender is told how long the nodes have worked, if they have.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// After so many bytes it is told sooner.
const REPORT_BYTES: u64 = 16 << 20;

/// What the parts of one write share.
#[derive(Debug)]
pub(crate) struct Exchange {
    progress: Mutex<Progress>,
    sent: AtomicU64,
    to_sync: AtomicU64,
    last_sent: AtomicBool,
    finished: AtomicBool,
    /// Something may be acknowledged to the sender, or the write has ended.
    acknowledge: Notify,
    /// Something was sent to the next node.
    forwarded: Notify,
    work: Work,
    /// What the nodes behind said of their work last, and whether that was passed on.
    work_behind: Mutex<Vec<wire::NodeTiming>>,
    has_work_behind: AtomicBool,
}

/// What this node has done so far.
#[derive(Debug, Default)]
struct Work {
    bytes: AtomicU64,
    store_ns: AtomicU64,
    forward_ns: AtomicU64,
    /// Grows with all that goes on here and behind: bytes stored, bytes fed, bytes acknowledged.
    moved: AtomicU64,
}

impl Exchange {
    /// At the start of a write of which `here` bytes are here already, and `behind` with the next node, if there is
    /// one.
    pub(crate) fn new(here: u64, behind: Option<u64>) -> Self {
        Self {
            progress: Mutex::new(Progress::new(here, behind)),
            sent: AtomicU64::new(behind.unwrap_or(0)),
            to_sync: AtomicU64::new(0),
            last_sent: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            acknowledge: Notify::new(),
            forwarded: Notify::new(),
            work: Work::default(),
            work_behind: Mutex::default(),
            has_work_behind: AtomicBool::new(false),
        }
    }

    /// A frame that ends at `end` is about to be forwarded.
    pub(crate) fn forwarding(&self, end: u64, last: bool) {
        self.sent.store(end, Ordering::Relaxed);
        self.last_sent.store(last, Ordering::Relaxed);
        self.forwarded.notify_one();
    }

    /// The next node is about to be asked to sync all up to `end`.
    pub(crate) fn forwarding_sync(&self, end: u64) {
        self.to_sync.store(end, Ordering::Relaxed);
    }

    /// Everything below `end` is written here.
    pub(crate) fn written(&self, end: u64) {
        self.progress.lock().local(end);
        self.acknowledge.notify_one();
    }

    /// Everything below `end` is on stable storage here.
    pub(crate) fn synced(&self, end: u64) {
        self.progress.lock().local_synced(end);
        self.acknowledge.notify_one();
    }

    /// This node took so long to store `bytes`, and to hand them on.
    pub(crate) fn worked(&self, bytes: u64, store: Duration, forward: Duration) {
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.work.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.work.store_ns.fetch_add(nanos(store), Ordering::Relaxed);
        self.work.forward_ns.fetch_add(nanos(forward), Ordering::Relaxed);
        self.work.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// This node took so long to hand on bytes of its own.
    pub(crate) fn fed(&self, bytes: u64, forward: Duration) {
        self.worked(0, Duration::ZERO, forward);
        self.work.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The next node said how far it is.
    ///
    /// # Errors
    /// If that makes no sense.
    pub(crate) fn heard(&self, progress: wire::WriteProgress) -> Result<(), ReceiveError> {
        let sent = self.sent.load(Ordering::Relaxed);
        let ack = Ack { received: progress.received, synced: progress.synced };
        self.progress.lock().downstream(ack, sent)?;
        if !progress.timings.is_empty() {
            let mut timings = progress.timings;
            timings.truncate(REPLICATION_MAX as usize);
            *self.work_behind.lock() = timings;
            self.has_work_behind.store(true, Ordering::Relaxed);
        }
        self.work.moved.fetch_add(1, Ordering::Relaxed);
        self.acknowledge.notify_one();
        Ok(())
    }

    /// The write has ended, well or not.
    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        self.acknowledge.notify_one();
    }

    /// Waits until something was sent to the next node. Cancel-safe.
    pub(crate) async fn forwarded(&self) {
        self.forwarded.notified().await;
    }

    /// Whether the next node has been sent the end of the block.
    pub(crate) fn is_finishing(&self) -> bool {
        self.last_sent.load(Ordering::Relaxed)
    }

    /// Whether the next node has been asked to sync, and has not said that it did.
    pub(crate) fn is_syncing(&self) -> bool {
        let to_sync = self.to_sync.load(Ordering::Relaxed);
        to_sync > 0 && self.progress.lock().outstanding(0, to_sync) > 0
    }

    /// Whether the next node has said of everything that it was sent that it is there, and may be busy with its disk.
    pub(crate) fn is_all_received(&self) -> bool {
        self.progress.lock().outstanding(self.sent.load(Ordering::Relaxed), 0) == 0
    }

    /// Whether the next node owes an answer.
    pub(crate) fn is_owed_an_answer(&self) -> bool {
        let (sent, to_sync) =
            (self.sent.load(Ordering::Relaxed), self.to_sync.load(Ordering::Relaxed));
        self.is_finishing() || self.progress.lock().outstanding(sent, to_sync) > 0
    }

    /// What to acknowledge to the sender next; `None` once the write has ended.
    async fn next_ack(&self) -> Option<Ack> {
        loop {
            if self.finished.load(Ordering::Relaxed) {
                return None;
            }
            let ack = self.progress.lock().next_ack();
            if ack.is_some() {
                return ack;
            }
            self.acknowledge.notified().await;
        }
    }

    /// Acknowledges to the sender whatever there is to acknowledge, until the write has ended. Now and then it is told
    /// how long each node has worked; that comes also while nothing can be acknowledged, as long as something moves.
    ///
    /// # Errors
    /// If the sender is gone.
    pub(crate) async fn acknowledge(
        &self,
        writer: &mut ConnectionWriter,
        node_id: u32,
    ) -> Result<(), StreamError> {
        let mut ticks = tokio::time::interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reported, mut moved_before) = (0, 0);
        loop {
            let (ack, is_due) = tokio::select! {
                biased;
                ack = self.next_ack() => match ack {
                    Some(ack) => (ack, false),
                    None => return Ok(()),
                },
                _ = ticks.tick() => (self.progress.lock().acknowledged(), true),
            };
            let (bytes, moved) =
                (self.work.bytes.load(Ordering::Relaxed), self.work.moved.load(Ordering::Relaxed));
            if is_due && moved == moved_before {
                continue; // Whoever is silent must be seen to be.
            }
            let is_due = is_due || bytes - reported >= REPORT_BYTES;
            let timings = if self.has_work_behind.swap(false, Ordering::Relaxed) || is_due {
                (reported, moved_before) = (bytes, moved);
                self.timings(node_id)
            } else {
                Vec::new()
            };
            let Ack { received, synced } = ack;
            let progress = wire::WriteProgress { received, synced, timings };
            let kind = wire::block_response::Kind::Progress(progress);
            writer.send_message(&wire::BlockResponse { kind: Some(kind) }).await?;
        }
    }

    fn timings(&self, node_id: u32) -> Vec<wire::NodeTiming> {
        let micros = |nanos: &AtomicU64| nanos.load(Ordering::Relaxed) / 1000;
        let mut timings = vec![wire::NodeTiming {
            node_id,
            bytes: self.work.bytes.load(Ordering::Relaxed),
            store_us: micros(&self.work.store_ns),
            forward_us: micros(&self.work.forward_ns),
        }];
        timings.extend_from_slice(&self.work_behind.lock());
        timings.truncate(REPLICATION_MAX as usize);
        timings
    }
}
