//! `Replicas`: the good replicas of committed blocks, by the node that holds them.
//!
//! Key: node id (4 bytes), bucket (4 bytes), block id (8 bytes). Value: generation (8 bytes),
//! length (8 bytes). The bucket stands in the key so that one bucket of a node's report is one
//! range.

use std::ops::Bound;

use doldam_proto::fingerprint::{ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};

use super::{Flow, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

const NODE_BYTES: usize = size_of::<u32>();
const BUCKET_END: usize = NODE_BYTES + size_of::<u32>();
const KEY_BYTES: usize = BUCKET_END + size_of::<u64>();

fn key(node: NodeId, bucket: u32, block: BlockId) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..NODE_BYTES].copy_from_slice(&node.0.to_be_bytes());
    key[NODE_BYTES..BUCKET_END].copy_from_slice(&bucket.to_be_bytes());
    key[BUCKET_END..].copy_from_slice(&block.0.to_be_bytes());
    key
}

/// Notes that `node` holds `replica`.
pub(crate) fn put(set: &mut WriteSet<'_>, node: NodeId, replica: &ReplicaId) {
    let value = [replica.generation.0.to_be_bytes(), replica.length.to_be_bytes()].concat();
    set.put(Table::Replicas, &key(node, bucket_of(replica.block), replica.block), value);
}

/// Notes that `node` no longer holds a good replica of `block`.
pub(crate) fn delete(set: &mut WriteSet<'_>, node: NodeId, block: BlockId) {
    set.delete(Table::Replicas, &key(node, bucket_of(block), block));
}

/// Visits the replicas of one bucket of `node`, in order of block ids.
pub(crate) fn scan_bucket(
    tables: &dyn Tables,
    node: NodeId,
    bucket: u32,
    visit: &mut dyn FnMut(ReplicaId) -> Flow,
) -> Result<(), StoreError> {
    let from = key(node, bucket, BlockId(0));
    let prefix = &from[..BUCKET_END];
    super::scan(tables, Table::Replicas, prefix, Bound::Included(&from), &mut |block, value| {
        visit(decode_replica(block, value)?)
    })
}

/// Visits the replicas of `node` by bucket and block id, after `after`.
pub(crate) fn scan_node(
    tables: &dyn Tables,
    node: NodeId,
    after: Option<BlockId>,
    visit: &mut dyn FnMut(ReplicaId) -> Flow,
) -> Result<(), StoreError> {
    let from = after.map_or([0; KEY_BYTES], |block| key(node, bucket_of(block), block));
    let prefix = node.0.to_be_bytes();
    let from =
        if after.is_some() { Bound::Excluded(&from[..]) } else { Bound::Included(&prefix[..]) };
    super::scan(tables, Table::Replicas, &prefix, from, &mut |key, value| {
        let (_bucket, block) = split::<4>(Table::Replicas, key)?;
        visit(decode_replica(block, value)?)
    })
}

/// Visits every replica as (node, bucket, replica).
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(NodeId, u32, ReplicaId) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Replicas, &[], Bound::Unbounded, &mut |key, value| {
        let (node, rest) = split(Table::Replicas, key)?;
        let (bucket, block) = split(Table::Replicas, rest)?;
        let replica = decode_replica(block, value)?;
        visit(NodeId(u32::from_be_bytes(node)), u32::from_be_bytes(bucket), replica)
    })
}

fn decode_replica(block: &[u8], value: &[u8]) -> Result<ReplicaId, StoreError> {
    let block = BlockId(u64::from_be_bytes(exactly(Table::Replicas, block)?));
    let (generation, length) = split(Table::Replicas, value)?;
    let length = u64::from_be_bytes(exactly(Table::Replicas, length)?);
    Ok(ReplicaId { block, generation: Generation(u64::from_be_bytes(generation)), length })
}
