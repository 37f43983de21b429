//! When many nodes vanish at once it is the network, not the nodes: copying would only make it worse.
//!
//! Nodes in maintenance may be away: they count neither as vanished nor as there.

use std::time::Duration;

use crate::engine::cluster::{Cluster, Node, Uptime};

/// When repair holds still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseLimits {
    /// Share of the nodes, in percent, that must be exceeded.
    pub share_percent: usize,
    /// How many nodes must be missing at the least.
    pub nodes_min: usize,
    /// What is missing for longer counts as lost, not as vanished: repair goes on with those that are left.
    pub window: Duration,
}

/// Whether so many of the nodes that were there until lately are missing that repair holds still.
pub fn is_paused(cluster: &Cluster, limits: &PauseLimits, now: Uptime) -> bool {
    let vanished = vanished(cluster, limits, now).count();
    let is_there = |node: &&Node| node.lost_at().is_none() && !node.mode.is_maintenance();
    let there = cluster.nodes().filter(is_there).count();
    vanished >= limits.nodes_min && vanished * 100 > limits.share_percent * (vanished + there)
}

/// The nodes that were there until lately and are missing.
pub fn vanished<'a>(
    cluster: &'a Cluster,
    limits: &PauseLimits,
    now: Uptime,
) -> impl Iterator<Item = &'a Node> {
    let window = limits.window;
    cluster.nodes().filter(move |node| {
        let lately = |lost_at| now.saturating_sub(lost_at) < window;
        node.lost_at().is_some_and(lately) && !node.mode.is_maintenance()
    })
}

#[cfg(test)]
mod tests {
    use doldam_proto::id::{NodeId, NodeUuid};

    use super::*;
    use crate::engine::cluster::{LivenessLimits, Mode, NodeIdentity};

    const LIMITS: PauseLimits =
        PauseLimits { share_percent: 50, nodes_min: 3, window: Duration::from_mins(10) };

    /// `count` nodes of which the first `lost` closed their streams at time zero.
    fn cluster(count: u32, lost: u32) -> Cluster {
        let limits = LivenessLimits {
            suspect_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(30),
        };
        let mut cluster = Cluster::new(limits, [], Duration::ZERO);
        for id in 1..=count {
            let id = NodeId(id);
            let uuid = NodeUuid([id.0 as u8; 16]);
            let identity = NodeIdentity { id, uuid, address: String::new(), rack: String::new() };
            cluster.register(Duration::ZERO, identity, String::new());
            let session = cluster.open_stream(id).unwrap();
            if id.0 <= lost {
                cluster.stream_closed(Duration::ZERO, id, session);
            }
        }
        cluster
    }

    #[test]
    fn more_than_half_and_at_least_three_nodes_must_be_missing() {
        for (count, lost, paused) in
            [(4, 2, false), (4, 3, true), (5, 3, true), (6, 3, false), (7, 4, true), (3, 2, false)]
        {
            let is = is_paused(&cluster(count, lost), &LIMITS, Duration::ZERO);
            assert_eq!(is, paused, "{lost} of {count}");
        }
    }

    #[test]
    fn nodes_in_maintenance_are_neither_missed_nor_counted_on() {
        let maintenance = Mode::Maintenance { until: Duration::MAX, until_ms: 1 };
        let mut cluster = cluster(5, 3);
        cluster.set_mode(NodeId(1), maintenance);
        assert!(!is_paused(&cluster, &LIMITS, Duration::ZERO), "two of four are missed");
        cluster.set_mode(NodeId(1), Mode::InService);
        assert!(is_paused(&cluster, &LIMITS, Duration::ZERO));
    }

    #[test]
    fn after_the_window_the_missing_nodes_are_lost_and_repair_goes_on() {
        let cluster = cluster(4, 3);
        assert!(is_paused(
            &cluster,
            &LIMITS,
            LIMITS.window.saturating_sub(Duration::from_nanos(1))
        ));
        assert!(!is_paused(&cluster, &LIMITS, LIMITS.window));
    }
}
