//! The generation of a block that is being written, what readers see of a block, and who may hold what.
//!
//! A block that was never finished has its generation and targets in its record; one that is appended to or cut
//! keeps its committed state and has them in `open` beside it. What readers see is the committed state, or
//! `flushed` if that is there. What of that is on stable storage is `synced`, or what was committed before. Generations
//! are handed out once: [`newest`] counts them.

use doldam_proto::digest::{BlockDigest, ChainingValue, FileDigest};
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::wire::{BlockCommit, BlockRecord, FlushedBlock};

use super::draft::Draft;
use crate::engine::records::damaged;
use crate::engine::tables::{StoreError, Table};

/// Most generations of one node's part of a block that are dropped by one command. Those before are told of by the
/// node itself.
const DROPPED_GENERATIONS_MAX: u64 = 4;

/// The generation that a writer has, and the nodes it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InProgress<'a> {
    pub(super) generation: u64,
    pub(super) targets: &'a [u32],
}

/// What is being written of a block, if anything: not a part that is finished, in force or not.
pub(super) fn in_progress(block: &BlockRecord) -> Option<InProgress<'_>> {
    match &block.open {
        Some(open) if open.commit.is_none() => {
            Some(InProgress { generation: open.generation, targets: &open.targets })
        }
        None if !block.committed => {
            Some(InProgress { generation: block.generation, targets: &block.replicas })
        }
        Some(_) | None => None,
    }
}

/// The newest generation that was handed out.
pub(in crate::engine) fn newest(block: &BlockRecord) -> u64 {
    block.last_generation.max(block.generation)
}

/// Hands out the next generation for what is being written, to be written to `targets`.
pub(super) fn renew(block: &mut BlockRecord, targets: Vec<u32>) -> u64 {
    let generation = newest(block) + 1;
    if let Some(open) = &mut block.open {
        open.generation = generation;
        open.targets = targets;
    } else {
        block.generation = generation;
        block.replicas = targets;
    }
    block.last_generation = generation;
    generation
}

/// The bytes that any further generation starts with: flushed, or taken over from what is committed.
pub(super) fn floor(block: &BlockRecord) -> u64 {
    match (&block.flushed, &block.open) {
        (Some(flushed), _) => flushed.length,
        (None, Some(open)) => open.start,
        (None, None) => 0,
    }
}

/// The nodes that have the bytes below [`floor`], as far as is known.
pub(super) fn floor_holders(block: &BlockRecord) -> &[u32] {
    match (&block.flushed, block.committed) {
        (Some(flushed), _) => &flushed.nodes,
        (None, true) => &block.replicas,
        (None, false) => &[],
    }
}

/// What readers see of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Seen<'a> {
    pub(in crate::engine) generation: u64,
    pub(in crate::engine) length: u64,
    pub(in crate::engine) chaining_value: &'a [u8],
    pub(in crate::engine) root_value: &'a [u8],
    pub(in crate::engine) good: &'a [u32],
    pub(in crate::engine) bad: &'a [u32],
}

/// What readers see of a block; `None` if it was neither committed nor flushed.
pub(in crate::engine) fn seen(block: &BlockRecord) -> Option<Seen<'_>> {
    let is_finished = block.committed && block.open.is_none();
    match &block.flushed {
        // A longer replica has these bytes too.
        Some(flushed) if is_finished => Some(Seen {
            length: flushed.length,
            chaining_value: &flushed.chaining_value,
            root_value: &flushed.root_value,
            ..committed(block)
        }),
        Some(flushed) => Some(seen_of_flush(flushed)),
        None => block.committed.then(|| committed(block)),
    }
}

/// The committed state of a block that has one.
pub(super) fn committed(block: &BlockRecord) -> Seen<'_> {
    Seen {
        generation: block.generation,
        length: block.length,
        chaining_value: &block.chaining_value,
        root_value: &block.root_value,
        good: &block.replicas,
        bad: &block.bad_replicas,
    }
}

fn seen_of_flush(flushed: &FlushedBlock) -> Seen<'_> {
    Seen {
        generation: flushed.generation,
        length: flushed.length,
        chaining_value: &flushed.chaining_value,
        root_value: &flushed.root_value,
        good: &flushed.nodes,
        bad: &[],
    }
}

/// What readers will see of a block once `commit` is in force.
pub(super) fn seen_of_commit(commit: &BlockCommit) -> Seen<'_> {
    Seen {
        generation: commit.generation,
        length: commit.length,
        chaining_value: &commit.chaining_value,
        root_value: &commit.root_value,
        good: &commit.node_ids,
        bad: &[],
    }
}

impl Seen<'_> {
    /// What identifies the content.
    pub(in crate::engine) fn digest(&self, block: u64) -> Result<BlockDigest, StoreError> {
        let wrong = || damaged(Table::Blocks, format!("block {block} has no 32-byte value"));
        let chaining_value = ChainingValue::from_slice(self.chaining_value).ok_or_else(wrong)?;
        Ok(BlockDigest { chaining_value, root_value: FileDigest::from_slice(self.root_value) })
    }
}

/// Whether what `node` holds of a block that it has not in its set may still be needed: it is being written, or
/// readers see it. `generation` is not the committed one.
pub(super) fn is_in_use(block: &BlockRecord, node: u32, generation: u64) -> bool {
    let is_flushed = has_flushed(block, node);
    match &block.open {
        // Until the new generation is in force, what is flushed under it is nowhere else.
        Some(open) => {
            generation > block.generation
                && (generation == open.generation || open.targets.contains(&node) || is_flushed)
        }
        None if block.committed => false,
        // An older one is what a new pipeline takes over.
        None => generation == block.generation || block.replicas.contains(&node) || is_flushed,
    }
}

/// Whether a node has what readers see of an open block, or what of it is on stable storage.
pub(super) fn has_flushed(block: &BlockRecord, node: u32) -> bool {
    let mut parts = block.flushed.iter().chain(&block.synced);
    parts.any(|part| part.nodes.contains(&node))
}

/// Drops what `nodes` have of a block under generations that were being written, up to `newest`.
pub(super) fn drop_written(draft: &mut Draft<'_>, block: &BlockRecord, newest: u64, nodes: &[u32]) {
    let first = if block.committed { block.generation + 1 } else { 1 };
    let first = first.max(newest.saturating_sub(DROPPED_GENERATIONS_MAX - 1));
    for node in nodes {
        for generation in (first..=newest).rev() {
            draft.drop_replica(*node, BlockId(block.block_id), Generation(generation));
        }
    }
}

/// Every node that may hold something of what is being written, or is flushed.
pub(super) fn writing_nodes(block: &BlockRecord) -> Vec<u32> {
    let mut nodes: Vec<u32> = Vec::new();
    let mut take = |more: &[u32]| {
        for node in more {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
    };
    match &block.open {
        Some(open) => {
            take(&open.targets);
            take(open.commit.as_ref().map_or(&[], |commit| &commit.node_ids));
        }
        None if !block.committed => take(&block.replicas),
        None => {}
    }
    take(block.flushed.as_ref().map_or(&[], |flushed| &flushed.nodes));
    take(block.synced.as_ref().map_or(&[], |synced| &synced.nodes));
    nodes
}

/// Every node that may have what readers see of a block that is flushed: those that told so, and those that were
/// written to since.
pub(super) fn may_have_flushed(block: &BlockRecord) -> Vec<u32> {
    let mut nodes = in_progress(block).map_or(Vec::new(), |writing| writing.targets.to_vec());
    let Some(flushed) = &block.flushed else { return nodes };
    let more = flushed.nodes.iter().filter(|node| !nodes.contains(node));
    let more: Vec<u32> = more.copied().collect();
    nodes.extend(more);
    nodes
}

/// Drops all there may be of a block that leaves: replicas, and what was being written.
pub(super) fn drop_all(draft: &mut Draft<'_>, block: &BlockRecord) {
    if block.committed {
        for node in block.replicas.iter().chain(&block.bad_replicas) {
            draft.drop_replica(*node, BlockId(block.block_id), Generation(block.generation));
        }
    }
    if block.open.is_some() || !block.committed {
        drop_written(draft, block, newest(block), &writing_nodes(block));
    }
}

/// Forgets what was being written beside the committed generation; it is dropped.
pub(super) fn close_open(draft: &mut Draft<'_>, block: &BlockRecord) -> BlockRecord {
    if block.open.is_some() {
        drop_written(draft, block, newest(block), &writing_nodes(block));
    }
    BlockRecord { open: None, flushed: None, synced: None, ..block.clone() }
}

/// The record once `commit` is in force: it is what is committed, and what was before is dropped.
pub(super) fn promoted(
    draft: &mut Draft<'_>,
    before: &BlockRecord,
    commit: &BlockCommit,
) -> BlockRecord {
    let id = BlockId(before.block_id);
    let others: Vec<u32> =
        writing_nodes(before).into_iter().filter(|node| !commit.node_ids.contains(node)).collect();
    drop_written(draft, before, commit.generation, &others);
    drop_written(draft, before, commit.generation - 1, &commit.node_ids);
    if before.committed {
        for node in before.replicas.iter().chain(&before.bad_replicas) {
            draft.drop_replica(*node, id, Generation(before.generation));
        }
    }
    BlockRecord {
        generation: commit.generation,
        length: commit.length,
        chaining_value: commit.chaining_value.clone(),
        root_value: commit.root_value.clone(),
        replicas: commit.node_ids.clone(),
        bad_replicas: Vec::new(),
        committed: true,
        open: None,
        synced: None,
        ..before.clone()
    }
}
