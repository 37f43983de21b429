//! Decides which replica of a block is read next, which one is asked beside it when it is silent, and when there is
//! none left to try.
//!
//! Replicas come in the order in which they are to be tried ([`super::latency`]). One that fails without having
//! delivered anything since it was last turned to is out; one that delivered first goes to the end of the line, since
//! a connection may break for a reader that paused. So every turn either makes progress or shortens the line, and the
//! plan always ends. When the line is empty the locations are asked for again, once; after that the plan gives up with
//! the cause at each node.
//!
//! While a piece is waited for, a *second* replica may be asked beside the *current* one. The first that delivers is
//! the current one from there on, and the other goes back into the line. There are never more than these two.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use doldam_proto::id::NodeId;
use doldam_proto::node::NodeAddress;

use crate::error::NodeFailure;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadStep {
    /// Read on from this replica.
    Read(NodeAddress),
    /// Ask the namenode where the block is now, then [`ReadPlan::relocate`].
    Relocate,
    /// No replica is left.
    GiveUp(Vec<NodeFailure>),
}

/// Which of the replicas that are asked at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one being read.
    Current,
    /// The one asked beside it.
    Second,
}

/// What to do about a replica that is late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LateStep {
    /// Ask this one as well.
    Hedge(NodeAddress),
    /// Both that are asked are late: give up the current one, go on with the second, and ask this one beside it.
    Replace(NodeAddress),
    /// Give up the current one and turn to the next: it is known not to answer, and no hedge is left.
    Leave,
    /// Go on waiting.
    Wait,
}

/// Why a replica is given up that did nothing wrong but say nothing.
pub(crate) fn silence(silent_for: Duration) -> String {
    format!("sent nothing within {silent_for:?}")
}

/// The replicas of one block in the order in which they are tried.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    line: VecDeque<NodeAddress>,
    current: Option<Turn>,
    second: Option<Turn>,
    failures: Vec<NodeFailure>,
    /// Whose data was wrong: never tried again, whatever the namenode says.
    bad: BTreeSet<NodeId>,
    relocated: bool,
}

/// A replica that was turned to.
#[derive(Debug, Clone)]
struct Turn {
    node: NodeAddress,
    /// Whether it has delivered since.
    progressed: bool,
}

impl Turn {
    fn to(node: NodeAddress) -> Self {
        Self { node, progressed: false }
    }
}

impl ReadPlan {
    /// A plan for a block with these `replicas`, best first.
    pub(crate) fn new(replicas: Vec<NodeAddress>) -> Self {
        let mut plan = Self {
            line: VecDeque::new(),
            current: None,
            second: None,
            failures: Vec::new(),
            bad: BTreeSet::new(),
            relocated: false,
        };
        plan.queue(replicas);
        plan
    }

    fn queue(&mut self, replicas: Vec<NodeAddress>) {
        let mut seen = BTreeSet::new();
        let mut line = replicas;
        line.retain(|node| !self.bad.contains(&node.id) && seen.insert(node.id));
        let failed: BTreeSet<NodeId> =
            self.failures.iter().filter_map(|failure| Some(failure.node.as_ref()?.id)).collect();
        // Stable: the order that was given otherwise.
        line.sort_by_key(|node| failed.contains(&node.id));
        self.line = line.into();
    }

    /// What to do, now that nothing is being read.
    pub(crate) fn next(&mut self) -> ReadStep {
        if let Some(node) = self.line.pop_front() {
            self.current = Some(Turn::to(node.clone()));
            return ReadStep::Read(node);
        }
        if self.relocated {
            return ReadStep::GiveUp(self.failures.clone());
        }
        ReadStep::Relocate
    }

    /// The replica that is being read, if it has not failed.
    pub(crate) fn current(&self) -> Option<&NodeAddress> {
        self.current.as_ref().map(|turn| &turn.node)
    }

    /// One of those that are asked.
    pub(crate) fn node(&self, side: Side) -> Option<&NodeAddress> {
        let turn = match side {
            Side::Current => &self.current,
            Side::Second => &self.second,
        };
        turn.as_ref().map(|turn| &turn.node)
    }

    /// Those that wait for their turn, to be sorted anew by what has been seen since.
    pub(crate) fn line_mut(&mut self) -> &mut [NodeAddress] {
        self.line.make_contiguous()
    }

    /// What to do when all that are asked have been silent for as long as `silent_for`. `known_silent`: the current one
    /// has lately been so for others, and the next one has not; `take_hedge` says whether one more request may be made,
    /// and is asked only where one would be. The last replica is never given up for being late.
    pub(crate) fn late(
        &mut self,
        silent_for: Duration,
        known_silent: bool,
        take_hedge: impl FnOnce() -> bool,
    ) -> LateStep {
        if self.current.is_none() || self.line.is_empty() {
            return LateStep::Wait;
        }
        if !take_hedge() {
            let leaves = known_silent && self.second.is_none();
            return if leaves { LateStep::Leave } else { LateStep::Wait };
        }
        let Some(node) = self.line.pop_front() else { return LateStep::Wait };
        match self.second.replace(Turn::to(node.clone())) {
            None => LateStep::Hedge(node),
            Some(second) => {
                if let Some(late) = self.current.replace(second) {
                    self.is_out(late, silence(silent_for), false);
                }
                LateStep::Replace(node)
            }
        }
    }

    /// One of those that are asked delivered bytes that were verified. Returns the other, whose request ends here.
    pub(crate) fn delivered(&mut self, side: Side) -> Option<NodeAddress> {
        let other = match (side, self.second.take()) {
            (Side::Second, Some(second)) => self.current.replace(second),
            (Side::Current | Side::Second, other) => other,
        };
        if let Some(turn) = &mut self.current {
            turn.progressed = true;
        }
        let other = other?.node;
        match side {
            // It was asked last and had the least time: nothing speaks against it.
            Side::Current => self.line.push_front(other.clone()),
            Side::Second => self.line.push_back(other.clone()),
        }
        Some(other)
    }

    /// Nobody waits for the second replica any more.
    pub(crate) fn call_off(&mut self) {
        if let Some(second) = self.second.take() {
            self.line.push_front(second.node);
        }
    }

    /// One of those that are asked failed; `bad_data` if what it sent was wrong or it calls its own replica bad. If
    /// another is asked, that is the current one now.
    pub(crate) fn failed(&mut self, side: Side, cause: String, bad_data: bool) {
        let failed = match side {
            Side::Current => std::mem::replace(&mut self.current, self.second.take()),
            Side::Second => self.second.take(),
        };
        if let Some(failed) = failed {
            self.is_out(failed, cause, bad_data);
        }
    }

    fn is_out(&mut self, Turn { node, progressed }: Turn, cause: String, bad_data: bool) {
        if bad_data {
            self.bad.insert(node.id);
        } else if progressed {
            self.line.push_back(node.clone());
        }
        self.failures.retain(|failure| failure.node.as_ref().is_none_or(|seen| seen.id != node.id));
        self.failures.push(NodeFailure { node: Some(node), cause, bad_data });
    }

    /// Whether some node failed in a way that time may mend.
    pub(crate) fn may_recover(&self) -> bool {
        self.failures.iter().any(|failure| !failure.bad_data)
    }

    /// The answer to [`ReadStep::Relocate`], best first.
    pub(crate) fn relocate(&mut self, replicas: Vec<NodeAddress>) {
        self.relocated = true;
        self.queue(replicas);
    }
}

/// How much a streaming reader asks for at once: little after a seek, so that a few bytes cost little, then
/// more and more, up to the rest of the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadAhead {
    next_bytes: u64,
}

impl ReadAhead {
    const AFTER_SEEK_BYTES: u64 = 256 << 10;
    const FROM_START_BYTES: u64 = 8 << 20;
    const GROWTH: u64 = 4;

    /// For a reader that starts at `position`: whoever starts at the start usually goes on.
    pub(crate) fn starting_at(position: u64) -> Self {
        let next_bytes =
            if position == 0 { Self::FROM_START_BYTES } else { Self::AFTER_SEEK_BYTES };
        Self { next_bytes }
    }

    /// How many bytes to ask for, of the `left` that the block still has.
    pub(crate) fn take(&mut self, left: u64) -> u64 {
        let bytes = self.next_bytes.min(left);
        self.next_bytes = self.next_bytes.saturating_mul(Self::GROWTH);
        bytes
    }
}

#[cfg(test)]
#[path = "read_plan_test.rs"]
mod tests;
