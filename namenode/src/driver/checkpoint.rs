//! When the overlay is frozen, and the thread that writes it to the database meanwhile.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use doldam_runtime::clock::Uptime;
use tracing::debug;

use super::Shared;
use super::writer::WriterError;
use crate::engine::tables::StoreError;
use crate::journal::JournalError;
use crate::store::{CheckpointPolicy, CheckpointStep, FlushJob};

/// Why the thread that writes checkpoints ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The driver's side.
pub(super) struct Checkpoints {
    policy: CheckpointPolicy,
    frozen_at: Uptime,
    is_running: bool,
    jobs: SyncSender<FlushJob>,
    finished: Receiver<()>,
}

/// The flush thread's side.
pub(super) struct Flusher {
    jobs: Receiver<FlushJob>,
    finished: SyncSender<()>,
}

/// Both sides; at most one job is under way.
pub(super) fn checkpoints(policy: CheckpointPolicy, now: Uptime) -> (Checkpoints, Flusher) {
    let (jobs, take_jobs) = sync_channel(1);
    let (finish, finished) = sync_channel(1);
    let side = Checkpoints { policy, frozen_at: now, is_running: false, jobs, finished };
    (side, Flusher { jobs: take_jobs, finished: finish })
}

impl Checkpoints {
    /// Starts a checkpoint if one is due; waits for the running one if memory is used up.
    pub(super) fn keep_up(&mut self, shared: &Shared) -> Result<(), WriterError> {
        self.note_finished()?;
        let now = shared.seams.clock.now();
        let load = shared.store.read().load();
        match self.policy.decide(load, now.saturating_sub(self.frozen_at)) {
            CheckpointStep::CarryOn => Ok(()),
            CheckpointStep::Freeze => self.freeze(shared, now),
            CheckpointStep::HoldCommits => {
                self.wait()?;
                self.freeze(shared, now)
            }
        }
    }

    /// Writes everything: the end of a clean stop.
    pub(super) fn finish(mut self, shared: &Shared) -> Result<(), WriterError> {
        if self.is_running {
            self.wait()?;
        }
        let applied = shared.store.read().applied_index();
        if !shared.progress.wait_blocking(applied) {
            return Ok(()); // The journal failed, and said so.
        }
        shared.store.write().checkpoint(applied)?;
        Ok(())
    }

    fn freeze(&mut self, shared: &Shared, now: Uptime) -> Result<(), WriterError> {
        let Some(job) = shared.store.write().freeze() else { return Ok(()) };
        self.frozen_at = now;
        self.is_running = true;
        self.jobs.send(job).map_err(|_ended| WriterError::Checkpoint)
    }

    fn note_finished(&mut self) -> Result<(), WriterError> {
        match self.finished.try_recv() {
            Ok(()) => self.is_running = false,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(WriterError::Checkpoint),
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), WriterError> {
        self.finished.recv().map_err(|_ended| WriterError::Checkpoint)?;
        self.is_running = false;
        Ok(())
    }
}

impl Flusher {
    /// Writes checkpoints until the driver ends.
    pub(super) fn run(self, shared: &Shared) -> Result<(), FlushError> {
        while let Ok(job) = self.jobs.recv() {
            if let Err(cause) = flush(shared, job) {
                shared.fail(&cause);
                return Err(cause);
            }
            if self.finished.send(()).is_err() {
                break; // The driver has ended.
            }
        }
        Ok(())
    }
}

/// Writes one checkpoint, then removes the part of the journal that no restart needs any more.
fn flush(shared: &Shared, job: FlushJob) -> Result<(), FlushError> {
    let index = job.applied_index();
    if !shared.progress.wait_blocking(index) {
        return Ok(()); // The journal failed, and said so.
    }
    let before = shared.seams.clock.now();
    let flushed = job.run(shared.progress.durable())?;
    let mut store = shared.store.write();
    let retired = store.install(flushed);
    let keep_from = store.previous_checkpoint_index().next();
    drop(store);
    drop(retired); // It may be large: freed outside the lock.
    let removed = shared.journal.remove_before(keep_from)?;
    let took = shared.seams.clock.now().saturating_sub(before);
    shared.metrics.checkpoint(took);
    debug!(%index, ?took, removed, "wrote a checkpoint");
    Ok(())
}

/// The settings of the policy.
pub(super) fn policy(overlay_bytes_max: usize, interval: Duration) -> CheckpointPolicy {
    CheckpointPolicy { overlay_bytes_max, interval }
}
