//! `Fingerprints`: what each node's report must add up to.
//!
//! Key: node id (4 bytes), bucket (4 bytes); the bucket [`WHOLE_NODE`] stands for all of them
//! together, so that a heartbeat is checked with one read. Value: set hash (32 bytes, as in a
//! report), number of replicas (8 bytes). There is no entry for an empty set.

use std::ops::Bound;

use doldam_proto::fingerprint::Fingerprint;
use doldam_proto::id::NodeId;

use super::{Flow, damaged, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// All buckets of a node together.
pub(crate) const WHOLE_NODE: u32 = u32::MAX;

/// A set of replicas as a report names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaSum {
    /// Its set hash.
    pub fingerprint: Fingerprint,
    /// How many replicas it has.
    pub count: u64,
}

const NODE_BYTES: usize = size_of::<u32>();
const KEY_BYTES: usize = NODE_BYTES + size_of::<u32>();
const HASH_BYTES: usize = 32;

fn key(node: NodeId, bucket: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..NODE_BYTES].copy_from_slice(&node.0.to_be_bytes());
    key[NODE_BYTES..].copy_from_slice(&bucket.to_be_bytes());
    key
}

/// The sum of one bucket of `node`, or of [`WHOLE_NODE`].
pub(crate) fn get(
    tables: &dyn Tables,
    node: NodeId,
    bucket: u32,
) -> Result<ReplicaSum, StoreError> {
    let value = tables.get(Table::Fingerprints, &key(node, bucket))?;
    value.map_or(Ok(ReplicaSum::default()), |value| decode_sum(&value))
}

/// Sets the sum of one bucket of `node`, or of [`WHOLE_NODE`]; an empty one is removed.
pub(crate) fn put(set: &mut WriteSet<'_>, node: NodeId, bucket: u32, sum: &ReplicaSum) {
    let key = key(node, bucket);
    if sum.count == 0 {
        set.delete(Table::Fingerprints, &key);
    } else {
        let value = [&sum.fingerprint.to_bytes()[..], &sum.count.to_be_bytes()[..]].concat();
        set.put(Table::Fingerprints, &key, value);
    }
}

/// Visits the buckets of `node` that are not empty, in order, and [`WHOLE_NODE`] at the end.
pub(crate) fn scan(
    tables: &dyn Tables,
    node: NodeId,
    visit: &mut dyn FnMut(u32, ReplicaSum) -> Flow,
) -> Result<(), StoreError> {
    let prefix = node.0.to_be_bytes();
    let from = Bound::Included(&prefix[..]);
    super::scan(tables, Table::Fingerprints, &prefix, from, &mut |bucket, value| {
        visit(u32::from_be_bytes(exactly(Table::Fingerprints, bucket)?), decode_sum(value)?)
    })
}

/// Visits every sum of every node.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(NodeId, u32, ReplicaSum) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Fingerprints, &[], Bound::Unbounded, &mut |key, value| {
        let (node, bucket) = split(Table::Fingerprints, key)?;
        let bucket = u32::from_be_bytes(exactly(Table::Fingerprints, bucket)?);
        visit(NodeId(u32::from_be_bytes(node)), bucket, decode_sum(value)?)
    })
}

fn decode_sum(value: &[u8]) -> Result<ReplicaSum, StoreError> {
    let (hash, count) = split::<HASH_BYTES>(Table::Fingerprints, value)?;
    let fingerprint = Fingerprint::from_slice(&hash)
        .ok_or_else(|| damaged(Table::Fingerprints, "a set hash does not decode"))?;
    let count = u64::from_be_bytes(exactly(Table::Fingerprints, count)?);
    Ok(ReplicaSum { fingerprint, count })
}
