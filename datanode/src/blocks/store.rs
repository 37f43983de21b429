//! The replicas of all data folders: what may be read, written and dropped.
//!
//! One lock guards the inventory and what is known of open blocks; it is never held during I/O.
//! A replica is in the inventory only while both its files are whole and published (see
//! [`publish`](super::publish)), so whoever finds it there may open it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use doldam_proto::id::Generation;
use doldam_runtime::disk::{DiskFile, OpenMode};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::late_sync::LateSyncs;
use super::layout::{FileKind, ReplicaName};
use super::open::OpenFile;
use super::partial::Purpose;
use super::sidecar::Sidecar;
use super::volume::Volume;
use super::{StoreError, is_damage};
use crate::engine::inventory::Inventory;
use crate::engine::open_blocks::{Claimed, OpenBlocks};
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
    /// Somebody gave back a block.
    released: Notify,
}

/// What the lock guards.
pub(crate) struct State {
    /// What is held.
    pub(crate) inventory: Inventory,
    /// What is being received, was left by its writer, or is being removed.
    pub(crate) open: OpenBlocks<Arc<OpenFile>, CancellationToken>,
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
    /// The data folder it lies in.
    pub(crate) volume: VolumeIndex,
    /// Its sidecar.
    pub(crate) sidecar: Sidecar,
}

impl BlockStore {
    /// Over the data folders and what was found in them.
    pub(crate) fn new(volumes: Vec<Arc<Volume>>, inventory: Inventory, news: Arc<News>) -> Self {
        let state = Mutex::new(State { inventory, open: OpenBlocks::default() });
        let (quarantining, late_syncs) = (Mutex::default(), LateSyncs::default());
        Self { volumes, state, quarantining, late_syncs, news, released: Notify::new() }
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
        let volume = self.volume(replica.volume);
        if volume.is_silent() {
            return Err(no_answer(volume));
        }
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

    /// As [`open`](Self::open), but whatever is found leaves the replica as it is.
    pub(super) fn open_files(
        &self,
        key: ReplicaKey,
        replica: Replica,
    ) -> Result<OpenReplica, StoreError> {
        let (volume, name) = (self.volume(replica.volume), ReplicaName::whole(key, replica.length));
        let path = |kind| volume.layout().file(Place::Blocks, &name, kind);
        let data_path = path(FileKind::Data);
        let data = volume
            .disk()
            .open(&data_path, OpenMode::Read)
            .map_err(StoreError::disk(&data_path, "opening a block"))?;
        let found = data.len().map_err(StoreError::disk(&data_path, "opening a block"))?;
        // It may be longer: what was appended to it is in the same file.
        if found < replica.length {
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
        let Replica { length, volume, .. } = replica;
        Ok(OpenReplica { key, length, data, data_path, volume, sidecar })
    }

    /// Whether a block may be received under `key` from its first byte on; if so, nobody else may until the claim is
    /// dropped. Writers under older generations are told to leave.
    ///
    /// A bad replica does not stand in the way, nor one of a folder that failed: the new one takes its place.
    ///
    /// # Errors
    /// If it is here already, is being received, or something newer is here.
    pub(crate) fn claim_anew(
        self: &Arc<Self>,
        key: ReplicaKey,
        fenced: &CancellationToken,
    ) -> Result<Claim, StoreError> {
        let mut state = self.state();
        state.check_absent(key)?;
        let stored = state.inventory.newest(key.block);
        let claimed = state.open.claim_anew(key, fenced.clone(), stored);
        claimed.map_err(|refusal| StoreError::refused(key, refusal))?;
        state.fence(key);
        drop(state);
        Ok(Claim::held(Arc::clone(self), key))
    }

    /// The same for a repair copy.
    ///
    /// # Errors
    /// As there, but what is open stands in the way of none.
    pub(crate) fn claim_copy(self: &Arc<Self>, key: ReplicaKey) -> Result<Claim, StoreError> {
        let mut state = self.state();
        state.check_absent(key)?;
        let stored = state.inventory.newest(key.block);
        let claimed = state.open.claim(key, Claimed::Copy, stored);
        claimed.map_err(|refusal| StoreError::refused(key, refusal))?;
        drop(state);
        Ok(Claim::held(Arc::clone(self), key))
    }

    /// Waits until somebody gave back a block since `notified` was enabled. Cancel-safe.
    pub(crate) fn released(&self) -> tokio::sync::futures::Notified<'_> {
        self.released.notified()
    }
}

/// What a folder that does not answer is taken to have answered: it is not asked again.
pub(super) fn no_answer(volume: &Volume) -> StoreError {
    StoreError::Disk {
        path: volume.layout().root().to_owned(),
        during: "asking a data folder that no longer answers",
        source: io::ErrorKind::TimedOut.into(),
    }
}

impl State {
    /// Whether a replica may be written under `key`: a bad one does not stand in the way, nor one of a folder that
    /// failed.
    ///
    /// # Errors
    /// If a good one is here.
    pub(super) fn check_absent(&self, key: ReplicaKey) -> Result<(), StoreError> {
        match self.inventory.get(key) {
            Some(replica) if replica.is_good() && !self.inventory.is_withdrawn(key) => {
                Err(StoreError::Exists { key })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses generations of the block below `key`'s from now on, and tells writers under them to leave.
    pub(crate) fn fence(&mut self, key: ReplicaKey) {
        // Below the first there is none: most blocks are written once.
        if key.generation > Generation(1) {
            self.open.fence(key);
            self.open.writers_below(key).for_each(CancellationToken::cancel);
        }
    }

    /// The newest generation of the block that was seen, if it is newer than `key`'s.
    pub(crate) fn newer_than(&self, key: ReplicaKey, purpose: Purpose) -> Option<Generation> {
        let stored = self.inventory.newest(key.block);
        match purpose {
            Purpose::Write => self.open.newer_than(key, stored),
            Purpose::Copy => self.open.newer_than_copy(key, stored),
        }
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
        self.store.state().open.release(self.key);
        self.store.released.notify_waiters();
    }
}
