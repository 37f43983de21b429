//! What there is of a block whose writer is gone for good, and the replica that is made of it by order.

use std::path::Path;
use std::sync::Arc;

use doldam_proto::convert::datanode::{FinishOrder, RecoverOrder};
use doldam_proto::digest::group::group_value;
use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::DiskFile;

use super::StoreError;
use super::partial::Purpose;
use super::store::BlockStore;
use super::takeover::{Start, TakeOver};
use crate::engine::open_blocks::to_recover;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::ReplicaKey;
use crate::engine::startup_plan::Place;

/// What was found of a block whose writer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Under which generation it was written.
    pub(crate) written_under: ReplicaKey,
    /// Verified bytes.
    pub(crate) length: u64,
    /// The values of their groups.
    pub(crate) groups: Vec<ChainingValue>,
    /// Of a block at the start of its file that has one group: the digest of a file of that.
    pub(crate) first_root: Option<FileDigest>,
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
    /// over a restart.
    ///
    /// Blocks on the disk, for as long as reading the block takes if it was found at a start.
    ///
    /// # Errors
    /// If something newer is here, or it cannot be read.
    pub(crate) fn recover(
        self: &Arc<Self>,
        take: &TakeOver,
        order: RecoverOrder,
    ) -> Result<Option<Recovered>, StoreError> {
        let key = take.key;
        let found = {
            let state = self.state();
            if let Some(found) = state.newer_than(key, Purpose::Write) {
                return Err(StoreError::OtherGeneration { key, found });
            }
            to_recover(&state.held(key), key.generation)
        };
        let Some(found) = found else { return Ok(None) };
        let from = ReplicaKey { generation: found.generation, ..key };
        let (written_under, length, groups, first) = if found.is_open {
            let (file, _taken) = self.take_in_hand(from, key)?;
            let length = file.length();
            let groups = file.groups(length)?;
            self.rename_open(&file, from, key)?;
            let folder = file.volume.layout().place(Place::Writing);
            let synced = file.volume.disk().sync_dir(&folder);
            synced
                .map_err(StoreError::disk(folder, "syncing the folder of open blocks"))
                .inspect_err(|failure| file.volume.note_error(failure))?;
            let first = first_group(file.data(), &file.path(), length)?;
            (ReplicaKey { generation: file.written_under, ..key }, length, groups, first)
        } else {
            let replica = self.open(from)?;
            let groups = replica.groups(replica.length)?;
            let first = first_group(&*replica.data, &replica.data_path, replica.length)?;
            (from, replica.length, groups, first)
        };
        let first_root = if order.file_offset == 0 && groups.len() == 1 {
            group_value(0, &first).root_value
        } else {
            None
        };
        Ok(Some(Recovered { written_under, length, groups, first_root }))
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

fn first_group(data: &dyn DiskFile, path: &Path, length: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; length.min(GROUP_BYTES) as usize];
    let read = data.read_exact_at(&mut bytes, 0);
    read.map_err(StoreError::disk(path, "reading a block"))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
