//! A replica: one block under one generation, as this node holds it.

use std::fmt;

use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation};

/// What names a replica on this node: there is at most one of a block and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReplicaKey {
    /// The block.
    pub(crate) block: BlockId,
    /// The attempt at writing it.
    pub(crate) generation: Generation,
}

impl ReplicaKey {
    /// The replica of `block` under `generation`.
    pub(crate) fn new(block: u64, generation: u64) -> Self {
        Self { block: BlockId(block), generation: Generation(generation) }
    }
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "block {} (generation {})", self.block, self.generation)
    }
}

/// Position of a data folder in the node's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VolumeIndex(pub(crate) u16);

/// What may be done with a replica.
///
/// A block that is still being received is no replica yet: it is in no inventory and vanishes with
/// its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaState {
    /// Whole and on stable storage. Read, copied, dropped, verified.
    Final,
    /// Whole, its sync still to come. Used like a final one; verified in full if it is found at a
    /// start.
    Unsynced,
    /// Known to be bad. Neither read nor copied, kept until the namenode orders it dropped, or
    /// until a good copy is written in its place.
    Quarantined,
}

/// A replica in the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Bytes of the block.
    pub(crate) length: u64,
    /// Where it lies.
    pub(crate) volume: VolumeIndex,
    /// What may be done with it.
    pub(crate) state: ReplicaState,
}

impl Replica {
    /// What the namenode knows this replica by.
    pub(crate) fn id(&self, key: ReplicaKey) -> ReplicaId {
        ReplicaId { block: key.block, generation: key.generation, length: self.length }
    }

    /// Whether it is not known to be bad.
    pub(crate) fn is_good(&self) -> bool {
        match self.state {
            ReplicaState::Final | ReplicaState::Unsynced => true,
            ReplicaState::Quarantined => false,
        }
    }
}
