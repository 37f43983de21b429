//! The writing half of a fake datanode: verifies everything a client sends, and keeps what it has when it stops.

use bytes::{Bytes, BytesMut};
use doldam_proto::convert::block_stream::WriteBlock;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::{ChainingValue, VALUE_BYTES};
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::id::NodeId;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::wire::{self, block_failure::Code, block_response::Kind};
use doldam_runtime::connection::{BlockConnection, StreamError};

use super::datanode::{Fault, Shared, failure, respond};
use super::state::{Replica, digest_of};

/// Says whether the connection is to be closed.
pub(crate) async fn serve_write(
    shared: &Shared,
    connection: &mut BlockConnection,
    write: WriteBlock,
    fault: Option<Fault>,
) -> Result<bool, StreamError> {
    let nodes: Vec<NodeId> =
        std::iter::once(shared.id).chain(write.downstream.iter().map(|node| node.id)).collect();
    let mut content = match take_over(shared, &write, &nodes) {
        Ok(content) => BytesMut::from(&content[..]),
        Err(code) => {
            respond(connection, Kind::Failure(failure(shared, code, 0))).await?;
            return Ok(true);
        }
    };
    let resumed = content.len() as u64;
    let (mut number, mut synced) = (0, 0);
    if resumed > 0 {
        // As while a node further down is given what comes before.
        let progress = wire::WriteProgress { received: resumed, synced, timings: Vec::new() };
        respond(connection, Kind::Progress(progress)).await?;
    }
    let block_value = loop {
        match &fault {
            Some(Fault::Reset { frame }) if *frame == number => return Ok(true),
            Some(Fault::Stall { frame }) if *frame == number => std::future::pending().await,
            Some(Fault::Fail { frame, code, node }) if *frame == number => {
                let failure = failure(shared, *code, *node);
                respond(connection, Kind::Failure(failure)).await?;
                return Ok(true);
            }
            _ => {}
        }
        let header = connection.recv_frame_header().await?;
        let value = receive_frame(connection, &write, header, &mut content).await?;
        number += 1;
        assert!(!content.is_empty(), "there are no empty blocks");
        keep(shared, &write, &nodes, &content);
        if header.last {
            break value;
        }
        let received = content.len() as u64;
        if header.sync {
            shared.syncs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            synced = received;
        }
        if received > resumed || header.sync {
            let timings = timings(fault.as_ref(), &nodes, received);
            let progress = wire::WriteProgress { received, synced, timings };
            respond(connection, Kind::Progress(progress)).await?;
        }
    };
    finish(shared, connection, &write, &nodes, &content, &block_value, fault.as_ref()).await
}

/// What is there of the block, as far as the write goes on behind it; it is under the new generation from now on.
fn take_over(shared: &Shared, write: &WriteBlock, nodes: &[NodeId]) -> Result<Bytes, Code> {
    let mut tables = shared.state.tables.lock();
    let newest = tables.replicas.get(&(shared.id, write.id)).map(|replica| replica.generation);
    if newest.is_some_and(|newest| newest > write.generation) {
        return Err(Code::StaleGeneration);
    }
    let Some(resume) = &write.resume else { return Ok(Bytes::new()) };
    let mut content = Bytes::new();
    assert!(nodes.starts_with(&resume.holders), "the holders are the first of the pipeline");
    for holder in &resume.holders {
        let replica = tables.replicas.get_mut(&(*holder, write.id)).ok_or(Code::NotFound)?;
        assert!(replica.generation < write.generation, "generations only grow");
        if (replica.content.len() as u64) < resume.length {
            return Err(Code::NotFound);
        }
        content = replica.content.slice(..resume.length as usize);
        let digest = digest_of(write.file_offset, &content);
        assert_eq!(digest.chaining_value, resume.chaining_value, "a client knows the value");
        (replica.generation, replica.content) = (write.generation, content.clone());
    }
    Ok(content)
}

/// Checks a frame by every rule there is, and appends it; returns the block's value, if it is the last.
async fn receive_frame(
    connection: &mut BlockConnection,
    write: &WriteBlock,
    header: FrameHeader,
    content: &mut BytesMut,
) -> Result<Bytes, StreamError> {
    assert_eq!(header.kind, FrameKind::Data);
    let start = content.len() - content.len() % GROUP_BYTES as usize;
    assert_eq!(header.offset, start as u64, "frames follow each other, cut groups again");
    let mut body = BytesMut::new();
    assert!(header.payload_bytes as usize <= FRAME_PAYLOAD_BYTES);
    connection.read_exact_into(&mut body, header.write_body_bytes()).await?;
    let values = body.split_to(header.groups() * VALUE_BYTES);
    let payload = body.split_to(header.payload_bytes as usize);
    let offset = write.file_offset + header.offset;
    let groups = payload.chunks(GROUP_BYTES as usize).zip(values.chunks(VALUE_BYTES));
    for (at, (group, value)) in groups.enumerate() {
        let expected = group_chaining_value(offset + at as u64 * GROUP_BYTES, group);
        assert_eq!(value, expected.0, "a client sends right values");
    }
    let again = content.split_off(start);
    assert!(payload.starts_with(&again), "a cut group comes again as it was, and longer");
    content.extend_from_slice(&payload);
    assert!(content.len() as u64 <= write.block_bytes.get());
    Ok(body.freeze())
}

/// All of the pipeline has what came so far.
fn keep(shared: &Shared, write: &WriteBlock, nodes: &[NodeId], content: &[u8]) {
    let (generation, file_offset) = (write.generation, write.file_offset);
    let content = Bytes::copy_from_slice(content);
    let mut tables = shared.state.tables.lock();
    for node in nodes {
        let replica = Replica { generation, file_offset, content: content.clone() };
        tables.replicas.insert((*node, write.id), replica);
    }
}

/// With a slow node: it works for longer than the stream has lasted.
fn timings(fault: Option<&Fault>, nodes: &[NodeId], bytes: u64) -> Vec<wire::NodeTiming> {
    let Some(Fault::SlowWrite { node }) = fault else { return Vec::new() };
    let timing = |id: &NodeId| {
        let store_us = if id.0 == *node { bytes * 1_000 } else { bytes / 1_000_000 };
        wire::NodeTiming { node_id: id.0, bytes, store_us, forward_us: 0 }
    };
    nodes.iter().map(timing).collect()
}

async fn finish(
    shared: &Shared,
    connection: &mut BlockConnection,
    write: &WriteBlock,
    nodes: &[NodeId],
    content: &[u8],
    block_value: &[u8],
    fault: Option<&Fault>,
) -> Result<bool, StreamError> {
    let ChainingValue(value) = digest_of(write.file_offset, content).chaining_value;
    assert_eq!(*block_value, value, "a client sends the block's value");
    if matches!(fault, Some(Fault::NeverDone)) {
        std::future::pending::<()>().await;
    }
    let mut chaining_value = ChainingValue(value);
    if matches!(fault, Some(Fault::WrongValue)) {
        chaining_value.0[0] ^= 1;
    }
    let durable = !matches!(fault, Some(Fault::NotDurable));
    let mut replicas: Vec<wire::ReplicaReceipt> =
        nodes.iter().map(|node| wire::ReplicaReceipt { node_id: node.0, durable }).collect();
    if matches!(fault, Some(Fault::FewerReceipts)) {
        replicas.pop();
    }
    shared.finished.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let (length, chaining_value) = (content.len() as u64, chaining_value.to_bytes());
    let done = wire::WriteDone { length, chaining_value, replicas };
    respond(connection, Kind::Done(done)).await?;
    Ok(false)
}
