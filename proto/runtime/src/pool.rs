//! Connections to datanodes that are kept for the next exchange.
//!
//! A connection lives on the reactor of the runtime that opened it. The pool therefore remembers which runtime
//! that was and hands a connection out on that one only, so that several runtimes may share a pool; each sees but
//! its own connections.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::ClusterId;
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use crate::connection::{BlockConnection, Deadlines, StreamError};
use crate::net::Net;

#[cfg(test)]
#[path = "pool_test.rs"]
mod tests;

/// How much a pool keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections to one datanode, on one runtime.
    pub idle_per_peer_max: usize,
    /// Idle connections in all; the one that has been idle longest goes first.
    pub idle_max: usize,
    /// Idle time after which a connection is closed. Must be below the datanodes' idle deadline, or each first
    /// use after a pause fails.
    pub idle_age_max: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { idle_per_peer_max: 8, idle_max: 64, idle_age_max: Duration::from_mins(1) }
    }
}

/// Opens connections and keeps them between exchanges. Cheap to clone; clones share the idle connections.
#[derive(Clone)]
pub struct ConnectionPool {
    shared: Arc<Shared>,
}

struct Shared {
    net: Arc<dyn Net>,
    cluster: ClusterId,
    deadlines: Deadlines,
    limits: PoolLimits,
    /// In the order in which they became idle.
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    connection: BlockConnection,
    runtime: Id,
    since: Instant,
}

impl ConnectionPool {
    /// An empty pool for datanodes of `cluster`.
    pub fn new(
        net: Arc<dyn Net>,
        cluster: ClusterId,
        deadlines: Deadlines,
        limits: PoolLimits,
    ) -> Self {
        let idle = Mutex::new(VecDeque::new());
        Self { shared: Arc::new(Shared { net, cluster, deadlines, limits, idle }) }
    }

    /// A connection to the datanode at `address`: an idle one if there is one that still seems alive, otherwise
    /// a fresh one.
    ///
    /// An idle one may turn out to be dead at its first use, though the datanode is well. See
    /// [`is_reused`](PooledConnection::is_reused), and [`request`](Self::request), which takes care of it.
    ///
    /// # Errors
    /// If no connection can be made.
    pub async fn get(&self, address: &str) -> Result<PooledConnection, StreamError> {
        match self.take_idle(address) {
            Some(connection) => Ok(self.lend(connection, true)),
            None => self.get_fresh(address).await,
        }
    }

    /// A connection that nobody has used before.
    ///
    /// # Errors
    /// If none can be made.
    pub async fn get_fresh(&self, address: &str) -> Result<PooledConnection, StreamError> {
        let Shared { net, cluster, deadlines, .. } = &*self.shared;
        let connection = BlockConnection::connect(&**net, address, *cluster, *deadlines).await?;
        Ok(self.lend(connection, false))
    }

    /// Sends `request` to the datanode at `address` and receives the first message of its answer.
    ///
    /// If an idle connection breaks before any answer, the request is sent once more on a fresh one; `request`
    /// must therefore be one that may arrive twice, such as a read.
    ///
    /// # Errors
    /// If no connection can be made, or a fresh one fails.
    pub async fn request<M: Message + Default>(
        &self,
        address: &str,
        request: &impl Message,
    ) -> Result<(PooledConnection, M), StreamError> {
        let mut connection = self.get(address).await?;
        match exchange(&mut connection, request).await {
            Err(failure) if connection.is_reused() && failure.is_disconnect() => {
                tracing::debug!(peer = address, %failure, "an idle connection was dead");
                drop(connection);
                let mut connection = self.get_fresh(address).await?;
                let answer = exchange(&mut connection, request).await?;
                Ok((connection, answer))
            }
            answer => Ok((connection, answer?)),
        }
    }

    /// Keeps a connection that was taken out of its loan by [`PooledConnection::into_inner`], as
    /// [`PooledConnection::put_back`] does.
    pub fn put_back(&self, connection: BlockConnection) {
        if connection.is_reusable() {
            self.shared.put_back(connection);
        }
    }

    /// Idle connections at present.
    pub fn idle_count(&self) -> usize {
        self.shared.idle.lock().len()
    }

    /// Closes all idle connections to `address`, which is known to be gone.
    pub fn forget(&self, address: &str) {
        self.shared.idle.lock().retain(|idle| idle.connection.peer() != address);
    }

    fn lend(&self, connection: BlockConnection, reused: bool) -> PooledConnection {
        PooledConnection { connection, reused, pool: Arc::clone(&self.shared) }
    }

    /// The connection to `address` that became idle last: the likeliest to be alive, and the others may age.
    fn take_idle(&self, address: &str) -> Option<BlockConnection> {
        let runtime = Handle::current().id();
        let mut idle = self.shared.idle.lock();
        self.shared.drop_aged(&mut idle);
        loop {
            let fits = |idle: &Idle| idle.runtime == runtime && idle.connection.peer() == address;
            let last = idle.iter().rposition(fits)?;
            let mut found = idle.remove(last)?;
            if !found.connection.is_stale() {
                return Some(found.connection);
            }
        }
    }
}

impl Shared {
    fn drop_aged(&self, idle: &mut VecDeque<Idle>) {
        while idle.front().is_some_and(|idle| idle.since.elapsed() >= self.limits.idle_age_max) {
            idle.pop_front();
        }
    }

    fn put_back(&self, connection: BlockConnection) {
        let (runtime, since) = (Handle::current().id(), Instant::now());
        let mut idle = self.idle.lock();
        self.drop_aged(&mut idle);
        let same =
            |idle: &&Idle| idle.runtime == runtime && idle.connection.peer() == connection.peer();
        if idle.iter().filter(same).count() >= self.limits.idle_per_peer_max {
            return;
        }
        idle.push_back(Idle { connection, runtime, since });
        if idle.len() > self.limits.idle_max {
            idle.pop_front();
        }
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionPool").field("idle", &self.idle_count()).finish()
    }
}

async fn exchange<M: Message + Default>(
    connection: &mut BlockConnection,
    request: &impl Message,
) -> Result<M, StreamError> {
    connection.send_message(request).await?;
    connection.recv_message().await
}

/// A connection on loan. Dropping it closes it.
pub struct PooledConnection {
    connection: BlockConnection,
    reused: bool,
    pool: Arc<Shared>,
}

impl PooledConnection {
    /// Whether it has served before. If such a one fails with no answer at all, the datanode may have closed it
    /// long ago: try once more on [a fresh one](ConnectionPool::get_fresh) before the node is blamed.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Keeps it for the next exchange. To be called when an exchange has ended by the protocol; if anything is
    /// left over or has failed, the connection is closed all the same.
    ///
    /// Must be called on the runtime it was got on.
    pub fn put_back(self) {
        if self.connection.is_reusable() {
            self.pool.put_back(self.connection);
        }
    }

    /// The connection itself, to be split; [`ConnectionPool::put_back`] takes it again.
    pub fn into_inner(self) -> BlockConnection {
        self.connection
    }
}

impl Deref for PooledConnection {
    type Target = BlockConnection;

    fn deref(&self) -> &BlockConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut BlockConnection {
        &mut self.connection
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("PooledConnection");
        debug.field("peer", &self.peer()).field("reused", &self.reused).finish_non_exhaustive()
    }
}
