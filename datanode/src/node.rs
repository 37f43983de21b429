//! What all parts of a running datanode share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use doldam_proto::id::{ClusterId, NodeId, NodeUuid};
use doldam_runtime::Seams;
use doldam_runtime::connection::Deadlines;
use doldam_runtime::pool::{ConnectionPool, PoolLimits};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::blocks::store::BlockStore;
use crate::config::DatanodeConfig;
use crate::metrics::Metrics;
use crate::stream::buffers::BufferPool;

/// A running datanode.
pub(crate) struct Node {
    /// Its settings.
    pub(crate) config: DatanodeConfig,
    /// Its doors to the world.
    pub(crate) seams: Seams,
    /// Its replicas.
    pub(crate) store: Arc<BlockStore>,
    /// What it counts.
    pub(crate) metrics: Metrics,
    /// Memory for block streams.
    pub(crate) buffers: BufferPool,
    /// One permit for each block that may be written, read or copied at once.
    pub(crate) streams: Arc<Semaphore>,
    /// Repair copies among them.
    pub(crate) repairs: Repairs,
    /// Who it is, as far as it knows.
    pub(crate) membership: Membership,
    /// Cancelled when it is to stop.
    pub(crate) stopping: CancellationToken,
}

impl Node {
    /// Blocks that are being written, read or copied.
    pub(crate) fn active_streams(&self) -> usize {
        self.config.streams_max - self.streams.available_permits().min(self.config.streams_max)
    }

    /// Of those, the ones that clients wait for.
    pub(crate) fn foreground_streams(&self) -> usize {
        let repairs = self.repairs.sending() + self.repairs.receiving();
        self.active_streams().saturating_sub(repairs)
    }
}

/// Repair copies that are sent and received.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    sending: AtomicUsize,
    receiving: AtomicUsize,
}

impl Repairs {
    /// Copies that are sent.
    pub(crate) fn sending(&self) -> usize {
        self.sending.load(Ordering::Relaxed)
    }

    /// Copies that are received.
    pub(crate) fn receiving(&self) -> usize {
        self.receiving.load(Ordering::Relaxed)
    }

    /// Enters a copy that is sent, until the result is dropped.
    pub(crate) fn send(&self) -> UnderWay<'_> {
        UnderWay::enter(&self.sending)
    }

    /// Enters a copy that is received, until the result is dropped.
    pub(crate) fn receive(&self) -> UnderWay<'_> {
        UnderWay::enter(&self.receiving)
    }
}

/// A repair copy that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    count: &'a AtomicUsize,
}

impl<'a> UnderWay<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self { count }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who a datanode is, as far as it knows. The uuid is its own from the first start; it learns its
/// cluster when it first registers, and its short id at each start.
pub(crate) struct Membership {
    /// As it knows itself.
    pub(crate) uuid: NodeUuid,
    /// Address under which it is reached.
    pub(crate) address: String,
    joined: OnceLock<Joined>,
    node_id: AtomicU32,
    connected: AtomicBool,
    changed: Notify,
}

struct Joined {
    cluster: ClusterId,
    pool: ConnectionPool,
}

impl Membership {
    /// Of a node that has not registered since its start.
    pub(crate) fn new(uuid: NodeUuid, address: String) -> Self {
        Self {
            uuid,
            address,
            joined: OnceLock::new(),
            node_id: AtomicU32::new(0),
            connected: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// The node belongs to `cluster`, once and for ever.
    pub(crate) fn join(&self, cluster: ClusterId, seams: &Seams, deadlines: Deadlines) {
        self.joined.get_or_init(|| {
            let (net, limits) = (Arc::clone(&seams.net), PoolLimits::default());
            Joined { cluster, pool: ConnectionPool::new(net, cluster, deadlines, limits) }
        });
        self.changed.notify_waiters();
    }

    /// The namenode knows the node by this short id.
    pub(crate) fn register(&self, id: NodeId) {
        self.node_id.store(id.0, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether the stream to the namenode is up.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }

    /// Whether the stream to the namenode is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Its cluster, if it ever joined one.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.joined.get().map(|joined| joined.cluster)
    }

    /// Connections to other datanodes, if it ever joined a cluster.
    pub(crate) fn pool(&self) -> Option<&ConnectionPool> {
        self.joined.get().map(|joined| &joined.pool)
    }

    /// Its short id, if it has registered since its start.
    pub(crate) fn node_id(&self) -> Option<NodeId> {
        let id = self.node_id.load(Ordering::Acquire);
        (id != 0).then_some(NodeId(id))
    }

    /// Waits until the node belongs to a cluster. Cancel-safe.
    pub(crate) async fn joined(&self) -> ClusterId {
        self.until(Self::cluster).await
    }

    /// Waits until the node has registered. Cancel-safe.
    pub(crate) async fn registered(&self) -> NodeId {
        self.until(Self::node_id).await
    }

    async fn until<T>(&self, known: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable(); // Before looking, so that no change is missed.
            if let Some(found) = known(self) {
                return found;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use doldam_proto::convert::block_stream::{BlockOperation, ExpectedBlock, WriteBlock};
    use doldam_proto::digest::ChainingValue;
    use doldam_proto::file::Durability;

    use crate::testing::cluster::{TestNode, key, request, write_request};

    #[tokio::test]
    async fn repair_copies_are_not_what_repair_yields_to() {
        let node = TestNode::start(1).await;
        let expected = ExpectedBlock { length: 100, chaining_value: ChainingValue([1; 32]) };
        let mut open = Vec::new();
        for (block, repair, foreground) in [(1, Some(expected), 0), (2, None, 1)] {
            let write = write_request(key(block), &[&node], Durability::All);
            let write = BlockOperation::Write(WriteBlock { repair, ..write });
            let mut connection = node.connect().await;
            connection.send_message(&request(write)).await.unwrap();
            open.push(connection);
            let streams = open.len();
            node.until(|node| {
                let (all, others) = (node.node.active_streams(), node.node.foreground_streams());
                (all, others) == (streams, foreground)
            })
            .await;
        }
        drop(open);
        node.until(|node| node.node.active_streams() == 0).await;
        assert_eq!(node.node.foreground_streams(), 0);
    }
}
