//! Ids not given yet are above those given, totals are sums, and nodes are known by both their ids.

use std::collections::BTreeMap;

use doldam_proto::id::NodeUuid;
use doldam_proto::wire::CountersRecord;

use super::{Findings, Snapshot};
use crate::engine::records::{CONTINUE, meta, node_uuids, nodes};
use crate::engine::tables::{StoreError, Table, Tables};

pub(super) fn check(
    state: &Snapshot,
    tables: &dyn Tables,
    found: &mut Findings,
) -> Result<(), StoreError> {
    if meta::cluster_id(tables)?.is_none() {
        found.add(Table::Meta, "the cluster has no id");
    }
    let is_file = |id| state.inodes.get(id).is_some_and(|record| record.file.is_some());
    let files = state.children.values().filter(|id| is_file(id)).count();
    let committed = || state.blocks.values().filter(|block| block.committed);
    let few = committed().filter(|block| block.replicas.len() < block.wanted as usize).count();
    let expected = CountersRecord {
        files: files as u64,
        directories: (state.children.len() - files) as u64 + 1,
        blocks: committed().count() as u64,
        under_replicated: few as u64,
        corrupt: committed().filter(|block| !block.bad_replicas.is_empty()).count() as u64,
        ..state.counters
    };
    if state.counters != expected {
        found.add(Table::Meta, format!("{:?} should be {expected:?}", state.counters));
    }

    let last_inode = state.inodes.keys().next_back().map_or(0, |id| id.0);
    let last_block = state.blocks.values().map(|block| block.block_id).max().unwrap_or(0);
    let mut by_uuid = BTreeMap::new();
    let mut last_node = 0;
    nodes::scan_all(tables, &mut |node, record| {
        last_node = node.0;
        match NodeUuid::from_slice(&record.node_uuid) {
            Some(uuid) => _ = by_uuid.insert(uuid, node),
            None => found.add(Table::Nodes, format!("node {node} has no uuid")),
        }
        CONTINUE
    })?;
    let mut stored = BTreeMap::new();
    node_uuids::scan_all(tables, &mut |uuid, node| {
        stored.insert(uuid, node);
        CONTINUE
    })?;
    found.compare(Table::NodeUuids, &by_uuid, &stored);
    let counters = &state.counters;
    if counters.next_inode <= last_inode
        || counters.next_block <= last_block
        || counters.next_node.checked_sub(1) != Some(last_node)
    {
        let last = format!("inode {last_inode}, block {last_block}, node {last_node}");
        found.add(Table::Meta, format!("{counters:?} would give an id again; last are {last}"));
    }
    Ok(())
}
