//! Whether a replica is what it should be: every byte of the block and of its sidecar.

use std::sync::Arc;

use doldam_proto::digest::{BlockTree, ChainingValue, VALUE_BYTES};
use doldam_proto::limits::GROUP_BYTES;

use super::StoreError;
use super::store::{BlockStore, OpenReplica};
use crate::engine::receive::Ordered;
use crate::engine::replica::ReplicaKey;

/// Bytes read and hashed in one step.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// The verification of one replica, in steps, so that it can be slowed down or given up between any
/// two.
pub(crate) struct Verification {
    replica: OpenReplica,
    nodes: Vec<u8>,
    tree: BlockTree,
    buffer: Vec<u8>,
}

impl Verification {
    /// Begins, and checks the sidecar by itself; `expected` is what the namenode knows of the
    /// block.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the replica is bad, others if it cannot be told.
    pub(crate) fn begin(
        replica: OpenReplica,
        expected: Option<Ordered>,
    ) -> Result<Self, StoreError> {
        let header = *replica.sidecar.header();
        if let Some(Ordered { length, value }) = expected
            && (length, value) != (header.length, header.value)
        {
            let what = format!(
                "it has {} bytes with value {}, where {length} with value {value} were committed",
                header.length, header.value
            );
            return Err(StoreError::Damaged { key: replica.key, what });
        }
        let nodes = replica.sidecar.read_all_nodes()?;
        let buffer = vec![0; STEP_BYTES.min(header.length as usize)];
        Ok(Self { replica, nodes, tree: BlockTree::new(header.file_offset), buffer })
    }

    /// Reads and hashes the next bytes. Returns how many; 0 once all is verified.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn step(&mut self) -> Result<u64, StoreError> {
        let (offset, left) = (self.tree.length(), self.replica.length - self.tree.length());
        let count = left.min(STEP_BYTES as u64);
        if count == 0 {
            return Ok(0);
        }
        let buffer = &mut self.buffer[..count as usize];
        let read = self.replica.data.read_exact_at(buffer, offset);
        read.map_err(StoreError::disk(&self.replica.data_path, "reading a block"))?;
        for group in buffer.chunks(GROUP_BYTES as usize) {
            let (offset, index) = (self.tree.length(), self.tree.groups().len());
            let stored = &self.nodes[2 * index * VALUE_BYTES..][..VALUE_BYTES];
            if self.tree.push_group(group).0 != stored {
                let what = format!("its bytes at offset {offset} do not match their value");
                return Err(StoreError::Damaged { key: self.replica.key, what });
            }
        }
        if count == left {
            self.check_tree()?;
        }
        Ok(count)
    }

    /// The inner nodes and the block's value follow from the groups, which are known to be right
    /// here.
    fn check_tree(&self) -> Result<(), StoreError> {
        let nodes = self.tree.nodes();
        let stored = self.nodes.chunks_exact(VALUE_BYTES).filter_map(ChainingValue::from_slice);
        let value = self.tree.digest().map(|digest| digest.chaining_value);
        if stored.eq(nodes) && value == Some(self.replica.sidecar.header().value) {
            return Ok(());
        }
        let what = "the tree in its sidecar does not lead to its value".to_owned();
        Err(StoreError::Damaged { key: self.replica.key, what })
    }
}

impl BlockStore {
    /// Verifies a replica in full, against `expected` if that is known. A bad one goes to
    /// quarantine.
    ///
    /// Blocks on the disk for as long as reading the block takes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is bad, others if that cannot be told.
    pub(crate) fn verify(
        self: &Arc<Self>,
        key: ReplicaKey,
        expected: Option<Ordered>,
    ) -> Result<(), StoreError> {
        let verified = self.open(key).and_then(|replica| {
            let mut verification = Verification::begin(replica, expected)?;
            while verification.step()? > 0 {}
            Ok(())
        });
        verified.map_err(|failure| self.note_read_error(key, failure))
    }
}
