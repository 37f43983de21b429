//! A small cluster for tests: the real state machine in memory, datanodes as sets of replicas, and the planner
//! between them. Time moves when a test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_proto::digest::ChainingValue;
use doldam_proto::fingerprint::{Fingerprint, ReplicaId};
use doldam_proto::id::{BlockId, Generation, NodeId, NodeUuid};
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{Command, Outcome, outcome};

use super::budget::BudgetLimits;
use super::explain::Explanation;
use super::moves::BalanceStatus;
use super::pause::PauseLimits;
use super::{Action, Event, ProposalEnd, RepairLimits, RepairPlanner, Surroundings};
use crate::engine::cluster::capacity::Reserved;
use crate::engine::cluster::{
    Cluster, LivenessLimits, Load, Mode, NodeIdentity, Session, Transition, Uptime,
};
use crate::engine::namespace::apply;
use crate::engine::namespace::view::{self, Block};
use crate::engine::placement::Chance;
use crate::engine::tables::{MemoryTables, Table};

pub(super) const LIVENESS: LivenessLimits =
    LivenessLimits { suspect_after: Duration::from_secs(3), dead_after: Duration::from_secs(30) };
pub(super) const LIMITS: RepairLimits = RepairLimits {
    budget: BudgetLimits { copies_max: 2, bytes_max: 1 << 30 },
    pause: PauseLimits { share_percent: 50, nodes_min: 3, window: Duration::from_mins(10) },
    copy_timeout: Duration::from_secs(20),
    copy_rate_min: 1 << 20,
    bytes_per_sec: 0,
    tracked_max: 10_000,
};
pub(super) const VALUE: ChainingValue = ChainingValue([7; 32]);
pub(super) const LENGTH: u64 = 1000;
pub(super) const BLOCK_BYTES: u64 = 64 << 10;
const CLIENT: [u8; 16] = [1; 16];

pub(super) struct World {
    pub(super) now: Uptime,
    pub(super) tables: MemoryTables,
    pub(super) cluster: Cluster,
    pub(super) planner: RepairPlanner,
    pub(super) sessions: BTreeMap<NodeId, Session>,
    /// Bytes that nodes still take, where that is not very much.
    room: BTreeMap<NodeId, u64>,
    /// Nodes report what the state says that they hold, on disks for a hundred blocks.
    measures_disks: bool,
    chance: Chance,
    sequence: u64,
}

impl World {
    /// A cluster with live and confirmed nodes 1, 2, ... on these racks.
    pub(super) fn new(racks: &[&str]) -> Self {
        Self::with_limits(racks, LIMITS)
    }

    /// The same with a planner of other limits.
    pub(super) fn with_limits(racks: &[&str], limits: RepairLimits) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            tables: MemoryTables::new(),
            cluster: Cluster::new(LIVENESS, [], Duration::ZERO),
            planner: RepairPlanner::new(limits, Duration::ZERO),
            room: BTreeMap::new(),
            measures_disks: false,
            sessions: BTreeMap::new(),
            chance: Chance::new(1),
            sequence: 0,
        };
        let cluster_id = vec![9; 16].into();
        world.apply(Change::Format(wire::FormatCommand { cluster_id }));
        for rack in racks {
            world.join(rack);
        }
        world.poll();
        world
    }

    /// One more node, live and confirmed.
    pub(super) fn join(&mut self, rack: &str) -> NodeId {
        let number = self.sessions.len() as u8 + 1;
        let change = Change::RegisterNode(wire::RegisterNodeCommand {
            node_uuid: vec![number; 16].into(),
            address: format!("h{number}:1"),
            rack: rack.to_owned(),
        });
        let Some(outcome::Kind::RegisterNode(registered)) = self.apply(change).kind else {
            panic!("no node")
        };
        let id = NodeId(registered.node_id);
        let uuid = NodeUuid([number; 16]);
        let identity =
            NodeIdentity { id, uuid, address: format!("h{number}:1"), rack: rack.to_owned() };
        self.register(identity);
        self.confirm(id);
        id
    }

    fn register(&mut self, identity: NodeIdentity) {
        let id = identity.id;
        let transitions = self.cluster.register(self.now, identity, "1".to_owned());
        self.tell(transitions);
        let session = self.cluster.open_stream(id).unwrap();
        self.sessions.insert(id, session);
        self.beat(id);
    }

    /// The node comes back: registers, and beats once.
    pub(super) fn come_back(&mut self, id: u32) {
        let identity = self.cluster.node(NodeId(id)).unwrap().identity.clone();
        self.register(identity);
    }

    /// The node comes back in another rack, with all it had.
    pub(super) fn move_to_rack(&mut self, id: u32, rack: &str) {
        let mut identity = self.cluster.node(NodeId(id)).unwrap().identity.clone();
        rack.clone_into(&mut identity.rack);
        self.register(identity);
        self.confirm(NodeId(id));
    }

    pub(super) fn confirm(&mut self, id: NodeId) {
        if self.cluster.confirm(id) {
            self.event(Event::NodeConfirmed(id));
        }
    }

    /// A heartbeat of one node.
    pub(super) fn beat(&mut self, id: NodeId) {
        let load = self.load(id);
        let session = self.sessions[&id];
        let transition = self.cluster.heartbeat(self.now, id, session, load).unwrap();
        self.tell(transition);
    }

    /// Carries out what is proposed and stores what is copied, until there is nothing more to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            let actions = self.poll();
            if actions.is_empty() {
                return;
            }
            for change in proposals(&actions) {
                self.carry_out(change);
            }
            for (block, _, target) in copies(&actions) {
                self.store(BlockId(block), target);
            }
        }
        panic!("no end of actions");
    }

    fn load(&self, id: NodeId) -> Load {
        let capacity = if self.measures_disks { 100 * LENGTH } else { 1 << 40 };
        let used = if self.measures_disks { self.replicas_on(id.0) * LENGTH } else { 0 };
        let room = if self.measures_disks { capacity - used } else { capacity / 2 };
        let available = self.room.get(&id).copied().unwrap_or(room);
        Load { capacity, used, available, ..Load::default() }
    }

    /// All nodes have disks for a hundred blocks from now on.
    pub(super) fn measure_disks(&mut self) {
        self.measures_disks = true;
        self.beat_all();
    }

    pub(super) fn beat_all(&mut self) {
        for id in self.live() {
            self.beat(id);
        }
    }

    /// The node takes so many more bytes.
    pub(super) fn set_room(&mut self, node: u32, bytes: u64) {
        self.room.insert(NodeId(node), bytes);
        self.beat(NodeId(node));
    }

    /// An administrator decides.
    pub(super) fn set_mode(&mut self, node: u32, mode: Mode) {
        let transition = self.cluster.set_mode(NodeId(node), mode);
        self.tell(transition);
    }

    /// Good replicas that the state lists for a node.
    pub(super) fn replicas_on(&self, node: u32) -> u64 {
        view::replica_sum(&self.tables, NodeId(node)).unwrap().count
    }

    /// Why a block waits.
    pub(super) fn explain(&self, block: BlockId) -> Option<Explanation> {
        let reserved = Reserved::default();
        let around =
            Surroundings { cluster: &self.cluster, reserved: &reserved, tables: &self.tables };
        self.planner.explain(self.now, block, &around).unwrap()
    }

    pub(super) fn explain_waiting(&self, count: usize) -> Vec<Explanation> {
        let reserved = Reserved::default();
        let around =
            Surroundings { cluster: &self.cluster, reserved: &reserved, tables: &self.tables };
        self.planner.explain_waiting(self.now, count, &around).unwrap()
    }

    pub(super) fn balance(&self) -> BalanceStatus {
        self.planner.balance_status(self.now, &self.cluster)
    }

    /// The stream of a node ends.
    pub(super) fn lose(&mut self, id: u32) {
        let id = NodeId(id);
        let transition = self.cluster.stream_closed(self.now, id, self.sessions[&id]);
        self.tell(transition);
    }

    /// Moves the clock on; all nodes but the lost ones beat at the new time.
    pub(super) fn advance_to(&mut self, now: Uptime) {
        self.now = now;
        for id in self.live() {
            self.beat(id);
        }
        let transitions = self.cluster.tick(now);
        self.tell(transitions);
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        let live = self.cluster.nodes().filter(|node| node.standing().is_live());
        live.map(|node| node.identity.id).collect()
    }

    pub(super) fn tell(&mut self, transitions: impl IntoIterator<Item = Transition>) {
        for transition in transitions {
            let event = match transition {
                Transition::Registered(node) => Event::NodeRegistered(node),
                Transition::Live(node) => Event::NodeLive(node),
                Transition::Suspect(node) => Event::NodeSuspect(node),
                Transition::Dead(node) => Event::NodeDead(node),
                Transition::ModeChanged(node) | Transition::MaintenanceOver(node, _) => {
                    Event::ModeChanged(node)
                }
                Transition::CloseStream(..) => continue,
            };
            self.event(event);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let reserved = Reserved::default();
        let around =
            Surroundings { cluster: &self.cluster, reserved: &reserved, tables: &self.tables };
        self.planner.handle_event(self.now, event, &around).unwrap();
    }

    /// All the planner wants to do now.
    pub(super) fn poll(&mut self) -> Vec<Action> {
        let reserved = Reserved::default();
        let around =
            Surroundings { cluster: &self.cluster, reserved: &reserved, tables: &self.tables };
        let mut actions = Vec::new();
        loop {
            let slice = self.planner.poll_actions(self.now, &around, &mut self.chance).unwrap();
            let is_done = slice.is_empty() && !self.planner.has_backlog();
            actions.extend(slice);
            if is_done {
                return actions;
            }
        }
    }

    /// Applies a change as the driver does, with the planner told what the driver tells it.
    pub(super) fn apply(&mut self, change: Change) -> Outcome {
        self.try_apply(change).unwrap()
    }

    fn try_apply(&mut self, change: Change) -> Result<Outcome, doldam_proto::FsError> {
        self.sequence += 1;
        let sequence = self.sequence;
        let request = wire::RequestId {
            client_id: CLIENT.to_vec().into(),
            sequence,
            answered_below: sequence,
        };
        let command = Command { time_ms: 1, request: Some(request), change: Some(change) };
        let applied = apply(&self.tables, &command).unwrap();
        let outcome = applied.outcome?;
        let is_in_debt =
            |block: &&u64| applied.changes.get(Table::Debts, &block.to_be_bytes()).is_some();
        let touched = outcome.touched_blocks.iter().filter(is_in_debt);
        let touched = touched.chain(&outcome.late_commits);
        let touched: Vec<BlockId> = touched.copied().map(BlockId).collect();
        self.tables.apply_changes(applied.changes);
        if !touched.is_empty() {
            self.event(Event::Touched(touched));
        }
        let is_own =
            !matches!(command.change, Some(Change::AddReplica(_) | Change::RemoveReplica(_)));
        if is_own && !outcome.dropped.is_empty() {
            let dropped = outcome.dropped.iter().map(|replica| {
                let generation = Generation(replica.generation);
                (NodeId(replica.node_id), BlockId(replica.block_id), generation)
            });
            self.event(Event::Unowned(dropped.collect()));
        }
        Ok(outcome)
    }

    /// Carries a proposal out and tells the planner how it ended.
    pub(super) fn carry_out(&mut self, change: Change) -> ProposalEnd {
        let end = match self.try_apply(change.clone()) {
            Ok(Outcome { kind: Some(outcome::Kind::Replica(replica)), .. }) if !replica.changed => {
                ProposalEnd::Unchanged
            }
            Ok(_) => ProposalEnd::Changed,
            Err(_) => ProposalEnd::Refused,
        };
        self.event(Event::Proposed(change, end));
        end
    }

    /// A complete file of one block on these nodes.
    pub(super) fn file(&mut self, path: &str, wanted: u32, nodes: &[u32]) -> BlockId {
        let created = self.apply(Change::Create(wire::CreateCommand {
            path: path.to_owned(),
            replication: wanted,
            block_bytes: BLOCK_BYTES,
            durability: wire::Durability::All as i32,
            allocate_first: true,
            first_targets: nodes.to_vec(),
            ..wire::CreateCommand::default()
        }));
        let Some(outcome::Kind::Create(created)) = created.kind else { panic!("no file") };
        let commit = wire::BlockCommit {
            block_id: created.block_id,
            generation: created.generation,
            length: LENGTH,
            chaining_value: VALUE.to_bytes(),
            root_value: vec![8; 32].into(),
            node_ids: nodes.to_vec(),
        };
        self.apply(Change::Complete(wire::CompleteCommand {
            inode_id: created.inode_id,
            length: LENGTH,
            commits: vec![commit],
        }));
        BlockId(created.block_id)
    }

    pub(super) fn block(&self, id: BlockId) -> Block {
        view::block(&self.tables, id).unwrap().unwrap()
    }

    /// The good holders of a block, in order of ids.
    pub(super) fn good(&self, id: BlockId) -> BTreeSet<u32> {
        self.block(id).good.iter().map(|node| node.0).collect()
    }

    /// The target has stored its copy.
    pub(super) fn store(&mut self, block: BlockId, node: u32) {
        self.event(Event::Stored(NodeId(node), replica(block), VALUE));
    }
}

pub(super) fn replica(block: BlockId) -> ReplicaId {
    ReplicaId { block, generation: Generation(1), length: LENGTH }
}

/// The sum over the replicas of a disk.
pub(super) fn sum<'a>(blocks: impl IntoIterator<Item = &'a BlockId>) -> (Fingerprint, u64) {
    let (mut sum, mut count) = (Fingerprint::default(), 0);
    for block in blocks {
        sum.add(&replica(*block));
        count += 1;
    }
    (sum, count)
}

/// The copies among actions, as (block, source, target).
pub(super) fn copies(actions: &[Action]) -> Vec<(u64, u32, u32)> {
    let copy = |action: &Action| match action {
        Action::Order(source, wire::Order { kind: Some(wire::order::Kind::Copy(copy)), .. }) => {
            Some((copy.block_id, source.0, copy.targets[0].node_id))
        }
        Action::Order(..) | Action::Propose(_) => None,
    };
    actions.iter().filter_map(copy).collect()
}

/// The drops among actions, as (block, node).
pub(super) fn drops(actions: &[Action]) -> Vec<(u64, u32)> {
    let drop = |action: &Action| match action {
        Action::Order(node, wire::Order { kind: Some(wire::order::Kind::Drop(drop)), .. }) => {
            Some((drop.block_id, node.0))
        }
        Action::Order(..) | Action::Propose(_) => None,
    };
    actions.iter().filter_map(drop).collect()
}

/// The cancelled copies among actions, as (order of the copy, source).
pub(super) fn cancelled(actions: &[Action]) -> Vec<(u64, u32)> {
    let cancel = |action: &Action| match action {
        Action::Order(node, wire::Order { kind: Some(wire::order::Kind::Cancel(cancel)), .. }) => {
            Some((cancel.copy_order_id, node.0))
        }
        Action::Order(..) | Action::Propose(_) => None,
    };
    actions.iter().filter_map(cancel).collect()
}

/// The proposals among actions.
pub(super) fn proposals(actions: &[Action]) -> Vec<Change> {
    let change = |action: &Action| match action {
        Action::Propose(change) => Some(change.clone()),
        Action::Order(..) => None,
    };
    actions.iter().filter_map(change).collect()
}
