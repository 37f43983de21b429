//! What this client has seen of the datanodes, for all of its readers: which replica to turn to, when one is late,
//! and whether another may be asked beside it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::NodeId;
use doldam_proto::node::{Nearness, NodeAddress};
use doldam_runtime::clock::{Clock, Uptime};
use parking_lot::Mutex;

use crate::config::ClientConfig;
use crate::engine::hedge::{HedgeLimits, Hedging, Piece};
use crate::engine::latency::Latencies;

/// The engines behind one lock: it is held for as long as it takes to note a figure.
pub(crate) struct ReplicaChoice {
    clock: Arc<dyn Clock>,
    seen: Mutex<(Latencies, Hedging)>,
}

impl ReplicaChoice {
    /// Nothing is known yet.
    pub(crate) fn new(config: &ClientConfig, clock: Arc<dyn Clock>) -> Self {
        let limits = HedgeLimits { min: config.hedge_delay_min, max: config.hedge_delay_max };
        let hedging = Hedging::new(config.hedged_reads.then_some(limits));
        Self { clock, seen: Mutex::new((Latencies::default(), hedging)) }
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Uptime {
        self.clock.now()
    }

    /// Sorts replicas, the best first.
    pub(crate) fn order(
        &self,
        replicas: &mut [NodeAddress],
        nearness: impl Fn(&NodeAddress) -> Nearness,
    ) {
        self.seen.lock().0.order(replicas, nearness, self.now());
    }

    /// After how long a replica that owes such a piece is late, if ever.
    pub(crate) fn late_after(&self, piece: Piece) -> Option<Duration> {
        self.seen.lock().1.delay(piece)
    }

    /// Whether one more hedge may be made; it counts as made.
    pub(crate) fn take_hedge(&self) -> bool {
        self.seen.lock().1.take()
    }

    /// A node answered a request, if `answered_after` says so, and delivered `bytes` within `took` of being asked.
    pub(crate) fn delivered(
        &self,
        node: NodeId,
        answered_after: Option<Duration>,
        bytes: u64,
        took: Duration,
    ) {
        let now = self.now();
        let (latencies, _) = &mut *self.seen.lock();
        match answered_after {
            Some(answered_after) => {
                latencies.answered(node, answered_after, now);
                latencies.delivered(node, bytes, None, now);
            }
            None => latencies.delivered(node, bytes, Some(took), now),
        }
    }

    /// A reader waited for so long until such a piece came from anywhere.
    pub(crate) fn waited(&self, piece: Piece, waited: Duration) {
        self.seen.lock().1.delivered(piece, waited);
    }

    /// A node failed or was late.
    pub(crate) fn failed(&self, node: NodeId) {
        self.seen.lock().0.failed(node, self.now());
    }

    /// A node did not answer a writer that asked whether it is alive.
    pub(crate) fn stuck(&self, node: NodeId) {
        self.seen.lock().0.stuck(node, self.now());
    }

    /// Nodes that are not to get new blocks for now.
    pub(crate) fn shunned(&self) -> Vec<NodeId> {
        self.seen.lock().0.shunned(self.now())
    }

    /// Whether a node failed or was late a short time ago.
    pub(crate) fn is_held(&self, node: NodeId) -> bool {
        self.seen.lock().0.is_held(node, self.now())
    }
}

impl fmt::Debug for ReplicaChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReplicaChoice").finish_non_exhaustive()
    }
}
