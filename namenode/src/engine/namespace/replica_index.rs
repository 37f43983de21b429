//! What follows from a block's record: `Replicas`, `Fingerprints`, `Debts` and the totals.
//!
//! All of them change here and only here, from the difference between what a record said and what
//! it says now.

use doldam_proto::fingerprint::{Fingerprint, ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire::BlockRecord;

use super::NamespaceError;
use super::draft::Draft;
use crate::engine::records::fingerprints::{self, WHOLE_NODE};
use crate::engine::records::{damaged, debts, replicas};
use crate::engine::tables::Table;

/// Whether a committed block has other replicas than are wanted: too few good ones, too many, or a
/// bad one.
pub(crate) fn is_in_debt(block: &BlockRecord) -> bool {
    block.replicas.len() != block.wanted as usize || !block.bad_replicas.is_empty()
}

/// Whether a committed block has fewer good replicas than wanted.
pub(crate) fn is_under_replicated(block: &BlockRecord) -> bool {
    block.replicas.len() < block.wanted as usize
}

/// Brings everything that follows from a block up to date: its record was `before` and is `after`.
///
/// Absent and uncommitted are the same to the indexes. Replicas of another generation are other replicas.
pub(super) fn update(
    draft: &mut Draft<'_>,
    before: Option<&BlockRecord>,
    after: Option<&BlockRecord>,
) -> Result<(), NamespaceError> {
    let before = before.filter(|block| block.committed);
    let after = after.filter(|block| block.committed);
    let Some(block) = after.or(before) else { return Ok(()) };
    let id = BlockId(block.block_id);
    update_sets(draft, before, after)?;
    let was_in_debt = before.is_some_and(is_in_debt);
    let in_debt = after.is_some_and(is_in_debt);
    if in_debt && !was_in_debt {
        debts::put(&mut draft.set, id);
    } else if was_in_debt && !in_debt {
        debts::delete(&mut draft.set, id);
    }
    let (is, was) = (after.is_some(), before.is_some());
    count(&mut draft.counters.blocks, was, is)?;
    let few = |block: Option<&BlockRecord>| block.is_some_and(is_under_replicated);
    count(&mut draft.counters.under_replicated, few(before), few(after))?;
    let bad =
        |block: Option<&BlockRecord>| block.is_some_and(|block| !block.bad_replicas.is_empty());
    count(&mut draft.counters.corrupt, bad(before), bad(after))?;
    draft.touch_block(id);
    Ok(())
}

/// Moves a block from the nodes that had it to those that have it.
fn update_sets(
    draft: &mut Draft<'_>,
    before: Option<&BlockRecord>,
    after: Option<&BlockRecord>,
) -> Result<(), NamespaceError> {
    let replica_of = |block: &BlockRecord| ReplicaId {
        block: BlockId(block.block_id),
        generation: Generation(block.generation),
        length: block.length,
    };
    let stays = |node: &u32, other: Option<&BlockRecord>, replica: &ReplicaId| {
        other.is_some_and(|other| replica_of(other) == *replica && other.replicas.contains(node))
    };
    if let Some(block) = before {
        let replica = replica_of(block);
        for node in block.replicas.iter().filter(|node| !stays(node, after, &replica)) {
            leave(draft, NodeId(*node), &replica)?;
        }
    }
    if let Some(block) = after {
        let replica = replica_of(block);
        let mut one = None;
        for node in block.replicas.iter().filter(|node| !stays(node, before, &replica)) {
            let one = one.get_or_insert_with(|| {
                let mut one = Fingerprint::default();
                one.add(&replica);
                one
            });
            enter(draft, NodeId(*node), &replica, one)?;
        }
    }
    Ok(())
}

fn enter(
    draft: &mut Draft<'_>,
    node: NodeId,
    replica: &ReplicaId,
    one: &Fingerprint,
) -> Result<(), NamespaceError> {
    replicas::put(&mut draft.set, node, replica);
    for bucket in [bucket_of(replica.block), WHOLE_NODE] {
        let mut sum = fingerprints::get(&draft.set, node, bucket)?;
        sum.fingerprint.merge(one);
        sum.count += 1;
        fingerprints::put(&mut draft.set, node, bucket, &sum);
    }
    Ok(())
}

fn leave(draft: &mut Draft<'_>, node: NodeId, replica: &ReplicaId) -> Result<(), NamespaceError> {
    replicas::delete(&mut draft.set, node, replica.block);
    for bucket in [bucket_of(replica.block), WHOLE_NODE] {
        let mut sum = fingerprints::get(&draft.set, node, bucket)?;
        sum.count = sum.count.checked_sub(1).ok_or_else(|| {
            damaged(Table::Fingerprints, format!("node {node} has fewer than no replicas"))
        })?;
        sum.fingerprint.remove(replica);
        fingerprints::put(&mut draft.set, node, bucket, &sum);
    }
    Ok(())
}

/// Counts something that was or was not, and is or is not.
fn count(total: &mut u64, was: bool, is: bool) -> Result<(), NamespaceError> {
    *total = (*total + u64::from(is))
        .checked_sub(u64::from(was))
        .ok_or_else(|| damaged(Table::Meta, "a total falls below 0"))?;
    Ok(())
}
