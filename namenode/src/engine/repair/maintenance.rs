//! A node that may be away for a while: its replicas still count, and are not made elsewhere, as long as each of its
//! blocks has enough live replicas on nodes that are not in maintenance.

use super::assess::Assessment;

/// How many copies a block needs for this alone.
pub fn copies_needed(assessment: &Assessment) -> usize {
    if assessment.leaving.is_empty() && assessment.excused.is_empty() {
        return 0;
    }
    assessment
        .maintenance_live_min
        .min(assessment.wanted.max(1))
        .saturating_sub(staying(assessment))
}

/// Live replicas on nodes that are neither in maintenance nor draining.
fn staying(assessment: &Assessment) -> usize {
    let goes = |node| assessment.leaving.contains(node) || assessment.draining.contains(node);
    assessment.live.iter().filter(|node| !goes(node)).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doldam_proto::id::NodeId;

    use super::super::assess::testing::{assess, cluster, lose};
    use crate::engine::cluster::{Cluster, Mode};

    const MAINTENANCE: Mode = Mode::Maintenance { until: Duration::MAX, until_ms: 1 };

    fn first_in_maintenance() -> Cluster {
        let mut cluster = cluster(&["/a", "/a", "/a", "/a"]);
        cluster.set_mode(NodeId(1), MAINTENANCE);
        cluster
    }

    #[test]
    fn a_node_in_maintenance_may_go_if_another_live_replica_is_elsewhere() {
        let mut cluster = first_in_maintenance();
        assert_eq!(assess(&cluster, 2, &[1, 2]).copies_needed(), 0);
        assert_eq!(assess(&cluster, 1, &[1]).copies_needed(), 1, "before it goes");
        lose(&mut cluster, 1, Duration::from_hours(1));
        let assessment = assess(&cluster, 2, &[1, 2]);
        assert_eq!(assessment.excused, [NodeId(1)]);
        assert_eq!(assessment.copies_needed(), 0, "dead, and nothing is copied");
        cluster.set_mode(NodeId(2), MAINTENANCE);
        assert_eq!(assess(&cluster, 2, &[1, 2]).copies_needed(), 1, "both may be away");
        assert_eq!(assess(&cluster, 3, &[1, 3]).copies_needed(), 1, "one was missing before");
    }

    #[test]
    fn what_must_stay_live_elsewhere_is_a_setting_and_never_more_than_wanted() {
        let cluster = first_in_maintenance().with_maintenance_live_min(2);
        assert_eq!(assess(&cluster, 3, &[1, 2, 3]).copies_needed(), 0);
        assert_eq!(assess(&cluster, 2, &[1, 2]).copies_needed(), 1);
        assert_eq!(assess(&cluster, 1, &[1]).copies_needed(), 1);
        let none = first_in_maintenance().with_maintenance_live_min(0);
        assert_eq!(assess(&none, 1, &[1]).copies_needed(), 0);
    }

    #[test]
    fn after_its_time_a_dead_node_is_dead_as_usual() {
        let mut cluster = first_in_maintenance();
        lose(&mut cluster, 1, Duration::from_hours(1));
        cluster.set_mode(NodeId(1), Mode::InService);
        let assessment = assess(&cluster, 2, &[1, 2]);
        assert_eq!((assessment.dead.as_slice(), assessment.copies_needed()), (&[NodeId(1)][..], 1));
    }
}
