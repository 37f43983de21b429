//! A block on its way in: a file in `writing/` that vanishes with its writer unless it is
//! published.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use doldam_runtime::disk::{DiskFile, OpenMode};
use tracing::warn;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::store::{BlockStore, Claim};
use super::volume::{Reservation, Volume};
use crate::engine::replica::ReplicaKey;
use crate::engine::startup_plan::Place;
use crate::engine::volume_choice;

/// Space that a writer is promised at a time. A whole block is not: most are asked for at full size
/// and many stay small, and a disk of a few hundred MiB would seem full with nothing on it. The
/// reserve of the folder is what keeps writers that grow together from filling the disk.
const PROMISE_BYTES: u64 = 16 << 20;

/// A block that is being received. Dropping it removes what came.
pub(crate) struct PartialReplica {
    pub(super) store: Arc<BlockStore>,
    pub(super) volume: Arc<Volume>,
    pub(super) key: ReplicaKey,
    pub(super) data: Box<dyn DiskFile>,
    pub(super) data_path: PathBuf,
    /// Set once the files are where a start finds a replica.
    pub(super) published: bool,
    reservation: Reservation,
    length_max: u64,
    /// Last, so that the files are gone before somebody else may write them.
    _claim: Claim,
}

impl BlockStore {
    /// Begins to receive a block of at most `length_max` bytes.
    ///
    /// # Errors
    /// If it is here already, somebody else is writing it, it is out of date, or no folder can take
    /// it.
    pub(crate) fn begin_write(
        self: &Arc<Self>,
        key: ReplicaKey,
        length_max: u64,
    ) -> Result<PartialReplica, StoreError> {
        let claim = self.claim(key)?;
        let needed = length_max.min(PROMISE_BYTES);
        // A folder that fails now is passed over at the next attempt.
        loop {
            let (volume, reservation) = self.choose_volume(needed)?;
            let name = ReplicaName::partial(key);
            let data_path = volume.layout().file(Place::Writing, &name, FileKind::Data);
            match create_anew(&volume, &data_path) {
                Ok(data) => {
                    return Ok(PartialReplica {
                        store: Arc::clone(self),
                        volume,
                        key,
                        data,
                        data_path,
                        published: false,
                        reservation,
                        length_max,
                        _claim: claim,
                    });
                }
                Err(cause) => {
                    let failure = StoreError::disk(data_path, "creating a block")(cause);
                    volume.note_error(&failure);
                    if !volume.has_failed() {
                        return Err(failure);
                    }
                }
            }
        }
    }

    fn choose_volume(&self, needed: u64) -> Result<(Arc<Volume>, Reservation), StoreError> {
        let candidates: Vec<_> = self.volumes().iter().map(|volume| volume.candidate()).collect();
        let best = candidates.iter().map(|candidate| candidate.available).max().unwrap_or(0);
        if candidates.iter().all(|candidate| candidate.failed) {
            return Err(StoreError::NoFolder);
        }
        let full = StoreError::NoSpace { needed, available: best };
        let Some(index) = volume_choice::choose(&candidates, needed) else { return Err(full) };
        let volume = Arc::clone(self.volume(index));
        match volume.reserve(needed) {
            Some(reservation) => Ok((volume, reservation)),
            None => Err(full),
        }
    }
}

impl PartialReplica {
    /// Which block.
    pub(crate) fn key(&self) -> ReplicaKey {
        self.key
    }

    /// Writes `bytes` at `offset`, into the page cache.
    ///
    /// # Errors
    /// If the disk is full or fails. The replica is of no use then; drop it.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let needed = (bytes.len() as u64).saturating_sub(self.reservation.outstanding());
        if needed > 0 {
            let left = self.length_max.saturating_sub(offset + bytes.len() as u64);
            if !self.reservation.extend(needed + left.min(PROMISE_BYTES)) {
                let available = self.volume.space().available;
                return Err(StoreError::NoSpace { needed, available });
            }
        }
        let written = self.data.write_all_at(bytes, offset);
        let written = written.map_err(StoreError::disk(&self.data_path, "writing a block"));
        self.note(written)?;
        self.reservation.used(bytes.len() as u64);
        Ok(())
    }

    /// Passes a result on, and notes on the folder what it says of it.
    pub(super) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|failure| self.volume.note_error(failure))
    }
}

impl Drop for PartialReplica {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        match self.volume.disk().remove_file(&self.data_path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                let path = self.data_path.display();
                warn!(%path, %cause, "cannot remove an unfinished block; the next start will");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Creates the file at `path`; one that was left there by a removal that failed is replaced.
fn create_anew(volume: &Volume, path: &std::path::Path) -> io::Result<Box<dyn DiskFile>> {
    match volume.disk().open(path, OpenMode::CreateNew) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            volume.disk().remove_file(path)?;
            volume.disk().open(path, OpenMode::CreateNew)
        }
        opened => opened,
    }
}
