//! Sends a range of a replica: its proof from the sidecar, then its bytes, both grown to whole
//! groups.
//!
//! The bytes are not verified here: the reader does it against the namenode's value, and no check
//! of ours could stand in for that. What this node cannot read is quarantined and reported.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use doldam_proto::convert::block_stream::ReadBlock;
use doldam_proto::digest::proof::proof_places;
use doldam_proto::frame::header::{FrameHeader, FrameKind, HEADER_BYTES};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::wire;
use doldam_runtime::connection::{BlockConnection, StreamError};
use prost::Message;
use tracing::{debug, info};

use super::buffers::PooledBuffer;
use super::failure::{Code, Failure, chain};
use super::serve::{After, refuse_read};
use crate::blocks::StoreError;
use crate::blocks::sidecar::groups_of;
use crate::blocks::store::OpenReplica;
use crate::engine::replica::ReplicaKey;
use crate::metrics::Operation;
use crate::node::Node;

/// A range of a replica, in whole groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// How a read ended after its first byte was sent.
enum Cut {
    /// The replica cannot be read.
    Failed(StoreError),
    /// The reader is gone, which it may at any time.
    ReaderGone(StreamError),
}

/// A range whose proof and first bytes were read: what can be sent is sent with one call.
struct Prepared {
    replica: OpenReplica,
    range: Range,
    proof: BytesMut,
    /// Header of the frame in `buffer`.
    frame: [u8; HEADER_BYTES],
    buffer: PooledBuffer,
}

/// Sends one range.
pub(crate) async fn serve_read(
    node: &Arc<Node>,
    connection: &mut BlockConnection,
    request: ReadBlock,
) -> After {
    let key = ReplicaKey { block: request.id, generation: request.generation };
    let started = node.seams.clock.now();
    let prepared = match prepare(node, key, &request) {
        Ok(prepared) => prepared,
        Err(failure) => {
            node.metrics.request(Operation::Read, Some(failure.code));
            return refuse_read(node, connection, &failure).await;
        }
    };
    let sent = send(node, connection, prepared).await;
    match sent {
        Ok(()) => {
            let took: Duration = node.seams.clock.now().saturating_sub(started);
            node.metrics.request(Operation::Read, None);
            node.metrics.served(Operation::Read, took);
            After::Next
        }
        Err(Cut::ReaderGone(cause)) => {
            node.metrics.request(Operation::Read, Some(Code::Unspecified));
            debug!(%key, cause = chain(&cause), "reader left");
            After::Close
        }
        Err(Cut::Failed(failure)) => {
            let failure = Failure::from(node.store.note_read_error(key, failure));
            node.metrics.request(Operation::Read, Some(failure.code));
            info!(%key, peer = connection.peer(), %failure, "read cut short");
            send_error(node, connection, &failure).await
        }
    }
}

/// Opens the replica and reads the proof and the first bytes. Nothing was sent yet, so whatever is
/// wrong can be said plainly.
fn prepare(node: &Node, key: ReplicaKey, request: &ReadBlock) -> Result<Prepared, Failure> {
    let replica = node.store.open(key)?;
    let (asked, length) = (request.offset + request.length, replica.length);
    if asked > length {
        let message = format!("bytes up to {asked} asked for, {key} has {length}");
        return Err(Failure::here(Code::BadRequest, message));
    }
    let start = request.offset / GROUP_BYTES * GROUP_BYTES;
    let end = asked.next_multiple_of(GROUP_BYTES).min(length);
    let range = Range { start, end };
    let mut buffer = node.buffers.take();
    let read = proof(&replica, range).and_then(|proof| {
        let frame = read_frame(&replica, start, range, &mut buffer)?;
        Ok((proof, frame))
    });
    let (proof, frame) = read.map_err(|failure| node.store.note_read_error(key, failure))?;
    Ok(Prepared { replica, range, proof, frame, buffer })
}

/// Sends the start, the proof and the first bytes with one call to the system, then frame after
/// frame from one buffer.
async fn send(
    node: &Node,
    connection: &mut BlockConnection,
    prepared: Prepared,
) -> Result<(), Cut> {
    let Prepared { replica, range, proof, mut frame, mut buffer } = prepared;
    let proof_header = FrameHeader::plain(FrameKind::Proof, proof.len()).encode();
    let start = wire::ReadStart {
        offset: range.start,
        byte_count: range.end - range.start,
        block_length: replica.length,
        file_offset: replica.sidecar.header().file_offset,
    };
    let kind = wire::block_response::Kind::Read(start);
    let (_, writer) = connection.halves();
    writer.queue_message(&wire::BlockResponse { kind: Some(kind) }).map_err(Cut::ReaderGone)?;
    let parts: [&[u8]; 4] = [&proof_header, &proof, &frame, &buffer];
    writer.write_all_vectored(&parts).await.map_err(Cut::ReaderGone)?;
    let mut offset = range.start + buffer.len() as u64;
    node.metrics.sent(buffer.len() as u64);
    while offset < range.end {
        frame = read_frame(&replica, offset, range, &mut buffer).map_err(Cut::Failed)?;
        writer.write_all_vectored(&[&frame, &buffer]).await.map_err(Cut::ReaderGone)?;
        offset += buffer.len() as u64;
        node.metrics.sent(buffer.len() as u64);
    }
    Ok(())
}

/// Fills `buffer` with the next frame's bytes; returns its header.
fn read_frame(
    replica: &OpenReplica,
    offset: u64,
    range: Range,
    buffer: &mut BytesMut,
) -> Result<[u8; HEADER_BYTES], StoreError> {
    let count = (range.end - offset).min(FRAME_PAYLOAD_BYTES as u64) as usize;
    // Zeroed only where the buffer grows: what it holds from the frame before is overwritten.
    buffer.resize(count, 0);
    let read = replica.data.read_exact_at(buffer, offset);
    read.map_err(StoreError::disk(&replica.data_path, "reading a block"))?;
    Ok(FrameHeader::data(offset, count, false).encode())
}

fn proof(replica: &OpenReplica, range: Range) -> Result<BytesMut, StoreError> {
    let first = (range.start / GROUP_BYTES) as usize;
    let groups = first..groups_of(range.end);
    let places = proof_places(groups_of(replica.length), groups).map_err(|bad| {
        StoreError::Damaged { key: replica.key, what: format!("no proof of it: {bad}") }
    })?;
    let mut proof = BytesMut::new();
    replica.sidecar.read_nodes(&places, &mut proof)?;
    Ok(proof)
}

/// Ends a read that was begun: nothing else can follow on this connection.
async fn send_error(node: &Node, connection: &mut BlockConnection, failure: &Failure) -> After {
    let payload = failure.to_wire(&node.membership).encode_to_vec();
    let header = FrameHeader::plain(FrameKind::Error, payload.len()).encode();
    match connection.write_all_vectored(&[&header, &payload]).await {
        Ok(()) => After::Linger,
        Err(_the_reader_is_gone) => After::Close,
    }
}

#[cfg(test)]
#[path = "read_test.rs"]
mod tests;
