//! Who goes on with a block: with what another writer left of it, or with a replica.
//!
//! 1. [`begin_take_over`](BlockStore::begin_take_over) claims the block under its new generation. From then on older
//!    ones are refused, and their writers are told to leave.
//! 2. [`writers_out`](BlockStore::writers_out) waits until they have: until each has dropped its
//!    [`PartialReplica`], without which nobody writes.
//! 3. [`take_over`](BlockStore::take_over) looks for the newest copy that has the bytes, compares their value with what
//!    is asked for, cuts what is behind them, and gives the file its new name.
//!
//! A file may have several names: an append to a replica goes on in the replica's own file, behind its end, and both
//! are right, for each knows its length. So no byte of a file is changed, and none cut off, that is below the length of
//! any other copy of the block here; where that is asked for, the bytes before are copied to a new file.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::{BlockTree, ChainingValue};
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::{DiskFile, OpenMode};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::layout::{FileKind, ReplicaName};
use super::open::{OpenFile, lead_to, tree_of};
use super::partial::{PROMISE_BYTES, PartialReplica, Purpose, create_anew, remove_unfinished};
use super::store::{BlockStore, Claim, State};
use super::verify::STEP_BYTES;
use super::volume::Volume;
use crate::engine::open_blocks::{Claimed, Held, may_share_file, sources};
use crate::engine::replica::{ReplicaKey, ReplicaState};
use crate::engine::startup_plan::Place;

/// A block claimed under a new generation, to be gone on with.
pub(crate) struct TakeOver {
    pub(super) key: ReplicaKey,
    fenced: CancellationToken,
    claim: Claim,
}

/// What is gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Where the block starts in its file.
    pub(crate) file_offset: u64,
    /// Bytes to keep.
    pub(crate) length: u64,
    /// Their value.
    pub(crate) value: ChainingValue,
    /// Bytes that the block may have in the end.
    pub(crate) length_max: u64,
}

impl BlockStore {
    /// Claims a block to be gone on with under `key`'s generation.
    ///
    /// # Errors
    /// If it is a replica here already, is being received, or something newer is here.
    pub(crate) fn begin_take_over(
        self: &Arc<Self>,
        key: ReplicaKey,
    ) -> Result<TakeOver, StoreError> {
        let mut state = self.state();
        state.check_absent(key)?;
        self.begin(key, &mut state)
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        key: ReplicaKey,
        state: &mut State,
    ) -> Result<TakeOver, StoreError> {
        let fenced = CancellationToken::new();
        let stored = state.inventory.newest(key.block);
        let claimed = state.open.claim(key, Claimed::Writer(fenced.clone()), stored);
        claimed.map_err(|refusal| StoreError::refused(key, refusal))?;
        state.fence(key);
        Ok(TakeOver { key, fenced, claim: Claim::held(Arc::clone(self), key) })
    }

    /// Waits until nobody has `key`'s block in hand under an older generation.
    ///
    /// # Errors
    /// If somebody still has after `patience`.
    pub(crate) async fn writers_out(
        &self,
        key: ReplicaKey,
        patience: Duration,
    ) -> Result<(), StoreError> {
        self.until(key, patience, |state| !state.open.is_claimed_below(key)).await
    }

    /// Tells the writer of `key`, if there is one, to leave, and waits until it has.
    ///
    /// # Errors
    /// If it still writes after `patience`.
    pub(crate) async fn end_writer(
        &self,
        key: ReplicaKey,
        patience: Duration,
    ) -> Result<(), StoreError> {
        match self.state().open.claimed(key) {
            Some(Claimed::Writer(fenced)) => fenced.cancel(),
            Some(Claimed::Copy | Claimed::Taken) | None => return Ok(()),
        }
        self.until(key, patience, |state| state.open.claimed(key).is_none()).await
    }

    async fn until(
        &self,
        key: ReplicaKey,
        patience: Duration,
        is_so: impl Fn(&State) -> bool,
    ) -> Result<(), StoreError> {
        let waiting = async {
            loop {
                let mut released = std::pin::pin!(self.released());
                released.as_mut().enable(); // Before looking, so that no change is missed.
                if is_so(&self.state()) {
                    return;
                }
                released.await;
            }
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.map_err(|_elapsed| StoreError::BeingWritten { key })
    }

    /// Makes the first bytes of what is here of the block an open one under the new generation. The tree is that over
    /// them, to be gone on with.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If nothing here has those bytes, or the disk fails.
    pub(crate) fn take_over(
        self: &Arc<Self>,
        take: TakeOver,
        start: Start,
    ) -> Result<(PartialReplica, BlockTree), StoreError> {
        let key = take.key;
        let held = {
            let state = self.state();
            if let Some(found) = state.newer_than(key, Purpose::Write) {
                return Err(StoreError::OtherGeneration { key, found });
            }
            state.held(key)
        };
        let mut refusal = StoreError::NotFound { key };
        for source in sources(held, key.generation, start.length) {
            let taken = if source.is_open {
                self.take_open(key, source, start)
            } else {
                self.take_replica(key, source, start)
            };
            match taken {
                Ok((file, tree)) => {
                    let left = (start.length_max - start.length).min(PROMISE_BYTES);
                    let full = StoreError::NoSpace {
                        needed: left,
                        available: file.volume.space().available,
                    };
                    let reservation = file.volume.reserve(left).ok_or(full)?;
                    let TakeOver { fenced, claim, .. } = take;
                    let (purpose, max) = (Purpose::Write, start.length_max);
                    let partial = self.partial(key, file, purpose, reservation, max, fenced, claim);
                    return Ok((partial, tree));
                }
                Err(failure) => {
                    if let (StoreError::Damaged { key, what }, false) = (&failure, source.is_open) {
                        self.quarantine(*key, what);
                    }
                    refusal = failure;
                }
            }
        }
        Err(refusal)
    }

    /// Goes on with what a writer left.
    fn take_open(
        self: &Arc<Self>,
        key: ReplicaKey,
        source: Held,
        start: Start,
    ) -> Result<(Arc<OpenFile>, BlockTree), StoreError> {
        let from = ReplicaKey { generation: source.generation, ..key };
        let (file, _taken) = self.take_in_hand(from, key)?;
        let groups = file.groups(start.length)?;
        if file.file_offset != start.file_offset || !lead_to(&groups, &start.value) {
            return Err(StoreError::OtherBytes { key, length: start.length });
        }
        let tree = file.tree(from, start.length, &groups)?;
        check_usable(&file.volume, start.length_max)?;
        if !may_share_file(&self.state().all_held(key), source, start.length) {
            let (data, path) = (file.data(), file.path());
            let bytes = Bytes { key: from, data, path: &path, groups: &groups };
            let copied = self.copy_to(&file.volume, key, start, bytes)?;
            return Ok((copied, tree));
        }
        // Cut first: a crash in between leaves the old name with what everybody has.
        file.cut(start.length, groups)?;
        self.rename_open(&file, from, key)?;
        Ok((file, tree))
    }

    /// Goes on behind a replica, which stays as it is.
    fn take_replica(
        self: &Arc<Self>,
        key: ReplicaKey,
        source: Held,
        start: Start,
    ) -> Result<(Arc<OpenFile>, BlockTree), StoreError> {
        let from = ReplicaKey { generation: source.generation, ..key };
        if self.find(from)?.state == ReplicaState::Unsynced {
            // A loss of power may have left its sidecar right and its bytes wrong.
            self.verify(from, None)?;
        }
        let replica = self.open(from)?;
        let groups = replica.groups(start.length)?;
        let file_offset = replica.sidecar.header().file_offset;
        if file_offset != start.file_offset || !lead_to(&groups, &start.value) {
            return Err(StoreError::OtherBytes { key, length: start.length });
        }
        let (data, path) = (&*replica.data, &replica.data_path);
        let tree = tree_of(from, data, path, file_offset, start.length, &groups)?;
        let volume = Arc::clone(self.volume(replica.volume));
        check_usable(&volume, start.length_max)?;
        if !may_share_file(&self.state().all_held(key), source, start.length) {
            let bytes = Bytes { key: from, data, path, groups: &groups };
            return Ok((self.copy_to(&volume, key, start, bytes)?, tree));
        }
        let name = ReplicaName::open(key, file_offset);
        let link = volume.layout().file(Place::Writing, &name, FileKind::Data);
        let linked = match volume.disk().hard_link(path, &link) {
            // Left by a removal that failed: nobody knows of it.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                volume.disk().remove_file(&link).and_then(|()| volume.disk().hard_link(path, &link))
            }
            linked => linked,
        };
        let opened = linked.and_then(|()| volume.disk().open(&link, OpenMode::Write));
        let data = match opened {
            // Not every file system has second names, or has any left for this file.
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                let bytes = Bytes { key: from, data, path, groups: &groups };
                return Ok((self.copy_to(&volume, key, start, bytes)?, tree));
            }
            opened => opened.map_err(StoreError::disk(&link, "linking a block"))?,
        };
        let known = (start.length, Some(groups.clone()));
        let file = OpenFile::new(volume, link, file_offset, key.generation, data, known);
        file.cut(start.length, groups)?; // What an earlier append left behind the replica's end.
        let file = Arc::new(file);
        self.state().open.insert(key, Arc::clone(&file));
        Ok((file, tree))
    }

    /// The file of an open block, that nobody else touches until the claim is dropped; `by` has claimed its own key.
    pub(super) fn take_in_hand(
        self: &Arc<Self>,
        key: ReplicaKey,
        by: ReplicaKey,
    ) -> Result<(Arc<OpenFile>, Option<Claim>), StoreError> {
        let mut state = self.state();
        let Some(file) = state.open.get(key).cloned() else {
            return Err(StoreError::NotFound { key });
        };
        if key == by {
            return Ok((file, None));
        }
        let taken = state.open.take(key, Claimed::Taken);
        taken.map_err(|refusal| StoreError::refused(key, refusal))?;
        Ok((file, Some(Claim::held(Arc::clone(self), key))))
    }

    /// Gives an open block the name of its new generation.
    pub(super) fn rename_open(
        &self,
        file: &Arc<OpenFile>,
        from: ReplicaKey,
        to: ReplicaKey,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        let name = ReplicaName::open(to, file.file_offset);
        let path = file.volume.layout().file(Place::Writing, &name, FileKind::Data);
        let old = file.path();
        let renamed = file.volume.disk().rename(&old, &path);
        renamed
            .map_err(StoreError::disk(old, "renaming an open block"))
            .inspect_err(|failure| file.volume.note_error(failure))?;
        file.moved(path);
        let mut state = self.state();
        state.open.remove(from);
        state.open.insert(to, Arc::clone(file));
        Ok(())
    }

    /// Copies the first bytes of a block to a new file beside, verifying them. It gets its name once it is whole, and
    /// on stable storage if a file of that name is there: somebody may rely on what it takes the place of.
    fn copy_to(
        &self,
        volume: &Arc<Volume>,
        key: ReplicaKey,
        start: Start,
        from: Bytes<'_>,
    ) -> Result<Arc<OpenFile>, StoreError> {
        let file_of = |name, kind| volume.layout().file(Place::Writing, &name, kind);
        let path = file_of(ReplicaName::open(key, start.file_offset), FileKind::Data);
        let aside = file_of(ReplicaName::copy(key), FileKind::Copy);
        let (needed, available) = (start.length, volume.space().available);
        let mut reservation =
            volume.reserve(needed).ok_or(StoreError::NoSpace { needed, available })?;
        let failed = |cause| StoreError::disk(&aside, "copying a block")(cause);
        let replaces = self.state().open.get(key).is_some();
        let copied = create_anew(volume, &aside).map_err(failed).and_then(|data| {
            from.copy(volume, &*data, &aside, start)?;
            let synced = if replaces { data.sync_data() } else { Ok(()) };
            let named = synced.and_then(|()| volume.disk().rename(&aside, &path));
            named.map_err(failed).inspect_err(|failure| volume.note_error(failure))?;
            Ok(data)
        });
        let data = copied.inspect_err(|_| remove_unfinished(volume, &aside))?;
        reservation.used(start.length);
        let known = (start.length, Some(from.groups.to_vec()));
        let (volume, offset) = (Arc::clone(volume), start.file_offset);
        let file = Arc::new(OpenFile::new(volume, path, offset, key.generation, data, known));
        self.state().open.insert(key, Arc::clone(&file));
        Ok(file)
    }
}

/// Bytes of a block, to be copied.
struct Bytes<'a> {
    key: ReplicaKey,
    data: &'a dyn DiskFile,
    path: &'a Path,
    groups: &'a [ChainingValue],
}

impl Bytes<'_> {
    /// Only what fails in writing speaks against the folder.
    fn copy(
        &self,
        volume: &Volume,
        to: &dyn DiskFile,
        to_path: &Path,
        start: Start,
    ) -> Result<(), StoreError> {
        let mut buffer = vec![0; STEP_BYTES.min(start.length as usize)];
        let mut offset = 0;
        while offset < start.length {
            let count = (start.length - offset).min(STEP_BYTES as u64) as usize;
            let step = &mut buffer[..count];
            let read = self.data.read_exact_at(step, offset);
            read.map_err(StoreError::disk(self.path, "reading a block"))?;
            let mut at = offset;
            for group in step.chunks(GROUP_BYTES as usize) {
                let value = group_chaining_value(start.file_offset + at, group);
                if self.groups.get((at / GROUP_BYTES) as usize) != Some(&value) {
                    let what = format!("its bytes at offset {at} do not match their value");
                    return Err(StoreError::Damaged { key: self.key, what });
                }
                at += group.len() as u64;
            }
            let written = to.write_all_at(step, offset);
            written
                .map_err(StoreError::disk(to_path, "copying a block"))
                .inspect_err(|failure| volume.note_error(failure))?;
            offset += count as u64;
        }
        Ok(())
    }
}

/// A folder that failed takes no more bytes.
fn check_usable(volume: &Volume, needed: u64) -> Result<(), StoreError> {
    if volume.has_failed() {
        return Err(StoreError::NoSpace { needed, available: 0 });
    }
    Ok(())
}

#[cfg(test)]
#[path = "takeover_test.rs"]
mod tests;
