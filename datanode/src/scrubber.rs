//! Verifies all replicas in the background, slowly, so that damage is found while good copies are
//! left.
//!
//! Each data folder has a scrubber of its own, with its own position and its own rate: disks are read at the same time,
//! and one that hangs holds up no other. What to verify next is decided in
//! [`scrub_plan`](crate::engine::scrub_plan). A folder that failed is left alone.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use doldam_runtime::clock::Uptime;
use doldam_runtime::tasks::run_blocking;
use futures::future::join_all;
use tracing::{info, warn};

use crate::blocks::StoreError;
use crate::blocks::scrub_file::{load_position, save_position};
use crate::blocks::store::BlockStore;
use crate::blocks::verify::Verification;
use crate::blocks::volume::Volume;
use crate::engine::replica::{ReplicaKey, VolumeIndex};
use crate::engine::scrub_plan::{ScrubLimits, ScrubPosition, Step};
use crate::node::Node;
use crate::stream::failure::chain;

/// Longest pause between two looks at what is to be done.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time from the start of a pass to the next: with nothing to verify, passes take none.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often the position is saved within a pass: what a crash costs is read again.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// Verifies the replicas of all folders until the server stops.
pub(crate) async fn scrub_folders(node: Arc<Node>) -> Result<(), Infallible> {
    let volumes = node.store.volumes().iter().map(Arc::clone);
    join_all(volumes.map(|volume| async {
        let (of, node) = (Arc::clone(&volume), Arc::clone(&node));
        let position = run_blocking(move || {
            if of.has_failed() { ScrubPosition::default() } else { load_position(&of) }
        });
        let position = position.await.unwrap_or_default();
        Scrubber::new(node, volume, position).run().await;
    }))
    .await;
    Ok(())
}

/// The verifier of one data folder.
pub(crate) struct Scrubber {
    node: Arc<Node>,
    volume: Arc<Volume>,
    limits: ScrubLimits,
    position: ScrubPosition,
    saved_at: Uptime,
}

/// How the verification of a replica ended.
enum Verified {
    /// Whatever came out: the walk goes on.
    Ended { bytes: u64 },
    /// The server stops.
    Stopped,
}

impl Scrubber {
    /// Takes up at `position`.
    fn new(node: Arc<Node>, volume: Arc<Volume>, position: ScrubPosition) -> Self {
        let limits = ScrubLimits {
            interval: node.config.scrub_interval.0.max(INTERVAL_MIN),
            bytes_per_sec: node.config.scrub_bytes_per_sec.0,
        };
        let saved_at = node.seams.clock.now();
        Self { node, volume, limits, position, saved_at }
    }

    async fn run(mut self) {
        while !self.node.stopping.is_cancelled() {
            if self.volume.has_failed() {
                self.pause(LOOK_INTERVAL).await;
                continue;
            }
            let now_ms = self.node.seams.clock.wall_ms();
            let (store, index) = (&self.node.store, self.volume.index());
            let next = |after| next_good(store, index, after);
            match self.position.next_step(now_ms, &self.limits, next) {
                Step::Verify(key) => {
                    if let Verified::Ended { bytes } = self.verify_slowly(key).await {
                        self.position.verified(key, bytes);
                        self.node.metrics.scrubbed_block();
                    }
                    let now = self.node.seams.clock.now();
                    if now.saturating_sub(self.saved_at) >= SAVE_INTERVAL {
                        self.save().await;
                    }
                }
                Step::PassDone => {
                    let folder = self.volume.layout().root().display();
                    let (passes, bytes) = (self.position.passes, self.position.pass_bytes);
                    info!(%folder, passes, bytes, "all replicas of a data folder verified");
                    self.node.metrics.scrub_passed();
                    self.save().await;
                }
                Step::Wait(wait) => self.pause(wait.min(LOOK_INTERVAL)).await,
            }
            self.show();
        }
        self.save().await;
    }

    /// Verifies one replica at the configured rate.
    async fn verify_slowly(&self, key: ReplicaKey) -> Verified {
        let store = Arc::clone(&self.node.store);
        let begin = move || Verification::begin(store.open(key)?, None);
        // A disk that does not answer must not keep the server from stopping.
        let stopping = || self.node.stopping.cancelled();
        let begun = tokio::select! {
            biased;
            begun = in_thread(begin) => begun,
            () = stopping() => return Verified::Stopped,
        };
        let mut verification = match begun {
            Ok(verification) => verification,
            Err(failure) => return self.judge(key, failure, 0),
        };
        let mut total = 0;
        loop {
            let began = self.node.seams.clock.now();
            let step = move || verification.step().map(|bytes| (bytes, verification));
            let stepped = tokio::select! {
                biased;
                stepped = in_thread(step) => stepped,
                () = stopping() => return Verified::Stopped,
            };
            let read = match stepped {
                Ok((0, _)) => return Verified::Ended { bytes: total },
                Ok((bytes, rest)) => {
                    verification = rest;
                    bytes
                }
                Err(failure) => return self.judge(key, failure, total),
            };
            total += read;
            self.node.metrics.scrubbed(read);
            let took = self.node.seams.clock.now().saturating_sub(began);
            let busy = self.node.foreground_streams() > 0;
            self.pause(self.limits.pause_after(read, took, busy)).await;
            if self.node.stopping.is_cancelled() {
                return Verified::Stopped;
            }
        }
    }

    /// Whatever came out, the walk goes on.
    fn judge(&self, key: ReplicaKey, failure: StoreError, bytes: u64) -> Verified {
        match self.node.store.note_read_error(key, failure) {
            StoreError::Damaged { .. } => self.node.metrics.scrub_found_bad(),
            // Dropped, or found bad by somebody else, since it was chosen.
            StoreError::NotFound { .. }
            | StoreError::OtherGeneration { .. }
            | StoreError::Quarantined { .. } => {}
            failure => warn!(%key, failure = chain(&failure), "cannot verify a replica"),
        }
        Verified::Ended { bytes }
    }

    fn show(&self) {
        let oldest_ms = self.position.oldest_ms(self.node.seams.clock.wall_ms());
        self.volume.note_scrub(self.position);
        let folder = self.volume.layout().root().display().to_string();
        let ScrubPosition { passes, pass_bytes, .. } = self.position;
        self.node.metrics.scrubber_at(&folder, passes, pass_bytes, oldest_ms);
    }

    async fn save(&mut self) {
        self.saved_at = self.node.seams.clock.now();
        if self.volume.has_failed() {
            return;
        }
        let (volume, position) = (Arc::clone(&self.volume), self.position);
        let saved = run_blocking(move || save_position(&volume, &position)).await;
        if let Ok(Err(cause)) = saved {
            let folder = self.volume.layout().root().display();
            warn!(%folder, %cause, "cannot save how far the scrubber came");
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            biased;
            () = tokio::time::sleep(time) => {}
            () = self.node.stopping.cancelled() => {}
        }
    }
}

/// Runs what reads the disk in a thread that may wait.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| StoreError::Disk {
        path: "scrubber".into(),
        during: "verifying",
        source: io::Error::other("the verification panicked"),
    };
    run_blocking(work).await.map_err(panicked)?
}

fn next_good(
    store: &BlockStore,
    volume: VolumeIndex,
    mut after: Option<ReplicaKey>,
) -> Option<ReplicaKey> {
    let state = store.state();
    loop {
        let (key, replica) = state.inventory.next_after(after)?;
        if replica.volume == volume && replica.is_good() {
            return Some(key);
        }
        after = Some(key);
    }
}

#[cfg(test)]
#[path = "scrubber_test.rs"]
mod tests;
