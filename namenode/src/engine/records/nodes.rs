//! `Nodes`: every datanode that ever registered.
//!
//! Key: node id (4 bytes). Value: `NodeRecord`.

use std::ops::Bound;

use doldam_proto::id::NodeId;
use doldam_proto::wire::NodeRecord;

use super::{Flow, decode, encode, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// The node.
pub(crate) fn get(tables: &dyn Tables, node: NodeId) -> Result<Option<NodeRecord>, StoreError> {
    let value = tables.get(Table::Nodes, &node.0.to_be_bytes())?;
    value.map(|value| decode(Table::Nodes, value)).transpose()
}

/// Sets the node.
pub(crate) fn put(set: &mut WriteSet<'_>, node: NodeId, record: &NodeRecord) {
    set.put(Table::Nodes, &node.0.to_be_bytes(), encode(record));
}

/// Visits every node in order of ids.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(NodeId, NodeRecord) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Nodes, &[], Bound::Unbounded, &mut |key, value| {
        let node = NodeId(u32::from_be_bytes(exactly(Table::Nodes, key)?));
        visit(node, decode(Table::Nodes, bytes::Bytes::copy_from_slice(value))?)
    })
}
