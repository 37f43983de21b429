//! One data folder: its identity, its space, its health.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_proto::id::{ClusterId, NodeUuid};
use doldam_runtime::disk::{
    DirLock, Disk, Space, create_dir_durably, read_file_bounded, write_file_durably,
};
use parking_lot::Mutex;
use tracing::error;

use super::layout::Layout;
use super::version_file::{FolderIdentity, VERSION_FILE_BYTES, VersionFileError};
use super::{StoreError, is_folder_failure};
use crate::config::RESERVE_PERCENT_MAX;
use crate::engine::replica::VolumeIndex;
use crate::engine::startup_plan::Place;
use crate::engine::volume_choice::Candidate;

/// Why a data folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process serves it.
    #[error("another process uses this data folder")]
    InUse,
    /// It cannot be read or written.
    #[error("{during} failed")]
    Io {
        /// Which step.
        during: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Its identity cannot be told.
    #[error(transparent)]
    Version(#[from] VersionFileError),
    /// It holds replicas of nobody knows whom.
    #[error("the folder holds replicas but no VERSION file; restore that file or empty the folder")]
    NoVersion,
    /// It is another node's.
    #[error("the folder belongs to datanode {found}, the others to {expected}")]
    OtherNode {
        /// The node of the folders before.
        expected: NodeUuid,
        /// The node of this one.
        found: NodeUuid,
    },
    /// It failed, and so did all others.
    #[error("every data folder failed; of this one: {why}")]
    AllFailed {
        /// What failed.
        why: String,
    },
    /// It is of another cluster.
    #[error("the folder belongs to cluster {found}, the others to {expected}")]
    OtherCluster {
        /// The cluster of the folders before.
        expected: ClusterId,
        /// The cluster of this one.
        found: ClusterId,
    },
}

impl FolderError {
    pub(crate) fn io(during: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { during, source }
    }

    /// Whether the disk is broken, rather than the configuration wrong: then the other folders may
    /// be served without this one.
    pub(crate) fn is_broken_disk(&self) -> bool {
        use io::ErrorKind::{
            AlreadyExists, InvalidInput, NotADirectory, NotFound, PermissionDenied,
        };
        let wrong = [AlreadyExists, InvalidInput, NotADirectory, NotFound, PermissionDenied];
        match self {
            Self::Io { source, .. } => is_folder_failure(source) && !wrong.contains(&source.kind()),
            _ => false,
        }
    }
}

/// A data folder that is served.
pub(crate) struct Volume {
    index: VolumeIndex,
    layout: Layout,
    disk: Arc<dyn Disk>,
    reserve_bytes: u64,
    /// Promised to writers and not written yet.
    promised_bytes: AtomicU64,
    writers: AtomicU64,
    failure: Mutex<Option<String>>,
    /// Of every folder that could be locked.
    _lock: Option<DirLock>,
}

impl Volume {
    /// Locks the folder at `root`, creates it if need be, and reads whose it is.
    ///
    /// # Errors
    /// If it cannot be served.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        index: VolumeIndex,
        reserve_bytes: u64,
    ) -> Result<(Self, Option<FolderIdentity>), FolderError> {
        create_dir_durably(&*disk, root).map_err(FolderError::io("creating the folder"))?;
        let lock = disk.lock_dir(root).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => FolderError::InUse,
            _ => FolderError::Io { during: "locking the folder", source },
        })?;
        let identity = read_identity(&*disk, &Layout::new(root.to_owned()))?;
        let volume = Self { _lock: Some(lock), ..Self::of(disk, root, index, reserve_bytes) };
        Ok((volume, identity))
    }

    /// Stands in for the folder at `root`, whose disk is broken: it holds nothing and takes nothing,
    /// and is reported as failed.
    pub(crate) fn broken(
        disk: Arc<dyn Disk>,
        root: &Path,
        index: VolumeIndex,
        cause: &FolderError,
    ) -> Self {
        let volume = Self::of(disk, root, index, 0);
        volume.give_up(cause);
        volume
    }

    fn of(disk: Arc<dyn Disk>, root: &Path, index: VolumeIndex, reserve_bytes: u64) -> Self {
        Self {
            index,
            layout: Layout::new(root.to_owned()),
            disk,
            reserve_bytes,
            promised_bytes: AtomicU64::new(0),
            writers: AtomicU64::new(0),
            failure: Mutex::new(None),
            _lock: None,
        }
    }

    /// Turns the folder off because of what was met at the start.
    pub(crate) fn give_up(&self, cause: &FolderError) {
        if let FolderError::Io { during, source } = cause {
            self.fail(during, source);
        }
    }

    /// Makes the folder `identity`'s: durable, with every folder below it, when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn adopt(&self, identity: &FolderIdentity) -> Result<(), FolderError> {
        // The folders first: a VERSION file promises that they are there.
        for folder in self.layout.folders() {
            self.disk
                .create_dir_all(&folder)
                .map_err(FolderError::io("creating the folders below it"))?;
        }
        for folder in [self.layout.place(Place::Blocks), self.layout.root().to_owned()] {
            self.disk.sync_dir(&folder).map_err(FolderError::io("syncing the folder"))?;
        }
        write_file_durably(&*self.disk, &self.layout.version_file(), &identity.encode())
            .map_err(FolderError::io("writing the VERSION file"))
    }

    /// Position in the configuration.
    pub(crate) fn index(&self) -> VolumeIndex {
        self.index
    }

    /// The names below it.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The disk it is on.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Size of the disk, and what new blocks may still take of it; nothing of a failed folder.
    pub(crate) fn space(&self) -> Space {
        let space = match self.disk.space(self.layout.root()) {
            Ok(space) => space,
            Err(cause) => {
                self.fail("asking for its space", &cause);
                return Space { total: 0, available: 0 };
            }
        };
        let reserve = self.reserve_bytes.min(space.total / 100 * RESERVE_PERCENT_MAX);
        let kept = reserve.saturating_add(self.promised_bytes.load(Ordering::Relaxed));
        let available = if self.has_failed() { 0 } else { space.available.saturating_sub(kept) };
        Space { total: space.total, available }
    }

    /// The folder as the choice sees it.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            volume: self.index,
            available: self.space().available,
            writers: self.writers.load(Ordering::Relaxed),
            failed: self.has_failed(),
        }
    }

    /// Why the folder takes no new blocks, if it returned errors.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Whether the folder returned errors and takes no new blocks.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Notes an error met while changing the folder; turns the folder off if it is one that will
    /// not pass.
    pub(crate) fn note_error(&self, error: &StoreError) {
        if let StoreError::Disk { during, source, .. } = error
            && is_folder_failure(source)
        {
            self.fail(during, source);
        }
    }

    fn fail(&self, during: &str, cause: &io::Error) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            let folder = self.layout.root().display();
            error!(%folder, during, %cause, "data folder failed; it takes no more blocks");
            *failure = Some(format!("{during}: {cause}"));
        }
    }

    /// Enters a writer and promises it `bytes`, if so many are left.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        let mut reservation = Reservation { volume: Arc::clone(self), outstanding: 0 };
        reservation.extend(bytes).then_some(reservation)
    }
}

/// Space that a writer was promised. Dropping it gives back what was not used.
pub(crate) struct Reservation {
    volume: Arc<Volume>,
    outstanding: u64,
}

impl Reservation {
    /// Promises `bytes` more, if so many are left; says whether.
    ///
    /// Two writers that ask at the same moment may both be promised the last bytes: the reserve
    /// covers them.
    pub(crate) fn extend(&mut self, bytes: u64) -> bool {
        let fits = !self.volume.has_failed() && self.volume.space().available >= bytes;
        if fits {
            self.volume.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.outstanding += bytes;
        }
        fits
    }

    /// Bytes promised and not written yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// `bytes` of it are written: the file system counts them now.
    pub(crate) fn used(&mut self, bytes: u64) {
        let used = bytes.min(self.outstanding);
        self.outstanding -= used;
        self.volume.promised_bytes.fetch_sub(used, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.volume.promised_bytes.fetch_sub(self.outstanding, Ordering::Relaxed);
        self.volume.writers.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read_identity(disk: &dyn Disk, layout: &Layout) -> Result<Option<FolderIdentity>, FolderError> {
    match read_file_bounded(disk, &layout.version_file(), 16 * VERSION_FILE_BYTES as u64) {
        Ok(bytes) => Ok(Some(FolderIdentity::decode(&bytes)?)),
        Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
            Err(VersionFileError::NotOurs.into())
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            if holds_replicas(disk, layout)? {
                Err(FolderError::NoVersion)
            } else {
                Ok(None)
            }
        }
        Err(source) => Err(FolderError::Io { during: "reading the VERSION file", source }),
    }
}

/// Whether anything lies where replicas do.
fn holds_replicas(disk: &dyn Disk, layout: &Layout) -> Result<bool, FolderError> {
    for folder in layout.folders() {
        match disk.list(&folder) {
            Ok(entries) if entries.iter().any(|entry| !entry.is_dir) => return Ok(true),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FolderError::Io { during: "listing the folder", source }),
        }
    }
    Ok(false)
}
