//! The replicas of all data folders: what may be read, written and dropped.
//!
//! One lock guards the inventory and the set of blocks being received; it is never held during I/O.
//! A replica is in the inventory only while both its files are whole and published (see
//! [`publish`](super::publish)), so whoever finds it there may open it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use doldam_proto::id::Generation;
use doldam_runtime::disk::{DiskFile, OpenMode};
use doldam_runtime::planted::{Bug, is_planted};
use parking_lot::{Mutex, MutexGuard};

use super::late_sync::LateSyncs;
use super::layout::{FileKind, ReplicaName};
use super::sidecar::Sidecar;
use super::volume::Volume;
use super::{StoreError, is_damage};
use crate::engine::inventory::Inventory;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};
use crate::engine::startup_plan::Place;
use crate::news::News;

/// The replicas of a node.
pub(crate) struct BlockStore {
    volumes: Vec<Arc<Volume>>,
    state: Mutex<State>,
    /// Held while files go to the quarantine or out of it, so that none is left behind there.
    quarantining: Mutex<()>,
    late_syncs: LateSyncs,
    news: Arc<News>,
}

/// What the lock guards.
pub(crate) struct State {
    /// What is held.
    pub(crate) inventory: Inventory,
    /// What is being received, or removed: nobody else may write it meanwhile.
    pub(crate) claimed: BTreeSet<ReplicaKey>,
}

/// A replica, open to be read. It can be read to the end even if it is dropped meanwhile.
pub(crate) struct OpenReplica {
    /// Which.
    pub(crate) key: ReplicaKey,
    /// Bytes of the block.
    pub(crate) length: u64,
    /// Its bytes.
    pub(crate) data: Box<dyn DiskFile>,
    /// Path of its bytes, for errors.
    pub(crate) data_path: PathBuf,
    /// Its sidecar.
    pub(crate) sidecar: Sidecar,
}

impl BlockStore {
    /// Over the data folders and what was found in them.
    pub(crate) fn new(volumes: Vec<Arc<Volume>>, inventory: Inventory, news: Arc<News>) -> Self {
        let state = State { inventory, claimed: BTreeSet::new() };
        let (state, quarantining) = (Mutex::new(state), Mutex::default());
        Self { volumes, state, quarantining, late_syncs: LateSyncs::default(), news }
    }

    /// The data folders in the order of the configuration.
    pub(crate) fn volumes(&self) -> &[Arc<Volume>] {
        &self.volumes
    }

    /// The data folder of a replica.
    pub(crate) fn volume(&self, index: VolumeIndex) -> &Arc<Volume> {
        &self.volumes[usize::from(index.0)]
    }

    /// The inventory and what is claimed. Not to be held during I/O.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// To be held while files go to the quarantine or out of it; taken before [`state`](Self::state).
    pub(crate) fn quarantining(&self) -> MutexGuard<'_, ()> {
        self.quarantining.lock()
    }

    /// The syncs that were not waited for.
    pub(crate) fn late_syncs(&self) -> &LateSyncs {
        &self.late_syncs
    }

    /// Where the namenode is told from.
    pub(crate) fn news(&self) -> &News {
        &self.news
    }

    /// The replica `key` if it may be read.
    ///
    /// # Errors
    /// If it is not here, is here under another generation, or is known to be bad.
    pub(crate) fn find(&self, key: ReplicaKey) -> Result<Replica, StoreError> {
        let state = self.state();
        match state.inventory.get(key) {
            Some(replica) if replica.is_good() => Ok(replica),
            Some(_) => Err(StoreError::Quarantined { key }),
            None => Err(match state.inventory.newest(key.block) {
                Some(found) => StoreError::OtherGeneration { key, found },
                None => StoreError::NotFound { key },
            }),
        }
    }

    /// Opens the replica `key`. If that shows that it is damaged, it goes to quarantine.
    ///
    /// # Errors
    /// As [`find`](Self::find), or if it is damaged, or cannot be opened for another reason.
    pub(crate) fn open(&self, key: ReplicaKey) -> Result<OpenReplica, StoreError> {
        let replica = self.find(key)?;
        match self.open_files(key, replica) {
            Ok(open) => Ok(open),
            Err(failure) => {
                // It may have been dropped since it was found: then that is the answer.
                self.find(key)?;
                Err(self.note_read_error(key, failure))
            }
        }
    }

    /// Judges an error met while reading a replica: one that shows damage sends the replica to
    /// quarantine.
    pub(crate) fn note_read_error(&self, key: ReplicaKey, failure: StoreError) -> StoreError {
        let what = match &failure {
            StoreError::Damaged { what, .. } => what.clone(),
            StoreError::Disk { during, source, .. } if is_damage(source) => {
                format!("{during}: {source}")
            }
            _ => return failure,
        };
        self.quarantine(key, &what);
        StoreError::Damaged { key, what }
    }

    fn open_files(&self, key: ReplicaKey, replica: Replica) -> Result<OpenReplica, StoreError> {
        let (volume, name) = (self.volume(replica.volume), ReplicaName::whole(key, replica.length));
        let path = |kind| volume.layout().file(Place::Blocks, &name, kind);
        let data_path = path(FileKind::Data);
        let data = volume
            .disk()
            .open(&data_path, OpenMode::Read)
            .map_err(StoreError::disk(&data_path, "opening a block"))?;
        let found = data.len().map_err(StoreError::disk(&data_path, "opening a block"))?;
        if found != replica.length {
            let what = format!("its data file has {found} bytes instead of {}", replica.length);
            return Err(StoreError::Damaged { key, what });
        }
        // The sidecar may get its final name at this very moment.
        let open = |kind| Sidecar::open(volume.disk(), &path(kind), key, replica.length);
        let sidecar = match open(FileKind::side_of(replica.state)) {
            Err(StoreError::Disk { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && replica.state == ReplicaState::Unsynced =>
            {
                open(FileKind::Side)
            }
            opened => opened,
        }?;
        Ok(OpenReplica { key, length: replica.length, data, data_path, sidecar })
    }

    /// Whether a block may be received under `key`; if so, nobody else may until the claim is
    /// dropped.
    ///
    /// A bad replica does not stand in the way: the new one takes its place.
    ///
    /// # Errors
    /// If it is here already, is being received, or something newer is here.
    pub(crate) fn claim(self: &Arc<Self>, key: ReplicaKey) -> Result<Claim, StoreError> {
        let mut state = self.state();
        if state.inventory.get(key).is_some_and(|replica| replica.is_good()) {
            return Err(StoreError::Exists { key });
        }
        if let Some(found) = state.newer_than(key) {
            return Err(StoreError::OtherGeneration { key, found });
        }
        if !state.claimed.insert(key) {
            return Err(StoreError::BeingWritten { key });
        }
        drop(state);
        Ok(Claim::held(Arc::clone(self), key))
    }
}

impl State {
    /// The newest generation of the block, held or being received, if it is newer than `key`'s.
    pub(crate) fn newer_than(&self, key: ReplicaKey) -> Option<Generation> {
        if is_planted(Bug::ForgottenGeneration) {
            return None;
        }
        let newest = ReplicaKey { generation: Generation(u64::MAX), ..key };
        let received = self.claimed.range(key..=newest).next_back().map(|key| key.generation);
        received.max(self.inventory.newest(key.block)).filter(|newest| *newest > key.generation)
    }
}

/// The right to write or remove a replica, until it is dropped.
pub(crate) struct Claim {
    store: Arc<BlockStore>,
    key: ReplicaKey,
}

impl Claim {
    /// For a key that the caller has entered among the claimed ones.
    pub(super) fn held(store: Arc<BlockStore>, key: ReplicaKey) -> Self {
        Self { store, key }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.state().claimed.remove(&self.key);
    }
}
