//! Datanodes as others see them.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// How far a datanode can be relied on right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heard of within the last seconds.
    Live,
    /// Its connection broke or it fell silent: it gets no new block and is read last.
    Suspect,
    /// Silent for so long that what it held is rebuilt elsewhere.
    Dead,
}

/// A datanode as a peer needs it: to connect, and to name it in an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Short id.
    pub id: NodeId,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    /// Such as `/r1`.
    pub rack: String,
    /// As the namenode saw it when it answered.
    pub state: NodeState,
}

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "datanode {} ({})", self.id, self.address)
    }
}
