//! The next datanode of a pipeline: from the request to its last acknowledgement.
//!
//! Used by a node that receives and forwards ([`write`](super::write)), and by one that sends a
//! copy of its own ([`copy`](super::copy)).

use std::time::Duration;

use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, WriteBlock};
use doldam_proto::digest::ChainingValue;
use doldam_proto::limits::REPLICATION_MAX;
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_runtime::connection::{ConnectionReader, StreamError};
use doldam_runtime::pool::PooledConnection;
use doldam_runtime::telemetry::TraceId;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::failure::{Code, Failure, chain};
use crate::config::DatanodeConfig;
use crate::node::Node;

/// After a frame could not be forwarded: how long to wait for the reason that the next node gives.
const REASON_WAIT: Duration = Duration::from_secs(1);

/// Longer than any sender may be silent.
const NO_DEADLINE: Duration = Duration::from_hours(24);

/// Connects to the first of `request.downstream` and prepares the request to be sent with the first
/// frame.
///
/// # Errors
/// If it cannot be reached; the failure names it.
pub(crate) async fn open(
    node: &Node,
    next: &NodeAddress,
    request: WriteBlock,
    trace: &TraceId,
) -> Result<PooledConnection, Failure> {
    let failed = |cause: &StreamError| Failure::downstream(next, chain(cause));
    let Some(pool) = node.membership.pool() else {
        return Err(Failure::here(Code::Busy, "not registered with a namenode yet"));
    };
    let timeout = Patience::of(&node.config, request.downstream.len()).acknowledge;
    let mut connection = pool.get(&next.address).await.map_err(|cause| failed(&cause))?;
    let operation = BlockOperation::Write(request);
    let request = BlockRequest { trace: trace.as_str().to_owned(), operation };
    let (reader, writer) = connection.halves();
    writer.set_progress_deadline(timeout);
    // Silence is judged by `watch`, which knows whether an answer is owed.
    reader.set_progress_deadline(NO_DEADLINE);
    writer.queue_message(&wire::BlockRequest::from(request)).map_err(|cause| failed(&cause))?;
    Ok(connection)
}

/// Deadlines of the next node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For an acknowledgement of what was sent.
    pub(crate) acknowledge: Duration,
    /// For a sync, and for the end, once everything has arrived: it syncs and publishes.
    pub(crate) finish: Duration,
}

impl Patience {
    /// With the next node and `behind` more behind it: one deadline for each, so that of two nodes
    /// who wait for a third the nearer one loses patience first, and the right one is blamed.
    pub(crate) fn of(config: &DatanodeConfig, behind: usize) -> Self {
        let nodes = behind as u32 + 1;
        Self {
            acknowledge: config.downstream_timeout.0 * nodes,
            finish: config.sync_timeout.0 * nodes,
        }
    }
}

/// Receives the answers of the next node until it is done with the block.
///
/// # Errors
/// If it fails, falls silent while it owes an answer, closes the connection or talks nonsense.
pub(crate) async fn watch(
    reader: &mut ConnectionReader,
    exchange: &Exchange,
    next: &NodeAddress,
    patience: Patience,
) -> Result<wire::WriteDone, Failure> {
    use wire::block_response::Kind;
    let mut silent_since: Option<Instant> = None;
    loop {
        let owed = exchange.is_owed_an_answer();
        silent_since = if owed { silent_since.or_else(|| Some(Instant::now())) } else { None };
        let finishing = exchange.is_finishing();
        // Bytes that it has not even received are no matter of its disk: the wire to it may be cut.
        let is_for_a_disk = (finishing || exchange.is_syncing()) && exchange.is_all_received();
        let patience = if is_for_a_disk { patience.finish } else { patience.acknowledge };
        let silence = async {
            match silent_since {
                Some(since) => tokio::time::sleep_until(since + patience).await,
                None => std::future::pending().await,
            }
        };
        let response: wire::BlockResponse = tokio::select! {
            biased;
            response = reader.recv_message() => {
                response.map_err(|cause| Failure::downstream(next, chain(&cause)))?
            }
            () = exchange.forwarded() => continue,
            () = silence => {
                let message = format!("{next} has not answered for {patience:?}");
                return Err(Failure::downstream(next, message));
            }
        };
        silent_since = None;
        match response.kind {
            Some(Kind::Progress(progress)) => {
                let heard = exchange.heard(progress);
                heard.map_err(|nonsense| Failure::downstream(next, nonsense.to_string()))?;
            }
            Some(Kind::Done(done)) if finishing => return Ok(done),
            Some(Kind::Failure(failure)) => return Err(Failure::reported_by(next, failure)),
            Some(Kind::Done(_) | Kind::Read(_)) | None => {
                return Err(Failure::downstream(next, "it answered something else than asked"));
            }
        }
    }
}

/// A frame could not be sent to the next node. If that was because it gave up, its reason is on its
/// way and [`watch`] will have it: so this waits a moment before it answers.
pub(crate) async fn cannot_send(next: &NodeAddress, cause: &StreamError) -> Failure {
    tokio::time::sleep(REASON_WAIT).await;
    Failure::downstream(next, chain(cause))
}

/// Checks what the next node says it has stored.
///
/// # Errors
/// If that is another block than was sent.
pub(crate) fn check_done(
    done: wire::WriteDone,
    length: u64,
    value: ChainingValue,
    next: &NodeAddress,
) -> Result<Vec<wire::ReplicaReceipt>, Failure> {
    if done.length != length || done.chaining_value[..] != value.0 {
        return Err(Failure::downstream(next, "it stored another block than it was sent"));
    }
    if done.replicas.is_empty() || done.replicas.len() > REPLICATION_MAX as usize {
        return Err(Failure::downstream(next, "it does not say who holds the block"));
    }
    Ok(done.replicas)
}

#[cfg(test)]
#[path = "forward_test.rs"]
mod tests;
