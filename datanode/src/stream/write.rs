//! Receives a block: each frame is forwarded to the next datanode, verified, written and
//! acknowledged, in that order and in one task.
//!
//! Three things go on side by side within the task, none of which ever waits for another's slow
//! path: frames come in (and go out to the next node), the next node's acknowledgements come in,
//! and acknowledgements go out. What has reached both this node's page cache and every node behind
//! it is acknowledged; the block itself only once it is published here and there. If anything
//! fails, what is verified of it stays, for a writer of a newer generation to go on with.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::convert::block_stream::WriteBlock;
use doldam_proto::digest::ChainingValue;
use doldam_proto::frame::header::FrameHeader;
use doldam_proto::id::NodeId;
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

use super::exchange::Exchange;
use super::failure::{Code, Failure, chain};
use super::feed::{Source, feed};
use super::forward::{self, Patience};
use super::resume::{Begun, begin, open_next};
use super::serve::{After, refuse};
use crate::blocks::StoreError;
use crate::blocks::open::OpenFile;
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
pub(super) struct Next {
    pub(super) address: NodeAddress,
    pub(super) connection: PooledConnection,
    pub(super) patience: Patience,
    /// Bytes of the block that it has already.
    pub(super) has: u64,
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
    // Large, and others are kept waiting in one as small as a read.
    let received = Box::pin(receive_block(node, connection, request, key, trace)).await;
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
    let Begun { partial, receiver } = match begin(node, &request, here, key, ordered).await {
        Ok(begun) => begun,
        Err(failure) => {
            tell_again_if_stored(node, key, ordered, &failure);
            return Err(failure.into());
        }
    };
    let sync = request.durability.syncs_at(request.position);
    let fenced = partial.fenced();
    let mut next = tokio::select! {
        biased;
        () = fenced.cancelled() => return Err(overtaken(key)),
        next = open_next(node, request, trace) => next?,
    };

    let begun = Begun { partial, receiver };
    let (stored, receipts) =
        receive_frames(node, connection, begun, next.as_mut(), (here, sync)).await?;
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

/// Receives, stores and forwards all frames; also says what the nodes behind have stored.
async fn receive_frames(
    node: &Arc<Node>,
    connection: &mut BlockConnection,
    Begun { partial, receiver }: Begun,
    next: Option<&mut Next>,
    (here, sync): (NodeId, bool),
) -> Result<(Stored, Vec<wire::ReplicaReceipt>), Stop> {
    let (key, fenced) = (partial.key(), partial.fenced());
    let exchange = Exchange::new(receiver.length(), next.as_ref().map(|next| next.has));
    let (reader, writer) = connection.halves();
    let acknowledging = exchange.acknowledge(writer, here.0);
    let storing = async {
        let Some(Next { address, connection, patience, has }) = next else {
            let incoming = Incoming { node, exchange: &exchange, next: None };
            return Ok((incoming.store(reader, receiver, partial, sync).await?, Vec::new()));
        };
        let (answers, frames) = connection.halves();
        let mut incoming = Incoming { node, exchange: &exchange, next: Some((&*address, frames)) };
        let storing = async {
            incoming.feed(&partial, &receiver, *has).await?;
            incoming.store(reader, receiver, partial, sync).await
        };
        let watching = async {
            let done = forward::watch(answers, &exchange, address, *patience).await;
            done.map_err(Stop::from)
        };
        let (stored, done) = tokio::try_join!(storing, watching)?;
        let receipts = forward::check_done(done, stored.length, stored.value, address)?;
        Ok::<_, Stop>((stored, receipts))
    };
    // Dropped at a wait, so no byte is being written: the block is free for who overtakes.
    let storing = async {
        tokio::select! {
            biased;
            () = fenced.cancelled() => Err(overtaken(key)),
            stored = storing => stored,
        }
    };
    side_by_side(&exchange, storing, acknowledging).await
}

/// The block is gone on with under a newer generation: this writer is late.
fn overtaken(key: ReplicaKey) -> Stop {
    let message = format!("{key} is gone on with under a newer generation");
    Failure::here(Code::StaleGeneration, message).into()
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

/// The frames of a block on their way in, and on to the next node.
struct Incoming<'a> {
    node: &'a Arc<Node>,
    exchange: &'a Exchange,
    next: Option<(&'a NodeAddress, &'a mut ConnectionWriter)>,
}

impl Incoming<'_> {
    /// Sends the next node what is here of the block behind the `has` bytes that are there: all or nothing.
    async fn feed(
        &mut self,
        partial: &PartialReplica,
        receiver: &BlockReceiver,
        has: u64,
    ) -> Result<(), Stop> {
        let Some((next, writer)) = &mut self.next else { return Ok(()) };
        if has == receiver.length() {
            return Ok(());
        }
        let source = Source {
            key: partial.key(),
            file: partial.file(),
            length: receiver.length(),
            groups: receiver.tree().groups(),
        };
        Ok(feed(self.node, &source, writer, self.exchange, next).await?)
    }

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

            let begun = self.node.seams.clock.now();
            let before = receiver.length();
            let end = before.max(header.offset + u64::from(header.payload_bytes));
            let store = || {
                let verified = receiver.verify(&header, &buffer[start..])?;
                if !verified.payload.is_empty() {
                    partial.write(verified.offset, verified.payload)?;
                    partial.advance(receiver.tree(), before);
                }
                Ok::<_, Stop>(verified.finished)
            };
            let finished = self.forward_then(&buffer, &header, (before, end), store).await?;
            self.node.metrics.received(end - before);
            self.exchange.written(end);
            if header.sync {
                sync_open(Arc::clone(partial.file())).await?;
                self.exchange.synced(end);
            }
            if let Some(digest) = finished {
                break digest;
            }
            if receiver.is_ordered() {
                let took = self.node.seams.clock.now().saturating_sub(begun);
                give_way(self.node, end - before, took).await;
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
        header: &FrameHeader,
        (before, end): (u64, u64),
        store: impl FnOnce() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let clock = &*self.node.seams.clock;
        let begun = clock.now();
        let Some((next, writer)) = &mut self.next else {
            let stored = store();
            let took = clock.now().saturating_sub(begun);
            self.exchange.worked(end - before, took, Duration::ZERO);
            return stored;
        };
        if header.sync {
            self.exchange.forwarding_sync(end);
        }
        self.exchange.forwarding(end, header.last);
        // Polled in order: first as much as the socket takes, then our own work, then the rest. The
        // first error ends both: a damaged frame must not wait for a slow neighbour.
        let parts = [frame];
        let sending = async { writer.write_all_vectored(&parts).await.map_err(Err) };
        let mut store_took = Duration::ZERO;
        let storing = async {
            let begun = clock.now();
            let stored = store().map_err(Ok);
            store_took = clock.now().saturating_sub(begun);
            stored
        };
        let joined = try_join(sending, storing).await;
        let forward_took = clock.now().saturating_sub(begun).saturating_sub(store_took);
        self.exchange.worked(end - before, store_took, forward_took);
        match joined {
            Ok(((), stored)) => Ok(stored),
            Err(Ok(stop)) => Err(stop),
            Err(Err(cause)) => Err(forward::cannot_send(next, &cause).await.into()),
        }
    }
}

/// A repair copy lets go first what clients wait for, here as at its source.
async fn give_way(node: &Node, bytes: u64, took: Duration) {
    let (others, copies) = (node.foreground_streams(), node.repairs.receiving());
    let pause = node.config.repair_share().pause_after(bytes, took, others, copies);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Puts all that is written of an open block on stable storage. The next node does the same meanwhile.
async fn sync_open(file: Arc<OpenFile>) -> Result<(), Failure> {
    let synced = run_blocking(move || file.sync()).await;
    Ok(synced.map_err(|_panicked| Failure::here(Code::Disk, "syncing the block failed"))??)
}

/// A repair copy of a replica that is here already: the namenode seems not to know, so it is told
/// again.
fn tell_again_if_stored(node: &Node, key: ReplicaKey, ordered: Option<Ordered>, failure: &Failure) {
    let (Code::Exists, Some(Ordered { length, value })) = (failure.code, ordered) else { return };
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
