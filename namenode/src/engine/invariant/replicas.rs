//! Replicas, fingerprints and debts follow from the records of committed blocks.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::fingerprint::{ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};

use super::{Findings, Snapshot};
use crate::engine::records::fingerprints::{ReplicaSum, WHOLE_NODE};
use crate::engine::records::{CONTINUE, debts, fingerprints, replicas};
use crate::engine::tables::{StoreError, Table, Tables};

pub(super) fn check(
    state: &Snapshot,
    tables: &dyn Tables,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let mut held = BTreeMap::new();
    let mut sums: BTreeMap<(NodeId, u32), ReplicaSum> = BTreeMap::new();
    let mut owed = BTreeSet::new();
    for block in state.blocks.values().filter(|block| block.committed) {
        let replica = ReplicaId {
            block: BlockId(block.block_id),
            generation: Generation(block.generation),
            length: block.length,
        };
        let bucket = bucket_of(replica.block);
        for node in block.replicas.iter().map(|node| NodeId(*node)) {
            held.insert((node, bucket, replica.block), replica);
            for bucket in [bucket, WHOLE_NODE] {
                let sum = sums.entry((node, bucket)).or_default();
                sum.fingerprint.add(&replica);
                sum.count += 1;
            }
        }
        if block.replicas.len() != block.wanted as usize || !block.bad_replicas.is_empty() {
            owed.insert(replica.block);
        }
    }

    let mut stored = BTreeMap::new();
    replicas::scan_all(tables, &mut |node, bucket, replica| {
        stored.insert((node, bucket, replica.block), replica);
        CONTINUE
    })?;
    found.compare(Table::Replicas, &held, &stored);

    let mut stored = BTreeMap::new();
    fingerprints::scan_all(tables, &mut |node, bucket, sum| {
        stored.insert((node, bucket), sum);
        CONTINUE
    })?;
    found.compare(Table::Fingerprints, &sums, &stored);

    let mut stored = BTreeSet::new();
    debts::scan(tables, BlockId(0), &mut |block| {
        stored.insert(block);
        CONTINUE
    })?;
    found.compare_sets(Table::Debts, &owed, &stored);
    Ok(())
}
