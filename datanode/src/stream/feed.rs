//! Sends the start of a block to the next node of its pipeline, which has nothing of it, from this node's own file.
//!
//! Every group is verified as it is read: a source that fails its own check feeds nobody.

use std::sync::Arc;

use bytes::BytesMut;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::{ChainingValue, VALUE_BYTES};
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_proto::node::NodeAddress;
use doldam_runtime::connection::ConnectionWriter;

use super::exchange::Exchange;
use super::failure::Failure;
use super::forward;
use crate::blocks::StoreError;
use crate::blocks::open::OpenFile;
use crate::engine::replica::ReplicaKey;
use crate::node::Node;

/// What is sent: bytes of a block, and the values of their groups.
pub(super) struct Source<'a> {
    /// Which block.
    pub(super) key: ReplicaKey,
    /// Its bytes.
    pub(super) file: &'a OpenFile,
    /// How many of them.
    pub(super) length: u64,
    /// The values of their groups.
    pub(super) groups: &'a [ChainingValue],
}

/// Sends all of `source` as ordinary frames, none of them the last of the block.
///
/// # Errors
/// If this node's file is not what it was, or the next node takes no more.
pub(super) async fn feed(
    node: &Arc<Node>,
    source: &Source<'_>,
    writer: &mut ConnectionWriter,
    exchange: &Exchange,
    next: &NodeAddress,
) -> Result<(), Failure> {
    let mut buffer = node.buffers.take();
    let mut offset = 0;
    while offset < source.length {
        let begun = node.seams.clock.now();
        let count = (source.length - offset).min(FRAME_PAYLOAD_BYTES as u64);
        source.read_frame(offset, count as usize, &mut buffer)?;
        offset += count;
        exchange.forwarding(offset, false);
        if let Err(cause) = writer.write_all_vectored(&[&buffer]).await {
            return Err(forward::cannot_send(next, &cause).await);
        }
        node.metrics.sent(count);
        exchange.fed(count, node.seams.clock.now().saturating_sub(begun));
    }
    Ok(())
}

impl Source<'_> {
    /// Fills `buffer` with the frame of `count` bytes at `offset`.
    fn read_frame(
        &self,
        offset: u64,
        count: usize,
        buffer: &mut BytesMut,
    ) -> Result<(), StoreError> {
        let header = FrameHeader::data(offset, count, false);
        let values_end = HEADER_BYTES + header.groups() * VALUE_BYTES;
        buffer.resize(values_end + count, 0);
        let (front, payload) = buffer.split_at_mut(values_end);
        let read = self.file.data().read_exact_at(payload, offset);
        read.map_err(|cause| StoreError::disk(self.file.path(), "reading a block")(cause))?;
        front[..HEADER_BYTES].copy_from_slice(&header.encode());
        let first = (offset / GROUP_BYTES) as usize;
        let values = front[HEADER_BYTES..].chunks_exact_mut(VALUE_BYTES);
        let groups = payload.chunks(GROUP_BYTES as usize).zip(&self.groups[first..]);
        for (((group, expected), value), index) in groups.zip(values).zip(0..) {
            let at = offset + index * GROUP_BYTES;
            if group_chaining_value(self.file.file_offset + at, group) != *expected {
                let what = format!("its bytes at offset {at} do not match their value");
                return Err(StoreError::Damaged { key: self.key, what });
            }
            value.copy_from_slice(&expected.0);
        }
        Ok(())
    }
}
