//! Which parts of the durable state are still to be looked at, a slice at a time.
//!
//! The debts are scanned at the start, every few minutes and after the queue overflowed; the replicas of a node
//! when it becomes suspect and again when it is dead; the tracked blocks when a node comes back. Nothing scans all
//! blocks at once.

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
}

/// Blocks to look at.
#[derive(Debug, Default)]
pub struct Slice {
    /// Tracked ones, after a node came back or was confirmed: what could not be done before may be possible now.
    pub tracked: Vec<BlockId>,
    /// In debt, or on a node that left.
    pub found: Vec<BlockId>,
}

impl Scans {
    /// At the start all debts are to be looked at.
    pub fn new(now: Uptime) -> Self {
        let start = Some(BlockId(0));
        let nodes = BTreeMap::new();
        Self { nodes, debts: start, tracked: None, tracked_again: false, debts_at: now }
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

    /// Whether there is anything to look at now.
    pub fn has_work(&self) -> bool {
        !self.nodes.is_empty() || self.debts.is_some() || self.tracked.is_some()
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
        Ok(slice)
    }
}
