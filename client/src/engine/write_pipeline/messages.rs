//! What the shell of a write tells the engine, and what the engine asks of it.

use doldam_proto::block::{AllocatedBlock, BlockCommit};
use doldam_proto::id::{BlockId, Generation, NodeId};

use crate::error::NodeFailure;

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

/// Where a write starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteStart {
    /// At the first byte of a new file; with block 0, if the namenode gave it along.
    New { first: Option<AllocatedBlock> },
    /// Behind `length` bytes that are in the file already; inside the block `tail`, or at a block's bound.
    Behind { length: u64, tail: Option<OpenTail> },
}

/// The block that a write goes on inside of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenTail {
    pub(crate) block: AllocatedBlock,
    pub(crate) resume: ResumeAt,
}

/// Where in its block a pipeline goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResumeAt {
    /// Bytes before, not 0.
    pub(crate) length: u64,
    /// Who has them: the first of the pipeline.
    pub(crate) holders: Vec<NodeId>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteEvent {
    /// The source has the start of `started` blocks, all of the first `whole` of them, and the first `filled` bytes
    /// of the last one that was started.
    Available { started: u32, whole: u32, filled: u64 },
    /// The source has ended.
    Ended { length: u64 },
    /// The application waits for the first `length` bytes of the file, which are all so far, to be visible; with
    /// `sync` on stable storage, too.
    FlushWanted { length: u64, sync: bool },
    /// The namenode gave a block.
    Allocated { block: AllocatedBlock },
    /// The namenode gave a block that was begun a new generation and pipeline. `holders` have its first `length`
    /// bytes; none and 0 if it starts again.
    Recovered { block: AllocatedBlock, length: u64, holders: Vec<NodeId> },
    /// The namenode found no datanode beyond those excluded; the request changed nothing.
    NoneLeft,
    /// The namenode made the first `length` bytes visible.
    Flushed { length: u64, sync: bool },
    /// All bytes of a block were handed to its pipeline.
    Sent { index: u32 },
    /// All of the pipeline has the block so far, as far as a flush needs it; with `synced` on stable storage.
    Reached { index: u32, commit: BlockCommit, synced: bool },
    /// The pipeline of a block acknowledged all of it.
    Done { index: u32, commit: BlockCommit },
    /// The pipeline of a block failed at `node`, or at its first if that is not known. All of it had `acknowledged`
    /// bytes, or what it went on behind if that is more.
    Failed { index: u32, node: Option<NodeId>, cause: String, acknowledged: u64 },
    /// The source had nothing to send for too long; everything it had sent was acknowledged.
    Stalled { index: u32, acknowledged: u64 },
    /// The source does not have the bytes from where the block is to be gone on with: its first is `kept_from`.
    Gone { index: u32, kept_from: u64 },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteAction {
    /// Ask the namenode for a block.
    Allocate(Allocation),
    /// Ask the namenode for a new generation and pipeline for a block that was begun.
    Recover(Recovery),
    /// Send a block to its pipeline, from its first byte or behind what is there.
    Send { block: AllocatedBlock, resume: Option<ResumeAt> },
    /// Ask the namenode to make what there is visible.
    Flush(Flush),
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

/// A request for a new generation and pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Position of the block in the file.
    pub(crate) index: u32,
    pub(crate) block: BlockId,
    /// The generation that broke.
    pub(crate) generation: Generation,
    /// Bytes that every survivor has.
    pub(crate) acknowledged: u64,
    /// Who is left, in the order of the pipeline; nobody: what the namenode knows of the block is gone back to.
    pub(crate) survivors: Vec<NodeId>,
    /// Nodes that failed.
    pub(crate) excluded: Vec<NodeId>,
    /// As in [`Allocation`].
    pub(crate) rounds: u32,
}

/// A request to make what there is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flush {
    /// Of the file.
    pub(crate) length: u64,
    /// Whether it is on stable storage.
    pub(crate) sync: bool,
    /// Finished blocks the namenode does not know of yet.
    pub(crate) commits: Vec<BlockCommit>,
    /// The block that is open, if the file does not end with a finished one.
    pub(crate) open: Option<BlockCommit>,
}
