//! Datanodes, and what each of them holds as far as is known.

use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, NodeId, NodeUuid};
use doldam_proto::wire::{NodeMode, NodeRecord};

use crate::engine::records::fingerprints::{self, ReplicaSum, WHOLE_NODE};
use crate::engine::records::{BREAK, CONTINUE, damaged, node_uuids, nodes as records, replicas};
use crate::engine::tables::{StoreError, Table, Tables};

/// A datanode that registered at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its short id.
    pub id: NodeId,
    /// Its own id.
    pub uuid: NodeUuid,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    /// Such as `/r1`.
    pub rack: String,
    /// What an administrator decided about it.
    pub decision: Decision,
}

/// What an administrator decided about a datanode, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    InService,
    /// It is to be emptied.
    Drain {
        /// Fewer replicas than wanted are enough if there are too few nodes for more.
        accept_fewer: bool,
    },
    /// It may be away for a while.
    Maintain {
        /// Until then, by the wall clock.
        until_ms: u64,
        /// Never longer than this from when it was said, or from a restart.
        duration_ms: u64,
    },
}

/// Every datanode, in order of ids.
///
/// # Errors
/// If the store fails.
pub fn nodes(tables: &dyn Tables) -> Result<Vec<Node>, StoreError> {
    let mut found = Vec::new();
    records::scan_all(tables, &mut |id, record| {
        found.push(from_record(id, record)?);
        CONTINUE
    })?;
    Ok(found)
}

/// One datanode.
///
/// # Errors
/// If the store fails.
pub fn node(tables: &dyn Tables, id: NodeId) -> Result<Option<Node>, StoreError> {
    records::get(tables, id)?.map(|record| from_record(id, record)).transpose()
}

/// The short id of a datanode that registered before.
///
/// # Errors
/// If the store fails.
pub fn node_by_uuid(tables: &dyn Tables, uuid: NodeUuid) -> Result<Option<NodeId>, StoreError> {
    node_uuids::get(tables, uuid)
}

/// What all good replicas on `node` add up to: the root of its report, and their number.
///
/// # Errors
/// If the store fails.
pub fn replica_sum(tables: &dyn Tables, node: NodeId) -> Result<ReplicaSum, StoreError> {
    fingerprints::get(tables, node, WHOLE_NODE)
}

/// The buckets of `node` that are not empty, in order.
///
/// # Errors
/// If the store fails.
pub fn bucket_sums(
    tables: &dyn Tables,
    node: NodeId,
) -> Result<Vec<(u32, ReplicaSum)>, StoreError> {
    let mut found = Vec::new();
    fingerprints::scan(tables, node, &mut |bucket, sum| {
        if bucket != WHOLE_NODE {
            found.push((bucket, sum));
        }
        CONTINUE
    })?;
    Ok(found)
}

/// The good replicas in one bucket of `node`, in order of block ids.
///
/// # Errors
/// If the store fails.
pub fn bucket(
    tables: &dyn Tables,
    node: NodeId,
    bucket: u32,
) -> Result<Vec<ReplicaId>, StoreError> {
    let mut found = Vec::new();
    replicas::scan_bucket(tables, node, bucket, &mut |replica| {
        found.push(replica);
        CONTINUE
    })?;
    Ok(found)
}

/// Blocks with a good replica on `node`, at most `max`, after the block `after` in the order of
/// buckets and block ids: to go on, pass the last one.
///
/// # Errors
/// If the store fails.
pub fn blocks_of_node(
    tables: &dyn Tables,
    node: NodeId,
    after: Option<BlockId>,
    max: usize,
) -> Result<Vec<BlockId>, StoreError> {
    let mut found = Vec::new();
    if max == 0 {
        return Ok(found);
    }
    replicas::scan_node(tables, node, after, &mut |replica| {
        found.push(replica.block);
        if found.len() == max { BREAK } else { CONTINUE }
    })?;
    Ok(found)
}

fn from_record(id: NodeId, record: NodeRecord) -> Result<Node, StoreError> {
    let wrong = || damaged(Table::Nodes, format!("the uuid of node {id} has not 16 bytes"));
    let uuid = NodeUuid::from_slice(&record.node_uuid).ok_or_else(wrong)?;
    let decision = match record.mode() {
        NodeMode::Unspecified => Decision::InService,
        NodeMode::Draining => Decision::Drain { accept_fewer: record.accept_fewer },
        NodeMode::Maintenance => {
            let (until_ms, duration_ms) = (record.until_ms, record.duration_ms);
            Decision::Maintain { until_ms, duration_ms }
        }
    };
    Ok(Node { id, uuid, address: record.address, rack: record.rack, decision })
}
