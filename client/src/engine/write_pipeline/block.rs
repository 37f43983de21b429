//! One block of a write: who has how much of it, and what a failure leaves.

use doldam_proto::block::{AllocatedBlock, BlockCommit};
use doldam_proto::id::NodeId;
use doldam_proto::node::NodeAddress;

use super::messages::{Allocation, OpenTail, Recovery, ResumeAt, WriteAction};
use crate::error::NodeFailure;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// A pipeline is to be asked for as soon as the namenode is free; if the source stalled, not before it has more.
    Waiting {
        stalled: bool,
    },
    Requesting,
    /// There is a pipeline, which is to be sent to.
    Ready(AllocatedBlock, Option<ResumeAt>),
    Sending,
    /// Every byte is sent, the acknowledgement is awaited.
    Sent,
}

/// What a flush may tell the namenode of an open block.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) commit: BlockCommit,
    pub(super) synced: bool,
}

/// A block that was started and is not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) stage: Stage,
    /// The attempt under way, or the last one.
    pub(super) current: Option<AllocatedBlock>,
    /// Bytes that all of `holders` have.
    pub(super) acknowledged: u64,
    /// In the order of the pipeline; excluding who failed.
    holders: Vec<NodeId>,
    /// Bytes the namenode knows of: what was flushed, or there before.
    pub(super) flushed: u64,
    pub(super) reached: Option<Reached>,
    pub(super) tried: Vec<NodeFailure>,
    pub(super) rounds: u32,
    /// Whether it went on behind what survivors had, and whether it started again.
    pub(super) recovered: bool,
    pub(super) resent: bool,
}

impl Block {
    fn new(stage: Stage) -> Self {
        Self {
            stage,
            current: None,
            acknowledged: 0,
            holders: Vec::new(),
            flushed: 0,
            reached: None,
            tried: Vec::new(),
            rounds: 0,
            recovered: false,
            resent: false,
        }
    }

    /// One that is still to be allocated.
    pub(super) fn waiting() -> Self {
        Self::new(Stage::Waiting { stalled: false })
    }

    /// One that is allocated already.
    pub(super) fn allocated(block: AllocatedBlock) -> Self {
        Self::new(Stage::Ready(block, None))
    }

    /// One whose start is there already, and known to the namenode.
    pub(super) fn tail(tail: OpenTail) -> Self {
        let OpenTail { block, resume } = tail;
        let (length, holders) = (resume.length, resume.holders.clone());
        let stage = Stage::Ready(block, Some(resume));
        Self { acknowledged: length, holders, flushed: length, ..Self::new(stage) }
    }

    /// Whether it takes up bandwidth now or soon.
    pub(super) fn is_sending(&self) -> bool {
        self.stage != Stage::Sent
    }

    /// Whether a pipeline has it.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.stage, Stage::Sending | Stage::Sent)
    }

    /// The pipeline it is to be sent to, if there is one now.
    pub(super) fn take_ready(&mut self) -> Option<WriteAction> {
        if !matches!(self.stage, Stage::Ready(..)) {
            return None;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Sending);
        let Stage::Ready(block, resume) = stage else { return None };
        self.current = Some(block.clone());
        Some(WriteAction::Send { block, resume })
    }

    /// A new generation and pipeline if anybody, or the namenode, knows of a part of it; `None`: it starts (again).
    pub(super) fn recovery(&self, index: u32, mut excluded: Vec<NodeId>) -> Option<Recovery> {
        let current = self.current.as_ref()?;
        if self.acknowledged == 0 {
            return None;
        }
        // Who failed with another block and not with this one has this one.
        excluded.retain(|node| !self.holders.contains(node));
        Some(Recovery {
            index,
            block: current.id,
            generation: current.generation,
            acknowledged: self.acknowledged,
            survivors: self.holders.clone(),
            excluded,
            rounds: self.rounds,
        })
    }

    /// The block from its start.
    pub(super) fn allocation(
        &self,
        index: u32,
        commits: Vec<BlockCommit>,
        excluded: Vec<NodeId>,
    ) -> Allocation {
        let replaces = self.current.as_ref().map(|current| current.id);
        Allocation { index, commits, replaces, excluded, rounds: self.rounds }
    }

    /// A pipeline for the block from its start.
    pub(super) fn start(&mut self, block: AllocatedBlock) {
        self.resent |= !self.tried.is_empty();
        (self.acknowledged, self.holders, self.reached) = (0, Vec::new(), None);
        self.stage = Stage::Ready(block, None);
    }

    /// A pipeline for the block behind its first `length` bytes.
    pub(super) fn go_on(&mut self, block: AllocatedBlock, length: u64, holders: Vec<NodeId>) {
        if length == 0 {
            return self.start(block);
        }
        self.recovered |= !self.tried.is_empty();
        (self.acknowledged, self.holders, self.reached) = (length, holders.clone(), None);
        self.stage = Stage::Ready(block, Some(ResumeAt { length, holders }));
    }

    /// The namenode knows of its first `length` bytes.
    pub(super) fn flushed(&mut self, length: u64) {
        self.flushed = self.flushed.max(length);
        if self.acknowledged < self.flushed {
            // It lost everybody while the namenode was being told, who knows by now who has this much.
            (self.acknowledged, self.holders) = (self.flushed, Vec::new());
        }
    }

    /// All of its pipeline has what a flush waits for.
    pub(super) fn reached(&mut self, commit: BlockCommit, synced: bool) {
        // Of an earlier pipeline it says nothing about this one.
        let current = self.current.as_ref().map(|current| (current.id, current.generation));
        if current == Some((commit.id, commit.generation)) {
            self.reached = Some(Reached { commit, synced });
        }
    }

    /// Its pipeline ended before its time, with so much acknowledged.
    fn ended(&mut self, acknowledged: u64) {
        // Whatever is acknowledged beyond what the pipeline went on behind, all of it has.
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.holders = self.targets().iter().map(|target| target.id).collect();
        }
        self.reached = None;
    }

    /// The source had nothing to send.
    pub(super) fn stalled(&mut self, acknowledged: u64) {
        self.ended(acknowledged);
        self.stage = Stage::Waiting { stalled: true };
    }

    /// The pipeline failed; returns who is to blame.
    pub(super) fn failed(
        &mut self,
        node: Option<NodeId>,
        cause: String,
        acknowledged: u64,
    ) -> Option<NodeId> {
        self.ended(acknowledged);
        let targets = self.targets();
        let blamed = node
            .and_then(|id| targets.iter().find(|target| target.id == id))
            .or_else(|| targets.first())
            .cloned();
        let id = blamed.as_ref().map(|node| node.id);
        self.holders.retain(|holder| Some(*holder) != id);
        if self.holders.is_empty() && self.flushed == 0 {
            self.acknowledged = 0;
        }
        self.tried.push(NodeFailure { node: blamed, cause, bad_data: false });
        self.stage = Stage::Waiting { stalled: false };
        id
    }

    fn targets(&self) -> &[NodeAddress] {
        self.current.as_ref().map_or(&[], |current| &current.targets)
    }
}
