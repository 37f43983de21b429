//! Accepts block streams and spreads them over the data runtimes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use doldam_runtime::connection::BlockConnection;
use doldam_runtime::net::{Incoming, Listener};
use doldam_runtime::tasks::DataRuntimes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::failure::chain;
use super::serve::serve;
use crate::node::Node;

/// Pause after the system refused a connection (no file handles), which it will do again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the server stops, from when the node belongs to a cluster: before,
/// nobody can be told from a stranger. Callers wait in the system's queue meanwhile.
pub(crate) async fn listen(
    node: Arc<Node>,
    listener: Box<dyn Listener>,
    runtimes: Arc<DataRuntimes>,
) -> Result<(), Infallible> {
    let stopping = node.stopping.clone();
    tokio::select! {
        biased;
        _ = node.membership.joined() => {}
        () = stopping.cancelled() => return Ok(()),
    }
    let permits = Arc::new(Semaphore::new(node.config.connections_max));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let incoming = match accepted {
            Ok(incoming) => incoming,
            Err(cause) => {
                warn!(%cause, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                let node = Arc::clone(&node);
                runtimes.spawn_on_next("block stream", move || greet(node, incoming, permit));
            }
            Err(_none_left) => {
                warn!(
                    peer = incoming.peer(),
                    limit = node.config.connections_max,
                    "too many connections; closed one"
                );
            }
        }
    }
}

async fn greet(node: Arc<Node>, incoming: Box<dyn Incoming>, _permit: OwnedSemaphorePermit) {
    let peer = incoming.peer();
    let Some(cluster) = node.membership.cluster() else { return };
    let stream = match incoming.register() {
        Ok(stream) => stream,
        Err(cause) => return warn!(peer, %cause, "cannot serve a connection"),
    };
    let deadlines = node.config.serving_deadlines();
    let accepted = tokio::select! {
        biased;
        () = node.stopping.cancelled() => return,
        accepted = BlockConnection::accept(stream, &peer, cluster, deadlines) => accepted,
    };
    match accepted {
        Ok(connection) => serve(&node, connection).await,
        Err(refusal) => debug!(peer, refusal = chain(&refusal), "no block stream"),
    }
}
