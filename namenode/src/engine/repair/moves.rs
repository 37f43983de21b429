//! Carrying balancing out: choosing blocks for `balance`, copying them, and having the replica that
//! was copied trimmed.
//!
//! It is done only while no block waits for repair. A move is a copy like any other; when it is confirmed the block
//! has one replica too many, and the one on the fuller node is trimmed. What of it is forgotten in a restart is trimmed
//! by the ordinary rule.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_proto::id::{BlockId, NodeId};

use super::assess::Assessment;
use super::balance::{self, Balance, Fill};
use super::pace::Pace;
use super::progress::Copied;
use super::task::CopyReason;
use super::{RepairPlanner, Surroundings, rack_repair};
use crate::engine::cluster::{Cluster, Node, Uptime};
use crate::engine::namespace::view::{self, Block};
use crate::engine::tables::StoreError;

/// Blocks of one node looked at in one call.
const SLICE_BLOCKS: usize = 128;
/// Nodes that give in one call.
const GIVERS_AT_ONCE: usize = 8;
/// Time between two looks if the first found nothing to begin.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The figures of a node show a move after this time at the latest.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);
/// A move that nobody ended counts for so long after its copy is overdue.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

/// How a balancing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceEnd {
    /// Every node is within the threshold.
    Reached,
    /// An administrator stopped it.
    Stopped,
    /// No block that may be moved fits into what is left to move.
    NothingFits,
}

/// The latest balancing, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BalanceStatus {
    /// Whether one is under way.
    pub is_running: bool,
    /// How the latest one ended.
    pub ended: Option<BalanceEnd>,
    /// How far a node may be from the mean.
    pub threshold_ppm: u64,
    /// Limit of all moves together; 0 is none.
    pub bytes_per_sec: u64,
    /// Copies under way for it.
    pub moves_running: usize,
    /// What it moved.
    pub moved: Copied,
    /// Since its start.
    pub elapsed: Duration,
    /// What is to be done right now.
    pub balance: Balance,
}

/// The balancing that is under way, or the latest one.
#[derive(Debug)]
pub(super) struct Balancing {
    threshold_ppm: u64,
    pace: Pace,
    started: Uptime,
    look_at: Uptime,
    ended: Option<(Uptime, BalanceEnd)>,
    moved: Copied,
    /// Where to go on with each giver.
    cursors: BTreeMap<NodeId, Cursor>,
    /// Givers of which all blocks were looked at since the last move began.
    fruitless: BTreeSet<NodeId>,
}

/// How far the blocks of a giver were looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    after: Option<BlockId>,
    /// Whether one of them was moved, or will be.
    has_moved: bool,
}

/// What came of trying to move a block.
enum Try {
    Moved,
    /// It is too large, or no taker may have it.
    Unfit,
    /// It could be moved, but for the limits.
    Later,
}

/// A block on its way from one node to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    from: NodeId,
    to: NodeId,
    bytes: u64,
    /// Until then the figures of the two nodes may not show it.
    until: Uptime,
}

impl RepairPlanner {
    pub(super) fn start_balance(&mut self, now: Uptime, threshold_ppm: u64, bytes_per_sec: u64) {
        self.balancing = Some(Balancing {
            threshold_ppm,
            pace: Pace::new(bytes_per_sec),
            started: now,
            look_at: now,
            ended: None,
            moved: Copied::default(),
            cursors: BTreeMap::new(),
            fruitless: BTreeSet::new(),
        });
    }

    pub(super) fn end_balance(&mut self, now: Uptime, end: BalanceEnd) {
        if let Some(balancing) = &mut self.balancing {
            balancing.ended.get_or_insert((now, end));
        }
    }

    /// The node whose replica of `block` is to go because it was copied to another.
    pub(super) fn moved_from(&self, block: BlockId) -> Option<NodeId> {
        self.moves.get(&block).map(|moved| moved.from)
    }

    /// The new replica of a moved block is confirmed.
    pub(super) fn move_arrived(&mut self, bytes: u64) {
        if let Some(balancing) = &mut self.balancing {
            balancing.moved.copies += 1;
            balancing.moved.bytes = balancing.moved.bytes.saturating_add(bytes);
        }
    }

    /// The old replica of a moved block left its set.
    pub(super) fn move_left(&mut self, now: Uptime, block: BlockId, node: NodeId) {
        if let Some(moved) = self.moves.get_mut(&block).filter(|moved| moved.from == node) {
            moved.until = now + SETTLES_WITHIN;
        }
    }

    /// The copy of a block failed.
    pub(super) fn move_failed(&mut self, block: BlockId) {
        self.moves.remove(&block);
    }

    pub(super) fn moves_running(&self) -> usize {
        self.tasks.iter().filter(|task| task.reason == CopyReason::Balance).count()
    }

    /// The latest balancing and what is left for it.
    pub fn balance_status(&self, now: Uptime, cluster: &Cluster) -> BalanceStatus {
        let Some(balancing) = &self.balancing else { return BalanceStatus::default() };
        let end = balancing.ended.map_or(now, |(at, _)| at);
        BalanceStatus {
            is_running: balancing.ended.is_none(),
            ended: balancing.ended.map(|(_, end)| end),
            threshold_ppm: balancing.threshold_ppm,
            bytes_per_sec: balancing.pace.bytes_per_sec(),
            moves_running: self.moves_running(),
            moved: balancing.moved,
            elapsed: end.saturating_sub(balancing.started),
            balance: balance::weigh(&self.fills(cluster), balancing.threshold_ppm),
        }
    }

    /// Starts moves, if there is nothing better to do.
    pub(super) fn balance(
        &mut self,
        now: Uptime,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        self.moves.retain(|_, moved| moved.until > now);
        let is_due = |each: &&Balancing| each.ended.is_none() && each.look_at <= now;
        let Some(balancing) = self.balancing.as_ref().filter(is_due) else { return Ok(()) };
        if self.paused || self.queue.waiting_at_once() > 0 {
            return Ok(());
        }
        let mut balance = balance::weigh(&self.fills(around.cluster), balancing.threshold_ppm);
        let is_given = |giver: &balance::Side| !balancing.fruitless.contains(&giver.node);
        let givers: Vec<usize> = (0..balance.givers.len())
            .filter(|giver| is_given(&balance.givers[*giver]))
            .take(GIVERS_AT_ONCE)
            .collect();
        let moves_before = self.moves.len();
        let is_done = givers.is_empty() && self.moves.is_empty();
        for giver in givers {
            self.move_some_of(now, giver, &mut balance, around)?;
        }
        if is_done && balance.is_reached() {
            self.end_balance(now, BalanceEnd::Reached);
        } else if is_done {
            self.end_balance(now, BalanceEnd::NothingFits);
        } else if let Some(balancing) =
            self.balancing.as_mut().filter(|_| self.moves.len() == moves_before)
        {
            balancing.look_at = now + LOOK_EVERY;
        }
        Ok(())
    }

    /// Looks at a slice of the blocks of one giver.
    fn move_some_of(
        &mut self,
        now: Uptime,
        giver: usize,
        balance: &mut Balance,
        around: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let from = balance.givers[giver].node;
        let Some(balancing) = self.balancing.as_ref() else { return Ok(()) };
        if balancing.fruitless.contains(&from) {
            return Ok(());
        }
        let mut cursor = balancing.cursors.get(&from).copied().unwrap_or_default();
        let blocks = view::blocks_of_node(around.tables, from, cursor.after, SLICE_BLOCKS)?;
        let mut is_stopped = false;
        for id in &blocks {
            if let Some(block) = self.movable(*id, around)? {
                match self.try_move(now, &block, giver, balance, around) {
                    Try::Moved => cursor.has_moved = true,
                    Try::Unfit => {}
                    Try::Later => {
                        // Not fruitless: it goes on with this block.
                        (cursor.has_moved, is_stopped) = (true, true);
                        break;
                    }
                }
            }
            cursor.after = Some(*id);
        }
        let is_at_end = blocks.len() < SLICE_BLOCKS && !is_stopped;
        if let Some(balancing) = self.balancing.as_mut() {
            if is_at_end && !cursor.has_moved {
                balancing.fruitless.insert(from);
            }
            let cursor = if is_at_end { Cursor::default() } else { cursor };
            balancing.cursors.insert(from, cursor);
        }
        Ok(())
    }

    /// The block, if it is as it should be and nothing is under way with it.
    fn movable(&self, id: BlockId, around: &Surroundings<'_>) -> Result<Option<Block>, StoreError> {
        let is_busy = self.tasks.of_block(id).next().is_some()
            || self.removing.contains_key(&id)
            || self.moves.contains_key(&id)
            || self.is_doubted(id);
        if is_busy {
            return Ok(None);
        }
        let block = view::block(around.tables, id)?.filter(|block| !block.unlinked);
        let is_settled = |block: &Block| Assessment::of(block, around.cluster).is_settled();
        Ok(block.filter(|block| block.length > 0 && is_settled(block)))
    }

    fn try_move(
        &mut self,
        now: Uptime,
        block: &Block,
        giver: usize,
        balance: &mut Balance,
        around: &Surroundings<'_>,
    ) -> Try {
        let (from, bytes) = (balance.givers[giver].node, block.length);
        if bytes > balance.givers[giver].bytes {
            return Try::Unfit;
        }
        let cluster = around.cluster;
        let fits = |taker: &balance::Side| {
            let to = taker.node;
            let available = cluster.node(to).map_or(0, |node| node.load.available);
            taker.bytes >= bytes
                && available.saturating_sub(around.reserved.on(to)) >= bytes
                && !block.good.contains(&to)
                && !self.drops.is_ordered(to, block.id)
                && rack_repair::keeps_spread(&block.good, from, to, cluster)
        };
        let fitting: Vec<usize> =
            (0..balance.takers.len()).filter(|index| fits(&balance.takers[*index])).collect();
        let is_free = |index: &&usize| self.budget.may_receive(balance.takers[**index].node, bytes);
        let may_start = self.balancing.as_ref().is_some_and(|each| each.pace.may_start(now))
            && self.budget.may_send(from, bytes);
        let taker = match fitting.iter().find(is_free) {
            _ if fitting.is_empty() => return Try::Unfit,
            Some(taker) if may_start => *taker,
            Some(_) | None => return Try::Later,
        };
        let to = balance.takers[taker].node;
        balance.givers[giver].bytes -= bytes;
        balance.takers[taker].bytes -= bytes;
        let until = now + self.timeout_for(bytes) + FORGOTTEN_AFTER;
        self.moves.insert(block.id, Move { from, to, bytes, until });
        if let Some(balancing) = &mut self.balancing {
            balancing.pace.take(now, bytes);
            balancing.fruitless.clear();
        }
        self.start_copy(now, block, (from, to), CopyReason::Balance, cluster);
        Try::Moved
    }

    /// How full the nodes are that take part: the live ones in service, with all moves counted as done.
    fn fills(&self, cluster: &Cluster) -> Vec<Fill> {
        let mut moving: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for each in self.moves.values() {
            let (coming, _) = moving.entry(each.to).or_default();
            *coming = coming.saturating_add(each.bytes);
            let (_, going) = moving.entry(each.from).or_default();
            *going = going.saturating_add(each.bytes);
        }
        let fill = |node: &Node| {
            let id = node.identity.id;
            let (coming, going) = moving.get(&id).copied().unwrap_or_default();
            let room = node.load.used.saturating_add(node.load.available);
            let used = node.load.used.saturating_add(coming).saturating_sub(going);
            Fill { node: id, used, room }
        };
        cluster.takers().map(fill).collect()
    }
}
