//! What an event means for the planner.

use std::collections::btree_map::Entry;

use doldam_proto::digest::ChainingValue;
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    AddReplicaCommand, FinishOrder, MarkBadReplicaCommand, RemoveReplicaCommand, VerifyOrder, order,
};

use super::assess::Assessment;
use super::drops::{Drop, DropReason};
use super::moves::BalanceEnd;
use super::task::CopyReason;
use super::trim::Removal;
use super::{
    Action, Event, OrderEnd, ProposalEnd, RepairPlanner, SHORT_ORDER_TIMEOUT, Surroundings,
};
use crate::engine::cluster::inventory::Finding;
use crate::engine::cluster::{Mode, Node, Uptime};
use crate::engine::namespace::view::{self, Block, Standing};
use crate::engine::tables::StoreError;

impl RepairPlanner {
    /// Something happened at `now`.
    ///
    /// # Errors
    /// If the store fails.
    pub fn handle_event(
        &mut self,
        now: Uptime,
        event: Event,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        match event {
            Event::NodeLive(node) => {
                self.look_at_racks = true;
                self.scans.stop_node(node);
                self.scans.start_tracked();
            }
            Event::ModeChanged(node) => self.mode_changed(now, node, around),
            Event::BalanceStarted { threshold_ppm, bytes_per_sec } => {
                self.start_balance(now, threshold_ppm, bytes_per_sec);
            }
            Event::BalanceStopped => self.end_balance(now, BalanceEnd::Stopped),
            Event::NodeSuspect(node) => {
                self.end_tasks_of(node, around)?;
                self.scans.start_node(node);
            }
            Event::NodeDead(node) => {
                self.drops.forget_waiting(node);
                self.end_tasks_of(node, around)?;
                self.scans.start_node(node);
            }
            Event::NodeRegistered(node) => {
                self.verifications.forget_node(node);
                self.end_tasks_of(node, around)?;
            }
            Event::NodeConfirmed(_) => self.scans.start_tracked(),
            Event::Touched(blocks) => {
                for block in blocks {
                    self.consider(block, around)?;
                }
            }
            Event::Overflowed => self.scans.start_debts(),
            Event::Unowned(replicas) => {
                for (node, block, generation) in replicas {
                    let why = DropReason::Unowned;
                    self.drop_if_reachable(node, block, generation, why, around);
                }
            }
            Event::Stored(node, replica, value) => self.stored(node, &replica, value, around)?,
            Event::Dropped(node, block, generation) => {
                self.drops.dropped(node, block, generation);
                self.queue.unpark(block); // The node may take it again.
                self.lost(node, block, generation, around)?;
            }
            Event::Open(node, block, generation) => self.open(node, block, generation, around)?,
            Event::Bad(node, block, generation) => self.bad(node, block, generation, around)?,
            Event::Suspected(node, block, generation) => {
                self.verify(now, node, block, generation, around)?;
            }
            Event::Found(node, finding) => self.found(now, node, finding, around)?,
            Event::Answered(node, order, end) => self.answered(now, (node, order), end, around)?,
            Event::Proposed(change, end) => self.proposed(now, &change, end, around)?,
        }
        Ok(())
    }

    /// A node is to be emptied, may be away, or is in service again: all its blocks are looked at.
    fn mode_changed(&mut self, now: Uptime, node: NodeId, around: &Surroundings<'_>) {
        self.look_at_racks = true;
        match around.cluster.mode(node) {
            Mode::InService => {
                self.scans.stop_passes(node);
                self.scans.start_node(node);
                self.scans.start_tracked();
            }
            Mode::Draining { .. } | Mode::Maintenance { .. } => {
                self.scans.start_passes(now, node);
                self.scans.start_tracked();
            }
        }
    }

    /// Looks at a block: is there something to do, to wait for, or nothing?
    pub(super) fn consider(
        &mut self,
        id: BlockId,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(block) = view::block(around.tables, id)?.filter(|block| !block.unlinked) else {
            self.forget(id);
            return Ok(());
        };
        let assessment = Assessment::of(&block, around.cluster);
        let health = assessment.health();
        self.cancel_needless(&block, &assessment, around);
        if self.removing.contains_key(&id) {
            self.queue.watch(id, health);
        } else if assessment.copies_needed() > self.tasks.of_block(id).count()
            || super::trim::removal(&assessment, around.cluster, None).is_some()
        {
            if !self.queue.is_parked(id) {
                self.queue.make_ready(id, health);
            }
        } else if assessment.is_settled() && self.tasks.of_block(id).next().is_none() {
            self.forget(id);
        } else {
            self.queue.watch(id, health);
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, id: BlockId) {
        self.queue.forget(id);
        self.failed.remove(&id);
    }

    fn drop_if_reachable(
        &mut self,
        node: NodeId,
        block: BlockId,
        generation: Generation,
        why: DropReason,
        around: &Surroundings<'_>,
    ) {
        if around.cluster.node(node).is_some_and(Node::has_stream) {
            self.drops.push(node, Drop { block, generation, why });
        }
    }

    fn stored(
        &mut self,
        node: NodeId,
        replica: &ReplicaId,
        value: ChainingValue,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if let Some(task) = self.tasks.mark_stored(replica.block, node) {
            self.budget.give_back(task.source, task.target, task.bytes);
        }
        match view::standing(around.tables, node, replica)? {
            Standing::Unlisted | Standing::Bad => self.propose_add(node, replica, value, around),
            Standing::Unowned => {
                let (block, generation) = (replica.block, replica.generation);
                self.drop_if_reachable(node, block, generation, DropReason::Unowned, around);
                Ok(())
            }
            Standing::Good | Standing::BeingWritten | Standing::Contradiction => {
                self.end_task(replica.block, node);
                self.consider(replica.block, around)
            }
        }
    }

    fn propose_add(
        &mut self,
        node: NodeId,
        replica: &ReplicaId,
        value: ChainingValue,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(block) = view::block(around.tables, replica.block)? else { return Ok(()) };
        let replaces = Assessment::of(&block, around.cluster).holder_to_replace();
        self.actions.push(Action::Propose(Change::AddReplica(AddReplicaCommand {
            block_id: replica.block.0,
            generation: replica.generation.0,
            length: replica.length,
            chaining_value: value.to_bytes(),
            node_id: node.0,
            replaces_node_id: replaces.map_or(0, |node| node.0),
        })));
        Ok(())
    }

    /// The node no longer holds a replica that it may be in the set for.
    fn lost(
        &mut self,
        node: NodeId,
        id: BlockId,
        generation: Generation,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(block) = this_generation(id, generation, around)? else { return Ok(()) };
        if block.good == [node] {
            return self.bad(node, id, generation, around); // The last one never leaves its set.
        }
        if block.good.contains(&node) || block.bad.contains(&node) {
            self.doubted.insert((id, node));
            self.actions.push(Action::Propose(Change::RemoveReplica(RemoveReplicaCommand {
                block_id: id.0,
                generation: generation.0,
                node_id: node.0,
            })));
        }
        Ok(())
    }

    /// The node has a part of a block that nobody is writing there any more. It tells so until it is ordered to drop
    /// it.
    fn open(
        &mut self,
        node: NodeId,
        id: BlockId,
        generation: Generation,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let is_useless = if let Some(block) = this_generation(id, generation, around)? {
            if block.good.is_empty() {
                self.finish(node, &block, around);
                return Ok(());
            }
            // Finished without this node. What a holder lacks may be in its part, and a copy may be on its way.
            !block.good.contains(&node)
                && !block.bad.contains(&node)
                && !block.good.is_empty()
                && !self.tasks.of_block(id).any(|task| task.target == node)
        } else {
            let replica = ReplicaId { block: id, generation, length: 0 };
            view::standing(around.tables, node, &replica)? == Standing::Unowned
        };
        if is_useless {
            self.drop_if_reachable(node, id, generation, DropReason::Unowned, around);
        }
        Ok(())
    }

    /// No good replica of the block is left, but the node has an open part of it. A crash may have taken only the names
    /// from a replica: if all bytes are there, and are right, the node makes it one again, and tells.
    ///
    /// Not while the block is written on: its writer, or who recovers it, may go on with that very part. The node tells
    /// of it again.
    fn finish(&mut self, node: NodeId, block: &Block, around: &Surroundings<'_>) {
        if block.being_written || !around.cluster.node(node).is_some_and(Node::has_stream) {
            return;
        }
        let order = order::Kind::Finish(FinishOrder {
            block_id: block.id.0,
            generation: block.generation.0,
            file_offset: block.offset,
            length: block.length,
            chaining_value: block.chaining_value.to_bytes(),
        });
        let order = self.order(order, self.timeout_for(block.length));
        self.actions.push(Action::Order(node, order));
    }

    /// The node holds a replica that is bad. It tells so until it is ordered to drop it.
    fn bad(
        &mut self,
        node: NodeId,
        id: BlockId,
        generation: Generation,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        self.verifications.end(node, id);
        let Some(block) = this_generation(id, generation, around)? else {
            let replica = ReplicaId { block: id, generation, length: 0 };
            if view::standing(around.tables, node, &replica)? == Standing::Unowned {
                self.drop_if_reachable(node, id, generation, DropReason::Unowned, around);
            }
            return Ok(());
        };
        if block.good.contains(&node) {
            self.doubted.insert((id, node));
            self.actions.push(Action::Propose(Change::MarkBadReplica(MarkBadReplicaCommand {
                block_id: id.0,
                generation: generation.0,
                node_id: node.0,
            })));
        } else if !block.bad.contains(&node) && !block.good.is_empty() {
            // It has left its set already, and the order to drop it was lost.
            self.drop_if_reachable(node, id, generation, DropReason::Bad, around);
        }
        Ok(())
    }

    fn verify(
        &mut self,
        now: Uptime,
        node: NodeId,
        id: BlockId,
        generation: Generation,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(block) = this_generation(id, generation, around)? else { return Ok(()) };
        let is_reachable = around.cluster.node(node).is_some_and(Node::has_stream);
        if !is_reachable || !block.good.contains(&node) {
            return Ok(());
        }
        let timeout = self.timeout_for(block.length).max(SHORT_ORDER_TIMEOUT);
        if self.verifications.start(now, (node, id), now + timeout) {
            let order = order::Kind::Verify(VerifyOrder {
                block_id: id.0,
                generation: generation.0,
                length: block.length,
                chaining_value: block.chaining_value.to_bytes(),
            });
            let order = self.order(order, timeout);
            self.actions.push(Action::Order(node, order));
        }
        Ok(())
    }

    fn found(
        &mut self,
        now: Uptime,
        node: NodeId,
        finding: Finding,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let replica = match finding {
            Finding::Missing(block, generation) => {
                return self.lost(node, block, generation, around);
            }
            Finding::Unexpected(replica) => replica,
        };
        if self.drops.is_ordered(node, replica.block) || self.removing.contains_key(&replica.block)
        {
            return Ok(()); // It is on its way out; the next comparison tells.
        }
        match view::standing(around.tables, node, &replica)? {
            Standing::Unlisted | Standing::Bad => {
                let Some(block) = view::block(around.tables, replica.block)? else {
                    return Ok(());
                };
                self.propose_add(node, &replica, block.chaining_value, around)
            }
            Standing::Unowned => {
                let (block, generation) = (replica.block, replica.generation);
                self.drop_if_reachable(node, block, generation, DropReason::Unowned, around);
                Ok(())
            }
            // Of another length, if it is known at all: then its own check shows that it is bad.
            Standing::Contradiction => {
                self.verify(now, node, replica.block, replica.generation, around)
            }
            Standing::Good | Standing::BeingWritten => Ok(()),
        }
    }

    fn answered(
        &mut self,
        now: Uptime,
        (node, order): (NodeId, u64),
        end: OrderEnd,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if let Some(block) = self.drops.answered(order) {
            self.queue.unpark(block);
            return Ok(());
        }
        if end == OrderEnd::Done {
            return Ok(()); // A copy ends with the word of its target.
        }
        match self.tasks.get(order) {
            Some(task) if task.source == node && !task.is_stored => {
                self.fail_task(now, order, around)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn proposed(
        &mut self,
        now: Uptime,
        change: &Change,
        end: ProposalEnd,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        match change {
            Change::AddReplica(command) => {
                let (block, node) = (BlockId(command.block_id), NodeId(command.node_id));
                let task = self.end_task(block, node);
                if let Some(task) = task.filter(|_| end == ProposalEnd::Changed) {
                    self.progress.confirmed(now, task.bytes);
                    if task.reason == CopyReason::Balance {
                        self.move_arrived(task.bytes);
                    }
                }
                if end != ProposalEnd::Refused {
                    self.failed.remove(&block);
                }
                self.consider(block, around)
            }
            Change::RemoveReplica(command) => {
                let (block, node) = (BlockId(command.block_id), NodeId(command.node_id));
                self.doubted.remove(&(block, node));
                let why = match self.removing.entry(block) {
                    Entry::Occupied(entry) if entry.get().node() == node => match entry.remove() {
                        Removal::Surplus(_) => Some(DropReason::Surplus),
                        Removal::Drained(_) => Some(DropReason::Drained),
                        Removal::Bad(_) => Some(DropReason::Bad),
                        Removal::Gone(_) => None,
                    },
                    // Its node did not list it: it may have just found it bad, and keeps it in quarantine.
                    Entry::Occupied(_) | Entry::Vacant(_) => Some(DropReason::Bad),
                };
                self.move_left(now, block, node);
                if let Some(why) = why.filter(|_| end == ProposalEnd::Changed) {
                    let generation = Generation(command.generation);
                    self.drop_if_reachable(node, block, generation, why, around);
                }
                self.after_proposal(now, block, end, around)
            }
            Change::MarkBadReplica(command) => {
                let (block, node) = (BlockId(command.block_id), NodeId(command.node_id));
                self.doubted.remove(&(block, node));
                self.after_proposal(now, block, end, around)
            }
            Change::Mkdir(_)
            | Change::Create(_)
            | Change::AllocateBlock(_)
            | Change::CommitBlocks(_)
            | Change::Complete(_)
            | Change::RecoverBlock(_)
            | Change::Flush(_)
            | Change::Append(_)
            | Change::BeginRecovery(_)
            | Change::FinishRecovery(_)
            | Change::Abandon(_)
            | Change::ExpireLease(_)
            | Change::Rename(_)
            | Change::Delete(_)
            | Change::SetReplication(_)
            | Change::SetTimes(_)
            | Change::RegisterNode(_)
            | Change::CollectGarbage(_)
            | Change::ForgetRequests(_)
            | Change::SetNodeMode(_)
            | Change::Format(_) => Ok(()),
        }
    }

    /// Looks at the block again; a refused proposal is not repeated at once.
    fn after_proposal(
        &mut self,
        now: Uptime,
        block: BlockId,
        end: ProposalEnd,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        self.consider(block, around)?;
        if end == ProposalEnd::Refused {
            self.queue.park_ready(block, now + super::plan::RETRY_AFTER);
        }
        Ok(())
    }
}

/// The committed block, if it is of this generation.
pub(super) fn this_generation(
    id: BlockId,
    generation: Generation,
    around: &Surroundings<'_>,
) -> Result<Option<Block>, StoreError> {
    let block = view::block(around.tables, id)?;
    Ok(block.filter(|block| block.generation == generation))
}
