//! What writers left of blocks: taken in at a start, told to the namenode, counted, and listed with the replicas.

use std::sync::Arc;

use doldam_runtime::disk::OpenMode;
use tracing::{info, warn};

use super::layout::{FileKind, ReplicaName};
use super::open::OpenFile;
use super::partial::remove_unfinished;
use super::startup::FoundOpen;
use super::store::{BlockStore, Claim, State};
use super::volume::Volume;
use crate::engine::open_blocks::{Claimed, Held};
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};
use crate::engine::startup_plan::Place;

impl State {
    /// What is here of `key`'s block that is not known to be bad.
    pub(crate) fn held(&self, key: ReplicaKey) -> Vec<Held> {
        let open = self.open.of_block(key.block).map(|(key, file)| Held {
            generation: key.generation,
            length: file.length(),
            is_open: true,
        });
        let replicas = self.inventory.of_block(key.block).filter(|(_, held)| held.is_good());
        open.chain(replicas.map(|(key, held)| Held {
            generation: key.generation,
            length: held.length,
            is_open: false,
        }))
        .collect()
    }

    /// The same with what is known to be bad: its bytes may be the last there are, and are not changed either.
    pub(super) fn all_held(&self, key: ReplicaKey) -> Vec<Held> {
        let mut held = self.held(key);
        let bad = self.inventory.of_block(key.block).filter(|(_, held)| !held.is_good());
        held.extend(bad.map(|(key, Replica { length, .. })| Held {
            generation: key.generation,
            length,
            is_open: false,
        }));
        held
    }
}

impl BlockStore {
    /// Takes in what a start found of a block that a writer left. Of two in two folders the first stands.
    pub(crate) fn take_in_open(&self, volume: &Arc<Volume>, found: FoundOpen) {
        let FoundOpen { key, file_offset, length } = found;
        let name = ReplicaName::open(key, file_offset);
        let path = volume.layout().file(Place::Writing, &name, FileKind::Data);
        if self.state().open.get(key).is_some() {
            warn!(path = %path.display(), "open block in two folders; left alone");
            self.state().open.leave_out(key.block, path);
            return;
        }
        match volume.disk().open(&path, OpenMode::Write) {
            Ok(data) => {
                let known = (length, None);
                let volume = Arc::clone(volume);
                let file = OpenFile::new(volume, path, file_offset, key.generation, data, known);
                self.state().open.insert(key, Arc::new(file));
            }
            Err(cause) => {
                warn!(path = %path.display(), %cause, "cannot open a block that its writer left");
                self.state().open.leave_out(key.block, path);
            }
        }
    }

    /// Removes what a writer left of a block under the very generation of a replica that is here, durable and whole:
    /// a repair copy had taken its place, and a loss of power brought its name back. No order can name it, for an
    /// order would name the replica.
    ///
    /// Blocks on the disk for as long as reading the block takes, if there is something to remove.
    pub(crate) fn remove_left_beside(self: &Arc<Self>, key: ReplicaKey) {
        let is_durable = |state: &State| {
            state.inventory.get(key).is_some_and(|held| held.state == ReplicaState::Final)
        };
        {
            let state = self.state();
            // A folder that does not answer would be waited for without end; the next start looks again.
            let is_here = state.open.get(key).is_some_and(|file| !file.volume.is_silent());
            if !is_here || !is_durable(&state) {
                return;
            }
        }
        if self.verify(key, None).is_err() {
            return; // What was left may be worth more.
        }
        let (file, _claim) = {
            let mut state = self.state();
            if !is_durable(&state) || state.open.take(key, Claimed::Taken).is_err() {
                return;
            }
            let claim = Claim::held(Arc::clone(self), key);
            let Some(file) = state.open.remove(key) else { return };
            (file, claim)
        };
        info!(path = %file.path().display(), "a replica is here of what a writer left; removed that");
        remove_unfinished(&file.volume, &file.path());
    }

    /// What writers left here: to be told to the namenode, which orders dropped what it has no use for.
    pub(crate) fn tell_open(&self) {
        let left: Vec<(ReplicaKey, u64)> = {
            let state = self.state();
            state.open.without_writer().map(|(key, file)| (key, file.length())).collect()
        };
        for (key, length) in left {
            self.news().event(key, ReplicaEvent::Open { length });
        }
    }

    /// Bytes of blocks on one data folder, open ones too.
    pub(crate) fn used_bytes(&self, volume: VolumeIndex) -> u64 {
        let state = self.state();
        let open = state.open.iter().filter(|(_, file)| file.volume.index() == volume);
        let open: u64 = open.map(|(_, file)| file.length()).sum();
        state.inventory.stored_bytes(volume) + open
    }
}
