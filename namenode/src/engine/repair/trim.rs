//! Which replica is one too many.
//!
//! Nothing is removed on account of replicas that are only remembered: those that stay must be on live nodes whose
//! inventory was confirmed in this run, and they must be as many as wanted. A bad replica goes after enough good
//! ones are there, never before; the last replica never goes.

use std::collections::BTreeMap;

use doldam_proto::id::NodeId;

use super::assess::Assessment;
use super::drain;
use crate::engine::cluster::{Cluster, Node};

/// A replica to remove from the set of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// A good one more than wanted: the node is then told to drop it.
    Surplus(NodeId),
    /// A good one on a draining node, enough others being there: the node is then told to drop it.
    Drained(NodeId),
    /// A bad one that was replaced: the node is then told to drop it.
    Bad(NodeId),
    /// On a dead node, and enough others are there. If the node returns, its inventory brings it up again.
    Gone(NodeId),
}

impl Removal {
    /// The node.
    pub fn node(self) -> NodeId {
        match self {
            Self::Surplus(node) | Self::Drained(node) | Self::Bad(node) | Self::Gone(node) => node,
        }
    }
}

/// What to remove next, if anything; of a surplus the replica on `preferred`, if that is one of them.
///
/// While a holder is in maintenance no surplus is removed: what it left behind must stay until it is back.
pub fn removal(
    assessment: &Assessment,
    cluster: &Cluster,
    preferred: Option<NodeId>,
) -> Option<Removal> {
    let sure: Vec<NodeId> = sure(assessment, cluster).collect();
    let goal = assessment.goal.max(1);
    let in_maintenance = !assessment.leaving.is_empty() || !assessment.excused.is_empty();
    if sure.len() < goal {
        None
    } else if let Some(bad) = assessment.bad.first() {
        Some(Removal::Bad(*bad))
    } else if let Some(drained) = drain::replica_to_leave(assessment, sure.len(), cluster) {
        Some(Removal::Drained(drained))
    } else if sure.len() > assessment.wanted.max(1) {
        let preferred = preferred.filter(|node| sure.contains(node));
        let surplus = preferred.or_else(|| least_missed(&sure, cluster));
        surplus.filter(|_| !in_maintenance).map(Removal::Surplus)
    } else {
        assessment.dead.first().copied().map(Removal::Gone)
    }
}

/// How many replicas are known to be there and to stay: on live nodes with a confirmed inventory that are not draining.
pub fn sure_replicas(assessment: &Assessment, cluster: &Cluster) -> usize {
    sure(assessment, cluster).count()
}

fn sure(assessment: &Assessment, cluster: &Cluster) -> impl Iterator<Item = NodeId> {
    let is_sure = |node: &Node| node.confirmed && !node.mode.is_draining();
    assessment.live.iter().copied().filter(move |id| cluster.node(*id).is_some_and(is_sure))
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
    use crate::engine::cluster::{LivenessLimits, Load, Mode, NodeIdentity};

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
        Assessment { wanted, goal: wanted, live, ..Assessment::default() }
    }

    #[test]
    fn the_surplus_goes_from_the_fullest_rack_and_there_from_the_fullest_node() {
        let cluster = cluster(&[("/a", 5), ("/a", 9), ("/b", 1), ("/a", 7)]);
        assert_eq!(
            removal(&held(3, &[1, 2, 3, 4]), &cluster, None),
            Some(Removal::Surplus(NodeId(1)))
        );
        assert_eq!(
            removal(&held(2, &[2, 3, 4]), &cluster, None),
            Some(Removal::Surplus(NodeId(4)))
        );
        assert_eq!(removal(&held(1, &[1, 3]), &cluster, None), Some(Removal::Surplus(NodeId(3))));
        assert_eq!(removal(&held(3, &[1, 2, 3]), &cluster, None), None);
    }

    #[test]
    fn only_confirmed_replicas_count_as_kept() {
        let mut cluster = cluster(&[("/a", 1), ("/a", 1), ("/a", 1)]);
        let identity = cluster.node(NodeId(2)).unwrap().identity.clone();
        cluster.register(Duration::ZERO, identity, String::new());
        let session = cluster.open_stream(NodeId(2)).unwrap();
        cluster.heartbeat(Duration::ZERO, NodeId(2), session, Load::default()).unwrap();
        assert_eq!(removal(&held(2, &[1, 2, 3]), &cluster, None), None);
        assert!(removal(&held(1, &[1, 2, 3]), &cluster, None).is_some());
        cluster.confirm(NodeId(2));
        assert!(removal(&held(2, &[1, 2, 3]), &cluster, None).is_some());
    }

    #[test]
    fn a_bad_replica_goes_when_it_is_replaced_and_not_before() {
        let cluster = cluster(&[("/a", 1), ("/a", 1), ("/a", 1)]);
        let mut block = held(2, &[1]);
        block.bad.push(NodeId(3));
        assert_eq!(removal(&block, &cluster, None), None);
        block.live.push(NodeId(2));
        assert_eq!(removal(&block, &cluster, None), Some(Removal::Bad(NodeId(3))));
    }

    #[test]
    fn the_last_replica_never_goes_whatever_is_wanted() {
        let cluster = cluster(&[("/a", 1)]);
        assert_eq!(removal(&held(0, &[1]), &cluster, None), None);
        let mut bad = held(0, &[]);
        bad.bad.push(NodeId(1));
        assert_eq!(removal(&bad, &cluster, None), None);
    }

    #[test]
    fn a_dead_holder_leaves_a_set_that_is_full_without_it() {
        let cluster = cluster(&[("/a", 1), ("/a", 1)]);
        let mut block = held(2, &[1, 2]);
        block.dead.push(NodeId(9));
        assert_eq!(removal(&block, &cluster, None), Some(Removal::Gone(NodeId(9))));
        (block.wanted, block.goal) = (3, 3);
        assert_eq!(removal(&block, &cluster, None), None);
    }

    #[test]
    fn a_drained_replica_leaves_before_any_surplus_and_a_preferred_one_before_others() {
        let mut cluster = cluster(&[("/a", 1), ("/a", 1), ("/b", 1), ("/b", 1)]);
        let block = held(2, &[1, 2, 3]);
        assert_eq!(removal(&block, &cluster, Some(NodeId(3))), Some(Removal::Surplus(NodeId(3))));
        assert_eq!(removal(&block, &cluster, Some(NodeId(4))), Some(Removal::Surplus(NodeId(2))));
        cluster.set_mode(NodeId(3), Mode::Draining { accept_fewer: false });
        let block = Assessment { draining: vec![NodeId(3)], ..block };
        assert_eq!(removal(&block, &cluster, None), Some(Removal::Drained(NodeId(3))));
        let block = Assessment { live: vec![NodeId(1), NodeId(3)], ..block };
        assert_eq!(removal(&block, &cluster, None), None, "copy first");
    }

    #[test]
    fn nothing_is_surplus_while_a_holder_is_in_maintenance() {
        let cluster = cluster(&[("/a", 1), ("/a", 1), ("/a", 1)]);
        let block = held(2, &[1, 2, 3]);
        assert!(removal(&block, &cluster, None).is_some());
        let block = Assessment { leaving: vec![NodeId(1)], ..block };
        assert_eq!(removal(&block, &cluster, None), None);
        let block = Assessment { excused: vec![NodeId(9)], leaving: Vec::new(), ..block };
        assert_eq!(removal(&block, &cluster, None), None);
    }
}
