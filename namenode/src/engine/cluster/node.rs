//! One datanode, and what is allowed with it in each state.
//!
//! | standing | new blocks | reads | source of a copy | its replicas count as | opens by |
//! |---|---|---|---|---|---|
//! | awaited | no | last | no | present | start of the namenode |
//! | joining | no | last | no | present | registration |
//! | live | yes | first | yes | live | first heartbeat of a stream |
//! | suspect | no | last | no | present, but urgent if only one live one is left | closed stream, short silence |
//! | dead | no | after all others | no | gone | long silence |

use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::node::{NodeAddress, NodeState};

use super::{Mode, Uptime};

/// Which node it is, as the durable state has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Short id.
    pub id: NodeId,
    /// As the node knows itself.
    pub uuid: NodeUuid,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    /// Such as `/r1`.
    pub rack: String,
}

/// One registration of a node; a heartbeat stream belongs to exactly one. Counts up from 1 in each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session(pub u64);

/// What may be done with a node; see the table of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Known from an earlier run of the namenode and not heard of in this one.
    Awaited,
    /// Registered, but its heartbeats have not begun.
    Joining,
    /// Heard of lately.
    Live,
    /// Its stream closed or it fell silent.
    Suspect,
    /// Silent for so long that what it held is rebuilt elsewhere.
    Dead,
}

impl Standing {
    /// The same for peers, who know three states.
    pub fn state(self) -> NodeState {
        match self {
            Self::Live => NodeState::Live,
            Self::Awaited | Self::Joining | Self::Suspect => NodeState::Suspect,
            Self::Dead => NodeState::Dead,
        }
    }

    /// Whether it may take new blocks, serve as the source of a copy and be read first.
    pub fn is_live(self) -> bool {
        self == Self::Live
    }

    /// Whether its replicas are believed to be there still.
    pub fn is_present(self) -> bool {
        self != Self::Dead
    }

    /// Whether it was there and left: reason to hurry for blocks with one live replica.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Suspect | Self::Dead)
    }
}

/// What a node last said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Bytes of its working volumes.
    pub capacity: u64,
    /// Bytes taken by blocks.
    pub used: u64,
    /// Bytes it would still take.
    pub available: u64,
    /// Block streams open right now.
    pub active_streams: u32,
    /// Final replicas.
    pub replicas: u64,
    /// Of these, replicas that a loss of power may have spoiled, and that it has not verified yet.
    pub unverified: u64,
    /// Paths of volumes that failed, and why.
    pub failed_volumes: Vec<String>,
    /// Complete verifications of the working volume that had the fewest.
    pub scrub_passes: u64,
    /// No replica has not been verified for longer, in seconds; 0 before the first verification began.
    pub scrub_oldest_secs: u64,
}

/// A datanode in this run of the namenode.
#[derive(Debug, Clone)]
pub struct Node {
    /// Which one.
    pub identity: NodeIdentity,
    /// Version of its software; empty until it registers.
    pub version: String,
    /// Its last word about itself.
    pub load: Load,
    /// Whether this run has compared what it holds with what it should hold since it last registered.
    /// Nothing is deleted on account of replicas of a node that is not confirmed.
    pub confirmed: bool,
    /// What an administrator decided about it.
    pub mode: Mode,
    pub(super) standing: Standing,
    pub(super) heard_at: Uptime,
    pub(super) lost_at: Option<Uptime>,
    pub(super) session: Session,
    pub(super) stream: Stream,
}

/// Where a session stands with its heartbeat stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// A registration admits one stream, which is not open yet.
    Admitted,
    /// Open.
    Open,
    /// Was open, or never admitted: the node must register.
    Closed,
}

impl Node {
    /// A node that the durable state knows, before it is heard of.
    pub(super) fn awaited(identity: NodeIdentity, now: Uptime) -> Self {
        Self {
            identity,
            version: String::new(),
            load: Load::default(),
            confirmed: false,
            mode: Mode::InService,
            standing: Standing::Awaited,
            heard_at: now,
            lost_at: None,
            session: Session(0),
            stream: Stream::Closed,
        }
    }

    /// What may be done with it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When it was last heard of, or the start of this run.
    pub fn heard_at(&self) -> Uptime {
        self.heard_at
    }

    /// Since when it is suspect or dead; `None` while it is neither.
    pub fn lost_at(&self) -> Option<Uptime> {
        self.lost_at
    }

    /// Its latest registration.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Whether orders reach it.
    pub fn has_stream(&self) -> bool {
        self.stream == Stream::Open
    }

    /// As a peer needs it.
    pub fn to_address(&self) -> NodeAddress {
        NodeAddress {
            id: self.identity.id,
            address: self.identity.address.clone(),
            rack: self.identity.rack.clone(),
            state: self.standing.state(),
        }
    }
}
