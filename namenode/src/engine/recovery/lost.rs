//! What a block is to end as of which nobody has what readers saw.
//!
//! So its nodes lost power before it reached their disks. What they have now may be torn: of a group that was being
//! written any part may be there, and the rest zeros. So what is believed is only what is known to have been on stable
//! storage, and behind that whole groups on which two nodes agree, up to the first of zeros only.

use std::collections::BTreeMap;

use doldam_proto::digest::ChainingValue;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::id::{Generation, NodeId};
use doldam_proto::limits::GROUP_BYTES;

use super::RecoveredReplica;
use super::agree::{Agreed, start_of};
use crate::engine::namespace::view::{Floor, Recovering};

/// What a block is to end as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remains {
    /// As a shorter one.
    Block(Agreed),
    /// As it was committed before it was written on, or not at all.
    Nothing,
}

/// The most that is believed; `None` if not even that is there which was on stable storage. All who may have more have
/// answered.
pub(super) fn remains(
    what: &Recovering,
    found: &BTreeMap<NodeId, RecoveredReplica>,
) -> Option<Remains> {
    let is_candidate = |replica: &RecoveredReplica| {
        let has_floor = replica.starts.is_some_and(|starts| starts.floor);
        replica.length > 0
            && replica.length <= what.block_bytes
            && (has_floor || what.floor.chaining_value().is_none())
    };
    let candidates = found.iter().filter(|(_, replica)| is_candidate(replica));
    let candidates: Vec<(NodeId, &RecoveredReplica)> =
        candidates.map(|(node, replica)| (*node, replica)).collect();
    let agreed = believed(what, &candidates);
    if let Some(agreed) = agreed.filter(|agreed| agreed.length > what.floor.length()) {
        return Some(Remains::Block(agreed));
    }
    match what.floor {
        Floor::Nothing => Some(Remains::Nothing),
        Floor::Committed { generation, .. }
            if candidates.iter().any(|(_, replica)| is_replica_of(replica, generation)) =>
        {
            Some(Remains::Nothing)
        }
        Floor::Committed { length, chaining_value, root_value, .. }
        | Floor::Synced { length, chaining_value, root_value } => {
            let nodes: Vec<NodeId> = candidates.iter().map(|(node, _)| *node).collect();
            let agreed = Agreed { length, chaining_value, root_value, nodes };
            (!candidates.is_empty()).then_some(Remains::Block(agreed))
        }
        // Two nodes may agree on it; else nobody knows what it was.
        Floor::Cut { .. } => None,
    }
}

/// Whether it is a replica that is there for good, not a part of which only the names are lost.
fn is_replica_of(replica: &RecoveredReplica, generation: Generation) -> bool {
    replica.generation == generation && replica.starts.is_some_and(|starts| starts.is_replica)
}

/// The longest start of whole groups that two of them agree on, and all that have it.
fn believed(what: &Recovering, candidates: &[(NodeId, &RecoveredReplica)]) -> Option<Agreed> {
    let full = |replica: &RecoveredReplica| (replica.length / GROUP_BYTES) as usize;
    let common = |one: &RecoveredReplica, other: &RecoveredReplica| {
        let pairs = one.groups.iter().zip(&other.groups).take(full(one).min(full(other)));
        pairs.take_while(|(one, other)| one == other).count()
    };
    let (mut count, mut source) = (0, None);
    for (index, (_, one)) in candidates.iter().enumerate() {
        for (_, other) in &candidates[index + 1..] {
            if common(one, other) > count {
                (count, source) = (common(one, other), Some(*one));
            }
        }
    }
    let source = source?;
    let first = (what.floor.length() / GROUP_BYTES) as usize;
    let blank = |index: &usize| is_blank(what.file_offset, *index, &source.groups);
    let count = (first..count).find(blank).unwrap_or(count);
    let has_all = |replica: &RecoveredReplica| common(source, replica) >= count;
    let good: Vec<(&NodeId, &RecoveredReplica)> = candidates
        .iter()
        .filter(|(_, replica)| has_all(replica))
        .map(|(node, replica)| (node, *replica))
        .collect();
    let length = count as u64 * GROUP_BYTES;
    if length >= what.length {
        return None; // It is not what readers saw, so some of it is wrong.
    }
    let (chaining_value, root_value) = start_of(what, &good, length)?;
    let nodes = good.iter().map(|(node, _)| **node).collect();
    Some(Agreed { length, chaining_value, root_value, nodes })
}

/// Whether a group has nothing but zeros.
fn is_blank(file_offset: u64, index: usize, groups: &[ChainingValue]) -> bool {
    static ZEROS: [u8; GROUP_BYTES as usize] = [0; GROUP_BYTES as usize];
    let offset = file_offset + index as u64 * GROUP_BYTES;
    groups.get(index) == Some(&group_chaining_value(offset, &ZEROS))
}
