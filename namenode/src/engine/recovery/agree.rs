//! What the replicas of an abandoned block have in common that have what readers saw.

use std::collections::BTreeMap;

use doldam_proto::digest::block::{BlockTree, subtree_value};
use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::id::NodeId;
use doldam_proto::limits::GROUP_BYTES;

use super::RecoveredReplica;
use crate::engine::namespace::view::Recovering;

/// What a block is to end as, and who is to make it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) length: u64,
    pub(super) chaining_value: ChainingValue,
    /// Of block 0.
    pub(super) root_value: Option<FileDigest>,
    pub(super) nodes: Vec<NodeId>,
}

/// The longest start of the block that all replicas agree on that have what readers see; `None` if none has.
///
/// What one replica alone has behind that is not believed: nobody can say whether it is what was written. If what
/// readers see ends inside a group, a longer replica is not known to lead to it by its values: its node checks when it
/// is ordered to make that of it. So a start that is shorter than what readers see never results, and a wrong one
/// only if two nodes have the same wrong bytes.
pub(super) fn agree(
    what: &Recovering,
    found: &BTreeMap<NodeId, RecoveredReplica>,
) -> Option<Agreed> {
    let good: Vec<(&NodeId, &RecoveredReplica)> =
        found.iter().filter(|(_, replica)| may_lead_to(replica, what)).collect();
    let (_, first) = good.first()?;
    let nodes: Vec<NodeId> = good.iter().map(|(node, _)| **node).collect();
    let common = good.iter().map(|(_, other)| common_bytes(first, other)).min()?;
    if good.len() > 1
        && common > what.length
        && let Some((chaining_value, root_value)) = start_of(what, &good, common)
    {
        return Some(Agreed { length: common, chaining_value, root_value, nodes });
    }
    Some(Agreed {
        length: what.length,
        chaining_value: what.chaining_value,
        root_value: what.root_value,
        nodes,
    })
}

/// Whether a replica has what readers see: as its node says, or as far as its values tell.
fn may_lead_to(replica: &RecoveredReplica, what: &Recovering) -> bool {
    if replica.length < what.length || replica.length > what.block_bytes {
        return false;
    }
    if let Some(starts) = replica.starts {
        return starts.shown;
    }
    let is_told = what.length.is_multiple_of(GROUP_BYTES) || replica.length == what.length;
    let groups = groups_of(what.length).min(replica.groups.len());
    !is_told || subtree_value(&replica.groups[..groups]) == Some(what.chaining_value)
}

/// Bytes from the start on that two replicas have in common, as far as their values tell.
fn common_bytes(one: &RecoveredReplica, other: &RecoveredReplica) -> u64 {
    let pairs = one.groups.iter().zip(&other.groups);
    let equal = pairs.take_while(|(one, other)| one == other).count() as u64;
    // A group that is not full in both is another group, whatever the chance.
    let full = one.length.min(other.length) / GROUP_BYTES;
    if one.length == other.length && equal == one.groups.len() as u64 {
        one.length
    } else {
        equal.min(full) * GROUP_BYTES
    }
}

/// The values of the first `length` bytes, which all of `good` have; `None` if there is none, or they cannot be told.
pub(super) fn start_of(
    what: &Recovering,
    good: &[(&NodeId, &RecoveredReplica)],
    length: u64,
) -> Option<(ChainingValue, Option<FileDigest>)> {
    let (_, first) = good.first()?;
    let groups = first.groups.get(..groups_of(length))?.to_vec();
    let first_root = good.iter().find_map(|(_, replica)| replica.first_root);
    let digest = BlockTree::from_full_groups(what.file_offset, groups, first_root).digest()?;
    // A file of one group has no digest but the root value of that.
    let has_root = digest.root_value.is_some() || what.file_offset != 0;
    has_root.then_some((digest.chaining_value, digest.root_value))
}

fn groups_of(length: u64) -> usize {
    length.div_ceil(GROUP_BYTES) as usize
}
