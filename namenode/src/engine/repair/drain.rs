//! Emptying a node: its replicas are read and copied from, but do not count; once enough others are there they leave
//! their sets, one block after the other. So what is left to do is what the node's own list of replicas still has.

use doldam_proto::id::NodeId;

use super::assess::Assessment;
use crate::engine::cluster::{Cluster, Mode};

/// How many replicas a block is to have on nodes that stay.
///
/// That is what its file wants; only if a holder is drained with the word that fewer are enough, it is no more than
/// there are nodes for.
pub fn goal(wanted: usize, draining: &[NodeId], cluster: &Cluster) -> usize {
    let accepts_fewer =
        |node: &NodeId| matches!(cluster.mode(*node), Mode::Draining { accept_fewer: true });
    if draining.iter().any(accepts_fewer) {
        wanted.min(cluster.nodes_in_service().max(1))
    } else {
        wanted
    }
}

/// The next replica to leave the set of a block that has `sure` replicas on live, confirmed nodes that stay. Where
/// fewer are accepted for one node, that says nothing of another.
pub fn replica_to_leave(assessment: &Assessment, sure: usize, cluster: &Cluster) -> Option<NodeId> {
    let may_leave = |node: &&NodeId| sure >= goal(assessment.wanted, &[**node], cluster).max(1);
    assessment.draining.iter().find(may_leave).copied()
}

#[cfg(test)]
mod tests {
    use super::super::assess::testing::{assess, cluster};
    use super::*;

    const DRAINING: Mode = Mode::Draining { accept_fewer: false };

    #[test]
    fn replicas_on_a_draining_node_do_not_count_but_serve_as_sources() {
        let mut cluster = cluster(&["/a", "/a", "/a", "/a"]);
        cluster.set_mode(NodeId(1), DRAINING);
        let assessment = assess(&cluster, 3, &[1, 2, 3]);
        assert_eq!((assessment.copies_needed(), assessment.live.len()), (1, 3));
        assert_eq!(assess(&cluster, 3, &[2, 3, 4]).copies_needed(), 0);
        assert_eq!(assess(&cluster, 1, &[1]).copies_needed(), 1);
        cluster.set_mode(NodeId(2), DRAINING);
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 2);
    }

    #[test]
    fn a_replica_leaves_when_enough_others_are_sure_and_not_before() {
        let mut cluster = cluster(&["/a", "/a", "/a", "/a"]);
        cluster.set_mode(NodeId(1), DRAINING);
        let assessment = assess(&cluster, 3, &[1, 2, 3, 4]);
        assert_eq!(replica_to_leave(&assessment, 2, &cluster), None);
        assert_eq!(replica_to_leave(&assessment, 3, &cluster), Some(NodeId(1)));
        assert_eq!(replica_to_leave(&assess(&cluster, 3, &[2, 3, 4]), 3, &cluster), None);
        let none_wanted = assess(&cluster, 0, &[1]);
        assert_eq!(replica_to_leave(&none_wanted, 0, &cluster), None, "the last one stays");
    }

    #[test]
    fn fewer_replicas_are_enough_only_if_that_was_said() {
        let mut cluster = cluster(&["/a", "/a", "/a"]);
        cluster.set_mode(NodeId(1), DRAINING);
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 1);
        cluster.set_mode(NodeId(1), Mode::Draining { accept_fewer: true });
        let assessment = assess(&cluster, 3, &[1, 2, 3]);
        assert_eq!((assessment.goal, assessment.copies_needed()), (2, 0));
        assert_eq!(replica_to_leave(&assessment, 2, &cluster), Some(NodeId(1)));
        assert_eq!(assess(&cluster, 3, &[2, 3]).goal, 3, "that is only for blocks of that node");
        cluster.set_mode(NodeId(2), DRAINING);
        let assessment = assess(&cluster, 3, &[2, 1, 3]);
        assert_eq!(replica_to_leave(&assessment, 1, &cluster), Some(NodeId(1)), "not node 2");
    }
}
