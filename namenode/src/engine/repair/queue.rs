//! The blocks that are not as they should be, the nearest to loss first.
//!
//! Each is in one place: *ready* to be looked at, *blocked* until a certain node has budget again, *parked* until a
//! time because nothing could be done, or *watched* because something is under way or only time will tell. A block
//! that cannot be helped thus never stands before one that can. The number of tracked blocks is bounded: when it is
//! reached, the least urgent give way and [`overflowed`](RepairQueue::take_overflowed) says that the durable state
//! must be scanned again later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use doldam_proto::id::BlockId;

use super::assess::Health;
use super::budget::Hand;
use crate::engine::cluster::Uptime;

/// What is tracked.
#[derive(Debug)]
pub struct RepairQueue {
    tracked_max: usize,
    blocks: BTreeMap<BlockId, Tracked>,
    ready: BTreeSet<(usize, BlockId)>,
    blocked: BTreeSet<(Hand, usize, BlockId)>,
    parked: BTreeSet<(Uptime, BlockId)>,
    counts: Counts,
    at_risk: BTreeMap<usize, u64>,
    todo_bytes: u64,
    overflowed: bool,
}

/// How many tracked blocks are in what condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// With fewer live good replicas than wanted.
    pub under_replicated: u64,
    /// Without any live good replica.
    pub missing: u64,
    /// With a bad replica.
    pub corrupt: u64,
}

#[derive(Debug, Clone, Copy)]
struct Tracked {
    health: Health,
    place: Place,
    failures: u32,
}

/// Where a tracked block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To be looked at.
    Ready,
    /// Waits for budget.
    Blocked(Hand),
    /// Waits for this time.
    Parked(Uptime),
    /// Something is under way, or only time will tell.
    Watched,
}

impl RepairQueue {
    /// Tracks at most `tracked_max` blocks.
    pub fn new(tracked_max: usize) -> Self {
        Self {
            tracked_max,
            blocks: BTreeMap::new(),
            ready: BTreeSet::new(),
            blocked: BTreeSet::new(),
            parked: BTreeSet::new(),
            counts: Counts::default(),
            at_risk: BTreeMap::new(),
            todo_bytes: 0,
            overflowed: false,
        }
    }

    /// There is something to do for the block.
    pub fn make_ready(&mut self, block: BlockId, health: Health) {
        self.set(block, health, Place::Ready);
    }

    /// The block waits for budget of this node in this direction.
    pub fn block_on(&mut self, block: BlockId, health: Health, hand: Hand) {
        self.set(block, health, Place::Blocked(hand));
    }

    /// Nothing can be done for the block before `until`, unless something changes.
    pub fn park(&mut self, block: BlockId, health: Health, until: Uptime) {
        self.set(block, health, Place::Parked(until));
    }

    /// The block is counted, and what happens next comes from outside.
    pub fn watch(&mut self, block: BlockId, health: Health) {
        self.set(block, health, Place::Watched);
    }

    /// Nothing is wrong with the block any more, or it is gone.
    pub fn forget(&mut self, block: BlockId) {
        if let Some(tracked) = self.blocks.remove(&block) {
            self.leave(block, tracked);
        }
    }

    /// Takes the most urgent ready block; it is watched until it is put elsewhere.
    pub fn pop_ready(&mut self) -> Option<BlockId> {
        let (_, block) = self.ready.pop_first()?;
        if let Some(tracked) = self.blocks.get_mut(&block) {
            tracked.place = Place::Watched;
        }
        Some(block)
    }

    /// A node has budget again: the `count` most urgent of the blocks that wait for it are ready.
    pub fn unblock(&mut self, hand: Hand, count: usize) {
        let waiting = self.blocked.range((hand, 0, BlockId(0))..);
        let waiting = waiting.take_while(|(other, _, _)| *other == hand).take(count);
        let blocks: Vec<BlockId> = waiting.map(|(_, _, block)| *block).collect();
        for block in blocks {
            self.wake(block);
        }
    }

    /// What blocks wait for.
    pub fn hands(&self) -> Vec<Hand> {
        let mut hands = Vec::new();
        let mut next = self.blocked.first();
        while let Some((hand, _, _)) = next {
            hands.push(*hand);
            let after = (*hand, usize::MAX, BlockId(u64::MAX));
            next = self.blocked.range((Bound::Excluded(after), Bound::Unbounded)).next();
        }
        hands
    }

    /// What was parked until `now` or earlier is ready.
    pub fn unpark_due(&mut self, now: Uptime) {
        while let Some((_, block)) = self.parked.first().copied().filter(|(until, _)| *until <= now)
        {
            self.wake(block);
        }
    }

    /// If the block is parked, it is ready now.
    pub fn unpark(&mut self, block: BlockId) {
        if self.is_parked(block) {
            self.wake(block);
        }
    }

    /// Counts another failed attempt for the block, and answers how many there were.
    pub fn count_failure(&mut self, block: BlockId) -> u32 {
        let Some(tracked) = self.blocks.get_mut(&block) else { return 1 };
        tracked.failures = tracked.failures.saturating_add(1);
        tracked.failures
    }

    /// Whether the block waits for its time.
    pub fn is_parked(&self, block: BlockId) -> bool {
        self.blocks.get(&block).is_some_and(|tracked| matches!(tracked.place, Place::Parked(_)))
    }

    /// If the block is ready, it is so only from `until` on.
    pub fn park_ready(&mut self, block: BlockId, until: Uptime) {
        let tracked = self.blocks.get(&block).copied();
        if let Some(tracked) = tracked.filter(|tracked| tracked.place == Place::Ready) {
            self.set(block, tracked.health, Place::Parked(until));
        }
    }

    /// Up to `count` tracked blocks after `after`, in order of ids.
    pub fn tracked_after(&self, after: BlockId, count: usize) -> Vec<BlockId> {
        let from = (Bound::Excluded(after), Bound::Unbounded);
        self.blocks.range(from).map(|(block, _)| *block).take(count).collect()
    }

    /// Whether a block is ready.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Blocks that wait for a copy or removal.
    pub fn waiting(&self) -> usize {
        self.ready.len() + self.blocked.len() + self.parked.len()
    }

    /// Blocks that something is to be done for at once, or as soon as there is budget.
    pub fn waiting_at_once(&self) -> usize {
        self.ready.len() + self.blocked.len()
    }

    /// Where the block is, and how often it failed; `None` if it is not tracked.
    pub fn place(&self, block: BlockId) -> Option<(Place, u32)> {
        self.blocks.get(&block).map(|tracked| (tracked.place, tracked.failures))
    }

    /// Up to `count` of the blocks that wait, the nearest to loss first.
    pub fn nearest_to_loss(&self, count: usize) -> Vec<BlockId> {
        let waits = |tracked: &Tracked| match tracked.place {
            Place::Ready | Place::Blocked(_) | Place::Parked(_) => true,
            Place::Watched => tracked.health.is_missing(),
        };
        let waiting = self.blocks.iter().filter(|(_, tracked)| waits(tracked));
        let mut nearest: Vec<(usize, BlockId)> = Vec::new();
        for (block, tracked) in waiting {
            nearest.push((tracked.health.live, *block));
            if nearest.len() >= 2 * count.max(1) {
                nearest.sort_unstable();
                nearest.truncate(count);
            }
        }
        nearest.sort_unstable();
        nearest.into_iter().take(count).map(|(_, block)| block).collect()
    }

    /// How many tracked blocks have how many live good replicas, of those that have too few.
    pub fn at_risk(&self) -> &BTreeMap<usize, u64> {
        &self.at_risk
    }

    /// Bytes of the copies that tracked blocks need.
    pub fn todo_bytes(&self) -> u64 {
        self.todo_bytes
    }

    /// The conditions of all tracked blocks.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether blocks had to give way since the last call.
    pub fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    fn wake(&mut self, block: BlockId) {
        if let Some(tracked) = self.blocks.get(&block).copied() {
            self.set(block, tracked.health, Place::Ready);
        }
    }

    fn set(&mut self, block: BlockId, health: Health, place: Place) {
        let mut failures = 0;
        if let Some(before) = self.blocks.remove(&block) {
            failures = before.failures;
            self.leave(block, before);
        } else if self.blocks.len() >= self.tracked_max && !self.make_room(health) {
            return;
        }
        match place {
            Place::Ready => _ = self.ready.insert((health.live, block)),
            Place::Blocked(hand) => _ = self.blocked.insert((hand, health.live, block)),
            Place::Parked(until) => _ = self.parked.insert((until, block)),
            Place::Watched => {}
        }
        self.counts.add(health);
        self.todo_bytes = self.todo_bytes.saturating_add(health.todo_bytes);
        if health.is_under_replicated() {
            *self.at_risk.entry(health.live).or_default() += 1;
        }
        self.blocks.insert(block, Tracked { health, place, failures });
    }

    /// Lets the least urgent ready block give way to one with this health, if that is more urgent.
    fn make_room(&mut self, health: Health) -> bool {
        self.overflowed = true;
        match self.ready.last().copied() {
            Some((live, block)) if live > health.live => {
                self.forget(block);
                true
            }
            Some(_) | None => false,
        }
    }

    fn leave(&mut self, block: BlockId, tracked: Tracked) {
        match tracked.place {
            Place::Ready => _ = self.ready.remove(&(tracked.health.live, block)),
            Place::Blocked(hand) => {
                self.blocked.remove(&(hand, tracked.health.live, block));
            }
            Place::Parked(until) => _ = self.parked.remove(&(until, block)),
            Place::Watched => {}
        }
        let health = tracked.health;
        self.counts.remove(health);
        self.todo_bytes = self.todo_bytes.saturating_sub(health.todo_bytes);
        if health.is_under_replicated()
            && let Some(blocks) = self.at_risk.get_mut(&health.live)
        {
            *blocks -= 1;
            if *blocks == 0 {
                self.at_risk.remove(&health.live);
            }
        }
    }
}

impl Counts {
    fn add(&mut self, health: Health) {
        self.under_replicated += u64::from(health.is_under_replicated());
        self.missing += u64::from(health.is_missing());
        self.corrupt += u64::from(health.is_corrupt());
    }

    fn remove(&mut self, health: Health) {
        self.under_replicated -= u64::from(health.is_under_replicated());
        self.missing -= u64::from(health.is_missing());
        self.corrupt -= u64::from(health.is_corrupt());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doldam_proto::id::NodeId;

    use super::*;

    fn live(live: usize) -> Health {
        Health { live, wanted: 3, bad: 0, todo_bytes: 10 }
    }

    fn drain(queue: &mut RepairQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop_ready()).map(|block| block.0).collect()
    }

    #[test]
    fn the_block_nearest_to_loss_comes_first_then_the_order_of_ids() {
        let mut queue = RepairQueue::new(10);
        for (block, replicas) in [(1, 2), (2, 1), (3, 2), (4, 1)] {
            queue.make_ready(BlockId(block), live(replicas));
        }
        queue.make_ready(BlockId(3), live(1));
        assert_eq!(drain(&mut queue), [2, 3, 4, 1]);
    }

    #[test]
    fn a_parked_block_is_ready_at_its_time_and_not_before() {
        let mut queue = RepairQueue::new(10);
        let until = Duration::from_secs(5);
        queue.park(BlockId(1), live(1), until);
        queue.unpark_due(until.saturating_sub(Duration::from_nanos(1)));
        assert!(!queue.has_ready() && queue.is_parked(BlockId(1)));
        assert_eq!(queue.waiting(), 1);
        queue.unpark_due(until);
        assert_eq!(drain(&mut queue), [1]);
    }

    #[test]
    fn budget_wakes_the_most_urgent_of_the_blocks_that_wait_for_it() {
        let mut queue = RepairQueue::new(10);
        let (one, other) = (Hand::Sends(NodeId(1)), Hand::Receives(NodeId(1)));
        for (block, replicas, hand) in [(1, 2, one), (2, 1, one), (3, 1, one), (4, 1, other)] {
            queue.block_on(BlockId(block), live(replicas), hand);
        }
        assert_eq!(queue.hands(), [one, other]);
        queue.unblock(one, 2);
        assert_eq!(drain(&mut queue), [2, 3]);
        queue.unblock(other, 2);
        assert_eq!(drain(&mut queue), [4]);
        assert_eq!(queue.hands(), [one]);
    }

    #[test]
    fn counts_follow_every_change_of_health() {
        let mut queue = RepairQueue::new(10);
        queue.watch(BlockId(1), live(0));
        queue.make_ready(BlockId(2), Health { live: 3, wanted: 3, bad: 1, todo_bytes: 0 });
        let counts = Counts { under_replicated: 1, missing: 1, corrupt: 1 };
        assert_eq!(queue.counts(), counts);
        assert_eq!((queue.at_risk(), queue.todo_bytes()), (&BTreeMap::from([(0, 1)]), 10));
        queue.make_ready(BlockId(1), live(1));
        assert_eq!(queue.counts(), Counts { missing: 0, ..counts });
        queue.forget(BlockId(1));
        queue.forget(BlockId(2));
        assert_eq!(queue.counts(), Counts::default());
        assert_eq!((queue.at_risk(), queue.todo_bytes()), (&BTreeMap::new(), 0));
    }

    #[test]
    fn those_that_wait_are_told_the_nearest_to_loss_first() {
        let mut queue = RepairQueue::new(10);
        for (block, replicas) in [(1, 2), (2, 1), (3, 2), (4, 0), (5, 1)] {
            queue.make_ready(BlockId(block), live(replicas));
        }
        queue.park(BlockId(2), live(1), Duration::from_secs(1));
        queue.watch(BlockId(4), live(0));
        queue.watch(BlockId(5), live(1));
        let nearest = |count| queue.nearest_to_loss(count).into_iter().map(|id| id.0).collect();
        let (all, two, none): (Vec<u64>, Vec<u64>, Vec<u64>) = (nearest(9), nearest(2), nearest(0));
        assert_eq!((all, two, none), (vec![4, 2, 1, 3], vec![4, 2], Vec::new()));
    }

    #[test]
    fn at_the_bound_the_least_urgent_give_way_and_it_is_said() {
        let mut queue = RepairQueue::new(2);
        queue.make_ready(BlockId(1), live(2));
        queue.make_ready(BlockId(2), live(2));
        assert!(!queue.take_overflowed());
        queue.make_ready(BlockId(3), live(2));
        assert!(queue.take_overflowed());
        queue.make_ready(BlockId(4), live(1));
        assert_eq!(drain(&mut queue), [4, 1]);
    }

    #[test]
    fn failures_are_counted_until_the_block_is_forgotten() {
        let mut queue = RepairQueue::new(2);
        queue.make_ready(BlockId(1), live(2));
        assert_eq!(queue.count_failure(BlockId(1)), 1);
        queue.park(BlockId(1), live(2), Duration::ZERO);
        assert_eq!(queue.count_failure(BlockId(1)), 2);
        queue.forget(BlockId(1));
        queue.make_ready(BlockId(1), live(2));
        assert_eq!(queue.count_failure(BlockId(1)), 1);
    }
}
