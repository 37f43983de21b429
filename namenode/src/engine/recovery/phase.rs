//! Where a file stands that is being closed.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::id::NodeId;

use super::RecoveredReplica;
use super::agree::Agreed;
use crate::engine::cluster::Uptime;
use crate::engine::namespace::view::Recovering;

/// See the module.
#[derive(Debug)]
pub(super) enum Phase {
    /// The next attempt is at this time, or when one of the nodes comes back that the last one needed.
    Waiting { until: Uptime, stuck: Option<Stuck> },
    /// A new generation was asked for.
    Beginning,
    /// Datanodes look at what they have.
    Asking(Asking),
    /// Datanodes make replicas.
    Finishing(Finishing),
    /// The file is about to be closed, without so many bytes that readers saw.
    Closing { lost: u64 },
}

/// What an attempt came to nothing for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stuck {
    /// Any of them may change that.
    pub(super) nodes: Vec<NodeId>,
    /// Those of them that may have what readers see, and did not answer. None: not even what was on stable storage is
    /// there any more.
    pub(super) missing: Vec<NodeId>,
}

#[derive(Debug)]
pub(super) struct Asking {
    pub(super) what: Recovering,
    /// Orders not answered.
    pub(super) asked: BTreeMap<NodeId, u64>,
    pub(super) found: BTreeMap<NodeId, RecoveredReplica>,
    pub(super) until: Uptime,
}

impl Asking {
    /// Who may have what readers see, and did not say of everything it has whether it does.
    pub(super) fn missing(&self) -> Vec<NodeId> {
        let told = |node: &NodeId| self.found.get(node).is_some_and(|told| told.starts.is_some());
        self.what.must_answer.iter().filter(|node| !told(node)).copied().collect()
    }
}

#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) what: Recovering,
    pub(super) agreed: Agreed,
    /// Orders neither done nor failed.
    pub(super) ordered: BTreeMap<NodeId, u64>,
    pub(super) stored: BTreeSet<NodeId>,
    pub(super) until: Uptime,
}

impl Finishing {
    /// Bytes that readers saw and that are no more.
    pub(super) fn lost(&self) -> u64 {
        self.what.length.saturating_sub(self.agreed.length)
    }
}

impl Phase {
    pub(super) fn finishing(&mut self) -> Option<&mut Finishing> {
        match self {
            Self::Finishing(finishing) => Some(finishing),
            Self::Waiting { .. } | Self::Beginning | Self::Asking(_) | Self::Closing { .. } => None,
        }
    }

    pub(super) fn stuck(&self) -> Option<&Stuck> {
        match self {
            Self::Waiting { stuck, .. } => stuck.as_ref(),
            Self::Beginning | Self::Asking(_) | Self::Finishing(_) | Self::Closing { .. } => None,
        }
    }

    /// The order that this node is working on.
    pub(super) fn order_of(&self, node: NodeId) -> Option<u64> {
        match self {
            Self::Asking(asking) => asking.asked.get(&node).copied(),
            Self::Finishing(finishing) => finishing.ordered.get(&node).copied(),
            Self::Waiting { .. } | Self::Beginning | Self::Closing { .. } => None,
        }
    }

    /// When it ends by itself.
    pub(super) fn until(&self) -> Option<Uptime> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            Self::Asking(asking) => Some(asking.until),
            Self::Finishing(finishing) => Some(finishing.until),
            Self::Beginning | Self::Closing { .. } => None,
        }
    }
}
