//! Decides which replica of a block is read next, and when there is none left to try.
//!
//! The namenode's order is kept (best first), but nodes that failed earlier in the same file come last. A
//! replica that fails without having delivered anything since it was last turned to is out; one that
//! delivered first goes to the end of the line, since a connection may break for a reader that paused. So
//! every turn either makes progress or shortens the line, and the plan always ends. When the line is empty the
//! locations are asked for again, once; after that the plan gives up with the cause at each node.

use std::collections::{BTreeSet, VecDeque};

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

/// The replicas of one block in the order in which they are tried.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    line: VecDeque<NodeAddress>,
    /// The one being read, and whether it has delivered since it was turned to.
    current: Option<(NodeAddress, bool)>,
    failures: Vec<NodeFailure>,
    /// Whose data was wrong: never tried again, whatever the namenode says.
    bad: BTreeSet<NodeId>,
    relocated: bool,
}

impl ReadPlan {
    /// A plan for a block with these `replicas`; those in `distrusted` failed earlier and come last.
    pub(crate) fn new(replicas: &[NodeAddress], distrusted: &BTreeSet<NodeId>) -> Self {
        let mut plan = Self {
            line: VecDeque::new(),
            current: None,
            failures: Vec::new(),
            bad: BTreeSet::new(),
            relocated: false,
        };
        plan.queue(replicas, distrusted);
        plan
    }

    fn queue(&mut self, replicas: &[NodeAddress], distrusted: &BTreeSet<NodeId>) {
        let mut seen = BTreeSet::new();
        let mut line: Vec<NodeAddress> = replicas
            .iter()
            .filter(|node| !self.bad.contains(&node.id) && seen.insert(node.id))
            .cloned()
            .collect();
        // Stable: the namenode's order otherwise.
        line.sort_by_key(|node| (distrusted.contains(&node.id), node.state));
        self.line = line.into();
    }

    /// What to do, now that nothing is being read.
    pub(crate) fn next(&mut self) -> ReadStep {
        if let Some(node) = self.line.pop_front() {
            self.current = Some((node.clone(), false));
            return ReadStep::Read(node);
        }
        if self.relocated {
            return ReadStep::GiveUp(self.failures.clone());
        }
        ReadStep::Relocate
    }

    /// The replica that is being read, if it has not failed.
    pub(crate) fn current(&self) -> Option<&NodeAddress> {
        self.current.as_ref().map(|(node, _)| node)
    }

    /// The current replica delivered bytes that were verified.
    pub(crate) fn progressed(&mut self) {
        if let Some((_, progressed)) = &mut self.current {
            *progressed = true;
        }
    }

    /// The current replica failed; `bad_data` if what it sent was wrong or it calls its own replica bad.
    pub(crate) fn failed(&mut self, cause: String, bad_data: bool) {
        let Some((node, progressed)) = self.current.take() else { return };
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

    /// The answer to [`ReadStep::Relocate`].
    pub(crate) fn relocate(&mut self, replicas: &[NodeAddress]) {
        self.relocated = true;
        let failed: BTreeSet<NodeId> =
            self.failures.iter().filter_map(|failure| Some(failure.node.as_ref()?.id)).collect();
        self.queue(replicas, &failed);
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
