//! What a reader is given: a replica, or the verified start of a block that is open.
//!
//! A block moves while it is read: from open to replica, from one generation to the next. Both are found under one
//! lock, so one of them always is; and what was opened can be read to the end, whatever becomes of its names.

use std::sync::Arc;

use bytes::BytesMut;
use doldam_proto::digest::block::stored_nodes;
use doldam_proto::digest::proof::proof_places;
use doldam_proto::id::Generation;
use doldam_runtime::disk::DiskFile;

use super::StoreError;
use super::open::OpenFile;
use super::sidecar::groups_of;
use super::store::{BlockStore, OpenReplica};
use crate::engine::open_blocks::to_read;
use crate::engine::replica::ReplicaKey;

/// Attempts at opening what was found, if it is gone by then.
const ATTEMPTS_MAX: usize = 8;

/// Something that can be read.
pub(crate) enum Readable {
    /// A replica.
    Whole(OpenReplica),
    /// What is verified of an open block.
    Open(ReplicaKey, Arc<OpenFile>),
}

impl Readable {
    /// Which generation it is.
    pub(crate) fn generation(&self) -> Generation {
        match self {
            Self::Whole(replica) => replica.key.generation,
            Self::Open(key, _) => key.generation,
        }
    }

    /// Bytes that it has.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Whole(replica) => replica.length,
            Self::Open(_, file) => file.length(),
        }
    }

    /// Where the block starts in its file.
    pub(crate) fn file_offset(&self) -> u64 {
        match self {
            Self::Whole(replica) => replica.sidecar.header().file_offset,
            Self::Open(_, file) => file.file_offset,
        }
    }

    /// Its bytes.
    pub(crate) fn data(&self) -> &dyn DiskFile {
        match self {
            Self::Whole(replica) => &*replica.data,
            Self::Open(_, file) => file.data(),
        }
    }

    /// Whether its values are at hand. If not, a proof takes as long as reading the whole block.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Open(_, file) => file.is_known(),
        }
    }

    /// For errors: a disk failed `during` something.
    pub(crate) fn failed(&self, during: &'static str, cause: std::io::Error) -> StoreError {
        match self {
            Self::Whole(replica) => StoreError::disk(&replica.data_path, during)(cause),
            Self::Open(_, file) => StoreError::disk(file.path(), during)(cause),
        }
    }

    /// Proves the groups `groups` of the block's first `length` bytes.
    ///
    /// # Errors
    /// If it cannot be read, or has fewer bytes.
    pub(crate) fn proof(
        &self,
        length: u64,
        groups: std::ops::Range<usize>,
    ) -> Result<BytesMut, StoreError> {
        let mut proof = BytesMut::new();
        let places = proof_places(groups_of(length), groups)
            .map_err(|bad| self.failed("making a proof", std::io::Error::other(bad.to_string())))?;
        let values = match self {
            Self::Whole(replica) if replica.length == length => {
                replica.sidecar.read_nodes(&places, &mut proof)?;
                return Ok(proof);
            }
            Self::Whole(replica) => replica.groups(length)?,
            Self::Open(_, file) => file.groups(length)?,
        };
        let nodes = stored_nodes(&values);
        for place in places {
            proof.extend_from_slice(&nodes[place].0);
        }
        Ok(proof)
    }
}

impl BlockStore {
    /// What the first `length` bytes of a block can be read from: under `key`'s generation if that has them, else
    /// under the newest that has.
    ///
    /// # Errors
    /// If there is none, or what there is cannot be opened.
    pub(crate) fn open_to_read(
        &self,
        key: ReplicaKey,
        length: u64,
    ) -> Result<Readable, StoreError> {
        let mut refusal = StoreError::NotFound { key };
        for _ in 0..ATTEMPTS_MAX {
            let (found, file) = {
                let state = self.state();
                let held = state.held(key);
                let Some(found) = to_read(&held, key.generation, length) else {
                    drop(state);
                    return Err(self.why_not(key, length, !held.is_empty()));
                };
                let found_key = ReplicaKey { generation: found.generation, ..key };
                let file = found.is_open.then(|| state.open.get(found_key).cloned()).flatten();
                (found_key, file)
            };
            if let Some(file) = file {
                return Ok(Readable::Open(found, file));
            }
            match self.open(found) {
                Ok(replica) => return Ok(Readable::Whole(replica)),
                // Dropped meanwhile, or found bad: another may be here.
                Err(failure) => refusal = failure,
            }
        }
        Err(refusal)
    }

    fn why_not(&self, key: ReplicaKey, length: u64, is_here: bool) -> StoreError {
        match self.find(key) {
            Err(failure @ StoreError::Quarantined { .. }) => failure,
            Ok(_) | Err(_) if is_here => StoreError::TooShort { key, length },
            Ok(_) => StoreError::NotFound { key },
            Err(failure) => failure,
        }
    }
}

#[cfg(test)]
#[path = "readable_test.rs"]
mod tests;
