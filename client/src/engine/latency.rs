//! What each datanode has shown of itself to this client, and the order in which replicas are tried.
//!
//! Glossary: the *cost* of a node is the time it is expected to take for its first byte and a MiB after it; its
//! *class* says how much that is above the best of the replicas at hand: 0 up to twice as much, then one more with
//! each doubling. Nodes of one class are equal, and the order of the namenode (at random) decides, or all readers
//! would press upon the one node that was fastest once.
//!
//! A node that was slow once gets another chance: what it costs above the best halves with every [`HALF_LIFE`] in
//! which nothing was read from it. One that failed or fell silent is *held*: tried last, for a time that doubles while
//! it goes on like that. One that does not even answer a writer that asks is *shunned* for as long: it gets no new
//! blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::NodeId;
use doldam_proto::node::{Nearness, NodeAddress, NodeState};
use doldam_runtime::clock::Uptime;

/// Nodes remembered; beyond these the one heard of least lately is forgotten.
const NODES_MAX: usize = 1024;
/// In how much time half of what a node costs more than others is forgiven.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// How long a node that failed is tried last, at first and at the most.
const HOLD_MIN: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(80);
/// Less than this makes no difference between nodes.
const SLACK_MICROS: u64 = 1_000;
/// A new sample counts for one part in so many.
const SAMPLE_SHARE: u64 = 4;
/// Shorter pieces say nothing about throughput.
const PIECE_BYTES_MIN: u64 = 256 << 10;

/// What is known of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    nodes: BTreeMap<NodeId, Seen>,
}

/// What is known of one node; times in microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// From the request to the first byte of the answer.
    first_byte: Option<u64>,
    /// For a MiB, once it flows.
    mebibyte: Option<u64>,
    /// Of the last sample.
    at: Uptime,
    /// Failures since it last delivered.
    failures: u32,
    /// Tried last until then.
    held_until: Uptime,
    /// Gets no new blocks until then.
    shunned_until: Uptime,
}

/// What decides the order, the first field first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    held: bool,
    state: NodeState,
    nearness: Nearness,
    class: u32,
}

impl Latencies {
    /// `node` answered a request: its first byte came after `took`.
    pub(crate) fn answered(&mut self, node: NodeId, took: Duration, now: Uptime) {
        let seen = self.seen(node, now);
        add_sample(&mut seen.first_byte, micros(took));
    }

    /// `node` delivered `bytes` verified bytes; of a piece in the middle of a stream also how long it was waited for.
    pub(crate) fn delivered(
        &mut self,
        node: NodeId,
        bytes: u64,
        took: Option<Duration>,
        now: Uptime,
    ) {
        let seen = self.seen(node, now);
        (seen.failures, seen.held_until, seen.shunned_until) = (0, Uptime::ZERO, Uptime::ZERO);
        if let Some(took) = took.filter(|_| bytes >= PIECE_BYTES_MIN) {
            add_sample(&mut seen.mebibyte, micros(took).saturating_mul(1 << 20) / bytes);
        }
    }

    /// `node` failed, or was silent for longer than others are.
    pub(crate) fn failed(&mut self, node: NodeId, now: Uptime) {
        let seen = self.seen(node, now);
        let doubled = HOLD_MIN.saturating_mul(1 << seen.failures.min(16));
        seen.failures = seen.failures.saturating_add(1);
        seen.held_until = now + doubled.min(HOLD_MAX);
    }

    /// `node` did not even answer when a writer asked whether it is alive.
    pub(crate) fn stuck(&mut self, node: NodeId, now: Uptime) {
        self.failed(node, now);
        let seen = self.seen(node, now);
        seen.shunned_until = seen.held_until;
    }

    /// Nodes that did not answer a short time ago, and have delivered nothing since.
    pub(crate) fn shunned(&self, now: Uptime) -> Vec<NodeId> {
        let shunned = self.nodes.iter().filter(|(_, seen)| now < seen.shunned_until);
        shunned.map(|(node, _)| *node).collect()
    }

    /// Whether `node` failed or fell silent a short time ago.
    pub(crate) fn is_held(&self, node: NodeId, now: Uptime) -> bool {
        self.nodes.get(&node).is_some_and(|seen| now < seen.held_until)
    }

    /// Sorts the replicas of a block, the best first; where nothing speaks for either of two, as they were.
    pub(crate) fn order(
        &self,
        replicas: &mut [NodeAddress],
        nearness: impl Fn(&NodeAddress) -> Nearness,
        now: Uptime,
    ) {
        let known = |node: &NodeAddress| self.nodes.get(&node.id);
        let least = |part: fn(&Seen) -> Option<u64>| {
            replicas.iter().filter_map(|node| part(known(node)?)).min().unwrap_or(0)
        };
        let (first_byte, mebibyte) = (least(|seen| seen.first_byte), least(|seen| seen.mebibyte));
        let best = first_byte + mebibyte;
        let class = |node: &NodeAddress| {
            let Some(seen) = known(node) else { return 0 };
            // What was never measured is taken to be good.
            let cost = seen.first_byte.unwrap_or(first_byte) + seen.mebibyte.unwrap_or(mebibyte);
            let excess = cost.saturating_sub(best);
            let halvings = now.saturating_sub(seen.at).as_micros() / HALF_LIFE.as_micros();
            let excess = u32::try_from(halvings).ok().and_then(|by| excess.checked_shr(by));
            class_of(excess.unwrap_or(0), best)
        };
        replicas.sort_by_cached_key(|node| Rank {
            held: self.is_held(node.id, now),
            state: node.state,
            nearness: nearness(node),
            class: class(node),
        });
    }

    /// What is known of `node`, which is heard of now.
    fn seen(&mut self, node: NodeId, now: Uptime) -> &mut Seen {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
            let oldest = self.nodes.iter().min_by_key(|(_, seen)| seen.at).map(|(id, _)| *id);
            oldest.map(|id| self.nodes.remove(&id));
        }
        let seen = self.nodes.entry(node).or_default();
        seen.at = now;
        seen
    }
}

/// 0 up to twice the best (or the best and some slack), one more with each doubling from there.
fn class_of(excess: u64, best: u64) -> u32 {
    let tolerated = best.max(SLACK_MICROS);
    if excess <= tolerated { 0 } else { 1 + (excess / tolerated).ilog2() }
}

fn micros(time: Duration) -> u64 {
    // Longer than any deadline: an hour is as bad as a year, and sums stay in range.
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(3_600_000_000)
}

fn add_sample(average: &mut Option<u64>, sample: u64) {
    *average = Some(match *average {
        Some(before) => (before * (SAMPLE_SHARE - 1) + sample) / SAMPLE_SHARE,
        None => sample,
    });
}

#[cfg(test)]
#[path = "latency_test.rs"]
mod tests;
