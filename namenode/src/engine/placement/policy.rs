//! The seam between "who could" and "who shall".

use doldam_proto::id::NodeId;

use super::{Chance, PlacementRequest};
use crate::engine::cluster::Cluster;

/// A node that could take the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Which.
    pub node: NodeId,
    /// Its rack.
    pub rack: &'a str,
    /// Bytes it could still take after all that is promised.
    pub free_bytes: u64,
    /// Block streams open on it.
    pub active_streams: u32,
}

impl Candidate<'_> {
    /// How likely it is to be drawn: by free space, and less the more it has to do.
    pub fn weight(&self) -> u64 {
        ((self.free_bytes >> 20).max(1) << 10).div_ceil(1 + u64::from(self.active_streams))
    }
}

/// Chooses targets.
pub trait PlacementPolicy: Send + Sync {
    /// Picks up to `request.replicas` of `candidates`, none twice, in the order of a pipeline.
    fn choose(
        &self,
        cluster: &Cluster,
        candidates: Vec<Candidate<'_>>,
        request: &PlacementRequest<'_>,
        chance: &mut Chance,
    ) -> Vec<NodeId>;
}
