//! One data folder: its identity, its space, its health.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_proto::id::{ClusterId, NodeUuid};
use doldam_runtime::disk::{
    DirLock, Disk, OpenMode, Space, create_dir_durably, read_file_bounded, write_file_durably,
};
use parking_lot::Mutex;
use tracing::error;

use super::layout::Layout;
use super::sidecar::sidecar_bytes;
use super::version_file::{FolderIdentity, VERSION_FILE_BYTES, VersionFileError};
use super::{StoreError, is_folder_failure};
use crate::config::RESERVE_PERCENT_MAX;
use crate::engine::replica::VolumeIndex;
use crate::engine::scrub_plan::ScrubPosition;
use crate::engine::startup_plan::Place;
use crate::engine::volume_choice::Candidate;

/// Length of the file that is written to see whether the disk still works.
const CHECK_FILE_BYTES: usize = 8;

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

/// Why a data folder was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    why: String,
    /// It does not answer at all: whoever asks it anything may wait for ever.
    silent: bool,
}

/// A data folder that is served.
pub(crate) struct Volume {
    index: VolumeIndex,
    layout: Layout,
    disk: Arc<dyn Disk>,
    reserve_bytes: u64,
    /// Promised to writers and not written yet.
    promised_bytes: Mutex<u64>,
    writers: AtomicU64,
    /// Where its scrubber is.
    scrub: Mutex<ScrubPosition>,
    /// Times it was looked at without traffic.
    checks: AtomicU64,
    /// Of its disk, as seen last.
    seen_space: Mutex<Space>,
    failure: Mutex<Option<Failure>>,
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
        volume.space(); // So that it is known before anybody looks again.
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
            promised_bytes: Mutex::new(0),
            writers: AtomicU64::new(0),
            scrub: Mutex::default(),
            checks: AtomicU64::new(0),
            seen_space: Mutex::new(Space { total: 0, available: 0 }),
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

    /// Size of the disk, and what new blocks may still take of it; nothing of a failed folder. Asks the disk.
    pub(crate) fn space(&self) -> Space {
        if !self.has_failed() {
            match self.disk.space(self.layout.root()) {
                Ok(space) => *self.seen_space.lock() = space,
                Err(cause) => self.fail("asking for its space", &cause),
            }
        }
        self.seen_space()
    }

    /// The same as seen last, without asking the disk, which may hang.
    pub(crate) fn seen_space(&self) -> Space {
        let promised = *self.promised_bytes.lock();
        self.space_beside(promised)
    }

    fn space_beside(&self, promised: u64) -> Space {
        let space = *self.seen_space.lock();
        let reserve = self.reserve_bytes.min(space.total / 100 * RESERVE_PERCENT_MAX);
        let kept = reserve.saturating_add(promised);
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
        self.failure.lock().as_ref().map(|failure| failure.why.clone())
    }

    /// Whether the folder returned errors and takes no new blocks.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Where its scrubber is, for the pages.
    pub(crate) fn scrub(&self) -> ScrubPosition {
        *self.scrub.lock()
    }

    /// Notes where its scrubber is.
    pub(crate) fn note_scrub(&self, position: ScrubPosition) {
        *self.scrub.lock() = position;
    }

    /// Whether the folder was given up because it does not answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.failure.lock().as_ref().is_some_and(|failure| failure.silent)
    }

    /// Gives the folder up because it has not answered for `waited`.
    pub(crate) fn give_up_silent(&self, waited: Duration) {
        let mut failure = self.failure.lock();
        if !failure.as_ref().is_some_and(|failure| failure.silent) {
            let folder = self.layout.root().display();
            error!(%folder, ?waited, "data folder does not answer; given up");
            *failure = Some(Failure { why: format!("no answer for {waited:?}"), silent: true });
        }
    }

    /// Whether the folder is still `node`'s and can be written, synced and read: the look at a folder that has no
    /// traffic. Gives it up if not. Blocks on the disk.
    pub(crate) fn check(&self, node: NodeUuid) {
        if let Err((during, cause)) = self.try_check(node)
            && is_folder_failure(&cause)
        {
            self.fail(during, &cause);
        }
    }

    fn try_check(&self, node: NodeUuid) -> Result<(), (&'static str, io::Error)> {
        let during = |during| move |cause| (during, cause);
        self.is_ours(node).map_err(during("looking whose folder it is"))?;
        for place in [Place::Blocks, Place::Writing, Place::Quarantine, Place::Trash] {
            let found = self.disk.file_bytes(&self.layout.place(place));
            if found.map_err(during("looking into it"))?.is_none() {
                return Err(("looking into it", io::ErrorKind::NotFound.into()));
            }
        }
        self.write_check_file().map_err(during("writing to it"))
    }

    /// Whether the folder can be read and is `node`'s.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn is_ours(&self, node: NodeUuid) -> io::Result<()> {
        let path = self.layout.version_file();
        let bytes = read_file_bounded(&*self.disk, &path, VERSION_FILE_BYTES as u64)?;
        let found = FolderIdentity::decode(&bytes).map_err(io::Error::other)?.node;
        if found == node {
            return Ok(());
        }
        Err(io::Error::other(format!("it belongs to datanode {found} now")))
    }

    /// Overwrites the same few bytes each time, so that it needs no room once the file is there.
    fn write_check_file(&self) -> io::Result<()> {
        let path = self.layout.check_file();
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.disk.open(&path, OpenMode::CreateNew)?
            }
            opened => opened?,
        };
        let written: [u8; CHECK_FILE_BYTES] =
            self.checks.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        file.write_all_at(&written, 0)?;
        file.sync_data()?;
        let mut found = [0; CHECK_FILE_BYTES];
        file.read_exact_at(&mut found, 0)?;
        if found == written {
            return Ok(());
        }
        Err(io::Error::other("it does not hold what was written"))
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
            *failure = Some(Failure { why: format!("{during}: {cause}"), silent: false });
        }
    }

    /// Enters a writer and promises it `bytes`, if so many are left.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        let mut reservation = Reservation { volume: Arc::clone(self), outstanding: 0, sidecar: 0 };
        reservation.extend(bytes).then_some(reservation)
    }
}

/// Space that a writer was promised. Dropping it gives back what was not used.
pub(crate) struct Reservation {
    volume: Arc<Volume>,
    outstanding: u64,
    /// For the sidecar of what was promised so far; kept until the writer has ended.
    sidecar: u64,
}

impl Reservation {
    /// Promises `bytes` of a block more, and what its sidecar takes for them, if so many are left; says whether.
    pub(crate) fn extend(&mut self, bytes: u64) -> bool {
        // Asked before the lock is taken, for the disk may be slow; what others write meanwhile is a frame or two.
        self.volume.space();
        let sidecar = sidecar_bytes(bytes);
        let mut promised = self.volume.promised_bytes.lock();
        let available = self.volume.space_beside(*promised).available;
        let fits = !self.volume.has_failed() && available >= bytes.saturating_add(sidecar);
        if fits {
            *promised += bytes + sidecar;
            self.outstanding += bytes;
            self.sidecar += sidecar;
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
        *self.volume.promised_bytes.lock() -= used;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.volume.promised_bytes.lock() -= self.outstanding + self.sidecar;
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

#[cfg(test)]
#[path = "volume_test.rs"]
mod tests;
