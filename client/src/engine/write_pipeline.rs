//! Decides what a write does next: which block is allocated, sent, sent again elsewhere, and when the file is
//! complete.
//!
//! The shell tells what happened ([`WritePipeline::handle`]) and then takes what to do
//! ([`WritePipeline::poll`]) until nothing is left. Rules:
//!
//! * At most one request to the namenode is under way, so commits arrive in order and none is told twice. Commits of
//!   finished blocks ride on the next allocation, the last ones on `Complete`.
//! * The next block starts when the bytes of the one before are *sent*, not when they are acknowledged: its
//!   stream overlaps with the disks' sync of the one before.
//! * A failed pipeline blames the node it names, else its first: that node gets none of the next blocks of this file,
//!   unless no other is left. The block is sent again from its start, before any new block.
//! * A pipeline whose source has nothing to send (an application that pauses) is given up without blame, and the
//!   block is sent again once all of it is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use doldam_proto::block::{AllocatedBlock, BlockCommit};
use doldam_proto::digest::file::file_digest;
use doldam_proto::digest::{BlockDigest, ChainingValue, FileDigest};
use doldam_proto::id::{BlockId, NodeId};
use doldam_proto::node::NodeAddress;

use crate::error::NodeFailure;

/// Blocks for which a node that failed is passed over: a long write is not to lose a node for ever.
const EXCLUSION_BLOCKS: usize = 16;

/// Bounds of one write.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "bounds are called so everywhere")]
pub(crate) struct WriteLimits {
    /// Blocks whose bytes are being sent at the same time.
    pub(crate) sending_max: usize,
    /// Blocks that were started and are not acknowledged yet.
    pub(crate) unfinished_max: usize,
    /// Pipelines tried for one block; those without blame do not count.
    pub(crate) attempts_max: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteEvent {
    /// The source has the start of `started` blocks, and all of the first `whole` of them.
    Available { started: u32, whole: u32 },
    /// The source has ended.
    Ended { length: u64 },
    /// The namenode gave a block.
    Allocated { block: AllocatedBlock },
    /// The namenode found no datanode beyond those excluded; the request changed nothing.
    NoneLeft,
    /// All bytes of a block were handed to its pipeline.
    Sent { index: u32 },
    /// The pipeline of a block acknowledged all of it.
    Done { index: u32, commit: BlockCommit },
    /// The pipeline of a block failed at `node`, or at its first if that is not known.
    Failed { index: u32, node: Option<NodeId>, cause: String },
    /// The source had nothing to send for too long.
    Stalled { index: u32 },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteAction {
    /// Ask the namenode for a block.
    Allocate(Allocation),
    /// Send a block to its pipeline, from the block's first byte.
    Send { block: AllocatedBlock },
    /// Ask the namenode to make the file visible.
    Complete { length: u64, commits: Vec<BlockCommit> },
    /// Give the whole write up: no pipeline takes this block.
    Fail { index: u32, tried: Vec<NodeFailure> },
}

/// A request for a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Position of the block in the file.
    pub(crate) index: u32,
    /// Finished blocks the namenode does not know of yet.
    pub(crate) commits: Vec<BlockCommit>,
    /// The attempt this one replaces.
    pub(crate) replaces: Option<BlockId>,
    /// Nodes that failed.
    pub(crate) excluded: Vec<NodeId>,
    /// How often every node had failed already: the shell waits the longer before it asks.
    pub(crate) rounds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// To be allocated as soon as the namenode is free, and not before `whole` if the source stalled.
    Waiting {
        stalled: bool,
    },
    Allocating,
    /// Allocated, to be sent.
    Ready(AllocatedBlock),
    Sending,
    /// Every byte is sent, the acknowledgement is awaited.
    Sent,
}

#[derive(Debug, Clone)]
struct Block {
    stage: Stage,
    /// The attempt under way, or the last one.
    current: Option<(BlockId, Vec<NodeAddress>)>,
    tried: Vec<NodeFailure>,
    rounds: u32,
}

impl Block {
    fn new(stage: Stage) -> Self {
        Self { stage, current: None, tried: Vec::new(), rounds: 0 }
    }
}

/// The state of one write.
#[derive(Debug)]
pub(crate) struct WritePipeline {
    limits: WriteLimits,
    /// Started, not acknowledged.
    blocks: BTreeMap<u32, Block>,
    /// Block 0 if the namenode gave it along with the file.
    first: Option<AllocatedBlock>,
    next_index: u32,
    started: u32,
    whole: u32,
    length: Option<u64>,
    /// Who failed, and how many blocks were finished then.
    excluded: BTreeMap<NodeId, usize>,
    /// Finished blocks the namenode does not know of yet.
    commits: Vec<BlockCommit>,
    /// Those it is being told of.
    telling: Vec<BlockCommit>,
    /// A request is under way, for this block.
    allocating: Option<u32>,
    values: BTreeMap<u32, ChainingValue>,
    first_root: Option<FileDigest>,
    rewritten: BTreeSet<u32>,
    failed: VecDeque<u32>,
    over: bool,
}

impl WritePipeline {
    /// A write that starts; `first` is block 0, if the namenode gave it along with the file.
    pub(crate) fn new(limits: WriteLimits, first: Option<AllocatedBlock>) -> Self {
        Self {
            limits,
            blocks: BTreeMap::new(),
            first,
            next_index: 0,
            started: 0,
            whole: 0,
            length: None,
            excluded: BTreeMap::new(),
            commits: Vec::new(),
            telling: Vec::new(),
            allocating: None,
            values: BTreeMap::new(),
            first_root: None,
            rewritten: BTreeSet::new(),
            failed: VecDeque::new(),
            over: false,
        }
    }

    /// Blocks that were acknowledged only after their pipeline had failed at least once.
    pub(crate) fn rewritten_blocks(&self) -> u32 {
        self.rewritten.len() as u32
    }

    /// Digest of the file from the values of its blocks, once all are acknowledged.
    pub(crate) fn digest(&self) -> Option<FileDigest> {
        let mut values = self.values.values();
        let first = values
            .next()
            .map(|&chaining_value| BlockDigest { chaining_value, root_value: self.first_root });
        let rest: Vec<ChainingValue> = values.copied().collect();
        file_digest(first.as_ref(), &rest)
    }

    /// Takes note of what happened. Events about blocks that are not under way are late and change nothing.
    pub(crate) fn handle(&mut self, event: WriteEvent) {
        match event {
            WriteEvent::Available { started, whole } => {
                self.started = self.started.max(started);
                self.whole = self.whole.max(whole);
            }
            WriteEvent::Ended { length } => self.length = Some(length),
            WriteEvent::Allocated { block } => self.allocated(block),
            WriteEvent::NoneLeft => self.none_left(),
            WriteEvent::Sent { index } => {
                if let Some(block) = self.blocks.get_mut(&index)
                    && block.stage == Stage::Sending
                {
                    block.stage = Stage::Sent;
                }
            }
            WriteEvent::Done { index, commit } => self.done(index, commit),
            WriteEvent::Failed { index, node, cause } => self.failed(index, node, cause),
            WriteEvent::Stalled { index } => {
                if let Some(block) = self.blocks.get_mut(&index) {
                    block.stage = Stage::Waiting { stalled: true };
                }
            }
        }
    }

    /// What to do next; call until `None`.
    pub(crate) fn poll(&mut self) -> Option<WriteAction> {
        if self.over {
            return None;
        }
        if let Some(index) = self.failed.pop_front() {
            self.over = true;
            let tried = self.blocks.remove(&index).map(|block| block.tried).unwrap_or_default();
            return Some(WriteAction::Fail { index, tried });
        }
        self.start_blocks();
        self.poll_send().or_else(|| self.poll_allocate()).or_else(|| self.poll_complete())
    }

    fn start_blocks(&mut self) {
        while self.next_index < self.started
            && self.blocks.len() < self.limits.unfinished_max
            && self.sending() < self.limits.sending_max
        {
            let stage = match self.first.take() {
                Some(block) if self.next_index == 0 => Stage::Ready(block),
                _ => Stage::Waiting { stalled: false },
            };
            self.blocks.insert(self.next_index, Block::new(stage));
            self.next_index += 1;
        }
    }

    /// Blocks that take up bandwidth now or soon.
    fn sending(&self) -> usize {
        self.blocks.values().filter(|block| block.stage != Stage::Sent).count()
    }

    fn poll_send(&mut self) -> Option<WriteAction> {
        for block in self.blocks.values_mut() {
            if !matches!(block.stage, Stage::Ready(_)) {
                continue;
            }
            if let Stage::Ready(allocated) = std::mem::replace(&mut block.stage, Stage::Sending) {
                block.current = Some((allocated.id, allocated.targets.clone()));
                return Some(WriteAction::Send { block: allocated });
            }
        }
        None
    }

    /// Blocks in order: what is to be sent again comes before what is new.
    fn poll_allocate(&mut self) -> Option<WriteAction> {
        if self.allocating.is_some() {
            return None;
        }
        let whole = self.whole;
        let (&index, block) = self.blocks.iter_mut().find(|(index, block)| match block.stage {
            Stage::Waiting { stalled } => !stalled || **index < whole,
            Stage::Allocating | Stage::Ready(_) | Stage::Sending | Stage::Sent => false,
        })?;
        block.stage = Stage::Allocating;
        self.allocating = Some(index);
        self.telling = std::mem::take(&mut self.commits);
        Some(WriteAction::Allocate(Allocation {
            index,
            commits: self.telling.clone(),
            replaces: block.current.as_ref().map(|(id, _)| *id),
            excluded: self.excluded.keys().copied().collect(),
            rounds: block.rounds,
        }))
    }

    fn poll_complete(&mut self) -> Option<WriteAction> {
        let length = self.length?;
        let all_started = self.next_index == self.started;
        if !all_started || !self.blocks.is_empty() || self.allocating.is_some() {
            return None;
        }
        self.over = true;
        Some(WriteAction::Complete { length, commits: std::mem::take(&mut self.commits) })
    }

    fn allocated(&mut self, allocated: AllocatedBlock) {
        if self.allocating != Some(allocated.index) {
            return;
        }
        self.allocating = None;
        self.telling.clear();
        if let Some(block) = self.blocks.get_mut(&allocated.index) {
            block.stage = Stage::Ready(allocated);
        }
    }

    fn none_left(&mut self) {
        let Some(index) = self.allocating.take() else { return };
        // The refused request changed nothing: its commits are still to be told, before any newer ones.
        let newer = std::mem::replace(&mut self.commits, std::mem::take(&mut self.telling));
        self.commits.extend(newer);
        self.excluded.clear();
        if let Some(block) = self.blocks.get_mut(&index) {
            block.stage = Stage::Waiting { stalled: false };
            block.rounds += 1;
            if block.rounds > self.limits.attempts_max {
                self.failed.push_back(index);
            }
        }
    }

    fn done(&mut self, index: u32, commit: BlockCommit) {
        let Some(block) = self.blocks.remove(&index) else { return };
        if !block.tried.is_empty() {
            self.rewritten.insert(index);
        }
        self.values.insert(index, commit.chaining_value);
        let finished = self.values.len();
        self.excluded.retain(|_, since| finished - *since < EXCLUSION_BLOCKS);
        if index == 0 {
            self.first_root = commit.root_value;
        }
        self.commits.push(commit);
    }

    fn failed(&mut self, index: u32, node: Option<NodeId>, cause: String) {
        let Some(block) = self.blocks.get_mut(&index) else { return };
        let targets = block.current.as_ref().map_or(&[][..], |(_, targets)| targets);
        let blamed = node
            .and_then(|id| targets.iter().find(|target| target.id == id))
            .or_else(|| targets.first())
            .cloned();
        let finished = self.values.len();
        self.excluded.extend(blamed.as_ref().map(|node| (node.id, finished)));
        block.tried.push(NodeFailure { node: blamed, cause, bad_data: false });
        block.stage = Stage::Waiting { stalled: false };
        if block.tried.len() as u32 >= self.limits.attempts_max {
            self.failed.push_back(index);
        }
    }
}

#[cfg(test)]
#[path = "write_pipeline_test.rs"]
mod tests;
