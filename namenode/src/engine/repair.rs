//! What is copied, dropped, verified and trimmed.
//!
//! [`RepairPlanner`] is told what happened ([`handle_event`](RepairPlanner::handle_event)) and asked what to do
//! ([`poll_actions`](RepairPlanner::poll_actions)), in any order, with a time that never goes back. It reads the
//! state and never changes it: what is to change it proposes, and is told what came of it
//! ([`Event::Proposed`]). Whatever it forgets (a restart, a full queue) the durable state and the inventories of the
//! datanodes bring up again, so nothing of it is stored.
//!
//! Four policies say what a block needs besides its number of replicas: [`drain`], [`maintenance`], [`rack_repair`],
//! and [`balance`], which is carried out by [`moves`]. [`explain`] says why a block waits.
//!
//! What it promises: a copy comes from a live node only; a replica is dropped only after it has durably left its
//! set, and only while enough others stay that are known to be there; the limits per node hold.

pub mod assess;
pub mod balance;
pub mod budget;
mod cancel;
pub mod drain;
pub mod drops;
pub mod explain;
mod intake;
pub mod maintenance;
pub mod moves;
pub mod pace;
pub mod pause;
mod plan;
pub mod progress;
pub mod queue;
pub mod rack_repair;
pub mod scan;
pub mod task;
pub mod trim;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_proto::digest::ChainingValue;
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{Order, order};

use self::assess::Assessment;
use self::budget::{Budget, BudgetLimits, Hand};
use self::drops::{Drops, Verifications};
use self::moves::{Balancing, Move};
use self::pace::Pace;
use self::pause::PauseLimits;
use self::progress::{Copied, Progress};
use self::queue::RepairQueue;
use self::scan::{PassSlice, Scans};
use self::task::{CopyTask, Tasks};
use self::trim::Removal;
use super::cluster::capacity::Reserved;
use super::cluster::inventory::Finding;
use super::cluster::{Cluster, Uptime};
use super::namespace::view::{self, Block};
use super::placement::Chance;
use super::tables::{StoreError, Tables};

/// Settings of repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairLimits {
    /// What each node may copy at once.
    pub budget: BudgetLimits,
    /// When repair holds still.
    pub pause: PauseLimits,
    /// Time for any copy, besides the time for its bytes.
    pub copy_timeout: Duration,
    /// Bytes per second below which a copy is given up.
    pub copy_rate_min: u64,
    /// Bytes per second of all copies together; 0 is no limit.
    pub bytes_per_sec: u64,
    /// Blocks that are tracked at the most.
    pub tracked_max: usize,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The node is there: live, or live again.
    NodeLive(NodeId),
    /// Its connection closed or it fell silent.
    NodeSuspect(NodeId),
    /// It counts as lost.
    NodeDead(NodeId),
    /// An administrator decided something about it, or a maintenance is over.
    ModeChanged(NodeId),
    /// Blocks are to be moved until every node is as near to the mean.
    BalanceStarted {
        /// How far a node's used share may be from the mean, in millionths.
        threshold_ppm: u64,
        /// Limit of all moves together; 0 is none.
        bytes_per_sec: u64,
    },
    /// No more moves are to be started.
    BalanceStopped,
    /// It registered: orders it had are void.
    NodeRegistered(NodeId),
    /// What it holds was compared with the state.
    NodeConfirmed(NodeId),
    /// Blocks whose replicas, or their wanted number, changed.
    Touched(Vec<BlockId>),
    /// More blocks were touched than could be told.
    Overflowed,
    /// These replicas are nobody's, and the change that made them so is durable.
    Unowned(Vec<(NodeId, BlockId, Generation)>),
    /// The node says that it has stored a replica.
    Stored(NodeId, ReplicaId, ChainingValue),
    /// The node says that it no longer has a replica.
    Dropped(NodeId, BlockId, Generation),
    /// The node has the start of a block that nobody is writing there any more.
    Open(NodeId, BlockId, Generation),
    /// The node found its own replica bad and put it aside.
    Bad(NodeId, BlockId, Generation),
    /// A reader says that the replica on this node is bad.
    Suspected(NodeId, BlockId, Generation),
    /// The inventory of the node shows something.
    Found(NodeId, Finding),
    /// The node finished an order, or failed at it.
    Answered(NodeId, u64, OrderEnd),
    /// A change that was proposed is applied and durable, or was refused.
    Proposed(Change, ProposalEnd),
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderEnd {
    /// As ordered.
    Done,
    /// It could not be done.
    Failed,
}

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalEnd {
    /// The state changed by it.
    Changed,
    /// There was nothing to change.
    Unchanged,
    /// It was refused, or the namenode had too much to do.
    Refused,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Give the node this order, once the state the planner has read is durable.
    Order(NodeId, Order),
    /// Journal and apply this change, and tell the planner how it ended.
    Propose(Change),
}

/// What the planner sees of the world.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The datanodes.
    pub cluster: &'a Cluster,
    /// Room promised to writers.
    pub reserved: &'a Reserved,
    /// The durable state, or one that is about to be.
    pub tables: &'a dyn Tables,
}

/// Figures for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairStats {
    /// Conditions of the blocks that are tracked.
    pub counts: queue::Counts,
    /// Copies under way.
    pub running: usize,
    /// Blocks that wait.
    pub waiting: usize,
    /// Drops that wait.
    pub drops_waiting: usize,
    /// So many nodes are missing that nothing is copied.
    pub paused: bool,
    /// Bytes of copies that tracked blocks need.
    pub todo_bytes: u64,
    /// Confirmed copies since the start.
    pub copied: Copied,
    /// Copies that failed since the start.
    pub failures: u64,
    /// Copies under way to balance.
    pub moves_running: usize,
}

/// See the module.
#[derive(Debug)]
pub struct RepairPlanner {
    limits: RepairLimits,
    queue: RepairQueue,
    tasks: Tasks,
    budget: Budget,
    drops: Drops,
    verifications: Verifications,
    scans: Scans,
    /// Removals that were proposed, one for a block at most.
    removing: BTreeMap<BlockId, Removal>,
    /// Replicas said to be lost or bad, whose change of the set is under way: nothing may rest on them.
    doubted: BTreeSet<(BlockId, NodeId)>,
    /// Last failed pair of source and target per block, for the next attempt to choose others.
    failed: BTreeMap<BlockId, (NodeId, NodeId)>,
    actions: Vec<Action>,
    last_order: u64,
    paused: bool,
    pace: Pace,
    progress: Progress,
    failures: u64,
    /// Racks of nodes that took replicas when they were last looked at...
    racks: BTreeSet<String>,
    /// ... where each of them was ...
    rack_of: BTreeMap<NodeId, String>,
    /// ... and whether they may be others now.
    look_at_racks: bool,
    balancing: Option<Balancing>,
    /// Blocks being moved, and those whose move the figures of the nodes may not show yet.
    moves: BTreeMap<BlockId, Move>,
}

/// Blocks looked at in one call.
const SLICE_BLOCKS: usize = 128;
/// Ready blocks planned in one call.
const PLANNED_MAX: usize = 256;
/// Drops handed out in one call.
const DROPS_AT_ONCE: usize = 1024;
/// Time for a drop or a verification.
const SHORT_ORDER_TIMEOUT: Duration = Duration::from_mins(1);

impl RepairPlanner {
    /// Starts without knowledge: it looks at all debts first.
    pub fn new(limits: RepairLimits, now: Uptime) -> Self {
        Self {
            limits,
            queue: RepairQueue::new(limits.tracked_max),
            tasks: Tasks::default(),
            budget: Budget::new(limits.budget),
            drops: Drops::default(),
            verifications: Verifications::default(),
            scans: Scans::new(now),
            removing: BTreeMap::new(),
            doubted: BTreeSet::new(),
            failed: BTreeMap::new(),
            actions: Vec::new(),
            last_order: 0,
            paused: false,
            pace: Pace::new(limits.bytes_per_sec),
            progress: Progress::default(),
            failures: 0,
            racks: BTreeSet::new(),
            rack_of: BTreeMap::new(),
            look_at_racks: true,
            balancing: None,
            moves: BTreeMap::new(),
        }
    }

    /// What is to be done at `now`. Does a bounded amount of work: call again at once while
    /// [`has_backlog`](Self::has_backlog), else at the next event or tick.
    ///
    /// # Errors
    /// If the store fails.
    pub fn poll_actions(
        &mut self,
        now: Uptime,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) -> Result<Vec<Action>, StoreError> {
        self.give_up_overdue(now, around)?;
        self.drops.expire(now);
        self.queue.unpark_due(now);
        self.update_pause(now, around.cluster);
        for hand in self.queue.hands() {
            let waits = hand == Hand::Pace && !self.pace.may_start(now);
            self.queue.unblock(hand, if waits { 0 } else { self.budget.room(hand) });
        }
        if std::mem::take(&mut self.look_at_racks) {
            self.update_racks(around.cluster);
        }
        if self.queue.take_overflowed() {
            self.scans.start_debts();
        }
        let slice = self.scans.next_slice(now, SLICE_BLOCKS, &self.queue, around.tables)?;
        for block in slice.tracked {
            self.queue.unpark(block);
            self.consider(block, around)?;
        }
        for block in slice.found {
            self.consider(block, around)?;
        }
        if let Some(pass) = slice.leaving {
            let needy = self.consider_pass(&pass, around)?;
            self.scans.passed(now, &pass, needy);
        }
        if !self.paused {
            for _ in 0..PLANNED_MAX {
                let Some(block) = self.queue.pop_ready() else { break };
                self.plan(now, block, around, chance)?;
            }
        }
        self.hand_out_drops(now, around)?;
        self.balance(now, around)?;
        Ok(std::mem::take(&mut self.actions))
    }

    /// Whether another call of [`poll_actions`](Self::poll_actions) has something to do at once.
    pub fn has_backlog(&self) -> bool {
        self.scans.has_work() || (!self.paused && self.queue.has_ready())
    }

    /// Figures for reports.
    pub fn stats(&self) -> RepairStats {
        RepairStats {
            counts: self.queue.counts(),
            running: self.tasks.len(),
            waiting: self.queue.waiting(),
            drops_waiting: self.drops.waiting(),
            paused: self.paused,
            todo_bytes: self.queue.todo_bytes(),
            copied: self.progress.total(),
            failures: self.failures,
            moves_running: self.moves_running(),
        }
    }

    /// Blocks of `node`, which is in maintenance, that had too few live replicas elsewhere when they were last gone
    /// through; `None` if that is not known yet.
    pub fn left_on(&self, node: NodeId) -> Option<u64> {
        self.scans.left_on(node)
    }

    /// Copies under way, the oldest first.
    pub fn copies(&self) -> impl Iterator<Item = &CopyTask> {
        self.tasks.iter()
    }

    /// How many tracked blocks have how many live good replicas, of those that have too few.
    pub fn at_risk(&self) -> &BTreeMap<usize, u64> {
        self.queue.at_risk()
    }

    /// What was confirmed, and how fast.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// When it holds still, and how fast it may copy.
    pub fn limits(&self) -> &RepairLimits {
        &self.limits
    }

    /// An order with the next id.
    pub fn order(&mut self, kind: order::Kind, timeout: Duration) -> Order {
        self.last_order += 1;
        let deadline_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        Order { order_id: self.last_order, deadline_ms, kind: Some(kind) }
    }

    fn update_pause(&mut self, now: Uptime, cluster: &Cluster) {
        self.paused = pause::is_paused(cluster, &self.limits.pause, now);
    }

    /// Where a rack appeared, blocks that were written or repaired without it are to be spread; so are those of a node
    /// that moved to another rack.
    fn update_racks(&mut self, cluster: &Cluster) {
        let mut has_moved = false;
        let mut racks = BTreeSet::new();
        for node in cluster.takers() {
            let (id, rack) = (node.identity.id, node.identity.rack.clone());
            has_moved |= self.rack_of.insert(id, rack.clone()).is_some_and(|old| old != rack);
            racks.insert(rack);
        }
        if racks.len() > 1 && (has_moved || !racks.is_subset(&self.racks)) {
            self.scans.start_placement();
        }
        self.racks = racks;
    }

    /// Looks at blocks of a node that is draining or in maintenance; how many of them still need a copy.
    fn consider_pass(
        &mut self,
        pass: &PassSlice,
        around: &Surroundings<'_>,
    ) -> Result<u64, StoreError> {
        let mut needy = 0;
        for id in &pass.blocks {
            self.consider(*id, around)?;
            let block = view::block(around.tables, *id)?.filter(|block| !block.unlinked);
            let needs = |block: &Block| {
                let assessment = Assessment::of(block, around.cluster);
                assessment.live.is_empty() || maintenance::copies_needed(&assessment) > 0
            };
            needy += u64::from(block.as_ref().is_some_and(needs));
        }
        Ok(needy)
    }
}

#[cfg(test)]
#[path = "repair/cancel_test.rs"]
mod cancel_test;
#[cfg(test)]
#[path = "repair/convergence_test.rs"]
mod convergence_test;
#[cfg(test)]
#[path = "repair/open_part_test.rs"]
mod open_part_test;
#[cfg(test)]
#[path = "repair/operations_test.rs"]
mod operations_test;
#[cfg(test)]
#[path = "repair/repair_test.rs"]
mod repair_test;
#[cfg(test)]
#[path = "repair/test_world.rs"]
mod test_world;
