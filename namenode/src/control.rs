//! What keeps the cluster in order: liveness, leases, abandoned files, garbage, inventories and repair.
//!
//! The engine's planners decide; this loop tells them what happened, and does what they say through the
//! [`driver`](crate::driver) and the [`links`] to the datanodes. It is one task: everything it owns has one owner.

pub(crate) mod hub;
pub(crate) mod leases;
pub(crate) mod links;
pub(crate) mod questions;
mod reports;
pub(crate) mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::{InodeId, JournalIndex, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{FinishRecoveryCommand, Order, Outcome, SetNodeModeCommand, outcome};
use doldam_runtime::tasks::BackgroundTasks;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use self::hub::{Hub, NodeMessage};
use self::questions::Question;
use self::upkeep::Upkeep;
use crate::driver::{Driver, News};
use crate::engine::cluster::inventory::Inventory;
use crate::engine::cluster::{Transition, Uptime};
use crate::engine::namespace::view;
use crate::engine::placement::Chance;
use crate::engine::recovery::{RecoveryPlanner, RecoveryStats};
use crate::engine::repair::{
    Action, Event, OrderEnd, ProposalEnd, RepairLimits, RepairPlanner, RepairStats, Surroundings,
};

/// Messages of datanodes that wait; more of them wait in their streams.
pub(crate) const MESSAGES_WAITING_MAX: usize = 1024;
/// Time between two looks at clocks and queues.
const TICK: Duration = Duration::from_millis(100);
/// The same while there is work that was put off to keep each look short.
const BUSY_TICK: Duration = Duration::from_millis(5);
/// Messages of datanodes handled between two looks.
const MESSAGES_AT_ONCE: usize = 256;
/// Proposals of the planner under way at once.
const PROPOSALS_MAX: usize = 128;

type Proposed = (Change, Result<Outcome, FsError>);
type Orders = BTreeMap<NodeId, Vec<Order>>;

/// The loop and all it owns.
pub(crate) struct Control {
    driver: Driver,
    hub: Arc<Hub>,
    planner: RepairPlanner,
    recovery: RecoveryPlanner,
    inventory: Inventory,
    chance: Chance,
    messages: mpsc::Receiver<NodeMessage>,
    questions: mpsc::Receiver<Question>,
    /// Changes that wait for their turn to be proposed.
    wanted: VecDeque<Change>,
    proposals: FuturesUnordered<BoxFuture<'static, Proposed>>,
    upkeep: Upkeep,
    /// Orders by node, each batch with the command that must be durable before it goes out.
    outgoing: VecDeque<(JournalIndex, Orders)>,
    /// Orders that could not be sent: the planner is told at the next look.
    unsent: Vec<Event>,
    was_paused: bool,
    was_stuck: usize,
}

impl Control {
    pub(crate) fn new(
        driver: Driver,
        hub: Arc<Hub>,
        (messages, questions): (mpsc::Receiver<NodeMessage>, mpsc::Receiver<Question>),
        limits: RepairLimits,
        upkeep: Upkeep,
        seed: u64,
    ) -> Self {
        let planner = RepairPlanner::new(limits, hub.now());
        Self {
            driver,
            hub,
            planner,
            recovery: RecoveryPlanner::default(),
            inventory: Inventory::default(),
            chance: Chance::new(seed),
            messages,
            questions,
            wanted: VecDeque::new(),
            proposals: FuturesUnordered::new(),
            upkeep,
            outgoing: VecDeque::new(),
            unsent: Vec::new(),
            was_paused: false,
            was_stuck: 0,
        }
    }

    /// Runs until the server stops.
    pub(crate) async fn run(mut self, tasks: BackgroundTasks) -> Result<(), Infallible> {
        let stopping = tasks.stopping();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stopping.is_cancelled() {
            let mut events = std::mem::take(&mut self.unsent);
            let is_busy = self.planner.has_backlog();
            tokio::select! {
                biased; // One history of inputs has one outcome; no arm below is ready for ever.
                () = stopping.cancelled() => break,
                _ = tick.tick() => self.tick(),
                Some(done) = self.proposals.next() => self.take_proposed(done, &mut events),
                Some(message) = self.messages.recv() => self.take_messages(message, &mut events),
                Some(question) = self.questions.recv() => self.answer(question),
                () = self.hub.has_transitions() => {}
                () = next_durable(&self.driver, self.outgoing.front()) => {}
                () = self.driver.has_news() => {}
                () = tokio::time::sleep(BUSY_TICK), if is_busy => {}
            }
            self.take_news(&mut events);
            self.work(events);
        }
        Ok(())
    }

    /// Lets the planner see `events` and everything else that happened, and does what it says.
    fn work(&mut self, events: Vec<Event>) {
        let now = self.hub.now();
        let transitions = self.hub.take_transitions();
        self.wanted.extend(transitions.iter().filter_map(end_of_maintenance));
        let (actions, index) = self.plan(now, transitions, events);
        let orders = self.sort_out(actions);
        if !orders.is_empty() {
            self.outgoing.push_back((index, orders));
        }
        self.send_durable();
        while self.proposals.len() < PROPOSALS_MAX {
            let Some(change) = self.wanted.pop_front() else { break };
            let driver = self.driver.clone();
            self.proposals.push(Box::pin(async move {
                let outcome = driver.propose(None, change.clone()).await;
                (change, outcome)
            }));
        }
        let stats = self.planner.stats();
        self.note_pause(&stats);
        self.note_maintenance();
        let recovery = self.recovery.stats();
        self.note_stuck(&recovery);
        self.hub.set_repair(stats, recovery);
    }

    fn plan(
        &mut self,
        now: Uptime,
        transitions: Vec<Transition>,
        events: Vec<Event>,
    ) -> (Vec<Action>, JournalIndex) {
        let (planner, inventory) = (&mut self.planner, &mut self.inventory);
        let recovery = &mut self.recovery;
        let (hub, chance) = (&self.hub, &mut self.chance);
        let reserved = hub.reserved();
        let (actions, index) = self.driver.peek(|tables| {
            let cluster = hub.cluster();
            let around = Surroundings { cluster: &cluster, reserved: &reserved, tables };
            let news = transitions.into_iter();
            let news: Vec<Event> =
                news.filter_map(|transition| event_of(transition, inventory)).collect();
            for event in news.into_iter().chain(events) {
                recovery.handle_event(now, &event, &cluster, tables)?;
                planner.handle_event(now, event, &around)?;
            }
            let mut actions = planner.poll_actions(now, &around, chance)?;
            actions.extend(recovery.poll_actions(now, tables)?);
            Ok(actions)
        });
        // A store that failed has stopped the process already.
        (actions.unwrap_or_default(), index)
    }

    /// Puts proposals in line and returns the orders by node.
    fn sort_out(&mut self, actions: Vec<Action>) -> Orders {
        let mut orders: Orders = BTreeMap::new();
        for action in actions {
            match action {
                Action::Order(node, order) => orders.entry(node).or_default().push(order),
                Action::Propose(change) => self.wanted.push_back(change),
            }
        }
        orders
    }

    /// Hands the orders to the nodes' streams that rest on nothing but what is durable. Those that cannot be handed
    /// over are over for the planner.
    fn send_durable(&mut self) {
        while let Some((_, orders)) =
            self.outgoing.pop_front_if(|(index, _)| self.driver.is_durable(*index))
        {
            for (node, orders) in orders {
                let unsent = self.hub.links.send(node, orders).into_iter();
                let failed = |order| Event::Answered(node, order, OrderEnd::Failed);
                self.unsent.extend(unsent.map(failed));
            }
        }
    }

    fn take_messages(&mut self, first: NodeMessage, events: &mut Vec<Event>) {
        let mut next = Some(first);
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = next else { break };
            self.take_message(message, events);
            next = self.messages.try_recv().ok();
        }
    }

    fn take_news(&mut self, events: &mut Vec<Event>) {
        let News { touched, unowned, overflowed } = self.driver.take_news();
        if !unowned.is_empty() {
            events.push(Event::Unowned(unowned));
        }
        if !touched.is_empty() {
            events.push(Event::Touched(touched));
        }
        let reported = self.hub.take_doubtful();
        if !reported.is_empty() {
            events.push(Event::Touched(reported));
        }
        if overflowed {
            events.push(Event::Overflowed);
        }
        if self.hub.take_abandoned() {
            self.recovery.look_now();
        }
    }

    fn tick(&mut self) {
        let now = self.hub.now();
        self.hub.tick(now);
        self.wanted.extend(self.upkeep.tick(now, &self.driver, &self.hub));
    }

    fn take_proposed(&mut self, (change, outcome): Proposed, events: &mut Vec<Event>) {
        if let (Change::FinishRecovery(closed), Ok(_)) = (&change, &outcome) {
            self.note_closed(closed);
        }
        let next = self.upkeep.proposed(&change, &outcome, &self.driver, &self.hub);
        self.wanted.extend(next);
        events.push(proposed(change, outcome));
    }

    fn note_closed(&self, closed: &FinishRecoveryCommand) {
        let inode = closed.inode_id;
        let length = closed.block.as_ref().map_or(0, |block| block.length);
        if !closed.lost {
            info!(inode, length, "an abandoned file is closed; its last block has so many bytes");
            return;
        }
        let path = self.driver.peek(|tables| Ok(view::path_of(tables, InodeId(inode))?)).0;
        let path = path.ok().flatten().unwrap_or_default();
        error!(
            inode,
            path,
            lost_bytes = self.recovery.closing(InodeId(inode)),
            "bytes that readers had seen are lost: they were flushed and not synced, and every datanode that may have \
             them was asked and has them no more; the file is closed without them"
        );
    }

    fn note_stuck(&mut self, stats: &RecoveryStats) {
        let stuck = stats.stuck;
        if stuck != self.was_stuck {
            self.was_stuck = stuck;
            if stuck > 0 {
                warn!(
                    stuck,
                    "files stay open until a datanode is back that has what readers see of their ends"
                );
            } else {
                info!("no abandoned file waits for a datanode any more");
            }
        }
    }

    fn note_pause(&mut self, stats: &RepairStats) {
        if stats.paused != self.was_paused {
            self.was_paused = stats.paused;
            if stats.paused {
                warn!("so many datanodes are missing at once that repair holds still");
            } else {
                info!("repair goes on");
            }
        }
    }
}

/// What makes the end of a maintenance durable: unless another was begun meanwhile, its node is in service.
fn end_of_maintenance(transition: &Transition) -> Option<Change> {
    let Transition::MaintenanceOver(node, until_ms) = transition else { return None };
    info!(%node, "the maintenance of a datanode is over");
    Some(Change::SetNodeMode(SetNodeModeCommand {
        node_id: node.0,
        only_if_until_ms: *until_ms,
        ..SetNodeModeCommand::default()
    }))
}

/// Resolves when the next batch of orders may go out; never if there is none.
async fn next_durable(driver: &Driver, next: Option<&(JournalIndex, Orders)>) {
    match next {
        Some((index, _)) if driver.durable(*index).await.is_ok() => {}
        // Nothing waits, or nothing will be durable any more: then the process stops.
        Some(_) | None => std::future::pending().await,
    }
}

fn event_of(transition: Transition, inventory: &mut Inventory) -> Option<Event> {
    match transition {
        Transition::Registered(node) => {
            inventory.registered(node);
            Some(Event::NodeRegistered(node))
        }
        Transition::Live(node) => Some(Event::NodeLive(node)),
        Transition::Suspect(node) => Some(Event::NodeSuspect(node)),
        Transition::Dead(node) => Some(Event::NodeDead(node)),
        Transition::ModeChanged(node) | Transition::MaintenanceOver(node, _) => {
            Some(Event::ModeChanged(node))
        }
        Transition::CloseStream(..) => None, // The hub closes it.
    }
}

fn proposed(change: Change, outcome: Result<Outcome, FsError>) -> Event {
    let end = match outcome {
        Ok(Outcome { kind: Some(outcome::Kind::Replica(replica)), .. }) if !replica.changed => {
            ProposalEnd::Unchanged
        }
        Ok(_) => ProposalEnd::Changed,
        Err(cause) => {
            tracing::debug!(?change, %cause, "a change was refused");
            ProposalEnd::Refused
        }
    };
    Event::Proposed(change, end)
}
