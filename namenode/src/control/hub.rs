//! What the services and the control loop share: the cluster view, reservations, leases and links.
//!
//! Every lock here is held for a moment only. Order of locks where several are taken: store, cluster, the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doldam_proto::fingerprint::{Fingerprint, ReplicaId};
use doldam_proto::id::{BlockId, Epoch, InodeId, NodeId};
use doldam_runtime::clock::{Clock, Uptime};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, mpsc, oneshot};

use super::leases::Leases;
use super::links::Links;
use super::questions::{Question, Questions, RepairView};
use crate::engine::cluster::capacity::{Reservations, Reserved};
use crate::engine::cluster::{
    Cluster, Load, Mode, NodeIdentity, NotRegistered, Session, Transition,
};
use crate::engine::recovery::{RecoveredReplica, RecoveryStats};
use crate::engine::repair::{Event, RepairStats};

/// A datanode's message, checked, on its way to the control loop.
#[derive(Debug)]
pub(crate) struct NodeMessage {
    /// Who sent it.
    pub(crate) node: NodeId,
    /// By which stream.
    pub(crate) session: Session,
    /// The set hash and number of its replicas.
    pub(crate) sum: (Fingerprint, u64),
    /// What happened to its replicas and orders.
    pub(crate) events: Vec<Event>,
    /// The hashes of its buckets, if it was asked for them.
    pub(crate) buckets: Option<BTreeMap<u32, Fingerprint>>,
    /// The contents of buckets it was asked for.
    pub(crate) listings: Vec<(u32, Vec<ReplicaId>)>,
    /// What it has of blocks whose writers are gone.
    pub(crate) recovered: Vec<RecoveredReplica>,
}

/// Most blocks kept that were committed with a holder that is not live.
const DOUBTFUL_MAX: usize = 100_000;

/// See the module.
pub(crate) struct Hub {
    clock: Arc<dyn Clock>,
    cluster: RwLock<Cluster>,
    transitions: Mutex<Vec<Transition>>,
    has_transitions: Notify,
    reservations: Mutex<Reservations>,
    leases: Mutex<Leases>,
    doubtful: Mutex<Vec<BlockId>>,
    repair: Mutex<(RepairStats, RecoveryStats)>,
    maintenance_left: Mutex<BTreeMap<NodeId, u64>>,
    has_abandoned: AtomicBool,
    messages: mpsc::Sender<NodeMessage>,
    questions: Questions,
    /// The datanodes' streams.
    pub(crate) links: Links,
}

impl Hub {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        cluster: Cluster,
        leases: Leases,
        epoch: Epoch,
        (messages, questions): (mpsc::Sender<NodeMessage>, Questions),
    ) -> Self {
        Self {
            clock,
            cluster: RwLock::new(cluster),
            transitions: Mutex::default(),
            has_transitions: Notify::new(),
            reservations: Mutex::default(),
            leases: Mutex::new(leases),
            doubtful: Mutex::default(),
            repair: Mutex::default(),
            maintenance_left: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
            messages,
            questions,
            links: Links::new(epoch),
        }
    }

    pub(crate) fn now(&self) -> Uptime {
        self.clock.now()
    }

    /// The cluster right now; to be given back at once.
    pub(crate) fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.cluster.read()
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock()
    }

    /// A datanode registered; the command that says so is durable.
    pub(crate) fn register(&self, identity: NodeIdentity, version: String) {
        let mut cluster = self.cluster.write();
        let transitions = cluster.register(self.now(), identity, version);
        self.note(transitions);
    }

    /// The first message of a heartbeat stream came.
    pub(crate) fn open_stream(&self, node: NodeId) -> Result<Session, NotRegistered> {
        self.cluster.write().open_stream(node)
    }

    /// A heartbeat came.
    pub(crate) fn heartbeat(
        &self,
        node: NodeId,
        session: Session,
        load: Load,
    ) -> Result<(), NotRegistered> {
        let mut cluster = self.cluster.write();
        let transition = cluster.heartbeat(self.now(), node, session, load)?;
        self.note(transition.into_iter().collect());
        Ok(())
    }

    /// A heartbeat stream ended, however it did.
    pub(crate) fn stream_closed(&self, node: NodeId, session: Session) {
        self.links.close(node, session);
        let mut cluster = self.cluster.write();
        let transition = cluster.stream_closed(self.now(), node, session);
        self.note(transition.into_iter().collect());
    }

    /// What the node holds is known; whether that is news.
    pub(crate) fn confirm(&self, node: NodeId) -> bool {
        self.cluster.write().confirm(node)
    }

    /// Lets time pass.
    pub(crate) fn tick(&self, now: Uptime) {
        let mut cluster = self.cluster.write();
        let transitions = cluster.tick(now);
        self.note(transitions);
        drop(cluster);
        self.reservations.lock().expire(now);
    }

    /// Called with the cluster locked, so that the order of transitions is the order of events.
    fn note(&self, transitions: Vec<Transition>) {
        if transitions.is_empty() {
            return;
        }
        for transition in &transitions {
            if let Transition::CloseStream(node, session) = transition {
                self.links.close(*node, *session);
            }
        }
        self.transitions.lock().extend(transitions);
        self.has_transitions.notify_one();
    }

    /// Waits until there may be transitions. Cancel-safe.
    pub(crate) async fn has_transitions(&self) {
        self.has_transitions.notified().await;
    }

    pub(crate) fn take_transitions(&self) -> Vec<Transition> {
        std::mem::take(&mut *self.transitions.lock())
    }

    /// Hands a datanode's message to the control loop; waits while that has too much to do. False if it has ended.
    pub(crate) async fn deliver(&self, message: NodeMessage) -> bool {
        self.messages.send(message).await.is_ok()
    }

    /// What is reserved on each node.
    pub(crate) fn reserved(&self) -> Reserved {
        self.reservations.lock().sums().clone()
    }

    /// A look at what is reserved, without a copy.
    pub(crate) fn with_reserved<T>(&self, look: impl FnOnce(&Reserved) -> T) -> T {
        look(self.reservations.lock().sums())
    }

    /// A block is about to be written.
    pub(crate) fn reserve(&self, inode: InodeId, block: BlockId, nodes: &[NodeId], bytes: u64) {
        self.reservations.lock().reserve(self.now(), (inode, block), nodes, bytes);
    }

    /// These blocks of a write were committed or replaced.
    pub(crate) fn release_blocks(&self, inode: InodeId, blocks: impl IntoIterator<Item = BlockId>) {
        let mut reservations = self.reservations.lock();
        blocks.into_iter().for_each(|block| reservations.release_block(inode, block));
    }

    /// A write ended.
    pub(crate) fn release_write(&self, inode: InodeId) {
        self.reservations.lock().release_write(inode);
    }

    /// A block was committed with a holder that is not live: whether it is to be repaired is to be looked at, for
    /// the scan of that holder's blocks may have passed before.
    pub(crate) fn note_doubtful(&self, block: BlockId) {
        let mut doubtful = self.doubtful.lock();
        if doubtful.len() < DOUBTFUL_MAX {
            doubtful.push(block);
        }
    }

    pub(crate) fn take_doubtful(&self) -> Vec<BlockId> {
        std::mem::take(&mut *self.doubtful.lock())
    }

    /// A visible file was taken from its writer, and may have to be recovered.
    pub(crate) fn note_abandoned(&self) {
        self.has_abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether there may be files to recover since the last time.
    pub(crate) fn take_abandoned(&self) -> bool {
        self.has_abandoned.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_repair(&self, stats: RepairStats, recovery: RecoveryStats) {
        *self.repair.lock() = (stats, recovery);
    }

    /// The latest figures of the recovery of abandoned files.
    pub(crate) fn recovery(&self) -> RecoveryStats {
        self.repair.lock().1
    }

    /// The latest figures of repair.
    pub(crate) fn repair(&self) -> RepairStats {
        self.repair.lock().0
    }

    /// An administrator's decision about a node is durable.
    pub(crate) fn set_mode(&self, node: NodeId, mode: Mode) {
        let mut cluster = self.cluster.write();
        let transition = cluster.set_mode(node, mode);
        self.note(transition.into_iter().collect());
    }

    pub(crate) fn set_maintenance_left(&self, left: BTreeMap<NodeId, u64>) {
        *self.maintenance_left.lock() = left;
    }

    /// Blocks of a node in maintenance that have too few live replicas elsewhere; `None` if that is not known yet.
    pub(crate) fn maintenance_left(&self, node: NodeId) -> Option<u64> {
        self.maintenance_left.lock().get(&node).copied()
    }

    /// Repair at this moment; `None` if too many ask, or the control loop has ended.
    pub(crate) async fn ask_repair(
        &self,
        blocks_max: usize,
        copies_max: usize,
    ) -> Option<RepairView> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { blocks_max, copies_max, answer }).ok()?;
        answered.await.ok()
    }

    /// The control loop is told of an event that did not come with a datanode's message.
    pub(crate) async fn tell(&self, event: Event) -> bool {
        let message = NodeMessage::of_nobody(event);
        self.deliver(message).await
    }
}

impl NodeMessage {
    /// An event that no datanode reported.
    fn of_nobody(event: Event) -> Self {
        Self {
            node: NodeId(0),
            session: Session(0),
            sum: (Fingerprint::default(), 0),
            events: vec![event],
            buckets: None,
            listings: Vec::new(),
            recovered: Vec::new(),
        }
    }
}
