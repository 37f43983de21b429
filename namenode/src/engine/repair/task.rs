//! Copies that were ordered: whose they are, until when, and whether they arrived.
//!
//! A task is owned by its source, which got the order. It ends when its new replica is part of the block's set, when
//! a node says that it failed, when a node it needs leaves, or at its deadline. Until then it counts as a replica to
//! come, so that nothing is ordered twice.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::id::{BlockId, NodeId};

use crate::engine::cluster::Uptime;

/// What a copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyReason {
    /// There are too few replicas.
    Repair,
    /// A holder is draining.
    Drain,
    /// A holder may go away for a while.
    Maintenance,
    /// All replicas are on one rack.
    Spread,
    /// A node is fuller than others.
    Balance,
}

/// One ordered copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyTask {
    /// Of which block.
    pub block: BlockId,
    /// Who was told to send.
    pub source: NodeId,
    /// Who is to receive.
    pub target: NodeId,
    /// How much.
    pub bytes: u64,
    /// What for.
    pub reason: CopyReason,
    /// Since when.
    pub started: Uptime,
    /// When to give up.
    pub until: Uptime,
    /// The target has stored it, and the change of the set is under way.
    pub is_stored: bool,
}

/// All ordered copies, by the id of their order.
#[derive(Debug, Default)]
pub struct Tasks {
    copies: BTreeMap<u64, CopyTask>,
    by_block: BTreeMap<BlockId, BTreeSet<u64>>,
    by_until: BTreeSet<(Uptime, u64)>,
}

impl Tasks {
    /// A copy was ordered.
    pub fn start(&mut self, order: u64, task: CopyTask) {
        self.by_block.entry(task.block).or_default().insert(order);
        self.by_until.insert((task.until, order));
        self.copies.insert(order, task);
    }

    /// The copy is over; `None` if it was before.
    pub fn end(&mut self, order: u64) -> Option<CopyTask> {
        let task = self.copies.remove(&order)?;
        self.by_until.remove(&(task.until, order));
        if let Some(orders) = self.by_block.get_mut(&task.block) {
            orders.remove(&order);
            if orders.is_empty() {
                self.by_block.remove(&task.block);
            }
        }
        Some(task)
    }

    /// Notes that the target has stored it; the task if that is news.
    pub fn mark_stored(&mut self, block: BlockId, target: NodeId) -> Option<CopyTask> {
        let order = self.find(block, target)?;
        let task = self.copies.get_mut(&order).filter(|task| !task.is_stored)?;
        task.is_stored = true;
        Some(*task)
    }

    /// The order by which `target` is to get `block`.
    pub fn find(&self, block: BlockId, target: NodeId) -> Option<u64> {
        let orders = self.by_block.get(&block)?;
        let is_it = |order: &&u64| self.copies.get(order).is_some_and(|task| task.target == target);
        orders.iter().find(is_it).copied()
    }

    /// The task of an order.
    pub fn get(&self, order: u64) -> Option<&CopyTask> {
        self.copies.get(&order)
    }

    /// Copies of `block` under way.
    pub fn of_block(&self, block: BlockId) -> impl Iterator<Item = &CopyTask> {
        let orders = self.by_block.get(&block).into_iter().flatten();
        orders.filter_map(|order| self.copies.get(order))
    }

    /// Orders of copies of `block`.
    pub fn orders_of_block(&self, block: BlockId) -> impl Iterator<Item = u64> {
        self.by_block.get(&block).into_iter().flatten().copied()
    }

    /// Orders whose source or target is `node`.
    pub fn of_node(&self, node: NodeId) -> Vec<u64> {
        let has_part = |task: &CopyTask| task.source == node || task.target == node;
        self.copies.iter().filter(|(_, task)| has_part(task)).map(|(order, _)| *order).collect()
    }

    /// Orders whose time is up at `now`.
    pub fn due(&self, now: Uptime) -> Vec<u64> {
        self.by_until.iter().take_while(|(until, _)| *until <= now).map(|(_, id)| *id).collect()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &CopyTask> {
        self.copies.values()
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const UNTIL: Duration = Duration::from_secs(9);

    fn copy(block: u64, source: u32, target: u32) -> CopyTask {
        let (source, target) = (NodeId(source), NodeId(target));
        let (block, reason, started) = (BlockId(block), CopyReason::Repair, Duration::ZERO);
        let (bytes, until) = (5, UNTIL);
        CopyTask { block, source, target, bytes, reason, started, until, is_stored: false }
    }

    #[test]
    fn a_task_is_found_by_block_node_and_deadline_until_it_ends() {
        let mut tasks = Tasks::default();
        tasks.start(1, copy(7, 1, 2));
        tasks.start(2, copy(7, 1, 3));
        assert_eq!(tasks.of_block(BlockId(7)).count(), 2);
        assert_eq!(tasks.of_node(NodeId(1)), [1, 2]);
        assert_eq!(tasks.of_node(NodeId(3)), [2]);
        assert!(tasks.due(UNTIL.saturating_sub(Duration::from_nanos(1))).is_empty());
        assert_eq!(tasks.due(UNTIL), [1, 2]);
        assert_eq!(tasks.end(1), Some(copy(7, 1, 2)));
        assert_eq!(tasks.end(1), None);
        assert_eq!(tasks.due(UNTIL), [2]);
        assert_eq!(tasks.find(BlockId(7), NodeId(2)), None);
    }

    #[test]
    fn a_stored_replica_is_news_once() {
        let mut tasks = Tasks::default();
        tasks.start(1, copy(7, 1, 2));
        assert!(tasks.mark_stored(BlockId(7), NodeId(3)).is_none());
        assert!(tasks.mark_stored(BlockId(7), NodeId(2)).is_some());
        assert!(tasks.mark_stored(BlockId(7), NodeId(2)).is_none());
        assert_eq!(tasks.len(), 1);
    }
}
