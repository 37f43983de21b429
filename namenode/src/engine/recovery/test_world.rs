//! One abandoned file for tests: the real state machine in memory, datanodes as the bytes they have, and the planner
//! between them. Time moves when a test says so, and orders arrive when it says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use doldam_proto::digest::{BlockDigest, BlockTree, ChainingValue};
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId, NodeUuid};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{Command, FinishOrder, Order, Outcome, outcome};

use super::{RecoveredReplica, RecoveryPlanner, Starts};
use crate::engine::cluster::{
    Cluster, LivenessLimits, Load, NodeIdentity, Session, Transition, Uptime,
};
use crate::engine::invariant;
use crate::engine::namespace::{apply, view};
use crate::engine::repair::{Action, Event, OrderEnd, ProposalEnd};
use crate::engine::tables::MemoryTables;

pub(super) const GROUP: u64 = GROUP_BYTES;
pub(super) const BLOCK_BYTES: u64 = 4 * GROUP;
const LIVENESS: LivenessLimits =
    LivenessLimits { suspect_after: Duration::from_secs(3), dead_after: Duration::from_secs(30) };
const CLIENT: [u8; 16] = [1; 16];

pub(super) struct World {
    pub(super) now: Uptime,
    pub(super) tables: MemoryTables,
    pub(super) planner: RecoveryPlanner,
    pub(super) inode: InodeId,
    pub(super) block: BlockId,
    /// What the writer wrote of the block.
    pub(super) stream: Vec<u8>,
    /// What each node has of it.
    pub(super) bytes: BTreeMap<NodeId, Vec<u8>>,
    /// Nodes where that is a replica of the first generation.
    pub(super) replicas: BTreeSet<NodeId>,
    /// Datanodes are of a version that says nothing of what they are asked for.
    pub(super) is_old: bool,
    /// Orders on their way.
    pub(super) orders: VecDeque<(NodeId, Order)>,
    cluster: Cluster,
    sessions: BTreeMap<NodeId, Session>,
    sequence: u64,
}

/// What identifies `bytes` as the start of a first block.
pub(super) fn digest(bytes: &[u8]) -> BlockDigest {
    tree(bytes).digest().unwrap()
}

fn tree(bytes: &[u8]) -> BlockTree {
    let mut tree = BlockTree::new(0);
    for group in bytes.chunks(GROUP as usize) {
        tree.push_group(group);
    }
    tree
}

/// `length` bytes of which no two groups are equal.
pub(super) fn stream(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / GROUP) as u8).collect()
}

impl World {
    /// A file of which `written` bytes were written to each of these nodes and `flushed` are visible, and whose writer
    /// is gone.
    pub(super) fn new(written: &[u64], flushed: u64) -> Self {
        Self::written(written, 0, 0, flushed)
    }

    /// The same with the first `synced` bytes on stable storage, if that is not 0.
    pub(super) fn synced(written: &[u64], synced: u64, flushed: u64) -> Self {
        Self::written(written, 0, synced, flushed)
    }

    /// The same of a file that was closed with `closed` bytes on all nodes, and appended to on all.
    pub(super) fn appended(written: &[u64], closed: u64, synced: u64, flushed: u64) -> Self {
        Self::written(written, closed, synced, flushed)
    }

    fn written(written: &[u64], closed: u64, synced: u64, flushed: u64) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            tables: MemoryTables::new(),
            planner: RecoveryPlanner::default(),
            inode: InodeId(0),
            block: BlockId(0),
            stream: stream(BLOCK_BYTES),
            bytes: BTreeMap::new(),
            replicas: BTreeSet::new(),
            is_old: false,
            orders: VecDeque::new(),
            cluster: Cluster::new(LIVENESS, [], Duration::ZERO),
            sessions: BTreeMap::new(),
            sequence: 0,
        };
        world.apply(Change::Format(wire::FormatCommand { cluster_id: vec![9; 16].into() }), false);
        for length in written {
            let node = world.join();
            world.bytes.insert(node, world.stream[..*length as usize].to_vec());
        }
        let nodes: Vec<u32> = (1..=written.len() as u32).collect();
        let create = wire::CreateCommand {
            path: "/f".to_owned(),
            replication: written.len() as u32,
            block_bytes: BLOCK_BYTES,
            allocate_first: true,
            first_targets: nodes.clone(),
            ..wire::CreateCommand::default()
        };
        let created = world.apply(Change::Create(create), true).kind;
        let Some(outcome::Kind::Create(created)) = created else { panic!("{created:?}") };
        world.inode = InodeId(created.inode_id);
        world.block = BlockId(created.block_id);
        let generation = if closed > 0 { world.close_and_append(closed, &nodes) } else { 1 };
        if synced > 0 {
            world.flush(generation, synced, &nodes, true);
        }
        world.flush(generation, flushed, &nodes, false);
        let expire = wire::ExpireLeaseCommand { client_id: CLIENT.to_vec().into() };
        world.apply(Change::ExpireLease(expire), false);
        world
    }

    fn part(&self, generation: u64, length: u64, nodes: &[u32]) -> wire::BlockCommit {
        let seen = digest(&self.stream[..length as usize]);
        wire::BlockCommit {
            block_id: self.block.0,
            generation,
            length,
            chaining_value: seen.chaining_value.to_bytes(),
            root_value: seen.root_value.unwrap().to_bytes(),
            node_ids: nodes.to_vec(),
        }
    }

    fn close_and_append(&mut self, length: u64, nodes: &[u32]) -> u64 {
        let commits = vec![self.part(1, length, nodes)];
        let inode_id = self.inode.0;
        self.apply(Change::Complete(wire::CompleteCommand { inode_id, length, commits }), true);
        let append = wire::AppendCommand {
            path: "/f".to_owned(),
            tail_block_id: self.block.0,
            tail_generation: 1,
            tail_holders: nodes.to_vec(),
            tail_targets: nodes.to_vec(),
            ..wire::AppendCommand::default()
        };
        self.apply(Change::Append(append), true);
        2
    }

    fn flush(&mut self, generation: u64, length: u64, nodes: &[u32], synced: bool) {
        let open = Some(self.part(generation, length, nodes));
        let inode_id = self.inode.0;
        let flush = wire::FlushCommand { inode_id, length, commits: vec![], open, synced };
        self.apply(Change::Flush(flush), true);
    }

    fn join(&mut self) -> NodeId {
        let number = self.sessions.len() as u8 + 1;
        let change = Change::RegisterNode(wire::RegisterNodeCommand {
            node_uuid: vec![number; 16].into(),
            address: format!("h{number}:1"),
            rack: "/r".to_owned(),
        });
        self.apply(change, false);
        let id = NodeId(u32::from(number));
        self.sessions.insert(id, Session(0));
        self.come(id);
        id
    }

    /// The node registers and beats.
    pub(super) fn come(&mut self, id: NodeId) {
        let number = id.0 as u8;
        let (address, rack) = (format!("h{number}:1"), "/r".to_owned());
        let identity = NodeIdentity { id, uuid: NodeUuid([number; 16]), address, rack };
        let transitions = self.cluster.register(self.now, identity, "1".to_owned());
        self.tell(transitions);
        let session = self.cluster.open_stream(id).unwrap();
        self.sessions.insert(id, session);
        self.beat(id);
    }

    fn beat(&mut self, id: NodeId) {
        let load = Load { capacity: 1 << 40, available: 1 << 39, ..Load::default() };
        let session = self.sessions[&id];
        let transition = self.cluster.heartbeat(self.now, id, session, load).unwrap();
        self.tell(transition);
    }

    /// The stream of a node ends, and what it was ordered is lost.
    pub(super) fn leave(&mut self, id: NodeId) {
        self.orders.retain(|(node, _)| *node != id);
        let transition = self.cluster.stream_closed(self.now, id, self.sessions[&id]);
        self.tell(transition);
    }

    pub(super) fn is_there(&self, id: NodeId) -> bool {
        self.cluster.node(id).unwrap().has_stream()
    }

    fn tell(&mut self, transitions: impl IntoIterator<Item = Transition>) {
        for transition in transitions {
            let event = match transition {
                Transition::Registered(node) => Event::NodeRegistered(node),
                Transition::Live(node) => Event::NodeLive(node),
                Transition::Suspect(node) => Event::NodeSuspect(node),
                Transition::Dead(node) => Event::NodeDead(node),
                Transition::CloseStream(..)
                | Transition::ModeChanged(_)
                | Transition::MaintenanceOver(..) => continue,
            };
            self.event(&event);
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.planner.handle_event(self.now, event, &self.cluster, &self.tables).unwrap();
    }

    fn apply(&mut self, change: Change, by_client: bool) -> Outcome {
        self.try_apply(change, by_client).unwrap()
    }

    fn try_apply(
        &mut self,
        change: Change,
        by_client: bool,
    ) -> Result<Outcome, doldam_proto::FsError> {
        self.sequence += 1;
        let request = wire::RequestId {
            client_id: CLIENT.to_vec().into(),
            sequence: self.sequence,
            answered_below: 0,
        };
        let request = by_client.then_some(request);
        let command = Command { time_ms: self.sequence, request, change: Some(change) };
        let applied = apply(&self.tables, &command).unwrap();
        self.tables.apply_changes(applied.changes);
        assert_eq!(invariant::check(&self.tables), []);
        applied.outcome
    }

    /// What the planner wants right now, and nothing of it done.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        self.planner.poll_actions(self.now, &self.tables).unwrap()
    }

    /// Does what the planner wants until it wants nothing; its orders are on their way then.
    pub(super) fn poll(&mut self) {
        loop {
            let actions = self.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Order(node, order) => self.orders.push_back((node, order)),
                    Action::Propose(change) => self.propose(change),
                }
            }
        }
    }

    /// Applies a change, and tells the planner.
    pub(super) fn propose(&mut self, change: Change) {
        let end = match self.try_apply(change.clone(), false) {
            Ok(_) => ProposalEnd::Changed,
            Err(_) => ProposalEnd::Refused,
        };
        self.event(&Event::Proposed(change, end));
    }

    /// Lets time pass, with all nodes beating that are there.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        let here: Vec<NodeId> =
            self.sessions.keys().copied().filter(|node| self.is_there(*node)).collect();
        for node in here {
            self.beat(node);
        }
        self.poll();
    }

    /// The namenode starts anew; orders of before may still arrive.
    pub(super) fn restart(&mut self) {
        self.planner = RecoveryPlanner::default();
        self.poll();
    }

    /// The order at `position` arrives, is carried out and answered.
    pub(super) fn arrive(&mut self, position: usize) {
        let Some((node, order)) = self.orders.remove(position) else { return };
        let bytes = self.bytes[&node].clone();
        match order.kind.unwrap() {
            Kind::Recover(recover) => {
                assert_eq!(recover.block_id, self.block.0);
                let tree = tree(&bytes);
                let leads_to = |start: Option<wire::BlockStart>| {
                    let start = start?;
                    let there = bytes.get(..start.length as usize)?;
                    Some(digest(there).chaining_value.to_bytes() == start.chaining_value)
                };
                let (shown, floor) = (leads_to(recover.shown), leads_to(recover.floor));
                let starts = Starts {
                    shown: shown.unwrap_or_default(),
                    floor: floor.unwrap_or_default(),
                    is_replica: self.replicas.contains(&node),
                };
                let replica = RecoveredReplica {
                    starts: Some(starts).filter(|_| !self.is_old),
                    order: order.order_id,
                    block: self.block,
                    generation: Generation(1),
                    length: bytes.len() as u64,
                    groups: tree.groups().to_vec(),
                    first_root: tree.first_root(),
                };
                self.planner.recovered(self.now, node, replica);
            }
            Kind::Finish(finish) => self.finish(node, order.order_id, &finish),
            other => panic!("{other:?}"),
        }
        self.poll();
    }

    fn finish(&mut self, node: NodeId, order: u64, finish: &FinishOrder) {
        let there = self.bytes[&node].get(..finish.length as usize);
        let value = ChainingValue::from_slice(&finish.chaining_value).unwrap();
        let is_good = there.is_some_and(|there| digest(there).chaining_value == value);
        if is_good {
            let replica = ReplicaId {
                block: self.block,
                generation: Generation(finish.generation),
                length: finish.length,
            };
            self.event(&Event::Stored(node, replica, value));
        } else {
            self.event(&Event::Answered(node, order, OrderEnd::Failed));
        }
    }

    /// Everything on its way arrives, and so on until nothing is.
    pub(super) fn settle(&mut self) {
        self.poll();
        while !self.orders.is_empty() {
            self.arrive(0);
        }
    }

    /// Length of the file if it is closed.
    pub(super) fn ended(&self) -> Option<u64> {
        let status = view::stat(&self.tables, &FsPath::parse("/f").unwrap()).unwrap();
        (!status.being_written).then_some(status.length)
    }

    /// Length and holders of the block if the file is closed, which is then checked to be the start of the stream.
    pub(super) fn closed(&self) -> Option<(u64, Vec<NodeId>)> {
        let path = FsPath::parse("/f").unwrap();
        let status = view::stat(&self.tables, &path).unwrap();
        if status.being_written {
            return None;
        }
        let block = view::block(&self.tables, self.block).unwrap().unwrap();
        let expected = digest(&self.stream[..block.length as usize]);
        assert_eq!(block.chaining_value, expected.chaining_value, "not what was written");
        assert_eq!((status.length, status.digest), (block.length, expected.root_value));
        Some((block.length, block.good))
    }
}
