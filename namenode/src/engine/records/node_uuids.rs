//! `NodeUuids`: datanodes by the id they chose for themselves.
//!
//! Key: node uuid (16 bytes). Value: node id (4 bytes).

use std::ops::Bound;

use doldam_proto::id::{NodeId, NodeUuid};

use super::{Flow, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// The node's short id.
pub(crate) fn get(tables: &dyn Tables, uuid: NodeUuid) -> Result<Option<NodeId>, StoreError> {
    let value = tables.get(Table::NodeUuids, &uuid.0)?;
    value.map(|value| decode_node(&value)).transpose()
}

/// Sets the node's short id.
pub(crate) fn put(set: &mut WriteSet<'_>, uuid: NodeUuid, node: NodeId) {
    set.put(Table::NodeUuids, &uuid.0, node.0.to_be_bytes().to_vec());
}

/// Visits every node.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(NodeUuid, NodeId) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::NodeUuids, &[], Bound::Unbounded, &mut |key, value| {
        visit(NodeUuid(exactly(Table::NodeUuids, key)?), decode_node(value)?)
    })
}

fn decode_node(value: &[u8]) -> Result<NodeId, StoreError> {
    exactly(Table::NodeUuids, value).map(|bytes| NodeId(u32::from_be_bytes(bytes)))
}
