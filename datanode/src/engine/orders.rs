//! The namenode's orders: each carried out once, in time, and not too many at once.
//!
//! Orders name the epoch they were given in. Those of another epoch are not carried out: the
//! namenode that gave them is gone, and the present one plans for itself. One that is sent again is
//! not done again; if it is done already, its answer is.
//!
//! The shell feeds [`OrderBook`] with [`received`](OrderBook::received) and
//! [`finished`](OrderBook::finished), and after each of them, and when a deadline passes, asks
//! [`poll_actions`](OrderBook::poll_actions).

use std::collections::{BTreeMap, VecDeque};

use doldam_proto::convert::datanode::{Order, OrderKind};
use doldam_runtime::clock::Uptime;

/// Orders that may wait at once; more are refused, and the namenode plans anew.
const WAITING_MAX: usize = 10_000;
/// Answers that are remembered, for orders that are sent again.
const ANSWERS_MAX: usize = 10_000;

/// What of a kind may run at once: none of them may starve clients of the disk or the network.
#[expect(clippy::struct_field_names, reason = "a limit ends in `max` here")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderLimits {
    /// Copies to other nodes.
    pub(crate) copies_max: usize,
    /// Removals.
    pub(crate) drops_max: usize,
    /// Verifications.
    pub(crate) verifies_max: usize,
    /// Recoveries of blocks that writers left, and what is made of them.
    pub(crate) recoveries_max: usize,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Which order.
    pub(crate) order: u64,
    /// Why it was not carried out, if it was not.
    pub(crate) result: Result<(), String>,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Carry an order out, and report it by [`OrderBook::finished`]; give up at `until`.
    Start {
        /// The epoch to report it under.
        epoch: u64,
        /// What to do.
        order: Order,
        /// When it is too late.
        until: Uptime,
    },
    /// End a copy that was started, and report it like any other.
    Stop {
        /// The epoch it was started under.
        epoch: u64,
        /// Which order.
        order: u64,
    },
    /// Tell the namenode.
    Answer(Answer),
}

/// Kinds of orders that wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Copy,
    Drop,
    Verify,
    Recover,
    Report,
    Cancel,
}

#[derive(Debug)]
struct Waiting {
    order: Order,
    until: Uptime,
}

/// The orders of one node.
#[derive(Debug)]
pub(crate) struct OrderBook {
    limits: OrderLimits,
    epoch: u64,
    /// In order of receipt.
    waiting: VecDeque<Waiting>,
    /// Of this epoch and of earlier ones: what runs takes its place until it has ended.
    running: BTreeMap<(u64, u64), Lane>,
    answered: BTreeMap<u64, Result<(), String>>,
    answered_order: VecDeque<u64>,
    actions: VecDeque<Action>,
}

impl OrderBook {
    /// Without any order.
    pub(crate) fn new(limits: OrderLimits) -> Self {
        Self {
            limits,
            epoch: 0,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            answered: BTreeMap::new(),
            answered_order: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The node registered in `epoch`. If it is another than before, what still waits is forgotten.
    pub(crate) fn registered(&mut self, epoch: u64) {
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.waiting.clear();
        self.answered.clear();
        self.answered_order.clear();
        self.actions.retain(|action| !matches!(action, Action::Answer(_)));
    }

    /// Orders came in a message of `epoch`.
    pub(crate) fn received(&mut self, now: Uptime, epoch: u64, orders: Vec<Order>) {
        for order in orders {
            if epoch != self.epoch {
                let why = format!("order of epoch {epoch} in epoch {}", self.epoch);
                self.actions
                    .push_back(Action::Answer(Answer { order: order.id, result: Err(why) }));
            } else if let Some(result) = self.answered.get(&order.id).cloned() {
                self.actions.push_back(Action::Answer(Answer { order: order.id, result }));
            } else if self.is_known(order.id) {
                // Its answer is still to come.
            } else if let OrderKind::Cancel(copy) = order.kind {
                self.cancel(copy);
                self.answer(order.id, Ok(()));
            } else if self.waiting.len() >= WAITING_MAX {
                self.answer(order.id, Err(format!("{WAITING_MAX} orders wait already")));
            } else {
                let until = now.saturating_add(order.deadline);
                self.waiting.push_back(Waiting { order, until });
            }
        }
    }

    /// A copy that waits is not begun, one that runs is stopped; the namenode wants to hear of neither.
    fn cancel(&mut self, copy: u64) {
        let is_it = |order: &Order| order.id == copy && lane(&order.kind) == Lane::Copy;
        self.waiting.retain(|waiting| !is_it(&waiting.order));
        if self.running.get(&(self.epoch, copy)) == Some(&Lane::Copy) {
            self.actions.push_back(Action::Stop { epoch: self.epoch, order: copy });
        }
    }

    /// An order that was started under `epoch` has ended.
    pub(crate) fn finished(&mut self, epoch: u64, order: u64, result: Result<(), String>) {
        let ran = self.running.remove(&(epoch, order)).is_some();
        if ran && epoch == self.epoch {
            self.answer(order, result);
        }
    }

    /// What to do now.
    pub(crate) fn poll_actions(&mut self, now: Uptime) -> Vec<Action> {
        let mut still_waiting = VecDeque::new();
        for Waiting { order, until } in std::mem::take(&mut self.waiting) {
            let lane = lane(&order.kind);
            if now >= until {
                self.answer(order.id, Err("not begun before its deadline".to_owned()));
            } else if self.running_in(lane) < self.limit(lane) {
                self.running.insert((self.epoch, order.id), lane);
                self.actions.push_back(Action::Start { epoch: self.epoch, order, until });
            } else {
                still_waiting.push_back(Waiting { order, until });
            }
        }
        self.waiting = still_waiting;
        self.actions.drain(..).collect()
    }

    /// When [`poll_actions`](Self::poll_actions) is due even if nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<Uptime> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// How many orders run or wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    fn is_known(&self, order: u64) -> bool {
        self.running.contains_key(&(self.epoch, order))
            || self.waiting.iter().any(|waiting| waiting.order.id == order)
    }

    fn answer(&mut self, order: u64, result: Result<(), String>) {
        if self.answered_order.len() >= ANSWERS_MAX
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
        }
        self.answered.insert(order, result.clone());
        self.answered_order.push_back(order);
        self.actions.push_back(Action::Answer(Answer { order, result }));
    }

    fn running_in(&self, lane: Lane) -> usize {
        self.running.values().filter(|running| **running == lane).count()
    }

    fn limit(&self, lane: Lane) -> usize {
        match lane {
            Lane::Copy => self.limits.copies_max,
            Lane::Drop => self.limits.drops_max,
            Lane::Verify => self.limits.verifies_max,
            Lane::Recover => self.limits.recoveries_max,
            Lane::Report => 1,
            Lane::Cancel => usize::MAX, // Done when it is received.
        }
    }
}

fn lane(kind: &OrderKind) -> Lane {
    match kind {
        OrderKind::Copy(_) => Lane::Copy,
        OrderKind::Drop { .. } => Lane::Drop,
        OrderKind::Verify(_) => Lane::Verify,
        OrderKind::Recover(_) | OrderKind::Finish(_) => Lane::Recover,
        OrderKind::ReportBuckets | OrderKind::ListBuckets(_) => Lane::Report,
        OrderKind::Cancel(_) => Lane::Cancel,
    }
}

#[cfg(test)]
#[path = "orders_test.rs"]
mod tests;
