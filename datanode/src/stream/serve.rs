//! One block stream: request after request, until either side has enough.

use std::sync::Arc;

use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest};
use doldam_proto::wire;
use doldam_runtime::connection::BlockConnection;
use doldam_runtime::telemetry::{TraceId, request_span};
use tracing::{Instrument, debug};

use super::failure::{Code, Failure, chain};
use super::read::serve_read;
use super::write::serve_write;
use crate::metrics::Operation;
use crate::node::Node;

/// What became of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The exchange ended by the protocol: another request may follow.
    Next,
    /// The peer was told of a failure while it may still be sending: close gently.
    Linger,
    /// Nothing more can be said.
    Close,
}

/// Serves the requests of one connection. Between two of them it ends at once when the server
/// stops; one that was begun is finished.
pub(crate) async fn serve(node: &Arc<Node>, mut connection: BlockConnection) {
    loop {
        let received = tokio::select! {
            biased;
            () = node.stopping.cancelled() => return,
            received = connection.recv_request::<wire::BlockRequest>() => received,
        };
        let request = match received {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(failure) => {
                debug!(peer = connection.peer(), failure = chain(&failure), "block stream ended");
                if failure.is_protocol() {
                    refuse(node, &mut connection, &Failure::of_client(&failure)).await;
                    connection.linger().await;
                }
                return;
            }
        };
        let trace = TraceId::from_peer(&request.trace);
        let served = serve_request(node, &mut connection, request, &trace);
        match served.instrument(request_span(&trace)).await {
            After::Next if connection.is_reusable() => {}
            After::Next | After::Close => return,
            After::Linger => return connection.linger().await,
        }
    }
}

async fn serve_request(
    node: &Arc<Node>,
    connection: &mut BlockConnection,
    request: wire::BlockRequest,
    trace: &TraceId,
) -> After {
    let request = match BlockRequest::try_from(request) {
        Ok(request) => request,
        Err(bad) => {
            node.metrics.request(Operation::Unknown, Some(Code::BadRequest));
            return refuse(node, connection, &bad.into()).await;
        }
    };
    let operation = match &request.operation {
        BlockOperation::Write(_) => Operation::Write,
        BlockOperation::Read(_) => Operation::Read,
    };
    let permit = if node.stopping.is_cancelled() {
        Err(Failure::here(Code::Stopping, "the datanode is stopping"))
    } else {
        Arc::clone(&node.streams).try_acquire_owned().map_err(|_none_left| {
            let limit = node.config.streams_max;
            Failure::here(Code::Busy, format!("{limit} blocks are written and read already"))
        })
    };
    let _permit = match permit {
        Ok(permit) => permit,
        Err(failure) => {
            node.metrics.request(operation, Some(failure.code));
            return match operation {
                Operation::Read => refuse_read(node, connection, &failure).await,
                _ => refuse(node, connection, &failure).await,
            };
        }
    };
    match request.operation {
        BlockOperation::Write(write) => {
            let _repair = write.repair.is_some().then(|| node.repairs.receive());
            serve_write(node, connection, write, trace).await
        }
        BlockOperation::Read(read) => serve_read(node, connection, read).await,
    }
}

/// Tells the peer that a read fails before its first byte: it sends nothing meanwhile, so another
/// request may follow.
pub(crate) async fn refuse_read(
    node: &Node,
    connection: &mut BlockConnection,
    failure: &Failure,
) -> After {
    match refuse(node, connection, failure).await {
        After::Next | After::Linger => After::Next,
        After::Close => After::Close,
    }
}

/// Tells the peer of a failure. It may be in the middle of sending, so the connection ends with
/// this.
pub(crate) async fn refuse(
    node: &Node,
    connection: &mut BlockConnection,
    failure: &Failure,
) -> After {
    debug!(peer = connection.peer(), %failure, "request refused");
    let kind = wire::block_response::Kind::Failure(failure.to_wire(&node.membership));
    match connection.send_message(&wire::BlockResponse { kind: Some(kind) }).await {
        Ok(()) => After::Linger,
        Err(_the_peer_is_gone) => After::Close,
    }
}
