//! From registrations, heartbeats, closed streams and silence to the standing of each node.
//!
//! A closed stream makes a node suspect at once, so a killed process is noticed in milliseconds; silence does the
//! same after `suspect_after`. Silence of `dead_after` makes it dead, whatever came before. Each registration
//! admits exactly one heartbeat stream: so of two processes that claim one identity the newer wins, and the older
//! cannot come back without registering.

use std::time::Duration;

use doldam_proto::id::NodeId;

use super::node::{Load, Node, NodeIdentity, Session, Standing, Stream};
use super::{Cluster, Uptime};

/// How long a node may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessLimits {
    /// Silence from which on a node is suspect.
    pub suspect_after: Duration,
    /// Silence from which on it is dead; longer than `suspect_after`.
    pub dead_after: Duration,
}

/// What changed for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It registered: what it was ordered before is void, and what it holds is to be confirmed.
    Registered(NodeId),
    /// It is there: it may take blocks and orders.
    Live(NodeId),
    /// It may have left.
    Suspect(NodeId),
    /// It is gone.
    Dead(NodeId),
    /// An administrator decided something about it.
    ModeChanged(NodeId),
    /// Its maintenance, which was to last until this time of the wall clock, is over: it is in service again.
    MaintenanceOver(NodeId, u64),
    /// The stream of this session is to be closed: it was superseded, or its node is dead.
    CloseStream(NodeId, Session),
}

/// A heartbeat from a stream that is not, or no longer, the one of the node's latest registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("datanode {0} must register before it may heartbeat")]
pub struct NotRegistered(pub NodeId);

impl Cluster {
    /// A node registered: it is *joining* until its first heartbeat, and what it holds is to be confirmed.
    pub fn register(
        &mut self,
        now: Uptime,
        identity: NodeIdentity,
        version: String,
    ) -> Vec<Transition> {
        self.sessions += 1;
        let id = identity.id;
        let mut transitions = Vec::new();
        let fresh = Node::awaited(identity.clone(), now);
        let node = self.nodes.entry(id).or_insert(fresh);
        if node.stream == Stream::Open {
            transitions.push(Transition::CloseStream(id, node.session));
        }
        node.identity = identity;
        node.version = version;
        node.confirmed = false;
        node.heard_at = now;
        node.standing = Standing::Joining;
        node.session = Session(self.sessions);
        node.stream = Stream::Admitted;
        transitions.push(Transition::Registered(id));
        transitions
    }

    /// The first message of a heartbeat stream came; answers the session the stream belongs to from now on.
    ///
    /// # Errors
    /// Unless the node has registered in this run and has not yet opened a stream since.
    pub fn open_stream(&mut self, id: NodeId) -> Result<Session, NotRegistered> {
        let node = self.nodes.get_mut(&id).filter(|node| node.stream == Stream::Admitted);
        let node = node.ok_or(NotRegistered(id))?;
        node.stream = Stream::Open;
        Ok(node.session)
    }

    /// A heartbeat came over the stream of `session`.
    ///
    /// # Errors
    /// If that is not the open stream of the node's latest registration.
    pub fn heartbeat(
        &mut self,
        now: Uptime,
        id: NodeId,
        session: Session,
        load: Load,
    ) -> Result<Option<Transition>, NotRegistered> {
        let node = self.nodes.get_mut(&id);
        let node = node.filter(|node| node.stream == Stream::Open && node.session == session);
        let node = node.ok_or(NotRegistered(id))?;
        node.heard_at = now;
        node.load = load;
        node.lost_at = None;
        let before = std::mem::replace(&mut node.standing, Standing::Live);
        Ok((before != Standing::Live).then_some(Transition::Live(id)))
    }

    /// The stream of `session` ended. Says nothing about a node that has registered anew since.
    pub fn stream_closed(
        &mut self,
        now: Uptime,
        id: NodeId,
        session: Session,
    ) -> Option<Transition> {
        let node = self.nodes.get_mut(&id).filter(|node| node.session == session)?;
        if node.stream == Stream::Open {
            node.stream = Stream::Closed;
        }
        node.lose(now)
    }

    /// What the node holds was compared with what it should hold; whether that is news. It counts only once the node
    /// itself knows that it holds it.
    pub fn confirm(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).filter(|node| node.load.unverified == 0);
        node.is_some_and(|node| !std::mem::replace(&mut node.confirmed, true))
    }

    /// Lets time pass: who has been silent for too long?
    pub fn tick(&mut self, now: Uptime) -> Vec<Transition> {
        let limits = self.limits;
        let mut transitions = Vec::new();
        for node in self.nodes.values_mut() {
            let silent = now.saturating_sub(node.heard_at);
            if silent >= limits.dead_after {
                node.die(now, &mut transitions);
            } else if silent >= limits.suspect_after && node.standing != Standing::Awaited {
                transitions.extend(node.lose(now));
            }
        }
        self.end_maintenances(now, &mut transitions);
        transitions
    }
}

impl Node {
    fn lose(&mut self, now: Uptime) -> Option<Transition> {
        if !matches!(self.standing, Standing::Live | Standing::Joining) {
            return None;
        }
        self.standing = Standing::Suspect;
        self.lost_at.get_or_insert(now);
        Some(Transition::Suspect(self.identity.id))
    }

    fn die(&mut self, now: Uptime, transitions: &mut Vec<Transition>) {
        if self.standing == Standing::Dead {
            return;
        }
        if self.stream == Stream::Open {
            transitions.push(Transition::CloseStream(self.identity.id, self.session));
        }
        self.stream = Stream::Closed;
        self.standing = Standing::Dead;
        self.confirmed = false;
        self.lost_at.get_or_insert(now);
        transitions.push(Transition::Dead(self.identity.id));
    }
}

#[cfg(test)]
#[path = "liveness_test.rs"]
mod liveness_test;
