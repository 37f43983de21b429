//! Receives a block: each frame is forwarded to the next datanode, verified, written and
//! acknowledged, in that order and in one task.
//!
//! Three things go on side by side within the task, none of which ever waits for another's slow
//! path: frames come in (and go out to the next node), the next node's acknowledgements come in,
//! and acknowledgements go out. What has reached both this node's page cache and every node behind
//! it is acknowledged; the block itself only once it is published here and there. If anything
//! fails, nothing of the block is left here.

use std::pin::pin;
use std::sync::Arc;

use doldam_proto::convert::block_stream::WriteBlock;
use doldam_proto::digest::ChainingValue;
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_runtime::connection::{
    BlockConnection, ConnectionReader, ConnectionWriter, StreamError,
};
use doldam_runtime::planted::{Bug, is_planted};
use doldam_runtime::pool::PooledConnection;
use doldam_runtime::tasks::run_blocking;
use doldam_runtime::telemetry::TraceId;
use futures::future::try_join;
use tracing::{debug, info};

use super::failure::{Code, Failure, chain};
use super::forward::{self, Exchange, Patience};
use super::serve::{After, refuse};
use crate::blocks::StoreError;
use crate::blocks::partial::PartialReplica;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::receive::{BlockReceiver, Ordered};
use crate::engine::replica::ReplicaKey;
use crate::metrics::Operation;
use crate::node::Node;

/// How a write ended badly.
enum Stop {
    /// The sender is to be told why.
    Failed(Failure),
    /// The sender is gone.
    SenderGone(StreamError),
}

impl<F: Into<Failure>> From<F> for Stop {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

/// The next datanode, while a block is forwarded to it.
struct Next {
    address: NodeAddress,
    connection: PooledConnection,
    patience: Patience,
}

/// A block that is published here.
struct Stored {
    length: u64,
    value: ChainingValue,
    durable: bool,
}

/// Receives one block and answers the sender.
pub(crate) async fn serve_write(
    node: &Arc<Node>,
    connection: &mut BlockConnection,
    request: WriteBlock,
    trace: &TraceId,
) -> After {
    let key = ReplicaKey { block: request.id, generation: request.generation };
    let started = node.seams.clock.now();
    let received = receive_block(node, connection, request, key, trace).await;
    let took = node.seams.clock.now().saturating_sub(started);
    match received {
        Ok(length) => {
            node.metrics.request(Operation::Write, None);
            node.metrics.served(Operation::Write, took);
            debug!(%key, length, ?took, "block stored");
            After::Next
        }
        Err(Stop::Failed(failure)) => {
            node.metrics.request(Operation::Write, Some(failure.code));
            info!(%key, peer = connection.peer(), %failure, "block not stored");
            refuse(node, connection, &failure).await
        }
        Err(Stop::SenderGone(cause)) => {
            let failure = Failure::of_client(&cause);
            node.metrics.request(Operation::Write, Some(failure.code));
            info!(%key, cause = chain(&cause), "block not stored");
            if cause.is_protocol() {
                refuse(node, connection, &failure).await
            } else {
                After::Close
            }
        }
    }
}

async fn receive_block(
    node: &Arc<Node>,
    connection: &mut BlockConnection,
    request: WriteBlock,
    key: ReplicaKey,
    trace: &TraceId,
) -> Result<u64, Stop> {
    let Some(here) = node.membership.node_id() else {
        return Err(Failure::here(Code::Busy, "not registered with a namenode yet").into());
    };
    let ordered = request
        .repair
        .map(|expected| Ordered { length: expected.length, value: expected.chaining_value });
    let block_bytes = request.block_bytes.get();
    let receiver = BlockReceiver::new(request.file_offset, block_bytes, ordered)?;
    let length_max = ordered.map_or(block_bytes, |ordered| ordered.length);
    let partial = match node.store.begin_write(key, length_max) {
        Ok(partial) => partial,
        Err(failure) => {
            tell_again_if_stored(node, key, ordered, &failure);
            return Err(failure.into());
        }
    };
    let sync = request.durability.syncs_at(request.position);
    let mut next = open_next(node, request, trace).await?;

    let exchange = Exchange::new(next.is_some());
    let (reader, writer) = connection.halves();
    let (stored, receipts) = {
        let acknowledging = acknowledge(writer, &exchange);
        let storing = async {
            let stored = match &mut next {
                None => {
                    let incoming = Incoming { node, exchange: &exchange, next: None };
                    (incoming.store(reader, receiver, partial, sync).await?, Vec::new())
                }
                Some(Next { address, connection, patience }) => {
                    let (answers, frames) = connection.halves();
                    let next = Some((&*address, frames));
                    let incoming = Incoming { node, exchange: &exchange, next };
                    let storing = incoming.store(reader, receiver, partial, sync);
                    let watching = async {
                        let done = forward::watch(answers, &exchange, address, *patience).await;
                        done.map_err(Stop::from)
                    };
                    let (stored, done) = tokio::try_join!(storing, watching)?;
                    let receipts = forward::check_done(done, stored.length, stored.value, address)?;
                    (stored, receipts)
                }
            };
            Ok::<_, Stop>(stored)
        };
        side_by_side(&exchange, storing, acknowledging).await?
    };
    if let Some(next) = next {
        next.connection.put_back();
    }
    let mut replicas = vec![wire::ReplicaReceipt { node_id: here.0, durable: stored.durable }];
    replicas.extend(receipts);
    let done = wire::WriteDone {
        length: stored.length,
        chaining_value: stored.value.to_bytes(),
        replicas,
    };
    let done = wire::BlockResponse { kind: Some(wire::block_response::Kind::Done(done)) };
    if !(is_planted(Bug::DroppedAck) && node.seams.random.below(4) == 0) {
        connection.send_message(&done).await.map_err(Stop::SenderGone)?;
    }
    Ok(stored.length)
}

/// Runs `storing` to its end while acknowledgements go out. Those are never cut in the middle of
/// one, so that the sender can still be told how it ended.
async fn side_by_side<T>(
    exchange: &Exchange,
    storing: impl Future<Output = Result<T, Stop>>,
    acknowledging: impl Future<Output = Result<(), StreamError>>,
) -> Result<T, Stop> {
    let mut acknowledging = pin!(acknowledging);
    let stored = tokio::select! {
        biased;
        stored = storing => stored,
        gone = &mut acknowledging => {
            let Err(gone) = gone else { unreachable!("it ends only after `finish`") };
            return Err(Stop::SenderGone(gone));
        }
    };
    exchange.finish();
    let acknowledged = acknowledging.await;
    let stored = stored?;
    acknowledged.map_err(Stop::SenderGone)?;
    Ok(stored)
}

async fn acknowledge(
    writer: &mut ConnectionWriter,
    exchange: &Exchange,
) -> Result<(), StreamError> {
    while let Some(received) = exchange.next_ack().await {
        let kind = wire::block_response::Kind::Progress(wire::WriteProgress { received });
        writer.send_message(&wire::BlockResponse { kind: Some(kind) }).await?;
    }
    Ok(())
}

async fn open_next(
    node: &Node,
    request: WriteBlock,
    trace: &TraceId,
) -> Result<Option<Next>, Failure> {
    let mut downstream = request.downstream.into_iter();
    let Some(address) = downstream.next() else { return Ok(None) };
    let downstream: Vec<NodeAddress> = downstream.collect();
    let patience = Patience::of(&node.config, downstream.len());
    let request = WriteBlock { downstream, position: request.position + 1, ..request };
    let connection = forward::open(node, &address, request, trace).await?;
    Ok(Some(Next { address, connection, patience }))
}

/// The frames of a block on their way in, and on to the next node.
struct Incoming<'a> {
    node: &'a Arc<Node>,
    exchange: &'a Exchange,
    next: Option<(&'a NodeAddress, &'a mut ConnectionWriter)>,
}

impl Incoming<'_> {
    /// Receives all frames, then publishes the block.
    async fn store(
        mut self,
        reader: &mut ConnectionReader,
        mut receiver: BlockReceiver,
        mut partial: PartialReplica,
        sync: bool,
    ) -> Result<Stored, Stop> {
        let mut buffer = self.node.buffers.take();
        let digest = loop {
            let header = reader.recv_frame_header().await.map_err(Stop::SenderGone)?;
            receiver.check_header(&header)?;
            // Header and body stand together in the buffer, as they are forwarded.
            buffer.clear();
            buffer.extend_from_slice(&header.encode());
            let start = buffer.len();
            let body_bytes = header.write_body_bytes();
            reader.read_exact_into(&mut buffer, body_bytes).await.map_err(Stop::SenderGone)?;

            let end = receiver.length() + u64::from(header.payload_bytes);
            let store = || {
                let verified = receiver.verify(&header, &buffer[start..])?;
                partial.write(verified.offset, verified.payload)?;
                Ok::<_, Stop>(verified.finished)
            };
            let finished = self.forward_then(&buffer, end, header.last, store).await?;
            self.node.metrics.received(u64::from(header.payload_bytes));
            self.exchange.written(end);
            if let Some(digest) = finished {
                break digest;
            }
        };
        drop(buffer); // It may serve another stream while this block is synced.
        let length = receiver.length();
        let node = Arc::clone(self.node);
        // The one thing that waits for the disk: this thread goes on serving others meanwhile.
        let published = run_blocking(move || {
            let started = node.seams.clock.now();
            let key = partial.key();
            let durable = partial.publish(receiver.tree(), &digest, sync)?;
            node.metrics.published(node.seams.clock.now().saturating_sub(started));
            if receiver.is_ordered() {
                // Whatever becomes of the nodes behind this one. Blocks of clients are committed by
                // their clients.
                let (length, value) = (receiver.length(), digest.chaining_value);
                node.store.news().event(key, ReplicaEvent::Stored { length, value });
            }
            Ok::<_, StoreError>(durable)
        });
        let durable = published
            .await
            .map_err(|_panicked| Failure::here(Code::Disk, "publishing the block failed"))??;
        Ok(Stored { length, value: digest.chaining_value, durable })
    }

    /// Hands the frame to the next node's socket, then verifies and writes it here while that
    /// drains.
    async fn forward_then<T>(
        &mut self,
        frame: &[u8],
        end: u64,
        last: bool,
        store: impl FnOnce() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let Some((next, writer)) = &mut self.next else { return store() };
        self.exchange.forwarding(end, last);
        // Polled in order: first as much as the socket takes, then our own work, then the rest. The
        // first error ends both: a damaged frame must not wait for a slow neighbour.
        let parts = [frame];
        let sending = async { writer.write_all_vectored(&parts).await.map_err(Err) };
        let storing = async { store().map_err(Ok) };
        match try_join(sending, storing).await {
            Ok(((), stored)) => Ok(stored),
            Err(Ok(stop)) => Err(stop),
            Err(Err(cause)) => Err(forward::cannot_send(next, &cause).await.into()),
        }
    }
}

/// A repair copy of a replica that is here already: the namenode seems not to know, so it is told
/// again.
fn tell_again_if_stored(
    node: &Node,
    key: ReplicaKey,
    ordered: Option<Ordered>,
    failure: &StoreError,
) {
    let (StoreError::Exists { .. }, Some(Ordered { length, value })) = (failure, ordered) else {
        return;
    };
    if let Ok(held) = node.store.open(key)
        && held.length == length
        && held.sidecar.header().value == value
    {
        node.store.news().event(key, ReplicaEvent::Stored { length, value });
    }
}

#[cfg(test)]
#[path = "write_test.rs"]
mod tests;
