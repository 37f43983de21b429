//! How well a block is kept, seen through what is known of its holders right now.

use doldam_proto::id::NodeId;

use super::task::CopyReason;
use super::{drain, maintenance, rack_repair};
use crate::engine::cluster::{Cluster, Mode, Standing};
use crate::engine::namespace::view::Block;

/// The holders of a block by what may be expected of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assessment {
    /// Length of the block.
    pub bytes: u64,
    /// Replicas the file asks for.
    pub wanted: usize,
    /// Replicas there are to be on nodes that stay; see [`drain::goal`].
    pub goal: usize,
    /// Good replicas on live nodes.
    pub live: Vec<NodeId>,
    /// Good replicas on nodes that are about to join or awaited after a restart.
    pub awaited: Vec<NodeId>,
    /// Good replicas on suspect nodes.
    pub suspect: Vec<NodeId>,
    /// Replicas that were good when their nodes died.
    pub dead: Vec<NodeId>,
    /// Good replicas on nodes that are away, suspect or dead, but may be: they are in maintenance.
    pub excused: Vec<NodeId>,
    /// Of the live, awaited and suspect ones: those on nodes that are to be emptied.
    pub draining: Vec<NodeId>,
    /// Of the live and awaited ones: those on nodes in maintenance, which may go any time.
    pub leaving: Vec<NodeId>,
    /// Holders of replicas that are known to be bad.
    pub bad: Vec<NodeId>,
    /// The replicas that stay are all on one rack, and another could take one.
    pub needs_spreading: bool,
    /// Live replicas there must be elsewhere while a holder is in maintenance.
    pub maintenance_live_min: usize,
}

/// The counts of an assessment that reports need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Good replicas on live nodes.
    pub live: usize,
    /// Replicas the file asks for.
    pub wanted: usize,
    /// Replicas that are known to be bad.
    pub bad: usize,
    /// Bytes of the copies that are needed.
    pub todo_bytes: u64,
}

impl Health {
    /// Fewer live good replicas than wanted.
    pub fn is_under_replicated(self) -> bool {
        self.live < self.wanted
    }

    /// No live good replica.
    pub fn is_missing(self) -> bool {
        self.live == 0
    }

    /// A bad replica is not yet replaced and gone.
    pub fn is_corrupt(self) -> bool {
        self.bad > 0
    }

    /// Nothing to report.
    pub fn is_healthy(self) -> bool {
        !self.is_under_replicated() && !self.is_corrupt()
    }
}

impl Assessment {
    /// Sorts the holders of a block.
    pub fn of(block: &Block, cluster: &Cluster) -> Self {
        let bytes = block.length;
        Self { bytes, ..Self::of_holders(block.wanted, &block.good, &block.bad, cluster) }
    }

    fn of_holders(wanted: u32, good: &[NodeId], bad: &[NodeId], cluster: &Cluster) -> Self {
        let wanted = wanted as usize;
        let (bad, maintenance_live_min) = (bad.to_vec(), cluster.maintenance_live_min());
        let mut assessment = Self { wanted, bad, maintenance_live_min, ..Self::default() };
        for node in good.iter().copied() {
            assessment.sort_in(node, cluster);
        }
        assessment.goal = drain::goal(wanted, &assessment.draining, cluster);
        let staying = [&assessment.live, &assessment.awaited, &assessment.suspect];
        let staying = staying.into_iter().flatten().chain(&assessment.excused).copied();
        let staying: Vec<NodeId> =
            staying.filter(|node| !assessment.draining.contains(node)).collect();
        assessment.needs_spreading =
            assessment.goal > 1 && rack_repair::needs_spreading(&staying, cluster);
        assessment
    }

    fn sort_in(&mut self, node: NodeId, cluster: &Cluster) {
        let mode = cluster.mode(node);
        let standing = cluster.standing(node);
        match standing {
            Standing::Suspect | Standing::Dead if mode.is_maintenance() => self.excused.push(node),
            Standing::Live => self.live.push(node),
            Standing::Awaited | Standing::Joining => self.awaited.push(node),
            Standing::Suspect => self.suspect.push(node),
            Standing::Dead => self.dead.push(node),
        }
        match mode {
            Mode::Draining { .. } if standing.is_present() => self.draining.push(node),
            Mode::Maintenance { .. } if !standing.is_lost() => self.leaving.push(node),
            Mode::InService | Mode::Draining { .. } | Mode::Maintenance { .. } => {}
        }
    }

    /// The counts.
    pub fn health(&self) -> Health {
        let todo_bytes = self.bytes.saturating_mul(self.copies_needed() as u64);
        Health { live: self.live.len(), wanted: self.wanted, bad: self.bad.len(), todo_bytes }
    }

    /// Whether the set of replicas is exactly as wanted, all of them live: nothing is to be done or awaited.
    pub fn is_settled(&self) -> bool {
        let others = [&self.awaited, &self.suspect, &self.dead, &self.excused, &self.draining];
        self.live.len() == self.wanted
            && others.into_iter().all(Vec::is_empty)
            && self.bad.is_empty()
            && self.copies_needed() == 0
    }

    /// How many copies to make now; 0 without a live replica, for nobody could serve as the source.
    pub fn copies_needed(&self) -> usize {
        if self.live.is_empty() {
            return 0;
        }
        let shortage = self.shortage().max(maintenance::copies_needed(self));
        shortage.max(usize::from(self.needs_spreading))
    }

    /// How many copies to make now for the number of replicas alone.
    ///
    /// Suspect holders count as present, for they are usually back in a moment; but a block whose last live replica
    /// is alone with suspect ones is copied once at once.
    pub fn shortage(&self) -> usize {
        if self.live.is_empty() {
            return 0;
        }
        let present =
            self.live.len() + self.awaited.len() + self.suspect.len() + self.excused.len();
        let is_alone = self.live.len() == 1 && self.awaited.is_empty() && !self.suspect.is_empty();
        let urgent = usize::from(is_alone && self.wanted > 1);
        self.goal.saturating_sub(present - self.draining.len()).max(urgent)
    }

    /// Whether copies are needed for the placement alone.
    pub fn only_spreads(&self) -> bool {
        self.needs_spreading && self.shortage() == 0 && maintenance::copies_needed(self) == 0
    }

    /// Why the next copy is made.
    pub fn reason(&self) -> CopyReason {
        let here = self.live.len() + self.awaited.len() + self.suspect.len() + self.excused.len();
        if self.shortage() > 0 && (here < self.goal || self.draining.is_empty()) {
            CopyReason::Repair
        } else if self.shortage() > 0 {
            CopyReason::Drain
        } else if maintenance::copies_needed(self) > 0 {
            CopyReason::Maintenance
        } else {
            CopyReason::Spread
        }
    }

    /// The holder whose place a new replica takes: one that is dead, else one that is suspect, if the set is full.
    ///
    /// A holder that comes back after all reports its replica by its inventory, joins the set again, and whatever is
    /// then too much is trimmed.
    pub fn holder_to_replace(&self) -> Option<NodeId> {
        let holders = self.live.len() + self.awaited.len() + self.suspect.len() + self.dead.len();
        let holders = holders + self.excused.len() - self.draining.len();
        let is_full = holders >= self.wanted;
        let gone = self.dead.first().or_else(|| self.suspect.first()).copied();
        gone.filter(|_| is_full)
    }
}

/// Clusters and assessments for the tests of the policies.
#[cfg(test)]
pub(super) mod testing {
    use std::time::Duration;

    use doldam_proto::id::NodeUuid;

    use super::*;
    use crate::engine::cluster::{LivenessLimits, Load, NodeIdentity, Uptime};

    /// Live and confirmed nodes 1, 2, ... on these racks.
    pub(in super::super) fn cluster(racks: &[&str]) -> Cluster {
        let limits = LivenessLimits {
            suspect_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(30),
        };
        let mut cluster = Cluster::new(limits, [], Duration::ZERO);
        for (id, rack) in (1..).map(NodeId).zip(racks) {
            let (uuid, address) = (NodeUuid([id.0 as u8; 16]), format!("h{id}:1"));
            let identity = NodeIdentity { id, uuid, address, rack: (*rack).to_owned() };
            cluster.register(Duration::ZERO, identity, String::new());
            let session = cluster.open_stream(id).unwrap();
            cluster.heartbeat(Duration::ZERO, id, session, Load::default()).unwrap();
            cluster.confirm(id);
        }
        cluster
    }

    /// The stream of a node ends, and so much time passes; the others beat on.
    pub(in super::super) fn lose(cluster: &mut Cluster, node: u32, after: Uptime) {
        let session = |cluster: &Cluster, id| cluster.node(id).unwrap().session();
        let lost = NodeId(node);
        cluster.stream_closed(Duration::ZERO, lost, session(cluster, lost));
        let ids: Vec<NodeId> = cluster.nodes().map(|node| node.identity.id).collect();
        for id in ids.into_iter().filter(|id| *id != lost) {
            let session = session(cluster, id);
            cluster.heartbeat(after, id, session, Load::default()).unwrap();
        }
        cluster.tick(after);
    }

    /// A block with good replicas on these nodes.
    pub(in super::super) fn assess(cluster: &Cluster, wanted: u32, good: &[u32]) -> Assessment {
        let good: Vec<NodeId> = good.iter().copied().map(NodeId).collect();
        Assessment::of_holders(wanted, &good, &[], cluster)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doldam_proto::id::NodeUuid;

    use super::*;
    use crate::engine::cluster::{LivenessLimits, Load, NodeIdentity};

    const LIMITS: LivenessLimits = LivenessLimits {
        suspect_after: Duration::from_secs(3),
        dead_after: Duration::from_secs(30),
    };

    /// Nodes 1 to 4 live, 5 and 6 suspect, 7 and 8 dead, 9 awaited.
    fn cluster() -> Cluster {
        let identity = |id: u32| NodeIdentity {
            id: NodeId(id),
            uuid: NodeUuid([id as u8; 16]),
            address: format!("h{id}:1"),
            rack: "/r".into(),
        };
        let start = Duration::from_mins(1);
        let mut cluster = Cluster::new(LIMITS, [identity(9)], start);
        for id in 1..=8 {
            let at = if id > 6 { Duration::ZERO } else { start };
            cluster.register(at, identity(id), String::new());
            let session = cluster.open_stream(NodeId(id)).unwrap();
            cluster.heartbeat(at, NodeId(id), session, Load::default()).unwrap();
            if id > 4 {
                cluster.stream_closed(at, NodeId(id), session);
            }
        }
        cluster.tick(start);
        cluster
    }

    fn assess(wanted: u32, replicas: &[u32]) -> Assessment {
        let good: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        Assessment::of_holders(wanted, &good, &[], &cluster())
    }

    #[test]
    fn copies_are_made_for_dead_holders_and_for_debts() {
        for (wanted, replicas, copies) in [
            (3, &[1, 2, 3][..], 0),
            (3, &[1, 2], 1),
            (3, &[1, 2, 7], 1),
            (3, &[1, 7, 8], 2),
            (3, &[1], 2),
            (3, &[7, 8], 0),
            (2, &[1, 2, 3, 4], 0),
        ] {
            assert_eq!(assess(wanted, replicas).copies_needed(), copies, "{wanted} {replicas:?}");
        }
    }

    #[test]
    fn suspect_holders_count_until_only_one_live_replica_is_left() {
        for (wanted, replicas, copies) in [
            (3, &[1, 2, 5][..], 0),
            (3, &[1, 5, 6], 1),
            (2, &[1, 5], 1),
            (3, &[1, 5, 7], 1),
            (3, &[5, 6], 0),
            (1, &[1, 5], 0),
            (3, &[1, 5, 9], 0), // the awaited one is about to be heard of
            (4, &[1, 5, 9], 1),
        ] {
            assert_eq!(assess(wanted, replicas).copies_needed(), copies, "{wanted} {replicas:?}");
        }
    }

    #[test]
    fn a_new_replica_takes_the_place_of_a_dead_holder_before_a_suspect_one() {
        assert_eq!(assess(3, &[1, 5, 7]).holder_to_replace(), Some(NodeId(7)));
        assert_eq!(assess(3, &[1, 2, 5]).holder_to_replace(), Some(NodeId(5)));
        assert_eq!(assess(3, &[1, 2, 3]).holder_to_replace(), None);
        assert_eq!(assess(3, &[1, 7]).holder_to_replace(), None, "the set is not full");
    }
}
