//! The writing half of a fake datanode: verifies everything a client sends.

use bytes::BytesMut;
use doldam_proto::convert::block_stream::WriteBlock;
use doldam_proto::digest::VALUE_BYTES;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::frame::header::FrameKind;
use doldam_proto::id::NodeId;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::wire::{self, block_response::Kind};
use doldam_runtime::connection::{BlockConnection, StreamError};

use super::datanode::{Fault, Shared, failure, respond};
use super::state::replica_of;

/// Says whether the connection is to be closed.
pub(crate) async fn serve_write(
    shared: &Shared,
    connection: &mut BlockConnection,
    write: WriteBlock,
    fault: Option<Fault>,
) -> Result<bool, StreamError> {
    let mut content = BytesMut::new();
    let mut body = BytesMut::new();
    let mut number = 0;
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
        assert_eq!(header.kind, FrameKind::Data);
        assert_eq!(header.offset, content.len() as u64, "frames follow each other");
        let whole = header.payload_bytes as usize == FRAME_PAYLOAD_BYTES;
        let block_end =
            content.len() as u64 + u64::from(header.payload_bytes) == write.block_bytes.get();
        assert!(whole || header.last || block_end, "only the last frame is short");
        body.clear();
        connection.read_exact_into(&mut body, header.write_body_bytes()).await?;
        let values = body.split_to(header.groups() * VALUE_BYTES);
        let payload = body.split_to(header.payload_bytes as usize);
        let offset = write.file_offset + header.offset;
        let groups = payload.chunks(GROUP_BYTES as usize).zip(values.chunks(VALUE_BYTES));
        for (at, (group, value)) in groups.enumerate() {
            let expected = group_chaining_value(offset + at as u64 * GROUP_BYTES, group);
            assert_eq!(value, expected.0, "a client sends right values");
        }
        content.extend_from_slice(&payload);
        assert!(content.len() as u64 <= write.block_bytes.get());
        number += 1;
        if header.last {
            break body.split().freeze();
        }
        let received = content.len() as u64;
        respond(connection, Kind::Progress(wire::WriteProgress { received })).await?;
    };
    assert!(!content.is_empty(), "there are no empty blocks");
    let (replica, digest) = replica_of(write.generation, write.file_offset, content.freeze());
    assert_eq!(block_value[..], digest.chaining_value.0, "a client sends the block's value");
    if matches!(fault, Some(Fault::NeverDone)) {
        std::future::pending::<()>().await;
    }
    let mut nodes: Vec<NodeId> = vec![shared.id];
    nodes.extend(write.downstream.iter().map(|node| node.id));
    let length = replica.content.len() as u64;
    for node in &nodes {
        shared.state.tables.lock().replicas.insert((*node, write.id), replica.clone());
    }
    let mut chaining_value = digest.chaining_value;
    if matches!(fault, Some(Fault::WrongValue)) {
        chaining_value.0[0] ^= 1;
    }
    let durable = !matches!(fault, Some(Fault::NotDurable));
    let mut replicas: Vec<wire::ReplicaReceipt> =
        nodes.iter().map(|node| wire::ReplicaReceipt { node_id: node.0, durable }).collect();
    if matches!(fault, Some(Fault::FewerReceipts)) {
        replicas.pop();
    }
    let chaining_value = chaining_value.to_bytes();
    let done = wire::WriteDone { length, chaining_value, replicas };
    respond(connection, Kind::Done(done)).await?;
    Ok(false)
}
