//! What there is of a block whose writer is gone for good, and the replica that is made of it by order.

use std::path::Path;
use std::sync::Arc;

use doldam_proto::convert::datanode::{BlockStart, FinishOrder, RecoverOrder};
use doldam_proto::digest::group::group_value;
use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::DiskFile;

use super::StoreError;
use super::open::{OpenFile, lead_to};
use super::partial::Purpose;
use super::store::{BlockStore, OpenReplica, no_answer};
use super::takeover::{Start, TakeOver};
use crate::engine::open_blocks::to_recover;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::{ReplicaKey, ReplicaState};
use crate::engine::startup_plan::Place;

/// What was found of a block whose writer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// What is here; `None` if nothing is.
    pub(crate) copy: Option<RecoveredCopy>,
    /// Whether it has what readers see.
    pub(crate) has_shown: bool,
    /// Whether it has what is on stable storage somewhere.
    pub(crate) has_floor: bool,
}

/// What there is of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveredCopy {
    /// Whether it is a replica, not what a writer left.
    pub(crate) is_replica: bool,
    /// Under which generation it was written.
    pub(crate) written_under: ReplicaKey,
    /// Verified bytes.
    pub(crate) length: u64,
    /// The values of their groups.
    pub(crate) groups: Vec<ChainingValue>,
    /// Of a block at the start of its file: the digest of a file of its first group.
    pub(crate) first_root: Option<FileDigest>,
}

/// One of several copies that may be told of.
enum Copy {
    Open(Arc<OpenFile>),
    Replica(Box<OpenReplica>),
}

impl BlockStore {
    /// Claims a block to find out what there is of it; it may be a replica under this generation already. Older
    /// generations are refused from then on.
    ///
    /// # Errors
    /// If it is in hand, or something newer is here.
    pub(crate) fn begin_recovery(
        self: &Arc<Self>,
        key: ReplicaKey,
    ) -> Result<TakeOver, StoreError> {
        self.begin(key, &mut self.state())
    }

    /// Finds what there is of a block whose writers are out, and keeps it from older generations than the order's, also
    /// over a restart. Of several copies it is the newest that has what readers see; else the newest that has what is
    /// on stable storage; else the newest.
    ///
    /// That nothing here has what readers see may make the namenode give that up. So it is said only if nothing can be
    /// here that is not known of.
    ///
    /// Blocks on the disk, for as long as reading the block takes if it was found at a start.
    ///
    /// # Errors
    /// If something newer is here, or what is here cannot be read.
    pub(crate) fn recover(
        self: &Arc<Self>,
        take: &TakeOver,
        order: RecoverOrder,
    ) -> Result<Recovered, StoreError> {
        let key = take.key;
        let held = {
            let state = self.state();
            if let Some(found) = state.newer_than(key, Purpose::Write) {
                return Err(StoreError::OtherGeneration { key, found });
            }
            to_recover(state.held(key), key.generation)
        };
        let newest_open = held.first().filter(|newest| newest.is_open);
        let newest_open = newest_open.map(|it| ReplicaKey { generation: it.generation, ..key });
        let (mut newest, mut floored, mut shown) = (None, None, None);
        let mut unreadable = None;
        for found in held {
            let from = ReplicaKey { generation: found.generation, ..key };
            let judged = self.copy(from, found.is_open).and_then(|copy| {
                let has_shown = copy.leads_to(order.shown)?;
                let has_floor = copy.leads_to(order.floor)?;
                Ok((copy, has_shown, has_floor))
            });
            match judged {
                Ok((copy, true, has_floor)) => {
                    shown = Some((copy, has_floor));
                    break;
                }
                Ok((copy, false, true)) if floored.is_none() => floored = Some(copy),
                Ok((copy, false, _)) if newest.is_none() => newest = Some(copy),
                Ok(_) => {}
                Err(failure) => unreadable = unreadable.or(Some(failure)),
            }
        }
        if shown.is_none() {
            if let Some(failure) = unreadable {
                return Err(failure);
            }
            self.check_all_known(key)?;
        }
        // Whichever is told of, nobody goes on with what was open.
        if let Some(from) = newest_open {
            self.fence_durably(from, key)?;
        }
        let has_shown = shown.is_some();
        let has_floor = shown.as_ref().map_or(floored.is_some(), |(_, has_floor)| *has_floor);
        let copy = shown.map(|(copy, _)| copy).or(floored).or(newest);
        let copy = copy.map(|copy| copy.tell(key, order.file_offset)).transpose()?;
        Ok(Recovered { copy, has_shown, has_floor })
    }

    fn copy(self: &Arc<Self>, key: ReplicaKey, is_open: bool) -> Result<Copy, StoreError> {
        if !is_open {
            if self.find(key)?.state == ReplicaState::Unsynced {
                // A loss of power may have left its sidecar right and its bytes wrong.
                self.verify(key, None)?;
            }
            return Ok(Copy::Replica(Box::new(self.open(key)?)));
        }
        let file = self.state().open.get(key).cloned();
        let file = file.ok_or(StoreError::NotFound { key })?;
        if file.volume.is_silent() {
            return Err(no_answer(&file.volume));
        }
        Ok(Copy::Open(file))
    }

    /// Whether everything there may be here of a block is known: no data folder failed, and every file could be opened.
    fn check_all_known(&self, key: ReplicaKey) -> Result<(), StoreError> {
        if let Some(volume) = self.volumes().iter().find(|volume| volume.has_failed()) {
            return Err(StoreError::Disk {
                path: volume.layout().root().to_owned(),
                during: "looking for a block in a data folder that failed",
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        match self.state().open.left_out(key.block) {
            Some(path) => Err(StoreError::Disk {
                path: path.to_owned(),
                during: "opening what a writer left of a block",
                source: std::io::ErrorKind::Other.into(),
            }),
            None => Ok(()),
        }
    }

    /// Gives an open block the name of the generation that fences its writers off, durably.
    fn fence_durably(self: &Arc<Self>, from: ReplicaKey, to: ReplicaKey) -> Result<(), StoreError> {
        let (file, _taken) = self.take_in_hand(from, to)?;
        self.rename_open(&file, from, to)?;
        let folder = file.volume.layout().place(Place::Writing);
        let synced = file.volume.disk().sync_dir(&folder);
        synced
            .map_err(StoreError::disk(folder, "syncing the folder of open blocks"))
            .inspect_err(|failure| file.volume.note_error(failure))
    }

    /// Makes the first bytes of what is here of a block a replica, on stable storage, and has the namenode told.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If nothing here has those bytes, or the disk fails.
    pub(crate) fn finish(
        self: &Arc<Self>,
        take: TakeOver,
        order: FinishOrder,
    ) -> Result<(), StoreError> {
        let (key, length, value) = (take.key, order.length, order.chaining_value);
        let start =
            Start { file_offset: order.file_offset, length, value, length_max: order.length };
        let (partial, tree) = self.take_over(take, start)?;
        let Some(digest) = tree.digest() else { return Err(StoreError::NotFound { key }) };
        partial.publish(&tree, &digest, true)?;
        self.news().event(key, ReplicaEvent::Stored { length, value });
        Ok(())
    }
}

impl Copy {
    fn length(&self) -> u64 {
        match self {
            Self::Open(file) => file.length(),
            Self::Replica(replica) => replica.length,
        }
    }

    fn groups(&self, length: u64) -> Result<Vec<ChainingValue>, StoreError> {
        match self {
            Self::Open(file) => file.groups(length),
            Self::Replica(replica) => replica.groups(length),
        }
    }

    /// Whether its first bytes are these.
    fn leads_to(&self, start: Option<BlockStart>) -> Result<bool, StoreError> {
        match start {
            Some(start) if start.length <= self.length() => {
                Ok(lead_to(&self.groups(start.length)?, &start.chaining_value))
            }
            Some(_) | None => Ok(false),
        }
    }

    fn tell(&self, key: ReplicaKey, file_offset: u64) -> Result<RecoveredCopy, StoreError> {
        let length = self.length();
        let groups = self.groups(length)?;
        let (written_under, first) = match self {
            Self::Open(file) => {
                let written_under = ReplicaKey { generation: file.written_under, ..key };
                (written_under, first_group(file.data(), &file.path(), length)?)
            }
            Self::Replica(replica) => {
                (replica.key, first_group(&*replica.data, &replica.data_path, length)?)
            }
        };
        let first_root = if file_offset == 0 { group_value(0, &first).root_value } else { None };
        let is_replica = matches!(self, Self::Replica(_));
        Ok(RecoveredCopy { is_replica, written_under, length, groups, first_root })
    }
}

fn first_group(data: &dyn DiskFile, path: &Path, length: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; length.min(GROUP_BYTES) as usize];
    let read = data.read_exact_at(&mut bytes, 0);
    read.map_err(StoreError::disk(path, "reading a block"))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
