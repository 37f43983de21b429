//! Replicas that datanodes are told to drop or to verify.
//!
//! Drops are queued per node and handed out a bounded number at a time. One that is lost (a closed stream, a full
//! queue) is not made up for here: the node's inventory brings the replica up again. While a drop may still be
//! carried out its node gets no new replica of that block, and its inventory is not believed about it.

use std::collections::{BTreeMap, VecDeque};

use doldam_proto::id::{BlockId, Generation, NodeId};

use crate::engine::cluster::Uptime;

/// Most drops one node is working on.
pub const DROPS_ORDERED_MAX: usize = 4096;
/// Most drops that wait for one node.
pub const DROPS_WAITING_MAX: usize = 100_000;

/// Why a replica is to be dropped; each reason has its own condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its block is gone, or it never became part of its block.
    Unowned,
    /// There are more than wanted.
    Surplus,
    /// Its node is to be emptied, and there are enough others.
    Drained,
    /// It is bad or may be, and there is another that is not.
    Bad,
}

/// A replica to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drop {
    /// Of which block.
    pub block: BlockId,
    /// Of which generation.
    pub generation: Generation,
    /// Why.
    pub why: DropReason,
}

/// A node may have parts of one block under several generations.
type Key = (NodeId, BlockId, Generation);

/// All drops.
#[derive(Debug, Default)]
pub struct Drops {
    waiting: BTreeMap<NodeId, VecDeque<Drop>>,
    ordered: BTreeMap<Key, Ordered>,
    by_order: BTreeMap<u64, Key>,
}

#[derive(Debug)]
struct Ordered {
    order: u64,
    until: Uptime,
}

impl Drops {
    /// Queues a drop. Beyond the bound it is left to the node's inventory.
    pub fn push(&mut self, node: NodeId, drop: Drop) {
        let key = (node, drop.block, drop.generation);
        let queue = self.waiting.entry(node).or_default();
        if queue.len() < DROPS_WAITING_MAX && !self.ordered.contains_key(&key) {
            queue.push_back(drop);
        }
    }

    /// The next drop for `node`, unless it has enough to do.
    pub fn next_for(&mut self, node: NodeId) -> Option<Drop> {
        let first = (node, BlockId(0), Generation(0));
        let working = first..=(node, BlockId(u64::MAX), Generation(u64::MAX));
        if self.ordered.range(working).take(DROPS_ORDERED_MAX).count() == DROPS_ORDERED_MAX {
            return None;
        }
        let queue = self.waiting.get_mut(&node)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&node);
        }
        next
    }

    /// The drop was ordered; until `until` it may be carried out.
    pub fn ordered(&mut self, order: u64, node: NodeId, drop: &Drop, until: Uptime) {
        let key = (node, drop.block, drop.generation);
        self.ordered.insert(key, Ordered { order, until });
        self.by_order.insert(order, key);
    }

    /// The node answered an order; the block if it was a drop.
    pub fn answered(&mut self, order: u64) -> Option<BlockId> {
        let (node, block, generation) = self.by_order.remove(&order)?;
        self.ordered.remove(&(node, block, generation));
        Some(block)
    }

    /// The node said that it dropped a replica.
    pub fn dropped(&mut self, node: NodeId, block: BlockId, generation: Generation) {
        if let Some(ordered) = self.ordered.remove(&(node, block, generation)) {
            self.by_order.remove(&ordered.order);
        }
    }

    /// Forgets drops that can no longer be carried out.
    pub fn expire(&mut self, now: Uptime) {
        self.ordered.retain(|_, ordered| ordered.until > now);
        let ordered = &self.ordered;
        self.by_order.retain(|_, key| ordered.contains_key(key));
    }

    /// The node is gone: what waits for it is left to its inventory.
    pub fn forget_waiting(&mut self, node: NodeId) {
        self.waiting.remove(&node);
    }

    /// Whether `node` may be about to drop its replica of `block`.
    pub fn is_ordered(&self, node: NodeId, block: BlockId) -> bool {
        let of_block = (node, block, Generation(0))..=(node, block, Generation(u64::MAX));
        self.ordered.range(of_block).next().is_some()
    }

    /// Nodes for which drops wait.
    pub fn nodes_waiting(&self) -> Vec<NodeId> {
        self.waiting.keys().copied().collect()
    }

    /// All drops that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

/// Verifications that were ordered, so that many readers of one bad replica cause one check.
#[derive(Debug, Default)]
pub struct Verifications {
    until: BTreeMap<(NodeId, BlockId), Uptime>,
}

/// Most verifications under way in the whole cluster.
pub const VERIFICATIONS_MAX: usize = 10_000;

impl Verifications {
    /// Whether a verification may be ordered now; if so it counts as ordered until `until`.
    pub fn start(&mut self, now: Uptime, key: (NodeId, BlockId), until: Uptime) -> bool {
        if self.until.len() >= VERIFICATIONS_MAX {
            self.until.retain(|_, until| *until > now);
        }
        let is_under_way = self.until.get(&key).is_some_and(|until| *until > now);
        if is_under_way || self.until.len() >= VERIFICATIONS_MAX {
            return false;
        }
        self.until.insert(key, until);
        true
    }

    /// What was under way on a node ended with its stream.
    pub fn forget_node(&mut self, node: NodeId) {
        self.until.retain(|(other, _), _| *other != node);
    }

    /// The check of a replica ended.
    pub fn end(&mut self, node: NodeId, block: BlockId) {
        self.until.remove(&(node, block));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NODE: NodeId = NodeId(1);
    const BLOCK: BlockId = BlockId(7);
    const UNTIL: Duration = Duration::from_mins(1);

    fn drop_of(block: BlockId, generation: u64) -> Drop {
        Drop { block, generation: Generation(generation), why: DropReason::Unowned }
    }

    #[test]
    fn a_node_works_on_a_bounded_number_of_drops() {
        let mut drops = Drops::default();
        for block in 0..=DROPS_ORDERED_MAX as u64 {
            drops.push(NODE, drop_of(BlockId(block), 1));
        }
        for order in 0..DROPS_ORDERED_MAX as u64 {
            let next = drops.next_for(NODE).unwrap();
            drops.ordered(order, NODE, &next, UNTIL);
        }
        assert_eq!(drops.next_for(NODE), None);
        assert_eq!((drops.answered(0), drops.answered(0)), (Some(BlockId(0)), None));
        assert_eq!(drops.next_for(NODE).unwrap().block, BlockId(DROPS_ORDERED_MAX as u64));
        assert_eq!(drops.waiting(), 0);
    }

    #[test]
    fn a_drop_may_be_carried_out_until_it_is_reported_or_its_time_is_up() {
        let mut drops = Drops::default();
        drops.ordered(1, NODE, &drop_of(BLOCK, 1), UNTIL);
        drops.expire(UNTIL.saturating_sub(Duration::from_nanos(1)));
        assert!(drops.is_ordered(NODE, BLOCK));
        drops.expire(UNTIL);
        assert!(!drops.is_ordered(NODE, BLOCK));
        drops.ordered(2, NODE, &drop_of(BLOCK, 1), UNTIL);
        drops.dropped(NODE, BLOCK, Generation(1));
        assert!(!drops.is_ordered(NODE, BLOCK) && drops.answered(2).is_none());
    }

    #[test]
    fn each_generation_is_dropped_by_itself() {
        let mut drops = Drops::default();
        drops.ordered(1, NODE, &drop_of(BLOCK, 1), UNTIL);
        drops.push(NODE, drop_of(BLOCK, 1));
        assert_eq!(drops.next_for(NODE), None, "it is under way");
        drops.push(NODE, drop_of(BLOCK, 2));
        let next = drops.next_for(NODE).unwrap();
        drops.ordered(2, NODE, &next, UNTIL);
        assert!(drops.answered(1).is_some() && drops.is_ordered(NODE, BLOCK), "the other is");
        assert!(drops.answered(2).is_some() && !drops.is_ordered(NODE, BLOCK));
    }

    #[test]
    fn many_reports_of_one_replica_cause_one_check_at_a_time() {
        let mut checks = Verifications::default();
        assert!(checks.start(Duration::ZERO, (NODE, BLOCK), UNTIL));
        assert!(!checks.start(Duration::ZERO, (NODE, BLOCK), UNTIL));
        assert!(checks.start(UNTIL, (NODE, BLOCK), UNTIL * 2), "the first one was lost");
        checks.end(NODE, BLOCK);
        assert!(checks.start(UNTIL, (NODE, BLOCK), UNTIL * 2));
    }
}
