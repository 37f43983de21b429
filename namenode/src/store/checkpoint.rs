//! When to write a checkpoint, apart from writing it.
//!
//! [`CheckpointPolicy`] decides and does nothing. A [`FlushJob`] writes what was frozen; it needs
//! no lock on the store, which goes on taking commits and serving reads meanwhile.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::JournalIndex;

use super::database::{Database, Snapshot};
use super::overlay::Overlay;
use crate::engine::tables::StoreError;

/// Memory of the active overlay at which it is frozen, unless told otherwise.
pub const OVERLAY_BYTES_DEFAULT: usize = 64 << 20;
/// Age at which even a small overlay is frozen, unless told otherwise.
pub const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_mins(5);

/// What a store carries in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLoad {
    /// Memory of the active overlay.
    pub active_bytes: usize,
    /// Whether there are commands that are not in the last checkpoint.
    pub unwritten: bool,
    /// Whether an overlay is frozen and its flush not yet installed.
    pub flush_running: bool,
}

/// What is to be done about checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStep {
    /// Nothing.
    CarryOn,
    /// Freeze the active overlay and flush it.
    Freeze,
    /// Take no further commits until the running flush is installed: memory is used up.
    HoldCommits,
}

/// Bounds of memory and of the work of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Memory of the active overlay at which it is frozen. With a frozen one being written, twice
    /// this is the most that overlays take.
    pub overlay_bytes_max: usize,
    /// Age of the last checkpoint at which a new one is written, however small.
    pub interval: Duration,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { overlay_bytes_max: OVERLAY_BYTES_DEFAULT, interval: CHECKPOINT_INTERVAL_DEFAULT }
    }
}

impl CheckpointPolicy {
    /// What to do with a store under `load` whose last freeze was `since_freeze` ago.
    pub const fn decide(&self, load: StoreLoad, since_freeze: Duration) -> CheckpointStep {
        let full = load.active_bytes >= self.overlay_bytes_max;
        let due = load.unwritten && since_freeze.as_nanos() >= self.interval.as_nanos();
        match (load.flush_running, full, due) {
            (true, true, _) => CheckpointStep::HoldCommits,
            (true, false, _) | (false, false, false) => CheckpointStep::CarryOn,
            (false, true, _) | (false, _, true) => CheckpointStep::Freeze,
        }
    }
}

/// A frozen overlay on its way to the database.
#[derive(Debug)]
#[must_use = "only a job that is run writes anything"]
pub struct FlushJob {
    database: Arc<Database>,
    frozen: Arc<Overlay>,
    previous: JournalIndex,
}

impl FlushJob {
    pub(super) const fn new(
        database: Arc<Database>,
        frozen: Arc<Overlay>,
        previous: JournalIndex,
    ) -> Self {
        Self { database, frozen, previous }
    }

    /// The last command in the overlay. The journal must have it durable before [`run`](Self::run).
    pub fn applied_index(&self) -> JournalIndex {
        self.frozen.applied()
    }

    /// Writes the overlay and its index in one durable transaction. Blocks for as long as that
    /// takes.
    ///
    /// # Errors
    /// If the medium fails. The store is then of no further use.
    ///
    /// # Panics
    /// If `durable`, the last command that is durable in the journal, is before
    /// [`applied_index`](Self::applied_index): after a crash the state would hold commands that
    /// never happened.
    pub fn run(self, durable: JournalIndex) -> Result<Flushed, StoreError> {
        assert!(
            durable >= self.frozen.applied(),
            "a checkpoint at {} would overtake the journal, durable up to {durable}",
            self.frozen.applied(),
        );
        self.database.flush(self.frozen.changes(), self.frozen.applied(), self.previous)?;
        let snapshot = self.database.snapshot()?;
        Ok(Flushed { frozen: self.frozen, snapshot })
    }
}

/// A checkpoint that was written and is not yet read from: see
/// [`Store::install`](super::Store::install).
#[derive(Debug)]
#[must_use = "the store holds the overlay until this is installed"]
pub struct Flushed {
    pub(super) frozen: Arc<Overlay>,
    pub(super) snapshot: Snapshot,
}

/// What a store no longer needs; dropping it frees the memory, which takes time.
#[derive(Debug)]
pub struct Retired {
    _overlay: Arc<Overlay>,
    _snapshot: Snapshot,
}

impl Retired {
    pub(super) const fn new(overlay: Arc<Overlay>, snapshot: Snapshot) -> Self {
        Self { _overlay: overlay, _snapshot: snapshot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CheckpointPolicy =
        CheckpointPolicy { overlay_bytes_max: 100, interval: Duration::from_mins(1) };

    fn step(active_bytes: usize, flush_running: bool, age_secs: u64) -> CheckpointStep {
        let load = StoreLoad { active_bytes, unwritten: true, flush_running };
        POLICY.decide(load, Duration::from_secs(age_secs))
    }

    #[test]
    fn a_full_overlay_is_frozen_and_a_small_one_waits() {
        assert_eq!(step(99, false, 0), CheckpointStep::CarryOn);
        assert_eq!(step(100, false, 0), CheckpointStep::Freeze);
    }

    #[test]
    fn an_old_overlay_is_frozen_however_small() {
        assert_eq!(step(1, false, 59), CheckpointStep::CarryOn);
        assert_eq!(step(1, false, 60), CheckpointStep::Freeze);
    }

    #[test]
    fn nothing_is_written_where_nothing_changed() {
        let load = StoreLoad { active_bytes: 0, unwritten: false, flush_running: false };
        assert_eq!(POLICY.decide(load, Duration::from_hours(1)), CheckpointStep::CarryOn);
    }

    #[test]
    fn commits_are_held_when_a_second_overlay_fills_before_the_first_is_written() {
        assert_eq!(step(99, true, 3600), CheckpointStep::CarryOn);
        assert_eq!(step(100, true, 0), CheckpointStep::HoldCommits);
    }
}
