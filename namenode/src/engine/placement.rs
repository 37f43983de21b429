//! Where the replicas of a block go.
//!
//! First every node that cannot take the block is set aside with its reason ([`explain`]); then a [`policy`] chooses
//! among the others. With fewer nodes than wanted replicas the answer is shorter; it is an error only when nobody
//! is left. Chance is an argument, so that one input has one answer.

pub mod chance;
pub mod explain;
pub mod policy;
pub mod rack_aware;

use doldam_proto::error::Refusal;
use doldam_proto::id::NodeId;

pub use chance::Chance;
pub use policy::{Candidate, PlacementPolicy};
pub use rack_aware::RackAware;

use super::cluster::Cluster;
use super::cluster::capacity::Reserved;

/// What is to be placed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacementRequest<'a> {
    /// How many nodes are wanted.
    pub replicas: usize,
    /// Room each must have.
    pub bytes: u64,
    /// Where the writer runs; empty if unknown or of no account.
    pub client_host: &'a str,
    /// Nodes that are not to be used.
    pub excluded: &'a [NodeId],
    /// Nodes that have the block already: not chosen again, and counted when racks are spread.
    pub holders: &'a [NodeId],
}

/// Chooses up to `request.replicas` distinct nodes, in the order of a pipeline.
///
/// # Errors
/// Each node with the reason it was refused, if none is left; nothing if no node ever registered.
pub fn place(
    policy: &dyn PlacementPolicy,
    cluster: &Cluster,
    reserved: &Reserved,
    request: &PlacementRequest<'_>,
    chance: &mut Chance,
) -> Result<Vec<NodeId>, Vec<Refusal>> {
    let candidates = explain::candidates(cluster, reserved, request);
    if candidates.is_empty() {
        return Err(explain::refusals(cluster, reserved, request));
    }
    Ok(policy.choose(cluster, candidates, request, chance))
}

#[cfg(test)]
#[path = "placement/placement_test.rs"]
mod placement_test;
