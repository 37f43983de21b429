//! Carries out, every few seconds, the syncs that writers did not wait for. What waits and how it
//! is done is in [`late_sync`](crate::blocks::late_sync).
//!
//! Each data folder is synced in a thread of its own, one batch at a time: what waits for a disk that does not answer
//! holds up no other folder.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use doldam_runtime::tasks::{run_blocking, spawn_detached};
use tokio::task::JoinHandle;
use tracing::error;

use crate::blocks::store::BlockStore;
use crate::engine::replica::VolumeIndex;
use crate::node::Node;

/// The batches that are being synced.
struct LateSyncer {
    store: Arc<BlockStore>,
    running: BTreeMap<VolumeIndex, JoinHandle<bool>>,
}

/// Syncs until the server stops, and then once more.
pub(crate) async fn sync_late(node: Arc<Node>) -> Result<(), Infallible> {
    let mut syncer = LateSyncer { store: Arc::clone(&node.store), running: BTreeMap::new() };
    loop {
        tokio::select! {
            biased;
            () = node.store.late_syncs().arrived() => {}
            () = node.stopping.cancelled() => {}
        }
        // A little later more may share the work; a replica waits no longer than this.
        tokio::select! {
            biased;
            () = tokio::time::sleep(node.config.late_sync_after.0) => {}
            () = node.stopping.cancelled() => {}
        }
        if node.stopping.is_cancelled() {
            syncer.finish().await;
            syncer.begin().await;
            syncer.finish().await;
            return Ok(());
        }
        syncer.begin().await;
    }
}

impl LateSyncer {
    /// Begins to sync what waits, but for folders that are not done with what came before.
    async fn begin(&mut self) {
        for (index, batch) in self.store.take_late() {
            if let Some(running) = self.running.remove(&index) {
                if !running.is_finished() {
                    self.running.insert(index, running);
                    self.store.late_syncs().put_back(batch);
                    continue;
                }
                end(running).await;
            }
            let store = Arc::clone(&self.store);
            let syncing = run_blocking(move || store.sync_batch(batch));
            let syncing = spawn_detached("late sync", async move { syncing.await.is_ok() });
            self.running.insert(index, syncing);
        }
    }

    /// Waits for all folders that answer.
    async fn finish(&mut self) {
        for (index, running) in std::mem::take(&mut self.running) {
            if running.is_finished() || !self.store.volume(index).is_silent() {
                end(running).await;
            }
        }
    }
}

async fn end(batch: JoinHandle<bool>) {
    if !matches!(batch.await, Ok(true)) {
        error!("a late sync panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::replica::ReplicaState;
    use crate::testing::cluster::key;
    use crate::testing::{FaultyDisk, bytes, open_store, store_block};

    #[tokio::test]
    async fn a_disk_that_does_not_answer_holds_up_no_sync_of_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disk = FaultyDisk::default();
        disk.set_available(1 << 30);
        let store = open_store(disk.handle(), &[one.path(), two.path()]);
        store_block(&store, key(1), &bytes(10), false);
        let busy = store.begin_write(key(9), 0, 10).unwrap(); // So that the next goes to the second.
        store_block(&store, key(2), &bytes(10), false);
        drop(busy);
        let state = |block| store.state().inventory.get(key(block)).unwrap();
        assert_eq!([1, 2].map(|block| state(block).volume.0), [0, 1]);

        disk.hold_syncs_below(one.path());
        let mut syncer = LateSyncer { store: Arc::clone(&store), running: BTreeMap::new() };
        syncer.begin().await;
        let second = syncer.running.remove(&VolumeIndex(1)).unwrap();
        end(second).await;
        assert_eq!(state(2).state, ReplicaState::Final);
        assert_eq!(state(1).state, ReplicaState::Unsynced);
        // What comes for the first folder meanwhile is not forgotten.
        store.late_syncs().push(key(1), false);
        syncer.begin().await;
        assert_eq!(store.take_late().len(), 1);
        disk.release_syncs();
        syncer.finish().await;
        assert_eq!(state(1).state, ReplicaState::Final);
    }
}
