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

use doldam_runtime::planted::{Bug, is_planted};
use tracing::warn;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::store::{BlockStore, Claim, no_answer};
use super::volume::Volume;
use crate::engine::open_blocks::Claimed;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};
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
        let key = if is_planted(Bug::ForgottenGeneration) { self.newest(key) } else { key };
        Ok(self.drop_if(key, |_| true)? || self.drop_open(key)?)
    }

    fn newest(&self, key: ReplicaKey) -> ReplicaKey {
        let newest = self.state().inventory.newest(key.block);
        ReplicaKey { generation: newest.unwrap_or(key.generation), ..key }
    }

    /// As [`drop_replica`](Self::drop_replica), but a good one stays. Says whether a bad one was here.
    ///
    /// One that was withdrawn with its folder is forgotten, and its files stay: there are others, says the order,
    /// and a start may still find it worth something.
    ///
    /// # Errors
    /// If it cannot be removed; it is still here then.
    pub(crate) fn drop_bad_replica(self: &Arc<Self>, key: ReplicaKey) -> Result<bool, StoreError> {
        let forgotten = {
            let inventory = &mut self.state().inventory;
            inventory.is_withdrawn(key) && inventory.remove(key).is_some()
        };
        if forgotten {
            self.news().event(key, ReplicaEvent::Dropped);
            return Ok(true);
        }
        self.drop_if(key, |replica| !replica.is_good())
    }

    fn drop_if(
        self: &Arc<Self>,
        key: ReplicaKey,
        condition: impl FnOnce(&Replica) -> bool,
    ) -> Result<bool, StoreError> {
        let (replica, withdrawn, claim) = {
            let mut state = self.state();
            let Some(replica) = state.inventory.get(key).filter(condition) else {
                return Ok(false);
            };
            let withdrawn = state.inventory.is_withdrawn(key);
            state.inventory.remove(key);
            // Nobody may write it anew while its files go. If somebody does already, it is in
            // quarantine.
            let claimed = state.open.take(key, Claimed::Taken).is_ok();
            (replica, withdrawn, claimed.then(|| Claim::held(Arc::clone(self), key)))
        };
        let name = ReplicaName::whole(key, replica.length);
        let volume = self.volume(replica.volume);
        if volume.is_silent() {
            self.take_back_in(key, replica, withdrawn);
            return Err(no_answer(volume));
        }
        // Its files may be on their way to the quarantine just now.
        let moving = (replica.state == ReplicaState::Quarantined).then(|| self.quarantining());
        // A bad one may have stayed among the replicas if it could not be moved; not so while a new
        // one is written.
        let places: &[Place] = match (replica.state, &claim) {
            (ReplicaState::Quarantined, None) => &[Place::Quarantine],
            (ReplicaState::Quarantined, Some(_)) => &[Place::Quarantine, Place::Blocks],
            (ReplicaState::Final | ReplicaState::Unsynced, _) => &[Place::Blocks],
        };
        let mut is_whole_in_trash = true;
        for place in places {
            // Without its data it is no replica any more, whatever becomes of the rest.
            let moved = move_file(volume, &name, FileKind::Data, *place, Place::Trash);
            if moved.as_ref().is_err_and(StoreError::is_full) {
                remove_at_once(volume, &name, *place);
            } else if let Err(failure) = moved {
                volume.note_error(&failure);
                self.take_back_in(key, replica, withdrawn);
                return Err(failure);
            }
            match move_files(volume, &name, *place, Place::Trash) {
                Err(failure) if failure.is_full() => remove_at_once(volume, &name, *place),
                Err(failure) => {
                    volume.note_error(&failure);
                    warn!(%failure, "cannot remove all of a dropped replica; the next start will");
                    is_whole_in_trash = false; // What is there tells the start what to do.
                }
                Ok(()) => {}
            }
        }
        if is_whole_in_trash {
            empty_trash(volume, &name);
        }
        if replica.state == ReplicaState::Quarantined {
            self.remove_other_bad(replica.volume, &name);
        }
        drop((moving, claim));
        self.news().event(key, ReplicaEvent::Dropped);
        Ok(true)
    }

    /// A start may have found a second bad copy in another folder, of which only the files tell: what lets the one go
    /// lets the other go too.
    fn remove_other_bad(&self, dropped: VolumeIndex, name: &ReplicaName) {
        let works = |volume: &&Arc<Volume>| !volume.has_failed() && !volume.is_silent();
        for volume in self.volumes().iter().filter(works).filter(|it| it.index() != dropped) {
            match move_files(volume, name, Place::Quarantine, Place::Trash) {
                Err(failure) if failure.is_full() => {
                    remove_at_once(volume, name, Place::Quarantine);
                }
                Err(failure) => warn!(%failure, "cannot remove a second bad copy of a replica"),
                Ok(()) => {}
            }
            empty_trash(volume, name);
        }
    }

    /// Removes what a writer left of a block. Says whether there was something.
    fn drop_open(self: &Arc<Self>, key: ReplicaKey) -> Result<bool, StoreError> {
        let (file, claim) = {
            let mut state = self.state();
            let Some(file) = state.open.get(key).cloned() else { return Ok(false) };
            if file.volume.is_silent() {
                return Err(no_answer(&file.volume));
            }
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

    fn take_back_in(&self, key: ReplicaKey, replica: Replica, withdrawn: bool) {
        let inventory = &mut self.state().inventory;
        inventory.insert(key, replica);
        if withdrawn {
            inventory.withdraw(key);
        }
    }

    /// Removes the files of a bad replica in whose place `good` was published. Those on a folder that failed are left
    /// to a start on which it works again.
    pub(crate) fn remove_bad_files(&self, key: ReplicaKey, bad: Replica, good: Replica) {
        let (volume, name) = (self.volume(bad.volume), ReplicaName::whole(key, bad.length));
        if volume.has_failed() {
            return;
        }
        let _moving = self.quarantining();
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
    KINDS.into_iter().try_for_each(|kind| move_file(volume, name, kind, from, to))
}

fn move_file(
    volume: &Volume,
    name: &ReplicaName,
    kind: FileKind,
    from: Place,
    to: Place,
) -> Result<(), StoreError> {
    let file = |place| volume.layout().file(place, name, kind);
    match volume.disk().rename(&file(from), &file(to)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::disk(file(from), "moving a replica")(cause))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the files of a replica from where they are: on a disk so full that not even a name fits into `trash/`.
/// A crash in between leaves a half, which a start quarantines and the namenode has dropped once more.
fn remove_at_once(volume: &Volume, name: &ReplicaName, place: Place) {
    for kind in KINDS {
        let path = volume.layout().file(place, name, kind);
        match volume.disk().remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                warn!(path = %path.display(), %cause, "cannot remove a dropped replica");
            }
            Ok(()) | Err(_) => {}
        }
    }
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
