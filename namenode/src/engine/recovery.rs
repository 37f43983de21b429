//! Closing files whose writer is gone.
//!
//! Which files wait for it is in the durable state: those whose lease the namenode holds
//! ([`view::in_recovery`]). For each of them an *attempt* takes a generation that nobody has had, asks the datanodes
//! what they have of the last block, which fences off whoever still writes it, finds what they agree on (`agree.rs`),
//! has them make replicas of it, and closes the file with those that did. An attempt that comes to nothing, or that a
//! restart of the namenode cut short, is followed by another under a newer generation, so nothing of it has to be
//! remembered.
//!
//! A file is never closed shorter than readers saw it, unless that is lost: every node that may have it was asked
//! under the generation of the attempt, every one has answered, and none has it (`lost.rs`). While any of them does not
//! answer, the file waits for it.
//!
//! [`RecoveryPlanner`] is used as [`RepairPlanner`](super::repair::RepairPlanner) is: told what happened, and asked
//! what to do.

mod agree;
mod lost;
mod phase;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    BeginRecoveryCommand, BlockCommit, BlockStart, FinishOrder, FinishRecoveryCommand, Order,
    RecoverOrder, order,
};

use self::agree::{Agreed, agree};
use self::lost::{Remains, remains};
use self::phase::{Asking, Finishing, Phase, Stuck};
use super::cluster::{Cluster, Node, Uptime};
use super::namespace::view::{self, Recovering};
use super::repair::{Action, Event, OrderEnd, ProposalEnd};
use super::tables::{StoreError, Tables};

/// Ids of orders of recovery start here, and those of repair end before.
pub const FIRST_ORDER: u64 = 1 << 63;
/// Files that are known at once; more are found when these are closed.
pub const FILES_MAX: usize = 10_000;
/// Attempts under way at once: each holds the values of all groups of some replicas.
pub const ATTEMPTS_MAX: usize = 16;
/// Time between two looks at the durable state.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time until the next attempt when one came to nothing.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The same when no node had what readers see; a node that comes back is asked at once.
pub const PARKED_FOR: Duration = Duration::from_mins(1);
/// Time for a datanode to answer, besides the time for reading the block.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Bytes per second at which a datanode reads a block at the least.
const READ_RATE_MIN: u64 = 16 << 20;
/// Time for the other datanodes to finish once one has.
pub const STRAGGLERS_MAX: Duration = Duration::from_secs(10);

/// What a datanode has of a block whose writer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// The order that asked for it.
    pub order: u64,
    /// Of which block.
    pub block: BlockId,
    /// Under which generation it was written.
    pub generation: Generation,
    /// In bytes; 0 if there is nothing.
    pub length: u64,
    /// The value of each group.
    pub groups: Vec<ChainingValue>,
    /// Block 0: the root value of its first group.
    pub first_root: Option<FileDigest>,
    /// Whether it has what it was asked for; `None` if its node does not say.
    pub starts: Option<Starts>,
}

/// Whether what a datanode has of a block leads to what it was asked for. That it does not is said only if nothing else
/// can be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starts {
    /// To what readers see.
    pub shown: bool,
    /// To what is on stable storage.
    pub floor: bool,
    /// It is a final replica.
    pub is_replica: bool,
}

/// Figures for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryStats {
    /// Files being recovered right now.
    pub running: usize,
    /// Files that wait for their turn or for another attempt.
    pub waiting: usize,
    /// Of these, files of which no node had what readers see.
    pub stuck: usize,
    /// Files that were closed shorter than readers had seen them, since the start.
    pub shortened: u64,
    /// Bytes that readers had seen of these and that are lost.
    pub lost_bytes: u64,
}

/// A file that waits for datanodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckFile {
    /// Which.
    pub inode: InodeId,
    /// Those that may have what readers see, and did not answer. None: not even what was on stable storage is there.
    pub missing: Vec<NodeId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct RecoveryPlanner {
    files: BTreeMap<InodeId, Phase>,
    /// When a phase ends by itself.
    timers: BTreeSet<(Uptime, InodeId)>,
    look_at: Uptime,
    looked_to: InodeId,
    last_order: u64,
    shortened: u64,
    lost_bytes: u64,
    actions: Vec<Action>,
}

impl RecoveryPlanner {
    /// What is to be done at `now`.
    ///
    /// # Errors
    /// If the store fails.
    pub fn poll_actions(
        &mut self,
        now: Uptime,
        tables: &dyn Tables,
    ) -> Result<Vec<Action>, StoreError> {
        if now >= self.look_at {
            self.look(now, tables)?;
        }
        while let Some((until, inode)) = self.timers.first().copied()
            && until <= now
        {
            let is_start = matches!(self.files.get(&inode), Some(Phase::Waiting { .. }));
            if is_start && self.running() >= ATTEMPTS_MAX {
                self.wait(now + LOOK_EVERY, inode, None);
                continue;
            }
            self.timers.remove(&(until, inode));
            self.time_is_up(now, inode);
        }
        Ok(std::mem::take(&mut self.actions))
    }

    /// Something happened at `now`.
    ///
    /// # Errors
    /// If the store fails.
    pub fn handle_event(
        &mut self,
        now: Uptime,
        event: &Event,
        cluster: &Cluster,
        tables: &dyn Tables,
    ) -> Result<(), StoreError> {
        match event {
            Event::NodeLive(node) => self.node_came(now, *node),
            Event::NodeSuspect(node) | Event::NodeDead(node) | Event::NodeRegistered(node) => {
                self.node_left(now, *node);
            }
            Event::Stored(node, replica, value) => self.stored(now, *node, replica, *value),
            Event::Answered(node, order, OrderEnd::Failed) => self.failed(now, *node, *order),
            Event::Proposed(Change::BeginRecovery(begun), end) => {
                self.begun(now, InodeId(begun.inode_id), *end, cluster, tables)?;
            }
            Event::Proposed(Change::FinishRecovery(closed), end) => {
                let inode = InodeId(closed.inode_id);
                match end {
                    ProposalEnd::Changed | ProposalEnd::Unchanged => self.closed(inode),
                    ProposalEnd::Refused => self.wait(now + RETRY_AFTER, inode, None),
                }
            }
            Event::Proposed(Change::ExpireLease(_), _) => self.look_now(),
            // What was found comes with its own word; the rest is of no account here.
            Event::Answered(_, _, OrderEnd::Done)
            | Event::NodeConfirmed(_)
            | Event::Touched(_)
            | Event::Overflowed
            | Event::Unowned(_)
            | Event::Dropped(..)
            | Event::Open(..)
            | Event::Bad(..)
            | Event::Suspected(..)
            | Event::Found(..)
            | Event::ModeChanged(_)
            | Event::BalanceStarted { .. }
            | Event::BalanceStopped
            | Event::Proposed(..) => {}
        }
        Ok(())
    }

    /// There may be files to recover that are not known yet.
    pub fn look_now(&mut self) {
        self.look_at = Uptime::ZERO;
    }

    /// A datanode told what it has, or that it has nothing.
    pub fn recovered(&mut self, now: Uptime, node: NodeId, replica: RecoveredReplica) {
        let order = replica.order;
        let Some((inode, asking)) = self.asking_of(node, order) else { return };
        if asking.what.block != replica.block {
            return;
        }
        asking.asked.remove(&node);
        asking.found.insert(node, replica);
        if asking.asked.is_empty() {
            self.decide(now, inode);
        }
    }

    /// Figures for reports.
    pub fn stats(&self) -> RecoveryStats {
        let running = self.running();
        RecoveryStats {
            running,
            waiting: self.files.len() - running,
            stuck: self.files.values().filter(|phase| phase.stuck().is_some()).count(),
            shortened: self.shortened,
            lost_bytes: self.lost_bytes,
        }
    }

    /// Files that wait for datanodes, at most `max`.
    pub fn stuck(&self, max: usize) -> Vec<StuckFile> {
        let stuck = self.files.iter().filter_map(|(inode, phase)| {
            let missing = phase.stuck()?.missing.clone();
            Some(StuckFile { inode: *inode, missing })
        });
        stuck.take(max).collect()
    }

    /// Bytes that readers saw of a file that is about to be closed without them.
    pub fn closing(&self, inode: InodeId) -> u64 {
        match self.files.get(&inode) {
            Some(Phase::Closing { lost }) => *lost,
            Some(
                Phase::Waiting { .. } | Phase::Beginning | Phase::Asking(_) | Phase::Finishing(_),
            )
            | None => 0,
        }
    }

    fn running(&self) -> usize {
        self.files.values().filter(|phase| !matches!(phase, Phase::Waiting { .. })).count()
    }

    /// Finds files in the durable state, a bounded number at a time.
    fn look(&mut self, now: Uptime, tables: &dyn Tables) -> Result<(), StoreError> {
        let found = view::in_recovery(tables, self.looked_to, FILES_MAX)?;
        self.looked_to = match found.last() {
            Some(last) if found.len() == FILES_MAX => *last,
            Some(_) | None => InodeId(0),
        };
        self.look_at = now + LOOK_EVERY;
        for inode in found {
            if self.files.len() >= FILES_MAX {
                break;
            }
            if !self.files.contains_key(&inode) {
                self.put(inode, Phase::Waiting { until: now, stuck: None });
            }
        }
        Ok(())
    }

    fn time_is_up(&mut self, now: Uptime, inode: InodeId) {
        match self.files.get(&inode) {
            Some(Phase::Waiting { .. }) => {
                let command = BeginRecoveryCommand { inode_id: inode.0 };
                self.actions.push(Action::Propose(Change::BeginRecovery(command)));
                self.put(inode, Phase::Beginning);
            }
            Some(Phase::Asking(_)) => self.decide(now, inode),
            Some(Phase::Finishing(_)) => self.close(now, inode),
            Some(Phase::Beginning | Phase::Closing { .. }) | None => {}
        }
    }

    /// The generation is there: asks everybody who can be reached.
    fn begun(
        &mut self,
        now: Uptime,
        inode: InodeId,
        end: ProposalEnd,
        cluster: &Cluster,
        tables: &dyn Tables,
    ) -> Result<(), StoreError> {
        if !matches!(self.files.get(&inode), Some(Phase::Beginning)) {
            return Ok(());
        }
        if end == ProposalEnd::Refused {
            self.wait(now + RETRY_AFTER, inode, None);
            return Ok(());
        }
        let Some(what) = view::recovering(tables, inode)? else {
            self.forget(inode);
            return Ok(());
        };
        let is_reachable = |node: &&NodeId| cluster.node(**node).is_some_and(Node::has_stream);
        let nodes: Vec<NodeId> = what.nodes.iter().filter(is_reachable).copied().collect();
        if nodes.is_empty() {
            let Recovering { nodes, must_answer: missing, .. } = what;
            self.wait(now + PARKED_FOR, inode, Some(Stuck { nodes, missing }));
            return Ok(());
        }
        let timeout = ANSWER_MAX + Duration::from_secs(what.block_bytes / READ_RATE_MIN);
        let kind = order::Kind::Recover(RecoverOrder {
            block_id: what.block.0,
            generation: what.generation.0,
            file_offset: what.file_offset,
            block_bytes: what.block_bytes,
            shown: Some(start(what.length, what.chaining_value)),
            floor: what.floor.chaining_value().map(|value| start(what.floor.length(), value)),
        });
        let asked = nodes.into_iter().map(|node| (node, self.order(node, kind.clone(), timeout)));
        let asked = asked.collect();
        let asking = Asking { what, asked, found: BTreeMap::new(), until: now + timeout };
        self.put(inode, Phase::Asking(asking));
        Ok(())
    }

    /// All who were asked have answered, or had their time.
    fn decide(&mut self, now: Uptime, inode: InodeId) {
        let Some(Phase::Asking(asking)) = self.files.get(&inode) else { return };
        let what = asking.what.clone();
        if let Some(agreed) = agree(&what, &asking.found) {
            self.finish(now, inode, what, agreed);
            return;
        }
        let missing = asking.missing();
        let remains = if missing.is_empty() { remains(&what, &asking.found) } else { None };
        match remains {
            Some(Remains::Block(agreed)) => self.finish(now, inode, what, agreed),
            Some(Remains::Nothing) => {
                let lost = what.length.saturating_sub(what.floor.length());
                self.propose_end(inode, None, what.generation, lost);
            }
            None => {
                let stuck = Stuck { nodes: what.nodes, missing };
                self.wait(now + PARKED_FOR, inode, Some(stuck));
            }
        }
    }

    /// Has replicas made of what was decided.
    fn finish(&mut self, now: Uptime, inode: InodeId, what: Recovering, agreed: Agreed) {
        let timeout = ANSWER_MAX + Duration::from_secs(what.block_bytes / READ_RATE_MIN);
        let kind = order::Kind::Finish(FinishOrder {
            block_id: what.block.0,
            generation: what.generation.0,
            file_offset: what.file_offset,
            length: agreed.length,
            chaining_value: agreed.chaining_value.to_bytes(),
        });
        let nodes = agreed.nodes.clone();
        let ordered = nodes.into_iter().map(|node| (node, self.order(node, kind.clone(), timeout)));
        let ordered = ordered.collect();
        let stored = BTreeSet::new();
        let finishing = Finishing { what, agreed, ordered, stored, until: now + timeout };
        self.put(inode, Phase::Finishing(finishing));
    }

    fn stored(&mut self, now: Uptime, node: NodeId, replica: &ReplicaId, value: ChainingValue) {
        let is_it = |finishing: &Finishing| {
            finishing.what.block == replica.block
                && finishing.what.generation == replica.generation
                && finishing.agreed.length == replica.length
                && finishing.agreed.chaining_value == value
                && finishing.agreed.nodes.contains(&node)
        };
        let found = self.files.iter_mut().find_map(|(inode, phase)| {
            let finishing = phase.finishing().filter(|finishing| is_it(finishing))?;
            Some((*inode, finishing))
        });
        let Some((inode, finishing)) = found else { return };
        finishing.ordered.remove(&node);
        finishing.stored.insert(node);
        if finishing.ordered.is_empty() {
            self.close(now, inode);
            return;
        }
        let (before, until) = (finishing.until, finishing.until.min(now + STRAGGLERS_MAX));
        finishing.until = until;
        self.timers.remove(&(before, inode));
        self.timers.insert((until, inode));
    }

    /// All who were ordered have finished or failed, or had their time.
    fn close(&mut self, now: Uptime, inode: InodeId) {
        let Some(Phase::Finishing(finishing)) = self.files.get(&inode) else { return };
        let Finishing { what, agreed, stored, .. } = finishing;
        if stored.is_empty() {
            let (nodes, missing) = (what.nodes.clone(), agreed.nodes.clone());
            self.wait(now + RETRY_AFTER, inode, Some(Stuck { nodes, missing }));
            return;
        }
        let root_value = agreed.root_value.filter(|_| what.file_offset == 0);
        let block = BlockCommit {
            block_id: what.block.0,
            generation: what.generation.0,
            length: agreed.length,
            chaining_value: agreed.chaining_value.to_bytes(),
            root_value: root_value.map(FileDigest::to_bytes).unwrap_or_default(),
            node_ids: stored.iter().map(|node| node.0).collect(),
        };
        let (generation, lost) = (what.generation, finishing.lost());
        self.propose_end(inode, Some(block), generation, lost);
    }

    /// Has the file closed, without `lost` bytes that readers saw.
    fn propose_end(
        &mut self,
        inode: InodeId,
        block: Option<BlockCommit>,
        generation: Generation,
        lost: u64,
    ) {
        let command = FinishRecoveryCommand {
            inode_id: inode.0,
            lost: lost > 0 || block.is_none(),
            generation: generation.0,
            block,
        };
        self.actions.push(Action::Propose(Change::FinishRecovery(command)));
        self.put(inode, Phase::Closing { lost });
    }

    fn closed(&mut self, inode: InodeId) {
        if let Some(Phase::Closing { lost }) = self.files.get(&inode)
            && *lost > 0
        {
            self.shortened += 1;
            self.lost_bytes += lost;
        }
        self.forget(inode);
    }

    /// The node could not do as ordered.
    fn failed(&mut self, now: Uptime, node: NodeId, order: u64) {
        let found = self.files.iter().find(|(_, phase)| phase.order_of(node) == Some(order));
        let found = found.map(|(inode, _)| *inode);
        if let Some(inode) = found {
            self.give_up_on(now, node, inode);
        }
    }

    /// What the node was ordered is void.
    fn node_left(&mut self, now: Uptime, node: NodeId) {
        let files = self.files.iter().filter(|(_, phase)| phase.order_of(node).is_some());
        let files: Vec<InodeId> = files.map(|(inode, _)| *inode).collect();
        for inode in files {
            self.give_up_on(now, node, inode);
        }
    }

    /// No answer is to be expected of the node.
    fn give_up_on(&mut self, now: Uptime, node: NodeId, inode: InodeId) {
        match self.files.get_mut(&inode) {
            Some(Phase::Asking(asking)) => {
                asking.asked.remove(&node);
                if asking.asked.is_empty() {
                    self.decide(now, inode);
                }
            }
            Some(Phase::Finishing(finishing)) => {
                finishing.ordered.remove(&node);
                if finishing.ordered.is_empty() {
                    self.close(now, inode);
                }
            }
            Some(Phase::Waiting { .. } | Phase::Beginning | Phase::Closing { .. }) | None => {}
        }
    }

    /// Files that wait for this node need not wait any longer.
    fn node_came(&mut self, now: Uptime, node: NodeId) {
        let waits = |phase: &Phase| phase.stuck().is_some_and(|stuck| stuck.nodes.contains(&node));
        let files = self.files.iter().filter(|(_, phase)| waits(phase));
        let files: Vec<InodeId> = files.map(|(inode, _)| *inode).collect();
        for inode in files {
            self.wait(now, inode, None);
        }
    }

    fn asking_of(&mut self, node: NodeId, order: u64) -> Option<(InodeId, &mut Asking)> {
        self.files.iter_mut().find_map(|(inode, phase)| match phase {
            Phase::Asking(asking) => {
                let is_it = asking.asked.get(&node) == Some(&order);
                is_it.then_some((*inode, asking))
            }
            Phase::Waiting { .. }
            | Phase::Beginning
            | Phase::Finishing(_)
            | Phase::Closing { .. } => None,
        })
    }

    fn wait(&mut self, until: Uptime, inode: InodeId, stuck: Option<Stuck>) {
        if self.files.contains_key(&inode) {
            self.put(inode, Phase::Waiting { until, stuck });
        }
    }

    fn put(&mut self, inode: InodeId, phase: Phase) {
        self.forget(inode);
        if let Some(until) = phase.until() {
            self.timers.insert((until, inode));
        }
        self.files.insert(inode, phase);
    }

    fn forget(&mut self, inode: InodeId) {
        if let Some(until) = self.files.remove(&inode).and_then(|phase| phase.until()) {
            self.timers.remove(&(until, inode));
        }
    }

    fn order(&mut self, node: NodeId, kind: order::Kind, timeout: Duration) -> u64 {
        let order_id = FIRST_ORDER + self.last_order;
        self.last_order += 1;
        let deadline_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        self.actions.push(Action::Order(node, Order { order_id, deadline_ms, kind: Some(kind) }));
        order_id
    }
}

fn start(length: u64, value: ChainingValue) -> BlockStart {
    BlockStart { length, chaining_value: value.to_bytes() }
}

#[cfg(test)]
#[path = "recovery/history_test.rs"]
mod history_test;
#[cfg(test)]
#[path = "recovery/recovery_test.rs"]
mod recovery_test;
#[cfg(test)]
#[path = "recovery/test_world.rs"]
mod test_world;
