//! A block on its way in: a file in `writing/` that becomes a replica when it is published.
//!
//! If its writer leaves before, what is verified of it stays, as an open block without a writer, and the namenode is
//! told. A repair copy, and a block of which nothing is verified, vanishes with its writer.
//!
//! Whoever has a [`PartialReplica`] is the only one that writes its file: a writer that is to leave is told so
//! ([`fenced`](PartialReplica::fenced)), and nobody gets the block before it has dropped this. So of a writer that was
//! overtaken no write can be under way when the next one begins.

use std::io;
use std::path::Path;
use std::sync::Arc;

use doldam_proto::digest::BlockTree;
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::{DiskFile, OpenMode};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::open::OpenFile;
use super::store::{BlockStore, Claim};
use super::volume::{Reservation, Volume};
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::ReplicaKey;
use crate::engine::startup_plan::Place;
use crate::engine::volume_choice;

/// Space that a writer is promised at a time. A whole block is not: most are asked for at full size
/// and many stay small, and a disk of a few hundred MiB would seem full with nothing on it. The
/// reserve of the folder is what keeps writers that grow together from filling the disk.
pub(super) const PROMISE_BYTES: u64 = 16 << 20;

/// What becomes of a block whose writer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client's block: what is verified stays.
    Write,
    /// A repair copy: it vanishes.
    Copy,
}

/// A block that is being received.
pub(crate) struct PartialReplica {
    pub(super) store: Arc<BlockStore>,
    pub(super) volume: Arc<Volume>,
    pub(super) key: ReplicaKey,
    pub(super) file: Arc<OpenFile>,
    pub(super) purpose: Purpose,
    /// Set once the files are where a start finds a replica.
    pub(super) published: bool,
    reservation: Reservation,
    length_max: u64,
    fenced: CancellationToken,
    /// Last, so that all is done before somebody else may have the block.
    _claim: Claim,
}

impl BlockStore {
    /// Begins to receive a block of at most `length_max` bytes, which starts at `file_offset` of its file. Writers of
    /// older generations are told to leave.
    ///
    /// # Errors
    /// If it is here already, somebody else is writing it, it is out of date, or no folder can take
    /// it.
    pub(crate) fn begin_write(
        self: &Arc<Self>,
        key: ReplicaKey,
        file_offset: u64,
        length_max: u64,
    ) -> Result<PartialReplica, StoreError> {
        let fenced = CancellationToken::new();
        let claim = self.claim_anew(key, &fenced)?;
        let needed = length_max.min(PROMISE_BYTES);
        let (file, reservation) = self.create_open(key, file_offset, needed)?;
        let partial =
            self.partial(key, file, Purpose::Write, reservation, length_max, fenced, claim);
        self.state().open.insert(key, Arc::clone(&partial.file));
        Ok(partial)
    }

    /// Begins to receive a repair copy of `length` bytes.
    ///
    /// # Errors
    /// As [`begin_write`](Self::begin_write).
    pub(crate) fn begin_copy(
        self: &Arc<Self>,
        key: ReplicaKey,
        length: u64,
    ) -> Result<PartialReplica, StoreError> {
        let claim = self.claim_copy(key)?;
        let needed = length.min(PROMISE_BYTES);
        let (name, kind) = (ReplicaName::copy(key), FileKind::Copy);
        let (file, reservation) = self.create(key, &name, kind, needed)?;
        let fenced = CancellationToken::new();
        Ok(self.partial(key, file, Purpose::Copy, reservation, length, fenced, claim))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value, each made elsewhere")]
    pub(super) fn partial(
        self: &Arc<Self>,
        key: ReplicaKey,
        file: Arc<OpenFile>,
        purpose: Purpose,
        reservation: Reservation,
        length_max: u64,
        fenced: CancellationToken,
        claim: Claim,
    ) -> PartialReplica {
        PartialReplica {
            store: Arc::clone(self),
            volume: Arc::clone(&file.volume),
            key,
            file,
            purpose,
            published: false,
            reservation,
            length_max,
            fenced,
            _claim: claim,
        }
    }

    fn create_open(
        &self,
        key: ReplicaKey,
        file_offset: u64,
        needed: u64,
    ) -> Result<(Arc<OpenFile>, Reservation), StoreError> {
        self.create(key, &ReplicaName::open(key, file_offset), FileKind::Data, needed)
    }

    /// Creates the file of a block in the folder that suits best.
    fn create(
        &self,
        key: ReplicaKey,
        name: &ReplicaName,
        kind: FileKind,
        needed: u64,
    ) -> Result<(Arc<OpenFile>, Reservation), StoreError> {
        // A folder that fails now is passed over at the next attempt.
        loop {
            let (volume, reservation) = self.choose_volume(needed)?;
            let path = volume.layout().file(Place::Writing, name, kind);
            match create_anew(&volume, &path) {
                Ok(data) => {
                    let (offset, nothing) =
                        (name.file_offset.unwrap_or_default(), (0, Some(Vec::new())));
                    let file = OpenFile::new(volume, path, offset, key.generation, data, nothing);
                    return Ok((Arc::new(file), reservation));
                }
                Err(cause) => {
                    let failure = StoreError::disk(path, "creating a block")(cause);
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

    /// Its file, as its readers know it.
    pub(crate) fn file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// Cancelled when the writer is to leave, for the block is gone on with under a newer generation.
    pub(crate) fn fenced(&self) -> CancellationToken {
        self.fenced.clone()
    }

    /// Writes `bytes` at `offset`, into the page cache.
    ///
    /// # Errors
    /// If the disk is full or fails. This takes no more bytes then.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let needed = (bytes.len() as u64).saturating_sub(self.reservation.outstanding());
        if needed > 0 {
            let left = self.length_max.saturating_sub(offset + bytes.len() as u64);
            if !self.reservation.extend(needed + left.min(PROMISE_BYTES)) {
                let available = self.volume.space().available;
                return Err(StoreError::NoSpace { needed, available });
            }
        }
        if let Err(cause) = self.file.data().write_all_at(bytes, offset) {
            return self.note(Err(StoreError::disk(self.file.path(), "writing a block")(cause)));
        }
        self.reservation.used(bytes.len() as u64);
        Ok(())
    }

    /// All of `tree` is verified and written; what is behind the full groups of the first `before` bytes is new.
    pub(crate) fn advance(&self, tree: &BlockTree, before: u64) {
        if self.purpose == Purpose::Write {
            self.file.advance(tree, (before / GROUP_BYTES) as usize);
        }
    }

    /// Passes a result on, and notes on the folder what it says of it.
    pub(super) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|failure| self.volume.note_error(failure))
    }

    /// Leaves the block open: a part of a frame may be written behind what is verified.
    fn leave_open(&self, length: u64) {
        let data = self.file.data();
        let cut =
            data.len().and_then(|found| if found > length { data.set_len(length) } else { Ok(()) });
        if let Err(cause) = cut {
            let path = self.file.path();
            warn!(path = %path.display(), %cause, "cannot cut an open block to what is verified");
        }
        // Who overtook the writer has it in hand from here on.
        if !self.fenced.is_cancelled() {
            self.store.news().event(self.key, ReplicaEvent::Open { length });
        }
    }
}

impl Drop for PartialReplica {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let length = self.file.length();
        if self.purpose == Purpose::Write {
            if length > 0 {
                return self.leave_open(length);
            }
            self.store.state().open.remove(self.key);
        }
        remove_unfinished(&self.volume, &self.file.path());
    }
}

/// Removes the file of a block that came to nothing.
pub(super) fn remove_unfinished(volume: &Volume, path: &Path) {
    // What cannot be removed now is removed by the next start.
    if let Err(cause) = volume.disk().remove_file(path)
        && cause.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %cause, "cannot remove an unfinished block");
    }
}

/// Creates the file at `path`; one that was left there by a removal that failed is replaced.
pub(super) fn create_anew(volume: &Volume, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    match volume.disk().open(path, OpenMode::CreateNew) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            volume.disk().remove_file(path)?;
            volume.disk().open(path, OpenMode::CreateNew)
        }
        opened => opened,
    }
}
