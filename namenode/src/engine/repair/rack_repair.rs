//! Replicas that all stand in one rack although another could take one: because racks came later, or a rack was down
//! when they were made. One more is made in another rack, and the surplus is trimmed where the most are.

use doldam_proto::id::NodeId;

use crate::engine::cluster::Cluster;

/// Whether these holders, at least two of them, all stand in one rack, and a live node in service stands in another.
pub fn needs_spreading(holders: &[NodeId], cluster: &Cluster) -> bool {
    let [first, others @ ..] = holders else { return false };
    let rack = cluster.rack(*first);
    !others.is_empty()
        && others.iter().all(|other| cluster.rack(*other) == rack)
        && cluster.takers().any(|node| node.identity.rack != rack)
}

/// Whether the node stands in a rack that one of the holders which stay is in.
pub fn is_on_rack_of(node: NodeId, holders: &[NodeId], cluster: &Cluster) -> bool {
    let rack = cluster.rack(node);
    let stays = |holder: &&NodeId| !cluster.mode(**holder).is_draining();
    holders.iter().filter(stays).any(|holder| cluster.rack(*holder) == rack)
}

/// Whether the holders stand in as many racks as before if one of them is replaced, or at least in two.
pub fn keeps_spread(holders: &[NodeId], from: NodeId, to: NodeId, cluster: &Cluster) -> bool {
    let before = cluster.racks(holders).len();
    let staying = holders.iter().filter(|node| **node != from).chain([&to]);
    let after = cluster.racks(staying).len();
    after >= before.min(2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::assess::testing::{assess, cluster, lose};
    use super::*;
    use crate::engine::cluster::Mode;

    fn nodes(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn replicas_on_one_rack_are_spread_if_another_can_take_one() {
        let mut cluster = cluster(&["/a", "/a", "/a", "/b"]);
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 1);
        assert!(!assess(&cluster, 3, &[1, 2, 3]).is_settled());
        assert_eq!(assess(&cluster, 3, &[1, 2, 4]).copies_needed(), 0);
        assert!(assess(&cluster, 3, &[1, 2, 4]).is_settled());
        assert_eq!(assess(&cluster, 1, &[1]).copies_needed(), 0, "one replica is on one rack");
        cluster.set_mode(NodeId(4), Mode::Draining { accept_fewer: false });
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 0, "it takes nothing");
        cluster.set_mode(NodeId(4), Mode::InService);
        lose(&mut cluster, 4, Duration::ZERO);
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 0, "it is away");
    }

    #[test]
    fn a_move_may_change_racks_but_not_put_all_replicas_on_one() {
        let cluster = cluster(&["/a", "/a", "/b", "/b", "/c"]);
        let keeps = |holders: &[u32], from, to| {
            keeps_spread(&nodes(holders), NodeId(from), NodeId(to), &cluster)
        };
        assert!(keeps(&[1, 3], 1, 2) && keeps(&[1, 3], 1, 5));
        assert!(!keeps(&[1, 3], 1, 4));
        assert!(keeps(&[1, 3, 5], 1, 4), "two racks are enough");
        assert!(keeps(&[1], 1, 3) && keeps(&[1, 2], 1, 5));
    }
}
