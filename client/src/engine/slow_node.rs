//! Decides whether one datanode of a pipeline is so slow that the write goes on without it.
//!
//! Not by a rate that somebody thinks a disk should have: by how it does beside the others of the same pipeline. Each
//! says now and then how many bytes it has taken, how long it was busy verifying and writing them, and how long it
//! was held up handing them to the next. From two such reports follows, for the time between them:
//!
//! * the *potential* of a node: its bytes, over the time it was busy with them, or over the time that the link to it
//!   took if that is more. A link took as long as the node before was held up, less what the node itself did in that
//!   time: forwarding and storing, for which it may have let the one before wait.
//! * whether it *limits* the pipeline: it was busy, or its link was, for most of the time. A node that is slow but
//!   mostly idle, since the application writes little, costs nothing.
//!
//! A node is to be left out if it limits the pipeline and its potential is below a fraction of the median of the
//! others', over a whole period. Both the fraction and the period are settings.

use std::time::Duration;

use doldam_proto::id::NodeId;

/// Fewer bytes than these in a period say nothing: one frame.
const BYTES_MIN: u64 = 1 << 20;

/// When a node is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlowNodeLimits {
    /// How many times slower than the median of the others; 0: no node ever is.
    pub(crate) factor: u32,
    /// For how long, at least.
    pub(crate) period: Duration,
}

/// What a node says of its work on one stream so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) node: NodeId,
    pub(crate) bytes: u64,
    pub(crate) store: Duration,
    pub(crate) forward: Duration,
}

/// A node that is slow, and by how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowNode {
    pub(crate) node: NodeId,
    /// Bytes a second, and the median of the others'.
    pub(crate) rate: u64,
    pub(crate) others: u64,
}

/// The timings of one pipeline.
#[derive(Debug)]
pub(crate) struct SlowNodeWatch {
    limits: SlowNodeLimits,
    /// When the period began, since the stream did, and what the nodes had done by then.
    start: Option<(Duration, Vec<Timing>)>,
}

/// What one node did in a period.
struct Work {
    node: NodeId,
    bytes: u64,
    /// How long it, or the link to it, needed for them.
    needed: Duration,
}

impl Work {
    fn rate(&self) -> u64 {
        let micros = self.needed.as_micros().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

impl SlowNodeWatch {
    /// Nothing is known yet.
    pub(crate) fn new(limits: SlowNodeLimits) -> Self {
        Self { limits, start: None }
    }

    /// Takes what all nodes of the pipeline say, in its order, at `now` since the stream began; returns who is to be
    /// left out.
    pub(crate) fn handle(&mut self, now: Duration, timings: &[Timing]) -> Option<SlowNode> {
        if self.limits.factor == 0 || timings.len() < 2 {
            return None;
        }
        let same = |before: &[Timing]| {
            before.iter().map(|timing| timing.node).eq(timings.iter().map(|timing| timing.node))
        };
        let Some((since, before)) = self.start.take_if(|(_, before)| same(before)) else {
            self.start = Some((now, timings.to_vec()));
            return None;
        };
        let elapsed = now.saturating_sub(since);
        let work = work(&before, timings);
        let few = work.iter().any(|work| work.bytes < BYTES_MIN);
        if elapsed < self.limits.period || few {
            self.start = Some((since, before));
            return None;
        }
        self.start = Some((now, timings.to_vec()));
        judge(&work, elapsed, self.limits.factor)
    }
}

fn work(before: &[Timing], after: &[Timing]) -> Vec<Work> {
    let mut held_up = Duration::ZERO;
    let mut work = Vec::with_capacity(after.len());
    for (before, after) in before.iter().zip(after) {
        let store = after.store.saturating_sub(before.store);
        let forward = after.forward.saturating_sub(before.forward);
        let link = held_up.saturating_sub(store + forward);
        work.push(Work {
            node: after.node,
            bytes: after.bytes.saturating_sub(before.bytes),
            needed: store.max(link),
        });
        held_up = forward;
    }
    work
}

/// The slowest, if it is the one that holds the others up.
fn judge(work: &[Work], elapsed: Duration, factor: u32) -> Option<SlowNode> {
    let slowest = work.iter().min_by_key(|work| work.rate())?;
    if slowest.needed * 2 < elapsed {
        return None;
    }
    let mut others: Vec<u64> =
        work.iter().filter(|work| work.node != slowest.node).map(Work::rate).collect();
    others.sort_unstable();
    // Of two, the slower.
    let median = *others.get(others.len().checked_sub(1)? / 2)?;
    let rate = slowest.rate();
    let slow = rate.saturating_mul(u64::from(factor)) < median;
    slow.then_some(SlowNode { node: slowest.node, rate, others: median })
}

#[cfg(test)]
#[path = "slow_node_test.rs"]
mod tests;
