//! Verifies all replicas in the background, slowly, so that damage is found while good copies are
//! left.
//!
//! What to verify next is decided in [`scrub_plan`](crate::engine::scrub_plan); the position is
//! kept in the first data folder that takes it. A data folder that failed is looked through at once
//! and quickly: what can no longer be opened there is reported, so that it is copied elsewhere
//! without waiting for a reader to run into it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::clock::Uptime;
use doldam_runtime::disk::{read_file_bounded, write_file_durably};
use doldam_runtime::tasks::run_blocking;
use tracing::{debug, info, warn};

use crate::blocks::StoreError;
use crate::blocks::scrub_file::{SCRUB_FILE_BYTES, decode_position, encode_position};
use crate::blocks::store::{BlockStore, OpenReplica};
use crate::blocks::verify::Verification;
use crate::engine::replica::{Replica, ReplicaKey, VolumeIndex};
use crate::engine::scrub_plan::{ScrubLimits, ScrubPosition, Step};
use crate::node::Node;
use crate::stream::failure::chain;

/// Longest pause between two looks at whether a data folder has failed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time from the start of a pass to the next: with nothing to verify, passes take none.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often the position is saved within a pass: what a crash costs is read again.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// The verifier of one node.
pub(crate) struct Scrubber {
    node: Arc<Node>,
    limits: ScrubLimits,
    position: ScrubPosition,
    saved_at: Uptime,
    /// Failed data folders that were looked through.
    probed: BTreeSet<VolumeIndex>,
}

impl Scrubber {
    /// Takes up where the last run of the node was. Blocks on the disk.
    pub(crate) fn load(node: Arc<Node>) -> Self {
        let limits = ScrubLimits {
            interval: node.config.scrub_interval.0.max(INTERVAL_MIN),
            bytes_per_sec: node.config.scrub_bytes_per_sec.0,
        };
        let position = load_position(&node.store);
        let saved_at = node.seams.clock.now();
        Self { node, limits, position, saved_at, probed: BTreeSet::new() }
    }

    /// Verifies until the server stops.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        while !self.node.stopping.is_cancelled() {
            self.probe_failed_folders().await;
            let now_ms = self.node.seams.clock.wall_ms();
            let store = Arc::clone(&self.node.store);
            let step =
                self.position.next_step(now_ms, &self.limits, |after| next_good(&store, after));
            match step {
                Step::Verify(key) => {
                    if self.verify_slowly(key).await {
                        self.position.verified(key);
                    }
                    let now = self.node.seams.clock.now();
                    if now.saturating_sub(self.saved_at) >= SAVE_INTERVAL {
                        self.save().await;
                    }
                }
                Step::PassDone => {
                    info!(passes = self.position.passes, "all replicas verified");
                    self.node.metrics.scrub_passed();
                    self.save().await;
                }
                Step::Wait(wait) => self.pause(wait.min(LOOK_INTERVAL)).await,
            }
        }
        self.save().await;
        Ok(())
    }

    /// Verifies one replica at the configured rate. Says whether it came to an end.
    async fn verify_slowly(&self, key: ReplicaKey) -> bool {
        let (store, started) = (Arc::clone(&self.node.store), self.node.seams.clock.now());
        let begin = move || Verification::begin(store.open(key)?, None);
        let mut verification = match in_thread(begin).await {
            Ok(verification) => verification,
            Err(failure) => return self.judge(key, failure),
        };
        let mut total = 0;
        loop {
            let step = move || verification.step().map(|bytes| (bytes, verification));
            match in_thread(step).await {
                Ok((0, _)) => return true,
                Ok((bytes, rest)) => {
                    verification = rest;
                    total += bytes;
                    self.node.metrics.scrubbed(bytes);
                }
                Err(failure) => return self.judge(key, failure),
            }
            let took = self.node.seams.clock.now().saturating_sub(started);
            self.pause(self.limits.time_for(total).saturating_sub(took)).await;
            if self.node.stopping.is_cancelled() {
                return false;
            }
        }
    }

    /// Always true: whatever came out, the walk goes on.
    fn judge(&self, key: ReplicaKey, failure: StoreError) -> bool {
        match self.node.store.note_read_error(key, failure) {
            StoreError::Damaged { .. } => self.node.metrics.scrub_found_bad(),
            // Dropped, or found bad by somebody else, since it was chosen.
            StoreError::NotFound { .. }
            | StoreError::OtherGeneration { .. }
            | StoreError::Quarantined { .. } => {}
            failure => warn!(%key, failure = chain(&failure), "cannot verify a replica"),
        }
        true
    }

    async fn probe_failed_folders(&mut self) {
        for volume in self.node.store.volumes() {
            if volume.has_failed() && self.probed.insert(volume.index()) {
                let (store, index) = (Arc::clone(&self.node.store), volume.index());
                let found = in_thread(move || Ok(probe(&store, index))).await;
                if let Ok(bad) = found {
                    let folder = volume.layout().root().display();
                    warn!(%folder, bad, "looked through a failed folder");
                }
            }
        }
    }

    async fn save(&mut self) {
        self.saved_at = self.node.seams.clock.now();
        let (store, position) = (Arc::clone(&self.node.store), self.position);
        let saved = in_thread(move || Ok(save_position(&store, &position))).await;
        if let Ok(false) = saved {
            warn!("cannot save how far the scrubber came");
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

fn next_good(store: &BlockStore, mut after: Option<ReplicaKey>) -> Option<ReplicaKey> {
    let state = store.state();
    loop {
        let (key, replica) = state.inventory.next_after(after)?;
        if replica.is_good() {
            return Some(key);
        }
        after = Some(key);
    }
}

/// Opens every replica of a folder and reads its first bytes; returns how many are bad.
fn probe(store: &BlockStore, volume: VolumeIndex) -> u64 {
    let (mut after, mut bad) = (None, 0);
    loop {
        let next = store.state().inventory.next_after(after);
        let Some((key, replica)) = next else { return bad };
        after = Some(key);
        let is_here = |replica: &Replica| replica.volume == volume && replica.is_good();
        if is_here(&replica) && !can_be_read(store, key) {
            bad += 1;
        }
    }
}

fn can_be_read(store: &BlockStore, key: ReplicaKey) -> bool {
    let read = |replica: OpenReplica| {
        let mut start = vec![0; replica.length.min(GROUP_BYTES) as usize];
        let read = replica.data.read_exact_at(&mut start, 0);
        read.map_err(StoreError::disk(&replica.data_path, "reading a block"))
    };
    match store.open(key).and_then(read) {
        Ok(()) => true,
        Err(failure) => !matches!(store.note_read_error(key, failure), StoreError::Damaged { .. }),
    }
}

/// The furthest of the saved positions: a folder that failed for a while may hold an old one.
fn load_position(store: &BlockStore) -> ScrubPosition {
    let mut found = Vec::new();
    for volume in store.volumes() {
        let path = volume.layout().scrub_file();
        match read_file_bounded(volume.disk(), &path, SCRUB_FILE_BYTES as u64) {
            Ok(bytes) => match decode_position(&bytes) {
                Some(position) => found.push(position),
                None => {
                    warn!(path = %path.display(), "cannot be understood; verifying from the start");
                }
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => debug!(path = %path.display(), %cause, "cannot be read"),
        }
    }
    let furthest = |position: &ScrubPosition| (position.passes, position.started_ms, position.last);
    found.into_iter().max_by_key(furthest).unwrap_or_default()
}

/// Saves the position in the first folder that takes it; says whether one did.
fn save_position(store: &BlockStore, position: &ScrubPosition) -> bool {
    let bytes = encode_position(position);
    store.volumes().iter().filter(|volume| !volume.has_failed()).any(|volume| {
        write_file_durably(volume.disk(), &volume.layout().scrub_file(), &bytes).is_ok()
    })
}

#[cfg(test)]
#[path = "scrubber_test.rs"]
mod tests;
