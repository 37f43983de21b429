//! Why a block waits, for the administrator who asks.

use std::time::Duration;

use doldam_proto::id::{BlockId, NodeId};

use super::assess::Assessment;
use super::budget::Hand;
use super::queue::Place;
use super::{RepairPlanner, Surroundings, rack_repair, trim};
use crate::engine::cluster::{Node, Uptime};
use crate::engine::namespace::view::{self, Block};
use crate::engine::placement::PlacementRequest;
use crate::engine::placement::explain::judge;
use crate::engine::tables::StoreError;

/// What a block waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is next in turn.
    InTurn,
    /// Repair holds still.
    Paused,
    /// No live node has a good replica: these have one, and one of them must come back.
    NoLiveReplica,
    /// The limit of all copies together is used up.
    Pace,
    /// All holders send, or all possible targets receive, as much as they may.
    Busy,
    /// No node can take a replica.
    NoTarget,
    /// The last attempts failed.
    Failed {
        /// How many of them.
        failures: u32,
    },
    /// Copies are under way.
    UnderWay,
    /// It has too few replicas, and the nodes that have the others may be back in a moment.
    HoldersAway,
    /// A replica is to leave, and it is not yet confirmed what the other holders have.
    Unconfirmed,
}

/// A block that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which.
    pub block: Block,
    /// Good replicas on live nodes.
    pub live: usize,
    /// Replicas its file asks for.
    pub wanted: usize,
    /// What it waits for.
    pub why: Why,
    /// What stands against each node that could help.
    pub nodes: Vec<(NodeId, String)>,
    /// It is looked at again after this time at the latest.
    pub retry_in: Option<Duration>,
}

/// Most nodes that one explanation names.
const NODES_MAX: usize = 100;

impl Why {
    /// As a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::InTurn => "next in turn".to_owned(),
            Self::Paused => "repair holds still: too many datanodes vanished at once".to_owned(),
            Self::NoLiveReplica => {
                "no good replica is on a live datanode: bring one of its holders back".to_owned()
            }
            Self::Pace => "repair_bytes_per_sec is used up for the moment".to_owned(),
            Self::Busy => "the nodes that could help copy as much as they may".to_owned(),
            Self::NoTarget => "no datanode can take another replica".to_owned(),
            Self::Failed { failures } => format!("{failures} attempts failed"),
            Self::UnderWay => "a copy is under way".to_owned(),
            Self::HoldersAway => {
                "holders are away for a moment; if they stay away they count as dead".to_owned()
            }
            Self::Unconfirmed => {
                "it is not yet confirmed what the holders have; nothing is dropped before"
                    .to_owned()
            }
        }
    }
}

impl RepairPlanner {
    /// Up to `count` blocks that wait, the nearest to loss first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn explain_waiting(
        &self,
        now: Uptime,
        count: usize,
        around: &Surroundings<'_>,
    ) -> Result<Vec<Explanation>, StoreError> {
        let mut explanations = Vec::new();
        for block in self.queue.nearest_to_loss(count) {
            explanations.extend(self.explain(now, block, around)?);
        }
        Ok(explanations)
    }

    /// Why the block is not as it should be; `None` if it is, or if it is gone.
    ///
    /// # Errors
    /// If the store fails.
    pub fn explain(
        &self,
        now: Uptime,
        id: BlockId,
        around: &Surroundings<'_>,
    ) -> Result<Option<Explanation>, StoreError> {
        let Some(block) = view::block(around.tables, id)?.filter(|block| !block.unlinked) else {
            return Ok(None);
        };
        let assessment = Assessment::of(&block, around.cluster);
        if assessment.is_settled() {
            return Ok(None);
        }
        let place = self.queue.place(id);
        let why = self.why(&block, &assessment, place, around);
        let nodes = self.what_stands_against(&block, &assessment, &why, around);
        let retry_in = match place {
            Some((Place::Parked(until), _)) => Some(until.saturating_sub(now)),
            Some((Place::Ready | Place::Blocked(_) | Place::Watched, _)) | None => None,
        };
        let (live, wanted) = (assessment.live.len(), assessment.wanted);
        Ok(Some(Explanation { block, live, wanted, why, nodes, retry_in }))
    }

    fn why(
        &self,
        block: &Block,
        assessment: &Assessment,
        place: Option<(Place, u32)>,
        around: &Surroundings<'_>,
    ) -> Why {
        if assessment.live.is_empty() {
            return Why::NoLiveReplica;
        }
        let under_way = self.tasks.of_block(block.id).count();
        if assessment.copies_needed() <= under_way {
            let removal = trim::removal(assessment, around.cluster, None);
            return if under_way > 0 {
                Why::UnderWay
            } else if !assessment.awaited.is_empty() || !assessment.suspect.is_empty() {
                Why::HoldersAway
            } else if removal.is_none() {
                Why::Unconfirmed
            } else {
                Why::InTurn
            };
        }
        if self.paused {
            return Why::Paused;
        }
        match place {
            Some((Place::Blocked(Hand::Pace), _)) => Why::Pace,
            Some((Place::Blocked(Hand::Sends(_) | Hand::Receives(_)), _)) => Why::Busy,
            Some((Place::Parked(_), failures)) if self.failed.contains_key(&block.id) => {
                Why::Failed { failures }
            }
            Some((Place::Parked(_), _)) => Why::NoTarget,
            Some((Place::Ready | Place::Watched, _)) | None => Why::InTurn,
        }
    }

    fn what_stands_against(
        &self,
        block: &Block,
        assessment: &Assessment,
        why: &Why,
        around: &Surroundings<'_>,
    ) -> Vec<(NodeId, String)> {
        let cluster = around.cluster;
        let holders_away = || {
            let away = [&assessment.suspect, &assessment.awaited, &assessment.dead];
            let away = away.into_iter().flatten().chain(&assessment.excused);
            away.map(|node| (*node, format!("has a good replica and is {}", state(*node, around))))
        };
        let unconfirmed = || {
            let is_not = |id: &&NodeId| cluster.node(**id).is_some_and(|node| !node.confirmed);
            let nodes = assessment.live.iter().filter(is_not);
            nodes.map(|node| (*node, "what it holds is not yet confirmed".to_owned()))
        };
        let mut nodes: Vec<(NodeId, String)> = match why {
            Why::NoLiveReplica | Why::HoldersAway => holders_away().collect(),
            Why::Unconfirmed => holders_away().chain(unconfirmed()).collect(),
            Why::Busy | Why::NoTarget | Why::Failed { .. } => {
                self.against_copies(block, assessment, around)
            }
            Why::InTurn | Why::Paused | Why::Pace | Why::UnderWay => Vec::new(),
        };
        nodes.truncate(NODES_MAX);
        nodes
    }

    /// What stands against each node as the source or the target of a copy.
    fn against_copies(
        &self,
        block: &Block,
        assessment: &Assessment,
        around: &Surroundings<'_>,
    ) -> Vec<(NodeId, String)> {
        let (failed_source, failed_target) = self.failed.get(&block.id).copied().unzip();
        let request =
            PlacementRequest { bytes: block.length, holders: &block.good, ..Default::default() };
        let only_spread = assessment.only_spreads();
        let reason = |node: &Node| {
            let id = node.identity.id;
            if assessment.live.contains(&id) {
                return if Some(id) == failed_source {
                    Some("the last copy from it failed".to_owned())
                } else if !self.budget.may_send(id, block.length) {
                    Some("sends as much for repair as it may".to_owned())
                } else {
                    None
                };
            }
            match judge(node, around.reserved, &request) {
                Err(reason) => Some(reason.to_string()),
                Ok(_)
                    if only_spread
                        && rack_repair::is_on_rack_of(id, &block.good, around.cluster) =>
                {
                    Some("stands in the rack that has all replicas".to_owned())
                }
                Ok(_) if self.drops.is_ordered(id, block.id) => {
                    Some("is about to drop an older replica of it".to_owned())
                }
                Ok(_) if !self.budget.may_receive(id, block.length) => {
                    Some("receives as much for repair as it may".to_owned())
                }
                Ok(_) if Some(id) == failed_target => Some("the last copy to it failed".to_owned()),
                Ok(_) => None,
            }
        };
        let nodes = around.cluster.nodes();
        let told = nodes.filter_map(|node| Some((node.identity.id, reason(node)?)));
        told.take(NODES_MAX).collect()
    }
}

fn state(node: NodeId, around: &Surroundings<'_>) -> &'static str {
    use crate::engine::cluster::Standing;
    match around.cluster.standing(node) {
        Standing::Awaited => "not heard of since the namenode started",
        Standing::Joining => "joining",
        Standing::Live => "live",
        Standing::Suspect => "suspect",
        Standing::Dead => "dead",
    }
}
