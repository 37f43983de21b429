//! What an administrator decided about a node, beside what is seen of it.
//!
//! | mode | new replicas | reads, source of copies | its replicas count | ends by |
//! |---|---|---|---|---|
//! | in service | yes | yes | as its standing says | |
//! | draining | no | yes | not: others must be enough | recommission |
//! | maintenance | no | yes | also while it is away, if enough live ones are elsewhere | its time, recommission |
//!
//! The decision is durable state; here is what it means in this run. The end of a maintenance is on the monotonic
//! clock: after a restart it is at most as far away as the maintenance was to last.

use std::time::Duration;

use doldam_proto::id::NodeId;

use super::{Cluster, Node, Standing, Transition, Uptime};
use crate::engine::namespace::view::Decision;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As any node.
    #[default]
    InService,
    /// It is to be emptied.
    Draining {
        /// Fewer replicas than wanted are enough if there are too few nodes for more.
        accept_fewer: bool,
    },
    /// It may be away for a while.
    Maintenance {
        /// Until then.
        until: Uptime,
        /// The same for people and for the record, by the wall clock.
        until_ms: u64,
    },
}

impl Mode {
    /// What `decision` means at `now`, when the wall clock shows `wall_ms`. A wall clock that jumped makes a
    /// maintenance end early or late, but never makes it longer than it was to be.
    pub fn of(decision: Decision, now: Uptime, wall_ms: u64) -> Self {
        match decision {
            Decision::InService => Self::InService,
            Decision::Drain { accept_fewer } => Self::Draining { accept_fewer },
            Decision::Maintain { until_ms, duration_ms } => {
                let left = until_ms.saturating_sub(wall_ms).min(duration_ms);
                let until = now.saturating_add(Duration::from_millis(left));
                Self::Maintenance { until, until_ms }
            }
        }
    }

    /// Whether it may take new replicas, as far as administrators have a say.
    pub fn is_in_service(self) -> bool {
        self == Self::InService
    }

    /// Whether it is to be emptied.
    pub fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    /// Whether it may be away.
    pub fn is_maintenance(self) -> bool {
        matches!(self, Self::Maintenance { .. })
    }
}

impl Cluster {
    /// The mode of a node; one that is not known is in service.
    pub fn mode(&self, id: NodeId) -> Mode {
        self.node(id).map_or(Mode::InService, |node| node.mode)
    }

    /// An administrator decided; a node that is not known is left out.
    pub fn set_mode(&mut self, id: NodeId, mode: Mode) -> Option<Transition> {
        let node = self.nodes.get_mut(&id)?;
        node.mode = mode;
        Some(Transition::ModeChanged(id))
    }

    /// Live nodes that may take new replicas.
    pub fn takers(&self) -> impl Iterator<Item = &Node> {
        self.nodes().filter(|node| node.standing() == Standing::Live && node.mode.is_in_service())
    }

    /// Nodes in service that are not dead: how many replicas of a block there can be in the long run.
    pub fn nodes_in_service(&self) -> usize {
        let counts = |node: &&Node| node.mode.is_in_service() && node.standing().is_present();
        self.nodes().filter(counts).count()
    }

    /// How many live replicas a block must have elsewhere while a holder is in maintenance.
    pub fn maintenance_live_min(&self) -> usize {
        self.maintenance_live_min
    }

    /// The same, to be set at the start.
    #[must_use]
    pub fn with_maintenance_live_min(mut self, live_min: usize) -> Self {
        self.maintenance_live_min = live_min;
        self
    }

    /// Ends what is to end by `now`.
    pub(super) fn end_maintenances(&mut self, now: Uptime, transitions: &mut Vec<Transition>) {
        for node in self.nodes.values_mut() {
            if let Mode::Maintenance { until, until_ms } = node.mode
                && until <= now
            {
                node.mode = Mode::InService;
                transitions.push(Transition::MaintenanceOver(node.identity.id, until_ms));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cluster::{LivenessLimits, NodeIdentity};
    use doldam_proto::id::NodeUuid;

    const NODE: NodeId = NodeId(1);
    const NOW: Uptime = Duration::from_secs(100);

    fn cluster() -> Cluster {
        let limits = LivenessLimits {
            suspect_after: Duration::from_secs(3),
            dead_after: Duration::from_hours(1),
        };
        let (address, rack) = ("a:1".to_owned(), "/r".to_owned());
        let identity = NodeIdentity { id: NODE, uuid: NodeUuid([1; 16]), address, rack };
        Cluster::new(limits, [identity], NOW)
    }

    #[test]
    fn a_maintenance_ends_at_its_time_and_not_before() {
        let mut cluster = cluster();
        let decision = Decision::Maintain { until_ms: 60_000, duration_ms: 60_000 };
        let mode = Mode::of(decision, NOW, 0);
        let transition = cluster.set_mode(NODE, mode);
        assert_eq!(transition, Some(Transition::ModeChanged(NODE)));
        let end = NOW + Duration::from_mins(1);
        assert_eq!(cluster.tick(end.saturating_sub(Duration::from_nanos(1))), []);
        assert!(cluster.mode(NODE).is_maintenance());
        assert_eq!(cluster.tick(end), [Transition::MaintenanceOver(NODE, 60_000)]);
        assert_eq!(cluster.mode(NODE), Mode::InService);
        assert_eq!(cluster.tick(end), []);
    }

    #[test]
    fn a_jump_of_the_wall_clock_makes_no_maintenance_longer() {
        let decision = Decision::Maintain { until_ms: 60_000, duration_ms: 10_000 };
        for (wall_ms, left) in [(0, 10), (49_000, 10), (55_000, 5), (60_000, 0), (u64::MAX, 0)] {
            let until = NOW + Duration::from_secs(left);
            let mode = Mode::Maintenance { until, until_ms: 60_000 };
            assert_eq!(Mode::of(decision, NOW, wall_ms), mode, "{wall_ms}");
        }
    }

    #[test]
    fn the_mode_of_a_node_outlives_its_registrations() {
        let mut cluster = cluster();
        let draining = Mode::Draining { accept_fewer: false };
        cluster.set_mode(NODE, draining);
        let identity = cluster.node(NODE).unwrap().identity.clone();
        cluster.register(NOW, identity, String::new());
        assert_eq!(cluster.mode(NODE), draining);
        assert_eq!(cluster.set_mode(NodeId(9), draining), None);
    }
}
