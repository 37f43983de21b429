//! Which replica is one too many.
//!
//! Nothing is removed on account of replicas that are only remembered: those that stay must be on live nodes whose
//! inventory was confirmed in this run, and they must be as many as wanted. A bad replica goes after enough good
//! ones are there, never before; the last replica never goes.

use std::collections::BTreeMap;

use doldam_proto::id::NodeId;

use super::assess::Assessment;
use crate::engine::cluster::Cluster;

/// A replica to remove from the set of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// A good one more than wanted: the node is then told to drop it.
    Surplus(NodeId),
    /// A bad one that was replaced: the node is then told to drop it.
    Bad(NodeId),
    /// On a dead node, and enough others are there. If the node returns, its inventory brings it up again.
    Gone(NodeId),
}

impl Removal {
    /// The node.
    pub fn node(self) -> NodeId {
        match self {
            Self::Surplus(node) | Self::Bad(node) | Self::Gone(node) => node,
        }
    }
}

/// What to remove next, if anything.
pub fn removal(assessment: &Assessment, cluster: &Cluster) -> Option<Removal> {
    let sure: Vec<NodeId> = sure(assessment, cluster).collect();
    let wanted = assessment.wanted.max(1);
    if sure.len() < wanted {
        None
    } else if let Some(bad) = assessment.bad.first() {
        Some(Removal::Bad(*bad))
    } else if sure.len() > wanted {
        least_missed(&sure, cluster).map(Removal::Surplus)
    } else {
        assessment.dead.first().copied().map(Removal::Gone)
    }
}

/// How many replicas are known to be there: on live nodes with a confirmed inventory.
pub fn sure_replicas(assessment: &Assessment, cluster: &Cluster) -> usize {
    sure(assessment, cluster).count()
}

fn sure(assessment: &Assessment, cluster: &Cluster) -> impl Iterator<Item = NodeId> {
    let is_confirmed = |id: &NodeId| cluster.node(*id).is_some_and(|node| node.confirmed);
    assessment.live.iter().copied().filter(is_confirmed)
}

/// The one whose loss costs least: on the rack with the most of them, there on the node with the least room.
fn least_missed(holders: &[NodeId], cluster: &Cluster) -> Option<NodeId> {
    let mut per_rack: BTreeMap<&str, usize> = BTreeMap::new();
    for holder in holders {
        *per_rack.entry(cluster.rack(*holder)).or_default() += 1;
    }
    let available = |id| cluster.node(id).map_or(0, |node| node.load.available);
    let on_rack = |id| per_rack.get(cluster.rack(id)).copied().unwrap_or(0);
    holders.iter().copied().max_by_key(|id| (on_rack(*id), std::cmp::Reverse(available(*id)), *id))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doldam_proto::id::NodeUuid;

    use super::*;
    use crate::engine::cluster::{LivenessLimits, Load, NodeIdentity};

    /// Live and confirmed nodes 1, 2, ... with (rack, room).
    fn cluster(nodes: &[(&str, u64)]) -> Cluster {
        let limits = LivenessLimits {
            suspect_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(30),
        };
        let mut cluster = Cluster::new(limits, [], Duration::ZERO);
        for (id, (rack, available)) in (1..).map(NodeId).zip(nodes) {
            let uuid = NodeUuid([id.0 as u8; 16]);
            let rack = (*rack).to_owned();
            let identity = NodeIdentity { id, uuid, address: format!("h{id}:1"), rack };
            cluster.register(Duration::ZERO, identity, String::new());
            let session = cluster.open_stream(id).unwrap();
            let load = Load { available: *available, ..Load::default() };
            cluster.heartbeat(Duration::ZERO, id, session, load).unwrap();
            cluster.confirm(id);
        }
        cluster
    }

    fn held(wanted: usize, live: &[u32]) -> Assessment {
        let live = live.iter().copied().map(NodeId).collect();
        Assessment { wanted, live, ..Assessment::default() }
    }

    #[test]
    fn the_surplus_goes_from_the_fullest_rack_and_there_from_the_fullest_node() {
        let cluster = cluster(&[("/a", 5), ("/a", 9), ("/b", 1), ("/a", 7)]);
        assert_eq!(removal(&held(3, &[1, 2, 3, 4]), &cluster), Some(Removal::Surplus(NodeId(1))));
        assert_eq!(removal(&held(2, &[2, 3, 4]), &cluster), Some(Removal::Surplus(NodeId(4))));
        assert_eq!(removal(&held(1, &[1, 3]), &cluster), Some(Removal::Surplus(NodeId(3))));
        assert_eq!(removal(&held(3, &[1, 2, 3]), &cluster), None);
    }

    #[test]
    fn only_confirmed_replicas_count_as_kept() {
        let mut cluster = cluster(&[("/a", 1), ("/a", 1), ("/a", 1)]);
        let identity = cluster.node(NodeId(2)).unwrap().identity.clone();
        cluster.register(Duration::ZERO, identity, String::new());
        let session = cluster.open_stream(NodeId(2)).unwrap();
        cluster.heartbeat(Duration::ZERO, NodeId(2), session, Load::default()).unwrap();
        assert_eq!(removal(&held(2, &[1, 2, 3]), &cluster), None);
        assert!(removal(&held(1, &[1, 2, 3]), &cluster).is_some());
        cluster.confirm(NodeId(2));
        assert!(removal(&held(2, &[1, 2, 3]), &cluster).is_some());
    }

    #[test]
    fn a_bad_replica_goes_when_it_is_replaced_and_not_before() {
        let cluster = cluster(&[("/a", 1), ("/a", 1), ("/a", 1)]);
        let mut block = held(2, &[1]);
        block.bad.push(NodeId(3));
        assert_eq!(removal(&block, &cluster), None);
        block.live.push(NodeId(2));
        assert_eq!(removal(&block, &cluster), Some(Removal::Bad(NodeId(3))));
    }

    #[test]
    fn the_last_replica_never_goes_whatever_is_wanted() {
        let cluster = cluster(&[("/a", 1)]);
        assert_eq!(removal(&held(0, &[1]), &cluster), None);
        let mut bad = held(0, &[]);
        bad.bad.push(NodeId(1));
        assert_eq!(removal(&bad, &cluster), None);
    }

    #[test]
    fn a_dead_holder_leaves_a_set_that_is_full_without_it() {
        let cluster = cluster(&[("/a", 1), ("/a", 1)]);
        let mut block = held(2, &[1, 2]);
        block.dead.push(NodeId(9));
        assert_eq!(removal(&block, &cluster), Some(Removal::Gone(NodeId(9))));
        block.wanted = 3;
        assert_eq!(removal(&block, &cluster), None);
    }
}
