//! The planner against the real state machine: nodes die, return, lose and spoil replicas at random; then the trouble
//! ends, and every block must get all its good replicas back, on two racks at least. Meanwhile administrators drain
//! nodes, take them away for maintenance and balance. On the way no drop may take a last good replica, nothing is
//! removed before enough others are listed, and the limits per node must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_proto::fingerprint::{Fingerprint, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::order;
use proptest::prelude::*;

use super::test_world::{LIMITS, LIVENESS, World, copies, replica, sum};
use super::{Action, Event, OrderEnd};
use crate::engine::cluster::inventory::{Inventory, Step};
use crate::engine::cluster::{Mode, Session, Uptime};
use crate::engine::invariant;
use crate::engine::namespace::view;
use crate::engine::placement::Chance;

/// What happens in one second.
#[derive(Debug, Clone)]
enum Trouble {
    Nothing,
    Kill(usize),
    Return(usize),
    /// The node keeps its stream and loses a replica.
    Lose(usize, usize),
    /// A replica rots, and the node's scrubber finds it.
    Rot(usize, usize),
    Write(usize),
    Delete(usize),
    SetReplication(usize, u32),
    Wait(u64),
    Drain(usize, bool),
    Maintain(usize, u64),
    Recommission(usize),
    Balance,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        2 => Just(Trouble::Nothing),
        3 => (0..6_usize).prop_map(Trouble::Kill),
        3 => (0..6_usize).prop_map(Trouble::Return),
        1 => (0..6_usize, 0..20_usize).prop_map(|(node, block)| Trouble::Lose(node, block)),
        1 => (0..6_usize, 0..20_usize).prop_map(|(node, block)| Trouble::Rot(node, block)),
        2 => (1..4_usize).prop_map(Trouble::Write),
        1 => (0..20_usize).prop_map(Trouble::Delete),
        // With one replica alone a loss that nobody has noticed yet is the end; `repair_test` has that case.
        1 => (0..20_usize, 2..5_u32).prop_map(|(file, wanted)| Trouble::SetReplication(file, wanted)),
        2 => (1..40_u64).prop_map(Trouble::Wait),
        2 => (0..6_usize, any::<bool>()).prop_map(|(node, fewer)| Trouble::Drain(node, fewer)),
        1 => (0..6_usize, 1..100_u64).prop_map(|(node, secs)| Trouble::Maintain(node, secs)),
        2 => (0..6_usize).prop_map(Trouble::Recommission),
        1 => Just(Trouble::Balance),
    ]
}

/// An order on its way.
struct InFlight {
    owner: NodeId,
    order: wire::Order,
    /// When it is carried out.
    due: Uptime,
    /// The registrations of all nodes when it was given.
    sessions: BTreeMap<NodeId, Session>,
    /// A copy whose target left or turned out to have the block: void for the planner, here on its way until its
    /// source notices.
    is_void: bool,
}

struct Simulation {
    world: World,
    inventory: Inventory,
    chance: Chance,
    /// Good replicas on each disk; bad ones were put aside.
    disks: BTreeMap<NodeId, BTreeSet<BlockId>>,
    up: BTreeSet<NodeId>,
    files: Vec<(String, BlockId)>,
    /// Ordered and not carried out.
    orders: Vec<InFlight>,
    /// Whether orders and events may be lost on the way.
    lossy: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut world = World::new(&["/a", "/a", "/b", "/b", "/c", "/c"]);
        world.measure_disks();
        let nodes: Vec<NodeId> = world.live();
        Self {
            disks: nodes.iter().map(|node| (*node, BTreeSet::new())).collect(),
            up: nodes.into_iter().collect(),
            world,
            inventory: Inventory::default(),
            chance: Chance::new(seed),
            files: Vec::new(),
            orders: Vec::new(),
            lossy: true,
        }
    }

    fn node(&self, index: usize) -> NodeId {
        NodeId(index as u32 % self.disks.len() as u32 + 1)
    }

    fn cause(&mut self, trouble: &Trouble) {
        match *trouble {
            Trouble::Nothing => {}
            Trouble::Kill(index) => self.kill(self.node(index)),
            Trouble::Return(index) => self.bring_back(self.node(index)),
            Trouble::Lose(index, block) => {
                let node = self.node(index);
                if let Some(block) = self.replica_that_may_go(node, block) {
                    self.disks.get_mut(&node).unwrap().remove(&block);
                }
            }
            Trouble::Rot(index, block) => {
                let node = self.node(index);
                if let Some(block) = self.replica_that_may_go(node, block)
                    && self.up.contains(&node)
                {
                    self.disks.get_mut(&node).unwrap().remove(&block);
                    self.world.event(Event::Bad(node, block, Generation(1)));
                }
            }
            Trouble::Write(replicas) => self.write(replicas),
            Trouble::Delete(file) => {
                if !self.files.is_empty() {
                    let (path, _) = self.files.remove(file % self.files.len());
                    let command = wire::DeleteCommand { path, recursive: false };
                    self.world.apply(Change::Delete(command));
                }
            }
            Trouble::SetReplication(file, replication) => {
                if !self.files.is_empty() {
                    let path = self.files[file % self.files.len()].0.clone();
                    let command = wire::SetReplicationCommand { path, replication };
                    self.world.apply(Change::SetReplication(command));
                }
            }
            Trouble::Wait(secs) => (0..secs).for_each(|_| self.second()),
            Trouble::Drain(index, accept_fewer) => {
                self.world.set_mode(self.node(index).0, Mode::Draining { accept_fewer });
            }
            Trouble::Maintain(index, secs) => {
                let until = self.world.now + Duration::from_secs(secs);
                self.world.set_mode(self.node(index).0, Mode::Maintenance { until, until_ms: 1 });
            }
            Trouble::Recommission(index) => {
                self.world.set_mode(self.node(index).0, Mode::InService);
            }
            Trouble::Balance => {
                let (threshold_ppm, bytes_per_sec) = (10_000, 0);
                self.world.event(Event::BalanceStarted { threshold_ppm, bytes_per_sec });
            }
        }
    }

    fn kill(&mut self, node: NodeId) {
        if self.up.remove(&node) {
            self.world.lose(node.0);
            self.orders.retain(|flight| flight.owner != node);
        }
    }

    fn bring_back(&mut self, node: NodeId) {
        if self.up.insert(node) {
            self.world.come_back(node.0);
            self.inventory.registered(node);
        }
    }

    /// A replica on `node` that may vanish or rot: not the last good one anywhere, those that are about to be dropped
    /// not counted, and of a block all of whose other replicas are where the namenode believes them to be. Two losses
    /// before the first can have been noticed are beyond any promise.
    fn replica_that_may_go(&self, node: NodeId, index: usize) -> Option<BlockId> {
        let disk = &self.disks[&node];
        let block = *disk.iter().nth(index % disk.len().max(1))?;
        let is_dropped = |other: &NodeId| {
            self.orders.iter().any(|flight| {
                let drop = wire::DropOrder { block_id: block.0, generation: 1, only_bad: false };
                flight.owner == *other && flight.order.kind == Some(order::Kind::Drop(drop))
            })
        };
        let listed = view::block(&self.world.tables, block).unwrap()?.good;
        let is_as_believed = listed.iter().all(|holder| self.disks[holder].contains(&block));
        let stays = |other: &NodeId| *other != node && !is_dropped(other);
        (is_as_believed && listed.iter().any(stays)).then_some(block)
    }

    fn copies_anywhere(&self, block: BlockId) -> usize {
        self.disks.values().filter(|disk| disk.contains(&block)).count()
    }

    fn write(&mut self, replicas: usize) {
        let nodes: Vec<u32> =
            self.world.live().iter().filter(|node| self.up.contains(node)).map(|id| id.0).collect();
        let nodes: Vec<u32> = nodes.into_iter().take(replicas).collect();
        if nodes.is_empty() {
            return;
        }
        let path = format!("/file{}", self.world.now.as_nanos() as usize + self.files.len());
        if self.files.iter().any(|(other, _)| *other == path) {
            return;
        }
        let block = self.world.file(&path, 3, &nodes);
        for node in nodes {
            self.disks.get_mut(&NodeId(node)).unwrap().insert(block);
        }
        self.files.push((path, block));
    }

    /// One second: heartbeats, time, the planner, and what was ordered.
    fn second(&mut self) {
        self.world.now += Duration::from_secs(1);
        for node in self.up.clone() {
            self.world.beat(node);
            let theirs = sum(&self.disks[&node]);
            let step =
                self.inventory.heartbeat(self.world.now, node, theirs, &self.world.tables).unwrap();
            self.compare(node, step);
        }
        let transitions = self.world.cluster.tick(self.world.now);
        self.world.tell(transitions);
        self.world.apply(Change::CollectGarbage(wire::CollectGarbageCommand { max_items: 10 }));
        self.plan();
        self.carry_out_orders();
        self.plan();
        self.check_limits();
        assert_eq!(invariant::check(&self.world.tables), []);
    }

    /// A node answers the questions about its inventory at once.
    fn compare(&mut self, node: NodeId, mut step: Option<Step>) {
        loop {
            step = match step {
                None => return,
                Some(Step::Confirmed) => return self.world.confirm(node),
                Some(Step::ReportBuckets) => {
                    let mut buckets: BTreeMap<u32, Fingerprint> = BTreeMap::new();
                    for block in &self.disks[&node] {
                        buckets.entry(bucket_of(*block)).or_default().add(&replica(*block));
                    }
                    let (now, tables) = (self.world.now, &self.world.tables);
                    self.inventory.buckets(now, node, &buckets, tables).unwrap()
                }
                Some(Step::ListBuckets(asked)) => {
                    let mut next = None;
                    for bucket in asked {
                        let disk = self.disks[&node].iter();
                        let there = disk.filter(|block| bucket_of(**block) == bucket);
                        let there: Vec<_> = there.map(|block| replica(*block)).collect();
                        let (now, tables) = (self.world.now, &self.world.tables);
                        let answer = self.inventory.listing(now, node, (bucket, &there), tables);
                        let (findings, step) = answer.unwrap();
                        next = step.or(next);
                        for finding in findings {
                            self.world.event(Event::Found(node, finding));
                        }
                    }
                    next
                }
            };
        }
    }

    fn plan(&mut self) {
        loop {
            let actions = self.world.poll();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Propose(change) => {
                        self.check_removal(&change);
                        self.world.carry_out(change);
                    }
                    Action::Order(node, order) => {
                        assert!(self.up.contains(&node), "an order to a node without a stream");
                        self.check_drop(node, &order);
                        self.note_cancelled(node, &order);
                        if !self.is_lost() {
                            let wait = Duration::from_secs(self.chance.below(4));
                            let (owner, due) = (node, self.world.now + wait);
                            let sessions = self.world.sessions.clone();
                            let is_void = false;
                            self.orders.push(InFlight { owner, order, due, sessions, is_void });
                        }
                    }
                }
            }
            self.check_limits();
        }
    }

    /// A copy that is cancelled counts no longer, though it may arrive all the same.
    fn note_cancelled(&mut self, node: NodeId, order: &wire::Order) {
        let Some(order::Kind::Cancel(cancel)) = &order.kind else { return };
        let is_it = |flight: &&mut InFlight| {
            flight.owner == node && flight.order.order_id == cancel.copy_order_id
        };
        self.orders.iter_mut().filter(is_it).for_each(|flight| flight.is_void = true);
    }

    /// The promise: whatever is ordered to be dropped, another good replica is on a live node, or nobody owns it.
    fn check_drop(&self, node: NodeId, order: &wire::Order) {
        let Some(order::Kind::Drop(drop)) = &order.kind else { return };
        let block = BlockId(drop.block_id);
        if drop.only_bad || !self.files.iter().any(|(_, other)| *other == block) {
            return;
        }
        let others = self.disks.iter().filter(|(other, disk)| {
            **other != node && self.up.contains(other) && disk.contains(&block)
        });
        assert!(others.count() > 0, "the last good replica of block {block} would be dropped");
    }

    /// The promise: a replica that is there leaves its set only if as many others as are wanted are listed on live
    /// nodes, or, if fewer are accepted for a drained node, as many as there are nodes for.
    fn check_removal(&self, change: &Change) {
        let Change::RemoveReplica(removal) = change else { return };
        let (id, node) = (BlockId(removal.block_id), NodeId(removal.node_id));
        let Some(block) = view::block(&self.world.tables, id).unwrap() else { return };
        if !block.good.contains(&node) || !self.disks[&node].contains(&id) {
            return;
        }
        let cluster = &self.world.cluster;
        let is_live = |other: &&NodeId| **other != node && cluster.standing(**other).is_live();
        let others = block.good.iter().filter(is_live).count();
        let enough = match cluster.mode(node) {
            Mode::Draining { accept_fewer: true } => cluster.nodes_in_service().max(1),
            Mode::Draining { .. } | Mode::InService | Mode::Maintenance { .. } => usize::MAX,
        };
        let enough = enough.min(block.wanted as usize);
        assert!(others >= enough, "{others} of {enough} stay without {node}: {block:?}");
    }

    fn check_limits(&mut self) {
        let mut busy: BTreeMap<(&str, u32), usize> = BTreeMap::new();
        for flight in &mut self.orders {
            let action = Action::Order(flight.owner, flight.order.clone());
            for (block, source, target) in copies(&[action]) {
                let node = NodeId(target);
                let is_same = flight.sessions[&node] == self.world.sessions[&node];
                let is_there = self.disks[&node].contains(&BlockId(block));
                flight.is_void |= !self.up.contains(&node) || !is_same || is_there;
                if !flight.is_void {
                    *busy.entry(("from", source)).or_default() += 1;
                    *busy.entry(("to", target)).or_default() += 1;
                }
            }
        }
        for (place, count) in busy {
            assert!(count <= LIMITS.budget.copies_max, "{count} copies {place:?}");
        }
    }

    fn is_lost(&mut self) -> bool {
        self.lossy && self.chance.below(8) == 0
    }

    fn carry_out_orders(&mut self) {
        let now = self.world.now;
        for InFlight { owner: node, order, .. } in
            self.orders.extract_if(.., |each| each.due <= now).collect::<Vec<_>>()
        {
            match order.kind {
                Some(order::Kind::Copy(copy)) => {
                    let (block, target) = (BlockId(copy.block_id), NodeId(copy.targets[0].node_id));
                    let is_there = self.disks[&node].contains(&block);
                    if is_there && self.up.contains(&target) && self.up.contains(&node) {
                        self.disks.get_mut(&target).unwrap().insert(block);
                        if !self.is_lost() {
                            self.world.store(block, target.0);
                        }
                    } else if !self.is_lost() {
                        let failed = Event::Answered(node, order.order_id, OrderEnd::Failed);
                        self.world.event(failed);
                    }
                }
                Some(order::Kind::Drop(drop)) => {
                    let block = BlockId(drop.block_id);
                    let disk = self.disks.get_mut(&node).unwrap();
                    let stays = drop.only_bad && disk.contains(&block);
                    if !stays {
                        disk.remove(&block);
                    }
                    if !self.is_lost() {
                        if !stays {
                            self.world.event(Event::Dropped(node, block, Generation(1)));
                        }
                        let done = Event::Answered(node, order.order_id, OrderEnd::Done);
                        self.world.event(done);
                    }
                }
                Some(order::Kind::Cancel(cancel)) => {
                    let id = cancel.copy_order_id;
                    self.orders.retain(|each| each.owner != node || each.order.order_id != id);
                }
                Some(_) | None => {}
            }
        }
    }

    /// The trouble ends: all nodes return, nothing is lost any more, and time passes. All are in service but one that
    /// is drained.
    fn heal(&mut self, drained: NodeId) {
        self.lossy = false;
        for index in 0..self.disks.len() {
            self.bring_back(self.node(index));
            self.world.set_mode(self.node(index).0, Mode::InService);
        }
        self.world.set_mode(drained.0, Mode::Draining { accept_fewer: false });
        // An inventory is asked for once a minute at the least, and a lost drop is forgotten after a minute.
        (0..300).for_each(|_| self.second());
        self.world.event(Event::BalanceStopped);
        (0..120).for_each(|_| self.second());
    }

    fn check_healed(&self, drained: NodeId) {
        assert_eq!((self.world.replicas_on(drained.0), self.disks[&drained].len()), (0, 0));
        for (path, id) in &self.files {
            let block = self.world.block(*id);
            assert_eq!(block.good.len(), block.wanted as usize, "{path}: {block:?}");
            assert_eq!(block.bad, [], "{path}");
            let racks = self.world.cluster.racks(&block.good).len();
            assert!(racks > 1 || block.good.len() == 1, "{path} is on one rack: {block:?}");
            for node in &block.good {
                assert!(self.disks[node].contains(id), "{path} is not on {node}");
            }
            assert_eq!(self.copies_anywhere(*id), block.good.len(), "{path} has stray replicas");
        }
        let files: BTreeSet<BlockId> = self.files.iter().map(|(_, block)| *block).collect();
        for (node, disk) in &self.disks {
            assert!(disk.is_subset(&files), "{node} holds what nobody owns");
        }
        let stats = self.world.planner.stats();
        assert_eq!((stats.running, stats.waiting), (0, 0));
        assert_eq!(stats.counts, super::queue::Counts::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_all_blocks_are_whole_again_in_the_end(
        troubles in prop::collection::vec(trouble(), 1..60),
        seed in any::<u64>(),
        drained in 1..=6_u32,
    ) {
        let mut simulation = Simulation::new(seed);
        for trouble in &troubles {
            simulation.cause(trouble);
            simulation.second();
        }
        simulation.heal(NodeId(drained));
        simulation.check_healed(NodeId(drained));
    }
}

#[test]
fn a_cluster_that_loses_a_node_for_good_is_whole_again_after_dead_after_and_a_little() {
    let mut simulation = Simulation::new(5);
    simulation.lossy = false;
    for _ in 0..20 {
        simulation.write(3);
        simulation.second();
    }
    simulation.kill(NodeId(1));
    let secs = LIVENESS.dead_after.as_secs() + 30;
    (0..secs).for_each(|_| simulation.second());
    for (path, id) in &simulation.files {
        let block = simulation.world.block(*id);
        assert_eq!(block.good.len(), 3, "{path}");
        assert!(!block.good.contains(&NodeId(1)), "{path}");
    }
}
