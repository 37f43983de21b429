//! Which parts of the durable state are still to be looked at, a slice at a time.
//!
//! The debts are scanned at the start, every few minutes and after the queue overflowed; the replicas of a node
//! when it becomes suspect and again when it is dead; the tracked blocks when a node comes back. The replicas of a node
//! that is draining or in maintenance are gone through again and again, all blocks once when a rack appeared; both only
//! while little else is waiting. Nothing scans all blocks at once.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::{BlockId, NodeId};

use super::queue::RepairQueue;
use crate::engine::cluster::Uptime;
use crate::engine::namespace::view;
use crate::engine::tables::{StoreError, Tables};

/// The debts are scanned again after this time, in case something was missed.
pub const RESCAN_EVERY: Duration = Duration::from_mins(1);

/// What is still to be looked at.
#[derive(Debug)]
pub struct Scans {
    /// After which block to go on with each node; `None` is the start.
    nodes: BTreeMap<NodeId, Option<BlockId>>,
    debts: Option<BlockId>,
    tracked: Option<BlockId>,
    tracked_again: bool,
    debts_at: Uptime,
    /// Nodes that are draining or in maintenance.
    passes: BTreeMap<NodeId, Pass>,
    /// After which of all blocks to go on looking for those that are to be spread.
    placement: Option<BlockId>,
    placement_again: bool,
    /// Whether the last slice left something of the two.
    has_more: bool,
}

/// How far the blocks of a node were gone through.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    after: Option<BlockId>,
    is_running: bool,
    started: Uptime,
    next_at: Uptime,
    /// Blocks seen in this pass that still need something.
    needy: u64,
    /// The same of the latest pass that is complete.
    left: Option<u64>,
}

/// While more blocks than this are ready or wait for budget, blocks of draining nodes and of bad placement wait.
const WAITING_MAX: usize = 1024;
/// Time between two passes over a node of which all is done.
const PASS_EVERY: Duration = Duration::from_mins(1);
/// The same at the least, while something is left to do.
const PASS_EVERY_MIN: Duration = Duration::from_secs(1);

/// Blocks to look at.
#[derive(Debug, Default)]
pub struct Slice {
    /// Tracked ones, after a node came back or was confirmed: what could not be done before may be possible now.
    pub tracked: Vec<BlockId>,
    /// In debt, or on a node that left.
    pub found: Vec<BlockId>,
    /// A part of the pass over a node.
    pub leaving: Option<PassSlice>,
}

/// A part of the pass over a node that is draining or in maintenance.
#[derive(Debug)]
pub struct PassSlice {
    /// The node.
    pub node: NodeId,
    /// Blocks to look at.
    pub blocks: Vec<BlockId>,
    /// Whether the pass ends with them.
    pub is_last: bool,
}

impl Scans {
    /// At the start all debts are to be looked at.
    pub fn new(now: Uptime) -> Self {
        let start = Some(BlockId(0));
        let nodes = BTreeMap::new();
        Self {
            nodes,
            debts: start,
            tracked: None,
            tracked_again: false,
            debts_at: now,
            passes: BTreeMap::new(),
            placement: None,
            placement_again: false,
            has_more: false,
        }
    }

    /// The blocks of `node` are to be looked at, from the first.
    pub fn start_node(&mut self, node: NodeId) {
        self.nodes.insert(node, None);
    }

    /// The blocks of `node` are of no interest any more.
    pub fn stop_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The tracked blocks are to be looked at again.
    pub fn start_tracked(&mut self) {
        match self.tracked {
            Some(_) => self.tracked_again = true,
            None => self.tracked = Some(BlockId(0)),
        }
    }

    /// The debts are to be looked at again.
    pub fn start_debts(&mut self) {
        self.debts.get_or_insert(BlockId(0));
    }

    /// The blocks of `node` are to be gone through again and again, beginning now.
    pub fn start_passes(&mut self, now: Uptime, node: NodeId) {
        self.passes.insert(node, Pass { next_at: now, ..Pass::default() });
    }

    /// The node is in service again.
    pub fn stop_passes(&mut self, node: NodeId) {
        self.passes.remove(&node);
    }

    /// Of the blocks of a slice of a pass so many still need something.
    pub fn passed(&mut self, now: Uptime, slice: &PassSlice, needy: u64) {
        let Some(pass) = self.passes.get_mut(&slice.node) else { return };
        pass.needy += needy;
        if slice.is_last {
            let took = now.saturating_sub(pass.started);
            let wait = match pass.needy {
                0 => PASS_EVERY,
                // A tenth of the time at the most is spent on looking.
                _ => (took * 10).clamp(PASS_EVERY_MIN, PASS_EVERY),
            };
            let left = Some(pass.needy);
            *pass = Pass { next_at: now + wait, left, ..Pass::default() };
        }
    }

    /// How many blocks of `node` still needed something when they were last gone through; `None` if that is not known.
    pub fn left_on(&self, node: NodeId) -> Option<u64> {
        self.passes.get(&node)?.left
    }

    /// All blocks are to be looked at for their placement.
    pub fn start_placement(&mut self) {
        match self.placement {
            Some(_) => self.placement_again = true,
            None => self.placement = Some(BlockId(0)),
        }
    }

    /// Whether there is anything to look at now.
    pub fn has_work(&self) -> bool {
        !self.nodes.is_empty() || self.debts.is_some() || self.tracked.is_some() || self.has_more
    }

    /// What to look at next: about `count` blocks of each kind.
    ///
    /// # Errors
    /// If the store fails.
    pub fn next_slice(
        &mut self,
        now: Uptime,
        count: usize,
        queue: &RepairQueue,
        tables: &dyn Tables,
    ) -> Result<Slice, StoreError> {
        if now >= self.debts_at + RESCAN_EVERY {
            self.debts_at = now;
            self.start_debts();
        }
        let mut slice = Slice::default();
        if let Some(after) = self.tracked {
            let blocks = queue.tracked_after(after, count);
            self.tracked = blocks.last().copied().filter(|_| blocks.len() == count);
            if self.tracked.is_none() && std::mem::take(&mut self.tracked_again) {
                self.tracked = Some(BlockId(0));
            }
            slice.tracked = blocks;
        }
        if let Some((node, after)) = self.nodes.pop_first() {
            let blocks = view::blocks_of_node(tables, node, after, count)?;
            if blocks.len() == count {
                self.nodes.insert(node, blocks.last().copied());
            }
            slice.found.extend(blocks);
        }
        if let Some(after) = self.debts {
            let blocks = view::debts(tables, after, count)?;
            self.debts = blocks.last().copied().filter(|_| blocks.len() == count);
            slice.found.extend(blocks);
        }
        self.has_more = false;
        if queue.waiting_at_once() < WAITING_MAX {
            slice.leaving = self.next_of_passes(now, count, tables)?;
            if let Some(after) = self.placement {
                let blocks = view::blocks_after(tables, after, count)?;
                self.placement = blocks.last().copied().filter(|_| blocks.len() == count);
                if self.placement.is_none() && std::mem::take(&mut self.placement_again) {
                    self.placement = Some(BlockId(0));
                }
                slice.found.extend(blocks);
            }
            let is_running = self.passes.values().any(|pass| pass.is_running);
            self.has_more = is_running || self.placement.is_some();
        }
        Ok(slice)
    }

    /// A part of the pass that is running, or of the one that is due for longest.
    fn next_of_passes(
        &mut self,
        now: Uptime,
        count: usize,
        tables: &dyn Tables,
    ) -> Result<Option<PassSlice>, StoreError> {
        let due = self.passes.iter_mut().filter(|(_, pass)| pass.is_running || pass.next_at <= now);
        let next = due.min_by_key(|(node, pass)| (!pass.is_running, pass.next_at, **node));
        let Some((node, pass)) = next else { return Ok(None) };
        if !pass.is_running {
            *pass = Pass { is_running: true, started: now, left: pass.left, ..Pass::default() };
        }
        let blocks = view::blocks_of_node(tables, *node, pass.after, count)?;
        let is_last = blocks.len() < count;
        pass.after = blocks.last().copied();
        pass.is_running = !is_last;
        pass.next_at = if is_last { Duration::MAX } else { pass.next_at };
        Ok(Some(PassSlice { node: *node, blocks, is_last }))
    }
}
