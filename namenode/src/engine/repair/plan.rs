//! What to do for one block now, and what becomes of copies that fail.

use std::time::Duration;

use doldam_proto::id::{BlockId, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{CopyOrder, DropOrder, RemoveReplicaCommand, order};

use super::assess::Assessment;
use super::budget::Hand;
use super::drops::{Drop, DropReason};
use super::intake::this_generation;
use super::task::{CopyReason, CopyTask};
use super::trim::Removal;
use super::{
    Action, DROPS_AT_ONCE, RepairPlanner, SHORT_ORDER_TIMEOUT, Surroundings, drain, rack_repair,
    trim,
};
use crate::engine::cluster::{Cluster, Node, Uptime};
use crate::engine::namespace::view::{self, Block};
use crate::engine::placement::{Chance, PlacementRequest, RackAware, place};
use crate::engine::tables::StoreError;

/// After this time a refused proposal is made again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);
/// After this time a block that no node can take is looked at again; sooner if a node joins.
pub(super) const PARKED_FOR: Duration = Duration::from_mins(1);
/// Longest wait after failed attempts.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// What came of looking for a pair of nodes.
enum Pair {
    Found(NodeId, NodeId),
    /// There is one, but this hand of it is full.
    Busy(Hand),
    /// There is none.
    None,
}

/// What came of looking for a target.
enum Target {
    Free(NodeId),
    /// This one would do, and all like it receive as much as they may.
    Busy(NodeId),
}

impl RepairPlanner {
    /// Plans what one block needs.
    pub(super) fn plan(
        &mut self,
        now: Uptime,
        id: BlockId,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) -> Result<(), StoreError> {
        let Some(block) = view::block(around.tables, id)?.filter(|block| !block.unlinked) else {
            self.forget(id);
            return Ok(());
        };
        let assessment = Assessment::of(&block, around.cluster);
        let health = assessment.health();
        let under_way = self.tasks.of_block(id).count();
        let needed = assessment.copies_needed().saturating_sub(under_way);
        let is_leaving = self.removing.contains_key(&id);
        let removal = trim::removal(&assessment, around.cluster, self.moved_from(id));
        // While another replica may be about to leave, the set is not sure: what comes of that is told.
        let may_remove = under_way == 0 && !is_leaving && !self.is_doubted(id);
        let removal = removal.filter(|_| may_remove);
        if is_leaving {
            self.queue.watch(id, health);
        } else if needed > 0 {
            self.start_copies(now, &block, &assessment, needed, around, chance);
            // What cannot be spread for now is not kept from the rest.
            if let Some(removal) = removal.filter(|_| assessment.only_spreads())
                && self.queue.is_parked(id)
            {
                self.propose_removal(&block, removal);
            }
        } else if let Some(removal) = removal {
            self.queue.watch(id, health);
            self.propose_removal(&block, removal);
        } else if assessment.is_settled() && under_way == 0 {
            self.forget(id);
        } else {
            self.queue.watch(id, health);
        }
        Ok(())
    }

    fn propose_removal(&mut self, block: &Block, removal: Removal) {
        self.removing.insert(block.id, removal);
        self.actions.push(Action::Propose(Change::RemoveReplica(RemoveReplicaCommand {
            block_id: block.id.0,
            generation: block.generation.0,
            node_id: removal.node().0,
        })));
    }

    fn start_copies(
        &mut self,
        now: Uptime,
        block: &Block,
        assessment: &Assessment,
        needed: usize,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) {
        let health = assessment.health();
        for _ in 0..needed {
            if !self.pace.may_start(now) {
                return self.queue.block_on(block.id, health, Hand::Pace);
            }
            match self.choose_pair(block, assessment, around, chance) {
                Pair::Found(source, target) => {
                    self.pace.take(now, block.length);
                    let reason = assessment.reason();
                    self.start_copy(now, block, (source, target), reason, around.cluster);
                }
                Pair::Busy(hand) => return self.queue.block_on(block.id, health, hand),
                Pair::None => return self.queue.park(block.id, health, now + PARKED_FOR),
            }
        }
        self.queue.watch(block.id, health);
    }

    pub(super) fn start_copy(
        &mut self,
        now: Uptime,
        block: &Block,
        (source, target): (NodeId, NodeId),
        reason: CopyReason,
        cluster: &Cluster,
    ) {
        let Some(address) = cluster.address(target) else { return };
        let timeout = self.timeout_for(block.length);
        let order = self.order(
            order::Kind::Copy(CopyOrder {
                block_id: block.id.0,
                generation: block.generation.0,
                length: block.length,
                chaining_value: block.chaining_value.to_bytes(),
                file_offset: block.offset,
                block_bytes: block.block_bytes,
                targets: vec![address.into()],
            }),
            timeout,
        );
        let task = CopyTask {
            block: block.id,
            source,
            target,
            bytes: block.length,
            reason,
            started: now,
            until: now + timeout,
            is_stored: false,
        };
        self.tasks.start(order.order_id, task);
        self.budget.take(source, target, block.length);
        self.actions.push(Action::Order(source, order));
    }

    fn choose_pair(
        &self,
        block: &Block,
        assessment: &Assessment,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) -> Pair {
        let (failed_source, failed_target) = self.failed.get(&block.id).copied().unzip();
        let only_spreads = assessment.only_spreads();
        let target = self.choose_target(block, only_spreads, failed_target, around, chance);
        let Some(target) = target else {
            return Pair::None;
        };
        let target = match target {
            Target::Free(target) => target,
            Target::Busy(target) => return Pair::Busy(Hand::Receives(target)),
        };
        let costs = |node: &&NodeId| {
            let is_full = !self.budget.may_send(**node, block.length);
            (is_full, Some(**node) == failed_source, self.budget.sending(**node), **node)
        };
        match assessment.live.iter().min_by_key(costs).copied() {
            Some(source) if self.budget.may_send(source, block.length) => {
                Pair::Found(source, target)
            }
            Some(source) => Pair::Busy(Hand::Sends(source)),
            None => Pair::None,
        }
    }

    /// A node for a new replica: one without the block if there is any, else one whose own replica is bad.
    fn choose_target(
        &self,
        block: &Block,
        only_spreads: bool,
        failed: Option<NodeId>,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) -> Option<Target> {
        let coming = self.tasks.of_block(block.id).map(|task| task.target);
        let holders: Vec<NodeId> = block.good.iter().copied().chain(coming).collect();
        let dropping = |node: &&Node| {
            let id = node.identity.id;
            self.drops.is_ordered(id, block.id)
                || (only_spreads && rack_repair::is_on_rack_of(id, &block.good, around.cluster))
        };
        let mut unfit: Vec<NodeId> =
            around.cluster.nodes().filter(dropping).map(|node| node.identity.id).collect();
        let fit_without = unfit.len();
        unfit.extend(&block.bad);
        for excluded in [&unfit[..], &unfit[..fit_without]] {
            if let Some(target) =
                self.target_outside(block, &holders, excluded, failed, around, chance)
            {
                return Some(target);
            }
        }
        None
    }

    fn target_outside(
        &self,
        block: &Block,
        holders: &[NodeId],
        excluded: &[NodeId],
        failed: Option<NodeId>,
        around: &Surroundings<'_>,
        chance: &mut Chance,
    ) -> Option<Target> {
        let busy = around.cluster.nodes().map(|node| node.identity.id);
        let busy: Vec<NodeId> =
            busy.filter(|node| !self.budget.may_receive(*node, block.length)).collect();
        let mut choose = |also: &[NodeId]| {
            let excluded = [excluded, also].concat();
            let bytes = block.length;
            let request = PlacementRequest {
                replicas: 1,
                bytes,
                excluded: &excluded,
                holders,
                ..Default::default()
            };
            let chosen = place(&RackAware, around.cluster, around.reserved, &request, chance);
            chosen.ok().and_then(|nodes| nodes.first().copied())
        };
        let other_than_failed: Vec<NodeId> = busy.iter().copied().chain(failed).collect();
        choose(&other_than_failed)
            .or_else(|| choose(&busy))
            .map(Target::Free)
            .or_else(|| choose(&[]).map(Target::Busy))
    }

    /// Time a copy of `bytes` may take.
    pub(super) fn timeout_for(&self, bytes: u64) -> Duration {
        self.limits.copy_timeout + Duration::from_secs(bytes / self.limits.copy_rate_min.max(1))
    }

    /// A copy failed or is overdue: the block is tried again later, with other nodes if there are any.
    pub(super) fn fail_task(
        &mut self,
        now: Uptime,
        order: u64,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(task) = self.release_task(order) else { return Ok(()) };
        self.failures += 1;
        self.move_failed(task.block);
        self.failed.insert(task.block, (task.source, task.target));
        self.consider(task.block, around)?;
        let failures = self.queue.count_failure(task.block).min(6);
        let wait = Duration::from_secs(1 << failures.saturating_sub(1)).min(RETRY_MAX);
        self.queue.park_ready(task.block, now + wait);
        Ok(())
    }

    /// The copy of `block` to `target` is over; `None` if there was none.
    pub(super) fn end_task(&mut self, block: BlockId, target: NodeId) -> Option<CopyTask> {
        let order = self.tasks.find(block, target)?;
        self.release_task(order)
    }

    /// Gives up the copies that a node which left had a part in, and plans them anew at once.
    pub(super) fn end_tasks_of(
        &mut self,
        node: NodeId,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        for order in self.tasks.of_node(node) {
            if self.tasks.get(order).is_some_and(|task| task.is_stored) {
                continue; // It is being added.
            }
            if let Some(task) = self.release_task(order) {
                self.move_failed(task.block);
                self.consider(task.block, around)?;
            }
        }
        Ok(())
    }

    pub(super) fn give_up_overdue(
        &mut self,
        now: Uptime,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        for order in self.tasks.due(now) {
            self.fail_task(now, order, around)?;
        }
        Ok(())
    }

    /// Whether a replica of the block may be about to leave its set, so that what the set shows is not sure.
    pub(super) fn is_doubted(&self, block: BlockId) -> bool {
        let of_block = (block, NodeId(0))..=(block, NodeId(u32::MAX));
        self.doubted.range(of_block).next().is_some()
    }

    pub(super) fn release_task(&mut self, order: u64) -> Option<CopyTask> {
        let task = self.tasks.end(order)?;
        if !task.is_stored {
            self.budget.give_back(task.source, task.target, task.bytes);
        }
        Some(task)
    }

    /// Orders drops, each only if it is still right: much may have changed since it was queued. One that is not is
    /// left out, and the inventory of its node brings the replica up again.
    pub(super) fn hand_out_drops(
        &mut self,
        now: Uptime,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let mut left = DROPS_AT_ONCE;
        for node in self.drops.nodes_waiting() {
            if !around.cluster.node(node).is_some_and(Node::has_stream) {
                self.drops.forget_waiting(node);
                continue;
            }
            while left > 0 {
                let Some(drop) = self.drops.next_for(node) else { break };
                left -= 1;
                if !self.may_drop(node, &drop, around)? {
                    continue;
                }
                let (block_id, generation) = (drop.block.0, drop.generation.0);
                // Whatever was heard in which order: as bad goes only what its node knows to be bad.
                let only_bad = drop.why == DropReason::Bad;
                let order = order::Kind::Drop(DropOrder { block_id, generation, only_bad });
                let order = self.order(order, SHORT_ORDER_TIMEOUT);
                let until = now + SHORT_ORDER_TIMEOUT;
                self.drops.ordered(order.order_id, node, &drop, until);
                self.actions.push(Action::Order(node, order));
            }
        }
        Ok(())
    }

    /// Whether `node` may drop its replica by what is known now: it is not in the set, and what stays is enough.
    fn may_drop(
        &self,
        node: NodeId,
        drop: &Drop,
        around: &Surroundings<'_>,
    ) -> Result<bool, StoreError> {
        let Some(block) = this_generation(drop.block, drop.generation, around)? else {
            return Ok(true);
        };
        let is_listed = block.good.contains(&node) || block.bad.contains(&node);
        // What comes in place of the old one must not be taken for it.
        let is_coming = self.tasks.find(drop.block, node).is_some();
        if is_listed || is_coming || self.is_doubted(drop.block) {
            return Ok(false);
        }
        let assessment = Assessment::of(&block, around.cluster);
        Ok(match drop.why {
            DropReason::Surplus => {
                trim::sure_replicas(&assessment, around.cluster) >= assessment.wanted.max(1)
            }
            DropReason::Drained => {
                let goal = drain::goal(assessment.wanted, &[node], around.cluster).max(1);
                trim::sure_replicas(&assessment, around.cluster) >= goal
            }
            DropReason::Bad | DropReason::Unowned => !assessment.live.is_empty(),
        })
    }
}
