//! Sends a range of a replica, or of what is verified of an open block: its proof, then its bytes,
//! both grown to whole groups.
//!
//! The bytes are not verified here: the reader does it against the namenode's value, and no check
//! of ours could stand in for that. What this node cannot read is quarantined and reported.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use doldam_proto::convert::block_stream::ReadBlock;
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
use crate::blocks::readable::Readable;
use crate::blocks::sidecar::groups_of;
use crate::engine::replica::ReplicaKey;
use crate::metrics::Operation;
use crate::node::Node;
use doldam_runtime::tasks::run_blocking;

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
    readable: Readable,
    /// The proof is for a tree over so many bytes.
    block_length: u64,
    range: Range,
    proof: BytesMut,
    /// No bytes are asked for.
    values_only: bool,
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
    let prepared = match prepare_anywhere(node, key, request).await {
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
            let failure = Failure::from(failure);
            node.metrics.request(Operation::Read, Some(failure.code));
            info!(%key, peer = connection.peer(), %failure, "read cut short");
            send_error(node, connection, &failure).await
        }
    }
}

/// As [`prepare`], in a thread that may wait if the proof takes long: after a start the values of an open block are
/// found by reading it.
async fn prepare_anywhere(
    node: &Arc<Node>,
    key: ReplicaKey,
    request: ReadBlock,
) -> Result<Prepared, Failure> {
    let readable = open(node, key, &request)?;
    if readable.is_known() {
        return prepare(node, readable, &request);
    }
    let node = Arc::clone(node);
    let prepared = run_blocking(move || prepare(&node, readable, &request)).await;
    prepared.map_err(|_panicked| Failure::here(Code::Disk, "reading an open block failed"))?
}

fn open(node: &Node, key: ReplicaKey, request: &ReadBlock) -> Result<Readable, StoreError> {
    match request.block_length {
        Some(length) => node.store.open_to_read(key, length),
        None => Ok(Readable::Whole(node.store.open(key)?)),
    }
}

/// Reads the proof and the first bytes. Nothing was sent yet, so whatever is wrong can be said
/// plainly.
fn prepare(node: &Node, readable: Readable, request: &ReadBlock) -> Result<Prepared, Failure> {
    let block_length = request.block_length.unwrap_or_else(|| readable.length());
    let asked = request.offset + request.length;
    if asked > block_length {
        let message = format!("bytes up to {asked} asked for, there are {block_length}");
        return Err(Failure::here(Code::BadRequest, message));
    }
    let start = request.offset / GROUP_BYTES * GROUP_BYTES;
    let end = asked.next_multiple_of(GROUP_BYTES).min(block_length);
    let range = Range { start, end };
    let mut buffer = node.buffers.take();
    let groups = (start / GROUP_BYTES) as usize..groups_of(end);
    let read = readable.proof(block_length, groups).and_then(|proof| {
        if request.values_only {
            buffer.clear();
            return Ok((proof, [0; HEADER_BYTES]));
        }
        Ok((proof, read_frame(&readable, start, range, &mut buffer)?))
    });
    let (proof, frame) = read.map_err(|failure| note_error(node, &readable, failure))?;
    let values_only = request.values_only;
    Ok(Prepared { readable, block_length, range, proof, values_only, frame, buffer })
}

/// A replica that shows itself damaged goes to quarantine. What is open may be all there is, and stays.
fn note_error(node: &Node, readable: &Readable, failure: StoreError) -> StoreError {
    match readable {
        Readable::Whole(replica) => node.store.note_read_error(replica.key, failure),
        Readable::Open(..) => failure,
    }
}

/// Sends the start, the proof and the first bytes with one call to the system, then frame after
/// frame from one buffer.
async fn send(
    node: &Node,
    connection: &mut BlockConnection,
    prepared: Prepared,
) -> Result<(), Cut> {
    let Prepared { readable, block_length, range, proof, values_only, mut frame, mut buffer } =
        prepared;
    let proof_header = FrameHeader::plain(FrameKind::Proof, proof.len()).encode();
    let start = wire::ReadStart {
        offset: range.start,
        byte_count: range.end - range.start,
        block_length,
        file_offset: readable.file_offset(),
        generation: readable.generation().0,
    };
    let kind = wire::block_response::Kind::Read(start);
    let (_, writer) = connection.halves();
    writer.queue_message(&wire::BlockResponse { kind: Some(kind) }).map_err(Cut::ReaderGone)?;
    let parts: [&[u8]; 4] = [&proof_header, &proof, &frame, &buffer];
    let parts = if values_only { &parts[..2] } else { &parts[..] };
    writer.write_all_vectored(parts).await.map_err(Cut::ReaderGone)?;
    if values_only {
        return Ok(());
    }
    let mut offset = range.start + buffer.len() as u64;
    node.metrics.sent(buffer.len() as u64);
    while offset < range.end {
        frame = read_frame(&readable, offset, range, &mut buffer)
            .map_err(|failure| Cut::Failed(note_error(node, &readable, failure)))?;
        writer.write_all_vectored(&[&frame, &buffer]).await.map_err(Cut::ReaderGone)?;
        offset += buffer.len() as u64;
        node.metrics.sent(buffer.len() as u64);
    }
    Ok(())
}

/// Fills `buffer` with the next frame's bytes; returns its header.
fn read_frame(
    readable: &Readable,
    offset: u64,
    range: Range,
    buffer: &mut BytesMut,
) -> Result<[u8; HEADER_BYTES], StoreError> {
    let count = (range.end - offset).min(FRAME_PAYLOAD_BYTES as u64) as usize;
    // Zeroed only where the buffer grows: what it holds from the frame before is overwritten.
    buffer.resize(count, 0);
    let read = readable.data().read_exact_at(buffer, offset);
    read.map_err(|cause| readable.failed("reading a block", cause))?;
    Ok(FrameHeader::data(offset, count, false).encode())
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
