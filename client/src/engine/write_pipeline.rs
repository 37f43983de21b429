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
//!   unless no other is left. The block is gone on with, before any new block, under a new generation: behind what all
//!   others have acknowledged. If nothing is acknowledged, or nobody who has it is left, it is allocated anew and sent
//!   from its start; unless a part of it was flushed or there before, which the namenode then goes back to.
//! * Only who acknowledged has what is acknowledged. A replacement counts when something beyond what it was to be
//!   given is acknowledged, since that comes from all of the pipeline.
//! * A pipeline whose source has nothing to send (an application that pauses) is closed without blame, and gone on
//!   with in the same way when there is more.
//! * A flush is told to the namenode when all before its end is acknowledged, and only by the pipeline that the open
//!   block has then.

mod block;
mod flush;
mod messages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use doldam_proto::block::{AllocatedBlock, BlockBytes, BlockCommit};
use doldam_proto::digest::file::file_digest;
use doldam_proto::digest::{BlockDigest, ChainingValue, FileDigest};
use doldam_proto::id::NodeId;

use block::{Block, Stage};
use flush::Wanted;
pub(crate) use messages::{
    Allocation, Flush, OpenTail, Recovery, ResumeAt, WriteAction, WriteEvent, WriteLimits,
    WriteStart,
};

use crate::error::NodeFailure;

/// Blocks for which a node that failed is passed over: a long write is not to lose a node for ever.
const EXCLUSION_BLOCKS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// For a pipeline of this block.
    Block(u32),
    Flush,
}

/// The state of one write.
#[derive(Debug)]
pub(crate) struct WritePipeline {
    limits: WriteLimits,
    block_bytes: u64,
    /// Started, not acknowledged.
    blocks: BTreeMap<u32, Block>,
    /// The first block that is started, if there is one already.
    first: Option<Block>,
    /// Bytes of the file before the write.
    behind: u64,
    next_index: u32,
    started: u32,
    whole: u32,
    filled: u64,
    length: Option<u64>,
    wanted: Option<Wanted>,
    /// Who failed, and how many blocks were finished then.
    excluded: BTreeMap<NodeId, usize>,
    /// Finished blocks the namenode does not know of yet.
    commits: Vec<BlockCommit>,
    /// Those it is being told of.
    telling: Vec<BlockCommit>,
    /// What is under way.
    request: Option<Request>,
    values: BTreeMap<u32, ChainingValue>,
    first_root: Option<FileDigest>,
    rewritten: BTreeSet<u32>,
    recovered: BTreeSet<u32>,
    failed: VecDeque<u32>,
    over: bool,
}

impl WritePipeline {
    /// A write that starts.
    pub(crate) fn new(limits: WriteLimits, block_bytes: BlockBytes, start: WriteStart) -> Self {
        let block_bytes = block_bytes.get();
        let (behind, first) = match start {
            WriteStart::New { first } => (0, first.map(Block::allocated)),
            WriteStart::Behind { length, tail } => (length, tail.map(Block::tail)),
        };
        let first_index = (behind / block_bytes) as u32;
        Self {
            limits,
            block_bytes,
            blocks: BTreeMap::new(),
            first,
            behind,
            next_index: first_index,
            started: first_index,
            whole: first_index,
            filled: 0,
            length: None,
            wanted: None,
            excluded: BTreeMap::new(),
            commits: Vec::new(),
            telling: Vec::new(),
            request: None,
            values: BTreeMap::new(),
            first_root: None,
            rewritten: BTreeSet::new(),
            recovered: BTreeSet::new(),
            failed: VecDeque::new(),
            over: false,
        }
    }

    /// Blocks that were sent again from their start because nobody was left who had a part of them.
    pub(crate) fn rewritten_blocks(&self) -> u32 {
        self.rewritten.len() as u32
    }

    /// Blocks that were gone on with by other pipelines than the one that began them.
    pub(crate) fn recovered_blocks(&self) -> u32 {
        self.recovered.len() as u32
    }

    /// Digest of the file from the values of its blocks, once all are acknowledged; `None` if some were there before.
    pub(crate) fn digest(&self) -> Option<FileDigest> {
        let from_the_start = self.values.keys().next().is_none_or(|first| *first == 0);
        if !from_the_start || (self.values.is_empty() && self.behind > 0) {
            return None;
        }
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
            WriteEvent::Available { started, whole, filled } => {
                let filled = if started > self.started { filled } else { filled.max(self.filled) };
                self.started = self.started.max(started);
                self.whole = self.whole.max(whole);
                self.filled = filled;
            }
            WriteEvent::Ended { length } => self.length = Some(length),
            WriteEvent::FlushWanted { length, sync } => self.wanted = Some(Wanted { length, sync }),
            WriteEvent::Allocated { block } => self.allocated(block),
            WriteEvent::Recovered { block, length, holders } => {
                self.recovered(block, length, holders);
            }
            WriteEvent::NoneLeft => self.none_left(),
            WriteEvent::Flushed { length, sync } => self.flushed(length, sync),
            WriteEvent::Sent { index } => {
                if let Some(block) = self.streaming(index) {
                    block.stage = Stage::Sent;
                }
            }
            WriteEvent::Reached { index, commit, synced } => {
                if let Some(block) = self.streaming(index) {
                    block.reached(commit, synced);
                }
            }
            WriteEvent::Done { index, commit } => self.done(index, commit),
            WriteEvent::Failed { index, node, cause, acknowledged } => {
                self.failed(index, node, cause, acknowledged);
            }
            WriteEvent::Stalled { index, acknowledged } => {
                if let Some(block) = self.streaming(index) {
                    block.stalled(acknowledged);
                }
            }
            WriteEvent::Gone { index, kept_from } => self.gone(index, kept_from),
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
        self.blocks
            .values_mut()
            .find_map(Block::take_ready)
            .or_else(|| self.poll_pipeline())
            .or_else(|| self.poll_flush())
            .or_else(|| self.poll_complete())
    }

    fn start_blocks(&mut self) {
        while self.next_index < self.started
            && self.blocks.len() < self.limits.unfinished_max
            && self.sending() < self.limits.sending_max
        {
            // Whatever the first block is, only the first block that is started is it.
            let block = self.first.take().unwrap_or_else(Block::waiting);
            self.blocks.insert(self.next_index, block);
            self.next_index += 1;
        }
    }

    fn sending(&self) -> usize {
        self.blocks.values().filter(|block| block.is_sending()).count()
    }

    /// The block, if a pipeline has it.
    fn streaming(&mut self, index: u32) -> Option<&mut Block> {
        self.blocks.get_mut(&index).filter(|block| block.is_streaming())
    }

    /// Whether there is anything to send of a block whose source had stalled.
    fn has_more(&self, index: u32, acknowledged: u64) -> bool {
        let last = index + 1 == self.started;
        index < self.whole || (last && self.filled > acknowledged) || self.flush_waits_for(index)
    }

    /// Blocks in order: what is to be gone on with comes before what is new.
    fn poll_pipeline(&mut self) -> Option<WriteAction> {
        if self.request.is_some() {
            return None;
        }
        let waits = |(index, block): &(&u32, &Block)| match block.stage {
            Stage::Waiting { stalled } => !stalled || self.has_more(**index, block.acknowledged),
            Stage::Requesting | Stage::Ready(..) | Stage::Sending | Stage::Sent => false,
        };
        let index = *self.blocks.iter().find(waits)?.0;
        let block = self.blocks.get_mut(&index)?;
        block.stage = Stage::Requesting;
        self.request = Some(Request::Block(index));
        let excluded: Vec<NodeId> = self.excluded.keys().copied().collect();
        if let Some(recovery) = block.recovery(index, excluded.clone()) {
            return Some(WriteAction::Recover(recovery));
        }
        self.telling = std::mem::take(&mut self.commits);
        Some(WriteAction::Allocate(block.allocation(index, self.telling.clone(), excluded)))
    }

    fn poll_complete(&mut self) -> Option<WriteAction> {
        let length = self.length?;
        let all_started = self.next_index == self.started;
        if !all_started || !self.blocks.is_empty() || self.request.is_some() {
            return None;
        }
        self.over = true;
        Some(WriteAction::Complete { length, commits: std::mem::take(&mut self.commits) })
    }

    /// The block that was asked for, if it is this one.
    fn answered(&mut self, index: u32) -> Option<&mut Block> {
        if self.request != Some(Request::Block(index)) {
            return None;
        }
        self.request = None;
        self.blocks.get_mut(&index)
    }

    fn allocated(&mut self, allocated: AllocatedBlock) {
        if let Some(block) = self.answered(allocated.index) {
            block.start(allocated);
            self.telling.clear();
        }
    }

    fn recovered(&mut self, recovered: AllocatedBlock, length: u64, holders: Vec<NodeId>) {
        if let Some(block) = self.answered(recovered.index) {
            block.go_on(recovered, length, holders);
        }
    }

    fn none_left(&mut self) {
        let Some(Request::Block(index)) = self.request else { return };
        self.request = None;
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
        if self.streaming(index).is_none() {
            return;
        }
        let Some(block) = self.blocks.remove(&index) else { return };
        if block.resent {
            self.rewritten.insert(index);
        } else if block.recovered {
            self.recovered.insert(index);
        }
        self.values.insert(index, commit.chaining_value);
        let finished = self.values.len();
        self.excluded.retain(|_, since| finished - *since < EXCLUSION_BLOCKS);
        if index == 0 {
            self.first_root = commit.root_value;
        }
        self.commits.push(commit);
    }

    fn failed(&mut self, index: u32, node: Option<NodeId>, cause: String, acknowledged: u64) {
        let finished = self.values.len();
        let Some(block) = self.streaming(index) else { return };
        let blamed = block.failed(node, cause, acknowledged);
        let tried = block.tried.len() as u32;
        self.excluded.extend(blamed.map(|node| (node, finished)));
        if tried >= self.limits.attempts_max {
            self.failed.push_back(index);
        }
    }

    /// Nobody has the start of a block any more, neither the cluster nor the source.
    fn gone(&mut self, index: u32, kept_from: u64) {
        let Some(block) = self.blocks.get_mut(&index) else { return };
        let cause = format!(
            "no datanode that took the block is left, and its first {kept_from} bytes, which had been \
             acknowledged, are no longer kept here (retained_bytes_max)"
        );
        block.tried.push(NodeFailure { node: None, cause, bad_data: false });
        self.failed.push_back(index);
    }
}

#[cfg(test)]
#[path = "write_pipeline/model_test.rs"]
mod model;
#[cfg(test)]
#[path = "write_pipeline/recovery_test.rs"]
mod recovery;
#[cfg(test)]
#[path = "write_pipeline_test.rs"]
mod tests;
