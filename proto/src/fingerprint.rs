//! Set hash of a datanode's replicas: a report of a few bytes instead of millions of rows.
//!
//! Each replica (block, generation, length) is hashed with keyed BLAKE3, and the values are added modulo 2^256.
//! Addition, unlike exclusive or, is collision resistant for sets an attacker may choose (Bellare and Micciancio,
//! "A New Paradigm for Collision-Free Hashing", 1997: `AdHash`), and lets a replica leave again by subtraction.

use crate::id::{BlockId, Generation};
use crate::limits::REPORT_BUCKETS;

/// Fixed key, so that these values never equal a hash taken for another purpose.
const KEY: &[u8; 32] = b"doldam replica fingerprint v1\0\0\0";

/// A final replica as both sides must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The block.
    pub block: BlockId,
    /// Its generation.
    pub generation: Generation,
    /// Its length in bytes.
    pub length: u64,
}

/// Which bucket of the report a block belongs to.
pub fn bucket_of(block: BlockId) -> u32 {
    (block.0 % u64::from(REPORT_BUCKETS)) as u32
}

/// Sum over a set of replicas; equal for equal sets, whatever the order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint([u64; 4]);

impl Fingerprint {
    /// Takes `replica` into the set. It must not be in it.
    pub fn add(&mut self, replica: &ReplicaId) {
        self.merge(&Self::of(replica));
    }

    /// Takes `replica` out of the set. It must be in it.
    pub fn remove(&mut self, replica: &ReplicaId) {
        let mut borrow = false;
        for (word, other) in self.0.iter_mut().zip(Self::of(replica).0) {
            let (value, first) = word.overflowing_sub(other);
            let (value, second) = value.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (value, first || second);
        }
    }

    /// Unites with a disjoint set: buckets add up to the whole node.
    pub fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            let (value, first) = word.overflowing_add(other);
            let (value, second) = value.overflowing_add(u64::from(carry));
            (*word, carry) = (value, first || second);
        }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// 32 bytes, little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` unless there are exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        Some(Self(words))
    }

    fn of(replica: &ReplicaId) -> Self {
        let mut identity = [0; 24];
        identity[..8].copy_from_slice(&replica.block.0.to_le_bytes());
        identity[8..16].copy_from_slice(&replica.generation.0.to_le_bytes());
        identity[16..].copy_from_slice(&replica.length.to_le_bytes());
        Self::from_slice(blake3::keyed_hash(KEY, &identity).as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replica() -> impl Strategy<Value = ReplicaId> {
        (0..40_u64, 1..4_u64, 1..3_u64).prop_map(|(block, generation, length)| ReplicaId {
            block: BlockId(block),
            generation: Generation(generation),
            length,
        })
    }

    proptest! {
        #[test]
        fn equal_sets_have_equal_fingerprints_and_others_do_not(
            first in prop::collection::btree_set(replica(), 0..20),
            second in prop::collection::btree_set(replica(), 0..20),
        ) {
            let sum = |set: &std::collections::BTreeSet<ReplicaId>| {
                let mut sum = Fingerprint::default();
                for replica in set {
                    sum.add(replica);
                }
                sum
            };
            prop_assert_eq!(sum(&first) == sum(&second), first == second);

            // Walk from the first set to the second by single changes, in descending order.
            let mut walked = sum(&first);
            let (leaving, joining): (Vec<_>, Vec<_>) =
                (first.difference(&second).collect(), second.difference(&first).collect());
            leaving.into_iter().rev().for_each(|replica| walked.remove(replica));
            joining.into_iter().rev().for_each(|replica| walked.add(replica));
            prop_assert_eq!(walked, sum(&second));
            prop_assert_eq!(Fingerprint::from_slice(&walked.to_bytes()), Some(walked));
        }
    }
}
