//! Quarantine and drop: how replicas leave.
//!
//! A bad replica is moved to `quarantine/` and kept: its bytes may be the last there are. It goes
//! when the namenode orders it dropped, or when a good copy was published in its place.
//!
//! A dropped replica is first moved to `trash/`, then removed: a crash in between leaves no half of
//! it among the replicas, and the next start finishes the removal. Nothing is synced here: if a
//! crash of the machine brings a dropped replica back, the comparison of fingerprints finds it and
//! it is dropped again.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::store::{BlockStore, Claim};
use super::volume::Volume;
use crate::engine::open_blocks::Claimed;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState};
use crate::engine::startup_plan::Place;

/// The unsynced name first: a late sync may turn it into the other at any moment, and never back.
pub(super) const KINDS: [FileKind; 3] = [FileKind::Data, FileKind::UnsyncedSide, FileKind::Side];

impl BlockStore {
    /// Takes a replica out of use because of `what`, and has the namenode told. Does nothing if it
    /// is not here, or in quarantine already.
    pub(crate) fn quarantine(&self, key: ReplicaKey, what: &str) {
        let moving = self.quarantining();
        let replica = {
            let mut state = self.state();
            let Some(replica) = state.inventory.get(key).filter(Replica::is_good) else { return };
            state.inventory.set_state(key, ReplicaState::Quarantined);
            replica
        };
        let volume = self.volume(replica.volume);
        warn!(block = %key.block, generation = %key.generation,
            folder = %volume.layout().root().display(), what, "replica is bad; in quarantine");
        let name = ReplicaName::whole(key, replica.length);
        if let Err(failure) = move_files(volume, &name, Place::Blocks, Place::Quarantine) {
            // It is out of use all the same; a start will find out again.
            volume.note_error(&failure);
            warn!(%failure, "cannot move a bad replica to quarantine");
        } else if let Err(cause) = volume.disk().sync_dir(&volume.layout().place(Place::Quarantine))
        {
            warn!(%cause, "cannot sync the quarantine");
        }
        drop(moving);
        self.report_bad(key, what);
    }

    /// Has the namenode told that a replica in quarantine is bad.
    pub(crate) fn report_bad(&self, key: ReplicaKey, what: &str) {
        if let Some(replica) = self.state().inventory.get(key) {
            let what = what.to_owned();
            self.news().event(key, ReplicaEvent::Bad { length: replica.length, what });
        }
    }

    /// Removes the replica `key`, good or bad, by order of the namenode. Says whether it was here.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be removed; it is still here then.
    pub(crate) fn drop_replica(self: &Arc<Self>, key: ReplicaKey) -> Result<bool, StoreError> {
        Ok(self.drop_if(key, |_| true)? || self.drop_open(key)?)
    }

    /// As [`drop_replica`](Self::drop_replica), but a good one stays. Says whether a bad one was here.
    ///
    /// # Errors
    /// If it cannot be removed; it is still here then.
    pub(crate) fn drop_bad_replica(self: &Arc<Self>, key: ReplicaKey) -> Result<bool, StoreError> {
        self.drop_if(key, |replica| !replica.is_good())
    }

    fn drop_if(
        self: &Arc<Self>,
        key: ReplicaKey,
        condition: impl FnOnce(&Replica) -> bool,
    ) -> Result<bool, StoreError> {
        let (replica, claim) = {
            let mut state = self.state();
            let Some(replica) = state.inventory.get(key).filter(condition) else {
                return Ok(false);
            };
            state.inventory.remove(key);
            // Nobody may write it anew while its files go. If somebody does already, it is in
            // quarantine.
            let claimed = state.open.take(key, Claimed::Taken).is_ok();
            (replica, claimed.then(|| Claim::held(Arc::clone(self), key)))
        };
        // Its files may be on their way to the quarantine just now.
        let moving = (replica.state == ReplicaState::Quarantined).then(|| self.quarantining());
        let name = ReplicaName::whole(key, replica.length);
        let volume = self.volume(replica.volume);
        // A bad one may have stayed among the replicas if it could not be moved; not so while a new
        // one is written.
        let places: &[Place] = match (replica.state, &claim) {
            (ReplicaState::Quarantined, None) => &[Place::Quarantine],
            (ReplicaState::Quarantined, Some(_)) => &[Place::Quarantine, Place::Blocks],
            (ReplicaState::Final | ReplicaState::Unsynced, _) => &[Place::Blocks],
        };
        for place in places {
            if let Err(failure) = move_files(volume, &name, *place, Place::Trash) {
                volume.note_error(&failure);
                self.state().inventory.insert(key, replica);
                return Err(failure);
            }
        }
        empty_trash(volume, &name);
        drop((moving, claim));
        self.news().event(key, ReplicaEvent::Dropped);
        Ok(true)
    }

    /// Removes what a writer left of a block. Says whether there was something.
    fn drop_open(self: &Arc<Self>, key: ReplicaKey) -> Result<bool, StoreError> {
        let (file, claim) = {
            let mut state = self.state();
            let Some(file) = state.open.get(key).cloned() else { return Ok(false) };
            let taken = state.open.take(key, Claimed::Taken);
            taken.map_err(|refusal| StoreError::refused(key, refusal))?;
            state.open.remove(key);
            // Its own generation may not come again either, but nothing is here to say so.
            state.fence(key);
            (file, Claim::held(Arc::clone(self), key))
        };
        let (volume, path) = (&file.volume, file.path());
        let name = ReplicaName::open(key, file.file_offset);
        let trash = volume.layout().file(Place::Trash, &name, FileKind::Data);
        match volume.disk().rename(&path, &trash) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                let failure = StoreError::disk(&path, "moving an open block")(cause);
                volume.note_error(&failure);
                self.state().open.insert(key, Arc::clone(&file));
                return Err(failure);
            }
            Ok(()) | Err(_) => {}
        }
        empty_trash(volume, &name);
        drop(claim);
        self.news().event(key, ReplicaEvent::Dropped);
        Ok(true)
    }

    /// Removes the files of a bad replica in whose place `good` was published.
    pub(crate) fn remove_bad_files(&self, key: ReplicaKey, bad: Replica, good: Replica) {
        let _moving = self.quarantining();
        let (volume, name) = (self.volume(bad.volume), ReplicaName::whole(key, bad.length));
        // Among the replicas it can have stayed only where the good one is not.
        let same_files = (bad.volume, bad.length) == (good.volume, good.length);
        let places: &[Place] =
            if same_files { &[Place::Quarantine] } else { &[Place::Quarantine, Place::Blocks] };
        for place in places {
            if let Err(failure) = move_files(volume, &name, *place, Place::Trash) {
                warn!(%failure, "cannot remove a bad replica that was replaced");
            }
        }
        empty_trash(volume, &name);
    }
}

/// Moves those files of a replica that are in `from`. Missing ones are passed over: they were moved
/// before, or are what is wrong with it.
pub(super) fn move_files(
    volume: &Volume,
    name: &ReplicaName,
    from: Place,
    to: Place,
) -> Result<(), StoreError> {
    for kind in KINDS {
        let (old, new) =
            (volume.layout().file(from, name, kind), volume.layout().file(to, name, kind));
        match volume.disk().rename(&old, &new) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::disk(old, "moving a replica")(cause));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Removes the files of a replica in `trash/`.
pub(super) fn empty_trash(volume: &Volume, name: &ReplicaName) {
    for kind in KINDS {
        let path = volume.layout().file(Place::Trash, name, kind);
        match volume.disk().remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                warn!(%path, %cause, "cannot empty the trash; the next start will");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "removal_test.rs"]
mod tests;
