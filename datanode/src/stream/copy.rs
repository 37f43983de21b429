//! Sends a replica to other datanodes by order of the namenode.
//!
//! Every group is checked against the sidecar before it is sent, and the sidecar against the order:
//! a source that fails its own check does not replicate. The targets check all of it again; they
//! report what they stored.

use std::pin::pin;
use std::sync::Arc;

use doldam_proto::convert::block_stream::{ExpectedBlock, WriteBlock};
use doldam_proto::convert::datanode::CopyOrder;
use doldam_proto::digest::VALUE_BYTES;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::file::Durability;
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::node::NodeAddress;
use doldam_runtime::connection::ConnectionWriter;
use doldam_runtime::telemetry::TraceId;
use tracing::info;

use super::exchange::Exchange;
use super::failure::{Code, Failure};
use super::forward::{self, Patience};
use crate::blocks::StoreError;
use crate::blocks::store::OpenReplica;
use crate::engine::replica::ReplicaKey;
use crate::metrics::Operation;
use crate::node::Node;

/// Copies a replica as ordered. Cancel-safe: a target whose source leaves keeps nothing.
///
/// # Errors
/// If this replica is not what the order says, which quarantines it, or a target fails.
pub(crate) async fn copy_replica(
    node: &Arc<Node>,
    order: CopyOrder,
    trace: &TraceId,
) -> Result<(), Failure> {
    let key = ReplicaKey { block: order.block, generation: order.generation };
    let Ok(_permit) = Arc::clone(&node.streams).try_acquire_owned() else {
        let limit = node.config.streams_max;
        return Err(Failure::here(
            Code::Busy,
            format!("{limit} blocks are written and read already"),
        ));
    };
    let _repair = node.repairs.send();
    let started = node.seams.clock.now();
    let length = order.length;
    let copied = send_copy(node, key, order, trace).await;
    let code = copied.as_ref().err().map(|failure| failure.code);
    node.metrics.request(Operation::Copy, code);
    match &copied {
        Ok(()) => {
            let took = node.seams.clock.now().saturating_sub(started);
            node.metrics.served(Operation::Copy, took);
            info!(%key, length, ?took, "replica copied");
        }
        Err(failure) => info!(%key, %failure, "replica not copied"),
    }
    copied
}

async fn send_copy(
    node: &Arc<Node>,
    key: ReplicaKey,
    order: CopyOrder,
    trace: &TraceId,
) -> Result<(), Failure> {
    let replica = node.store.open(key)?;
    check_against_order(&replica, &order).map_err(|bad| node.store.note_read_error(key, bad))?;
    let mut targets = order.targets.iter().cloned();
    let Some(next) = targets.next() else {
        return Err(Failure::here(Code::BadRequest, "a copy to nowhere"));
    };
    let downstream: Vec<NodeAddress> = targets.collect();
    let patience = Patience::of(&node.config, downstream.len());
    let expected = ExpectedBlock { length: order.length, chaining_value: order.chaining_value };
    let request = WriteBlock {
        id: order.block,
        generation: order.generation,
        file_offset: order.file_offset,
        block_bytes: order.block_bytes,
        durability: Durability::All,
        downstream,
        position: 0,
        writer: format!("repair from {}", node.membership.address),
        repair: Some(expected),
        resume: None,
    };
    let mut connection = forward::open(node, &next, request, trace).await?;
    let done = {
        let exchange = Exchange::new(0, Some(0));
        let (answers, frames) = connection.halves();
        let sending = pin!(send_frames(node, &replica, frames, &exchange, &next));
        let watching = pin!(forward::watch(answers, &exchange, &next, patience));
        let ((), done) = tokio::try_join!(sending, watching)?;
        done
    };
    forward::check_done(done, order.length, order.chaining_value, &next)?;
    connection.put_back();
    Ok(())
}

/// The order comes from the namenode's records: if the sidecar says anything else, the replica is
/// bad.
fn check_against_order(replica: &OpenReplica, order: &CopyOrder) -> Result<(), StoreError> {
    let header = replica.sidecar.header();
    let ordered = (order.length, order.file_offset, order.chaining_value);
    if (header.length, header.file_offset, header.value) == ordered {
        return Ok(());
    }
    let what = format!(
        "it has {} bytes at {} of its file with value {}, \
         where {} at {} with value {} were committed",
        header.length, header.file_offset, header.value, ordered.0, ordered.1, ordered.2
    );
    Err(StoreError::Damaged { key: replica.key, what })
}

async fn send_frames(
    node: &Arc<Node>,
    replica: &OpenReplica,
    writer: &mut ConnectionWriter,
    exchange: &Exchange,
    next: &NodeAddress,
) -> Result<(), Failure> {
    let key = replica.key;
    let bad = |failure| Failure::from(node.store.note_read_error(key, failure));
    let nodes = replica.sidecar.read_all_nodes().map_err(bad)?;
    let header = *replica.sidecar.header();
    let mut buffer = node.buffers.take();
    let mut offset = 0;
    let share = node.config.repair_share();
    while offset < replica.length {
        let began = node.seams.clock.now();
        let count = (replica.length - offset).min(FRAME_PAYLOAD_BYTES as u64);
        let (end, last) = (offset + count, offset + count == replica.length);
        let frame = FrameHeader::data(offset, count as usize, last);
        let values_end = HEADER_BYTES + frame.groups() * VALUE_BYTES;
        buffer.resize(values_end + count as usize, 0);
        let (front, payload) = buffer.split_at_mut(values_end);
        let read = replica.data.read_exact_at(payload, offset);
        read.map_err(StoreError::disk(&replica.data_path, "reading a block")).map_err(bad)?;
        front[..HEADER_BYTES].copy_from_slice(&frame.encode());
        let values = front[HEADER_BYTES..].chunks_exact_mut(VALUE_BYTES);
        let mut at = offset;
        for (group, value) in payload.chunks(GROUP_BYTES as usize).zip(values) {
            let place = 2 * (at / GROUP_BYTES) as usize * VALUE_BYTES;
            value.copy_from_slice(&nodes[place..place + VALUE_BYTES]);
            if group_chaining_value(header.file_offset + at, group).0 != *value {
                let what = format!("its bytes at offset {at} do not match their value");
                return Err(bad(StoreError::Damaged { key, what }));
            }
            at += group.len() as u64;
        }
        if last {
            buffer.extend_from_slice(&header.value.0);
        }
        exchange.forwarding(end, last);
        if let Err(cause) = writer.write_all_vectored(&[&buffer]).await {
            return Err(forward::cannot_send(next, &cause).await);
        }
        node.metrics.sent(count);
        exchange.written(end);
        offset = end;
        if !last {
            let took = node.seams.clock.now().saturating_sub(began);
            let (others, copies) = (node.foreground_streams(), node.repairs.sending());
            let pause = share.pause_after(count, took, others, copies);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
