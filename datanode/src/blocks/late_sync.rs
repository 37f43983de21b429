//! The syncs that writers did not wait for.
//!
//! A replica that was published without a sync waits here for a few seconds, so that several share
//! the work, then both its files and their folder are synced and its sidecar loses the name
//! `.unsynced`. A replica that still has that name at a start is verified first: after a loss of
//! power its files may hold anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use doldam_runtime::disk::OpenMode;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::store::BlockStore;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};
use crate::engine::startup_plan::Place;

/// Replicas that may wait; beyond it writers sync at once.
const WAITING_MAX: usize = 1024;

/// Replicas that wait for their sync.
#[derive(Debug, Default)]
pub(crate) struct LateSyncs {
    waiting: Mutex<VecDeque<LateSync>>,
    /// Those found at the start that are not verified yet.
    unverified: Mutex<BTreeSet<ReplicaKey>>,
    arrived: Notify,
}

/// A replica that waits for its sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LateSync {
    /// Which.
    key: ReplicaKey,
    /// It was found at a start.
    verify_first: bool,
}

impl LateSyncs {
    /// Whether another replica may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.lock().len() < WAITING_MAX
    }

    /// Adds a replica; with `verify_first` one that was found at a start.
    pub(crate) fn push(&self, key: ReplicaKey, verify_first: bool) {
        if verify_first {
            self.unverified.lock().insert(key);
        }
        self.waiting.lock().push_back(LateSync { key, verify_first });
        self.arrived.notify_one();
    }

    /// Waits until something waits here. Cancel-safe.
    pub(crate) async fn arrived(&self) {
        if self.waiting.lock().is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Replicas that a loss of power may have spoiled: they were found at the start, and not verified since.
    pub(crate) fn unverified(&self) -> u64 {
        self.unverified.lock().len() as u64
    }

    fn take(&self) -> VecDeque<LateSync> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Replicas that were taken and have to wait on.
    pub(crate) fn put_back(&self, mut batch: VecDeque<LateSync>) {
        self.waiting.lock().append(&mut batch);
    }
}

impl BlockStore {
    /// Syncs everything that waits, one after the other.
    #[cfg(test)]
    pub(crate) fn sync_late(self: &Arc<Self>) {
        self.sync_batch(self.late_syncs().take());
    }

    /// Takes what waits, by data folder. What is no longer here needs no sync.
    pub(crate) fn take_late(&self) -> BTreeMap<VolumeIndex, VecDeque<LateSync>> {
        let mut batches: BTreeMap<VolumeIndex, VecDeque<LateSync>> = BTreeMap::new();
        let waiting = self.late_syncs().take();
        let state = self.state();
        for late in waiting {
            match state.inventory.get(late.key) {
                Some(held) => batches.entry(held.volume).or_default().push_back(late),
                None => _ = self.late_syncs().unverified.lock().remove(&late.key),
            }
        }
        batches
    }

    /// Syncs a batch of what was taken. Blocks on the disk.
    pub(crate) fn sync_batch(self: &Arc<Self>, batch: VecDeque<LateSync>) {
        let mut synced: Vec<(ReplicaKey, Replica)> = Vec::new();
        for LateSync { key, verify_first } in batch {
            let on_silent = |held: Replica| self.volume(held.volume).is_silent();
            let verified = if self.find(key).is_ok_and(on_silent) {
                None // It would wait for ever.
            } else if verify_first {
                Some(self.verify(key, None))
            } else {
                Some(Ok(()))
            };
            // Whatever came out is known from here on: a bad one is in quarantine, a folder that failed is told of.
            self.late_syncs().unverified.lock().remove(&key);
            match verified {
                Some(Ok(())) => {}
                Some(Err(failure)) => {
                    warn!(%key, %failure, "a replica that was never synced cannot be confirmed");
                    continue;
                }
                None => continue,
            }
            // Dropped or quarantined meanwhile, it needs no sync.
            let Ok(replica) = self.find(key) else { continue };
            match self.sync_files(key, replica) {
                Ok(()) => synced.push((key, replica)),
                Err(failure) => self.note_late_failure(replica, &failure),
            }
        }
        self.confirm(synced);
    }

    fn sync_files(&self, key: ReplicaKey, replica: Replica) -> Result<(), StoreError> {
        let (volume, name) = (self.volume(replica.volume), ReplicaName::whole(key, replica.length));
        for kind in [FileKind::Data, FileKind::UnsyncedSide] {
            let path = volume.layout().file(Place::Blocks, &name, kind);
            let file = volume
                .disk()
                .open(&path, OpenMode::Read)
                .map_err(StoreError::disk(&path, "opening a replica to sync it"))?;
            file.sync_data().map_err(StoreError::disk(&path, "syncing a replica"))?;
        }
        Ok(())
    }

    /// Gives the sidecars of replicas whose files are synced their final names, then syncs each
    /// folder once.
    ///
    /// The new name may become durable at any moment, which is right, since the bytes are. Before
    /// the folder is synced the replica itself may still be lost with its name, so it counts as
    /// final only after.
    fn confirm(self: &Arc<Self>, synced: Vec<(ReplicaKey, Replica)>) {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        let mut failed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut renamed = Vec::new();
        for (key, replica) in synced {
            let volume = self.volume(replica.volume);
            let name = ReplicaName::whole(key, replica.length);
            let path = |kind| volume.layout().file(Place::Blocks, &name, kind);
            let (old, new) = (path(FileKind::UnsyncedSide), path(FileKind::Side));
            match volume.disk().rename(&old, &new) {
                Ok(()) => {
                    let folder = volume.layout().folder(Place::Blocks, key.block);
                    if folders.insert(folder.clone())
                        && let Err(cause) = volume.disk().sync_dir(&folder)
                    {
                        let failure = StoreError::disk(&folder, "syncing a folder")(cause);
                        self.note_late_failure(replica, &failure);
                        failed.insert(folder.clone());
                    }
                    renamed.push((key, folder));
                }
                Err(cause) => {
                    let failure = StoreError::disk(old, "confirming a replica")(cause);
                    self.note_late_failure(replica, &failure);
                }
            }
        }
        renamed.retain(|(_, folder)| !failed.contains(folder));
        let mut state = self.state();
        for (key, _) in &renamed {
            let unsynced = |held: Replica| held.state == ReplicaState::Unsynced;
            if state.inventory.get(*key).is_some_and(unsynced) {
                state.inventory.set_state(*key, ReplicaState::Final);
            }
        }
        drop(state);
        for (key, _) in renamed {
            self.remove_left_beside(key);
        }
    }

    fn note_late_failure(&self, replica: Replica, failure: &StoreError) {
        // One that was dropped meanwhile has no files; nothing is wrong with the folder then.
        let gone = matches!(failure, StoreError::Disk { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound);
        if !gone {
            warn!(%failure, "a late sync failed");
            self.volume(replica.volume).note_error(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cluster::key;
    use crate::testing::{Fault, FaultyDisk, Operation, bytes, open_store, store_block};

    fn state_of(store: &BlockStore, block: u64) -> Option<ReplicaState> {
        store.state().inventory.get(key(block)).map(|held| held.state)
    }

    #[test]
    fn when_too_many_wait_writers_sync_at_once() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
        let store = open_store(disk.handle(), &[dir.path()]);
        for block in 0..WAITING_MAX as u64 {
            store.late_syncs().push(key(1000 + block), false);
        }
        let before = disk.syncs();
        store_block(&store, key(1), &bytes(10), false);
        assert_eq!(state_of(&store, 1), Some(ReplicaState::Final));
        assert_eq!(disk.syncs() - before, 3);
        store.sync_late(); // Those that are not here need none.
        store_block(&store, key(2), &bytes(10), false);
        assert_eq!(state_of(&store, 2), Some(ReplicaState::Unsynced));
    }

    #[test]
    fn replicas_that_share_a_folder_share_its_sync() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
        let store = open_store(disk.handle(), &[dir.path()]);
        for block in [1, 65, 129] {
            store_block(&store, key(block), &bytes(10), false);
        }
        let before = disk.syncs();
        store.sync_late();
        assert_eq!(disk.syncs() - before, 3 * 2 + 1);
        assert_eq!(state_of(&store, 129), Some(ReplicaState::Final));
    }

    #[test]
    fn a_replica_whose_sync_fails_never_counts_as_final() {
        for (operation, path) in [(Operation::Sync, ".data"), (Operation::SyncDir, "blocks/")] {
            let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
            let store = open_store(disk.handle(), &[dir.path()]);
            store_block(&store, key(1), &bytes(10), false);
            disk.fail(Fault { operation, path, after: 0, errno: 5 });
            store.sync_late();
            assert_eq!(state_of(&store, 1), Some(ReplicaState::Unsynced), "{operation:?}");
            assert!(store.volumes()[0].has_failed());
            disk.heal();
            // The bytes are still there to be read, whatever became of them on the disk.
            store.verify(key(1), None).unwrap();
        }
    }
}
