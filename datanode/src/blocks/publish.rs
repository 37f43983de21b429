//! The moment a block becomes a replica.
//!
//! The order, and why each step is where it is:
//!
//! 1. The sidecar is written to `writing/`.
//! 2. `fdatasync` of the data file and of the sidecar: a name must never be durable before the
//!    bytes it stands for.
//! 3. The data file is renamed into `blocks/`, then the sidecar. Only a pair counts as a replica,
//!    so a crash between the two leaves a half, of which the next start makes the whole, and verifies it
//!    ([`startup_plan`](crate::engine::startup_plan)).
//! 4. The folder of both is synced: names are not durable before.
//! 5. The replica enters the inventory, and the writer gets its acknowledgement.
//!
//! So an acknowledged replica needs two `fdatasync` and one folder sync. Not synced: `writing/`,
//! which the files leave (if a crash brings their old names back, the block is open again, or has both
//! names); the folders above, which exist since the data folder was set up; attributes such as times,
//! which nothing depends on.
//!
//! A writer that does not wait for stable storage skips 2 and 4. Its sidecar is named `.unsynced`
//! until a late sync has made up for both ([`late_sync`](super::late_sync)), and a start that finds
//! such a name verifies every byte.
//!
//! A block that was put on stable storage while it was open must be found again whatever a crash does to names: it is
//! published with all syncs, and `writing/` is synced too before step 3, so that its sidecar has a name as well.

use std::io;
use std::path::Path;
use std::sync::Arc;

use doldam_proto::digest::BlockTree;
use doldam_proto::digest::block::BlockDigest;
use doldam_runtime::disk::OpenMode;
use doldam_runtime::planted::{Bug, is_planted};

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::partial::{PartialReplica, remove_unfinished};
use super::sidecar::encode_sidecar;
use crate::engine::replica::{Replica, ReplicaState};
use crate::engine::startup_plan::Place;

impl PartialReplica {
    /// Makes the block, whose bytes are all written and verified, a replica. With `sync` it is on
    /// stable storage when this returns; without, a late sync will follow, unless too many wait
    /// already. Says whether it is durable.
    ///
    /// Blocks on the disk. After an error the block is as it was before.
    ///
    /// # Errors
    /// If the disk is full or fails, or a newer generation of the block came meanwhile.
    pub(crate) fn publish(
        mut self,
        tree: &BlockTree,
        digest: &BlockDigest,
        sync: bool,
    ) -> Result<bool, StoreError> {
        let sync = sync || self.file.was_synced() || !self.store.late_syncs().has_room();
        let name = ReplicaName::whole(self.key, tree.length());
        let layout = self.volume.layout();
        let aside = layout.file(Place::Writing, &name, FileKind::Side);
        let state = if sync { ReplicaState::Final } else { ReplicaState::Unsynced };
        let data = layout.file(Place::Blocks, &name, FileKind::Data);
        let side = layout.file(Place::Blocks, &name, FileKind::side_of(state));
        let open = self.file.path();

        let prepared = self
            .write_sidecar(&aside, &encode_sidecar(self.key, tree, digest), sync)
            .and_then(|()| self.sync_names_of_open())
            .and_then(|()| self.check_newest())
            .and_then(|()| self.rename(&open, &data));
        let published = prepared.and_then(|()| {
            let renamed = self
                .rename(&aside, &side)
                .and_then(|()| if sync { self.sync_folder(&data) } else { Ok(()) });
            renamed.inspect_err(|_| {
                remove_unfinished(&self.volume, &side);
                if let Err(failure) = self.rename(&data, &open) {
                    tracing::warn!(%failure, "an open block is not where the next writer looks");
                }
            })
        });
        if let Err(failure) = self.note(published) {
            remove_unfinished(&self.volume, &aside);
            return Err(failure);
        }
        self.published = true;
        self.enter(name, state);
        Ok(sync)
    }

    fn write_sidecar(&self, aside: &Path, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
        let failed = |during| StoreError::disk(aside, during);
        let disk = self.volume.disk();
        match disk.remove_file(aside) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(failed("creating a sidecar")(cause));
            }
            Ok(()) | Err(_) => {} // Left by a removal that failed, or not there.
        }
        let side = disk.open(aside, OpenMode::CreateNew).map_err(failed("creating a sidecar"))?;
        side.write_all_at(bytes, 0).map_err(failed("writing a sidecar"))?;
        if sync && !is_planted(Bug::AckBeforeSync) {
            self.sync_data()?;
            side.sync_data().map_err(failed("syncing a sidecar"))?;
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), StoreError> {
        self.file.sync_data()
    }

    /// If somebody relies on the block as it is open, its sidecar must not be lost with the name of the folder's.
    fn sync_names_of_open(&self) -> Result<(), StoreError> {
        if !self.file.was_synced() {
            return Ok(());
        }
        let folder = self.volume.layout().place(Place::Writing);
        let synced = self.volume.disk().sync_dir(&folder);
        synced.map_err(StoreError::disk(folder, "syncing the folder of open blocks"))
    }

    /// A writer that was overtaken must not publish: its generation is fenced off.
    fn check_newest(&self) -> Result<(), StoreError> {
        match self.store.state().newer_than(self.key, self.purpose) {
            Some(found) => Err(StoreError::OtherGeneration { key: self.key, found }),
            None => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let renamed = self.volume.disk().rename(from, to);
        renamed.map_err(StoreError::disk(from, "publishing a block"))
    }

    fn sync_folder(&self, file: &Path) -> Result<(), StoreError> {
        let folder = file.parent().unwrap_or(file);
        let synced = self.volume.disk().sync_dir(folder);
        synced.map_err(StoreError::disk(folder, "syncing a folder of replicas"))
    }

    fn enter(&self, name: ReplicaName, state: ReplicaState) {
        let length = name.length.unwrap_or_default();
        let replica = Replica { length, volume: self.volume.index(), state };
        // In one step: a reader finds the one or the other.
        let (replaced, superseded) = {
            let mut state = self.store.state();
            let open = state.open.remove(self.key);
            (state.inventory.insert(self.key, replica), open)
        };
        if let Some(open) = superseded.filter(|open| !Arc::ptr_eq(open, &self.file)) {
            // A repair copy came where a writer of the same generation had left: it is the whole of that.
            remove_unfinished(&open.volume, &open.path());
        }
        if state == ReplicaState::Unsynced {
            self.store.late_syncs().push(self.key, false);
        }
        if let Some(bad) = replaced {
            // Only a bad one can have been here: see `claim`. The good one is in place, so it may
            // go.
            self.store.remove_bad_files(self.key, bad, replica);
        }
    }
}
