//! When the overlay is frozen, and the thread that writes it to the database meanwhile.

use std::time::Duration;

use doldam_runtime::clock::Uptime;
use doldam_runtime::tasks::inline;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
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
    jobs: Sender<FlushJob>,
    finished: Receiver<()>,
}

/// The flush thread's side.
pub(super) struct Flusher {
    jobs: Receiver<FlushJob>,
    finished: Sender<()>,
}

/// Both sides; at most one job is under way.
pub(super) fn checkpoints(policy: CheckpointPolicy, now: Uptime) -> (Checkpoints, Flusher) {
    let (jobs, take_jobs) = channel(1);
    let (finish, finished) = channel(1);
    let side = Checkpoints { policy, frozen_at: now, is_running: false, jobs, finished };
    (side, Flusher { jobs: take_jobs, finished: finish })
}

impl Checkpoints {
    /// Starts a checkpoint if one is due; waits for the running one if memory is used up.
    pub(super) async fn keep_up(&mut self, shared: &Shared) -> Result<(), WriterError> {
        self.note_finished()?;
        let now = shared.seams.clock.now();
        let load = shared.store.read().load();
        match self.policy.decide(load, now.saturating_sub(self.frozen_at)) {
            CheckpointStep::CarryOn => Ok(()),
            CheckpointStep::Freeze => self.freeze(shared, now).await,
            CheckpointStep::HoldCommits => {
                self.wait().await?;
                self.freeze(shared, now).await
            }
        }
    }

    /// Writes everything: the end of a clean stop.
    pub(super) async fn finish(mut self, shared: &Shared) -> Result<(), WriterError> {
        if self.is_running {
            self.wait().await?;
        }
        let applied = shared.store.read().applied_index();
        if !shared.progress.wait(applied).await {
            return Ok(()); // The journal failed, and said so.
        }
        shared.store.write().checkpoint(applied)?;
        Ok(())
    }

    async fn freeze(&mut self, shared: &Shared, now: Uptime) -> Result<(), WriterError> {
        let frozen = shared.store.write().freeze();
        let Some(job) = frozen else { return Ok(()) };
        self.frozen_at = now;
        self.is_running = true;
        self.jobs.send(job).await.map_err(|_ended| WriterError::Checkpoint)
    }

    fn note_finished(&mut self) -> Result<(), WriterError> {
        match self.finished.try_recv() {
            Ok(()) => self.is_running = false,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(WriterError::Checkpoint),
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), WriterError> {
        self.finished.recv().await.ok_or(WriterError::Checkpoint)?;
        self.is_running = false;
        Ok(())
    }
}

impl Flusher {
    /// Writes checkpoints until the driver ends.
    pub(super) async fn run(mut self, shared: &Shared) -> Result<(), FlushError> {
        while let Some(job) = self.jobs.recv().await {
            if let Err(cause) = flush(shared, job).await {
                shared.fail(&cause);
                return Err(cause);
            }
            if self.finished.send(()).await.is_err() {
                break; // The driver has ended.
            }
        }
        Ok(())
    }
}

/// Writes one checkpoint, then removes the part of the journal that no restart needs any more.
async fn flush(shared: &Shared, job: FlushJob) -> Result<(), FlushError> {
    let index = job.applied_index();
    if !shared.progress.wait(index).await {
        return Ok(()); // The journal failed, and said so.
    }
    let before = shared.seams.clock.now();
    let flushed = job.run(shared.progress.durable())?;
    inline::pause().await;
    let (retired, keep_from) = {
        let mut store = shared.store.write();
        (store.install(flushed), store.previous_checkpoint_index().next())
    };
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
