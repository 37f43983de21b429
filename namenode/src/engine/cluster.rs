//! The datanodes as the namenode sees them: who is there, how far each can be relied on, what it has room for.
//!
//! Nothing here is journaled: it is what this run of the namenode has seen. Which nodes exist and what they hold
//! is durable state; after a restart every known node is *awaited* until it registers again or its time is up.

pub mod capacity;
pub mod inventory;
pub mod liveness;
pub mod mode;
pub mod node;
pub mod topology;

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::node::{NodeAddress, NodeState};

pub use liveness::{LivenessLimits, NotRegistered, Transition};
pub use mode::Mode;
pub use node::{Load, Node, NodeIdentity, Session, Standing};

/// Time since the namenode started, on a monotonic clock.
pub type Uptime = Duration;

/// Every datanode that ever registered.
#[derive(Debug, Clone)]
pub struct Cluster {
    limits: LivenessLimits,
    nodes: BTreeMap<NodeId, Node>,
    sessions: u64,
    maintenance_live_min: usize,
}

impl Cluster {
    /// Starts with the nodes that the durable state knows; each is awaited from `now` on.
    pub fn new(
        limits: LivenessLimits,
        known: impl IntoIterator<Item = NodeIdentity>,
        now: Uptime,
    ) -> Self {
        let awaited = |identity: NodeIdentity| (identity.id, Node::awaited(identity, now));
        let nodes = known.into_iter().map(awaited).collect();
        Self { limits, nodes, sessions: 0, maintenance_live_min: 1 }
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node that calls itself `uuid`.
    pub fn node_of_uuid(&self, uuid: NodeUuid) -> Option<&Node> {
        self.nodes.values().find(|node| node.identity.uuid == uuid)
    }

    /// All nodes in order of id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// What may be done with a node; one that is not known counts as dead.
    pub fn standing(&self, id: NodeId) -> Standing {
        self.nodes.get(&id).map_or(Standing::Dead, Node::standing)
    }

    /// The node as a peer needs it; `None` if it is not known.
    pub fn address(&self, id: NodeId) -> Option<NodeAddress> {
        self.nodes.get(&id).map(Node::to_address)
    }

    /// How many nodes are in `state`.
    pub fn count(&self, state: NodeState) -> usize {
        self.nodes.values().filter(|node| node.standing().state() == state).count()
    }
}
