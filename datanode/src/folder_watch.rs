//! Looks after the data folders, whether they have traffic or not.
//!
//! Every second each folder is asked for its space, and every few seconds whether it is still this node's and can be
//! written, synced and read. So a disk that died, a folder that was removed or unmounted, and a disk that does not
//! answer are noticed in bounded time. A folder is asked one thing at a time, in a thread that may wait: a question
//! that is never answered costs that thread, and the folder is given up once a deadline has passed.
//!
//! The replicas of a folder that failed are withdrawn, and after a while those that nobody else seems to hold are
//! verified and vouched for again ([`taken_out`](crate::blocks::taken_out)).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use doldam_runtime::clock::Uptime;
use futures::future::join_all;
use tracing::{error, info, warn};

use crate::blocks::StoreError;
use crate::blocks::volume::Volume;
use crate::engine::let_go::LetGo;
use crate::node::Node;
use crate::stream::failure::chain;
use doldam_runtime::tasks::run_blocking;

/// From one look at a folder to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Replicas of a failed folder that cannot be read, one after the other, until the rest is not even tried.
const UNREADABLE_MAX: u32 = 16;
/// Verifying a replica reads up to a whole block, and may take so many times as long as one question.
const VERIFY_TIMEOUT_FACTOR: u32 = 10;

/// Watches all folders until the server stops.
pub(crate) async fn watch_folders(node: Arc<Node>) -> Result<(), Infallible> {
    let volumes = node.store.volumes().iter().map(Arc::clone);
    let watching = volumes.map(|volume| Watch::new(Arc::clone(&node), volume).run());
    tokio::select! {
        biased;
        // It ends only if every folder has failed, and the node goes on being asked for what it can still read.
        _ = join_all(watching) => node.stopping.cancelled().await,
        () = node.stopping.cancelled() => {}
    }
    Ok(())
}

/// The watch over one folder.
struct Watch {
    node: Arc<Node>,
    volume: Arc<Volume>,
    checked_at: Option<Uptime>,
}

/// A question was not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silent;

impl Watch {
    fn new(node: Arc<Node>, volume: Arc<Volume>) -> Self {
        Self { node, volume, checked_at: None }
    }

    async fn run(mut self) {
        while !self.volume.has_failed() {
            self.look().await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.take_out().await;
        let mut let_go = LetGo::default();
        loop {
            let (now, heard) = (self.node.seams.clock.now(), self.node.membership.is_connected());
            let left = self.node.store.state().inventory.withdrawn_count();
            if let_go.is_over(now, heard, left) {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.look_again().await;
    }

    /// Asks a folder that works whether it still does.
    async fn look(&mut self) {
        let now = self.node.seams.clock.now();
        let interval = self.node.config.disk_check_interval.0;
        let is_due = self.checked_at.is_none_or(|at| now.saturating_sub(at) >= interval);
        let (volume, uuid) = (Arc::clone(&self.volume), self.node.membership.uuid);
        let question = move || {
            volume.space();
            if is_due {
                volume.check(uuid);
            }
        };
        if is_due {
            self.checked_at = Some(now);
        }
        _ = self.ask(self.node.config.disk_timeout.0, question).await;
    }

    /// Runs what asks the disk in a thread that may wait. Gives the folder up if it does not answer.
    async fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Silent> {
        match tokio::time::timeout(timeout, run_blocking(question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(panicked)) => {
                error!(%panicked, "looking at a data folder panicked");
                Err(Silent)
            }
            Err(_elapsed) => {
                self.volume.give_up_silent(timeout);
                Err(Silent)
            }
        }
    }

    async fn take_out(&self) {
        let (store, index) = (Arc::clone(&self.node.store), self.volume.index());
        let taken_out = run_blocking(move || store.take_out(index)).await;
        let replicas = taken_out.unwrap_or_default();
        let folder = self.volume.layout().root().display();
        warn!(%folder, replicas, "its replicas count no longer; the namenode has them copied");
        if self.node.store.volumes().iter().all(|volume| volume.has_failed()) {
            error!("every data folder has failed: this datanode takes no blocks");
        }
    }

    /// Vouches again for what was not let go, if the folder can still be read.
    async fn look_again(&self) {
        if self.volume.is_silent() {
            return;
        }
        let (volume, uuid) = (Arc::clone(&self.volume), self.node.membership.uuid);
        let folder = self.volume.layout().root().display();
        let is_ours = self.ask(self.node.config.disk_timeout.0, move || volume.is_ours(uuid)).await;
        match is_ours {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => {
                return warn!(%folder, %cause, "a failed data folder cannot be read either");
            }
            Err(Silent) => return,
        }
        let (mut after, mut vouched, mut unreadable) = (None, 0_u64, 0);
        let timeout = self.node.config.disk_timeout.0 * VERIFY_TIMEOUT_FACTOR;
        while unreadable < UNREADABLE_MAX {
            let (store, index) = (Arc::clone(&self.node.store), self.volume.index());
            let question = move || {
                let key = store.next_withdrawn(index, after)?;
                Some((key, store.vouch_again(key)))
            };
            match self.ask(timeout, question).await {
                Ok(Some((key, outcome))) => {
                    after = Some(key);
                    match outcome {
                        Ok(()) => (vouched, unreadable) = (vouched + 1, 0),
                        Err(StoreError::Damaged { .. }) => unreadable += 1,
                        Err(cause) => {
                            warn!(%key, cause = chain(&cause), "cannot vouch for a replica again");
                        }
                    }
                }
                Ok(None) | Err(Silent) => break,
            }
        }
        info!(%folder, vouched, unreadable, "looked for last copies on a failed data folder");
    }
}

#[cfg(test)]
#[path = "folder_watch_test.rs"]
mod tests;
