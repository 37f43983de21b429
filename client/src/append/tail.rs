//! Learns of the block that a write goes on inside of what is needed for that: the values of its groups, and the
//! bytes of the last of them, since that group becomes another when it grows.
//!
//! Both are verified against the value of the block that the namenode gave.

use bytes::{Bytes, BytesMut};
use doldam_proto::block::LocatedBlock;
use doldam_proto::digest::{BlockTree, ChainingValue};
use doldam_proto::file::FileStatus;
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::node::NodeAddress;

use crate::block_stream::receive::{VerifiedStream, receive_values};
use crate::block_stream::{StreamFailure, Streams};
use crate::engine::read_plan::{ReadPlan, ReadStep, Side};
use crate::engine::write_pipeline::OpenTail;
use crate::error::ClientError;
use crate::metadata::bad_answer;
use crate::session::OpenWrite;
use crate::writer::TailEnd;

/// The block that a write goes on inside of.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) open: OpenTail,
    /// Over the bytes before the first new one.
    pub(crate) tree: BlockTree,
    pub(crate) end: TailEnd,
}

/// Reads what is needed of the block `before` the write.
pub(super) async fn read_tail(
    write: &OpenWrite,
    status: &FileStatus,
    open: OpenTail,
    mut before: LocatedBlock,
) -> Result<Tail, ClientError> {
    let length = open.resume.length;
    let (streams, metadata) = (&write.inner.streams, &write.inner.metadata);
    let ordered = |block: &LocatedBlock| {
        let mut replicas = block.replicas.clone();
        write.inner.choice.order(&mut replicas, |node| metadata.nearness(node));
        replicas
    };
    let mut plan = ReadPlan::new(ordered(&before));
    loop {
        let node = match plan.next() {
            ReadStep::Read(node) => node,
            ReadStep::Relocate => {
                let (offset, inode) = (before.offset, Some(status.inode));
                let located = metadata.locate(&write.path, offset, 1, inode, &write.trace).await?;
                // Nobody else writes it: only its replicas can be others by now.
                let found = located.1.into_iter().find(|found| found.id == before.id);
                let found = found.ok_or_else(|| {
                    bad_answer(format!("{}: block {} is gone", write.path, before.id))
                })?;
                before.replicas = found.replicas;
                plan.relocate(ordered(&before));
                continue;
            }
            ReadStep::GiveUp(tried) => {
                return Err(ClientError::BlockUnreadable {
                    path: write.path.to_string(),
                    block: before.id,
                    offset: before.offset + length - 1,
                    tried,
                });
            }
        };
        match read_from(streams, &node, &before, length, write.trace.as_str()).await {
            Ok((values, last_group)) => {
                let mut tree = BlockTree::from_full_groups(before.offset, values, None);
                tree.push_group(&last_group);
                return Ok(Tail { open, tree, end: TailEnd { length, last_group } });
            }
            Err(failure) => {
                report(write, &before, &node, &failure).await;
                plan.failed(Side::Current, failure.cause, failure.bad_data);
            }
        }
    }
}

/// The values of all groups but the last, and its bytes, as far as the write goes on behind them.
async fn read_from(
    streams: &Streams,
    node: &NodeAddress,
    block: &LocatedBlock,
    length: u64,
    trace: &str,
) -> Result<(Vec<ChainingValue>, Bytes), StreamFailure> {
    let last = (length - 1) - (length - 1) % GROUP_BYTES;
    let values = match last {
        0 => Vec::new(),
        last => receive_values(streams, &node.address, block, 0..last, trace).await?,
    };
    let mut stream =
        VerifiedStream::open(streams, &node.address, block, last..length, trace).await?;
    let (mut group, mut buffer) = (BytesMut::new(), BytesMut::new());
    while let Some(bytes) = stream.next(&mut buffer).await? {
        group.extend_from_slice(&bytes);
    }
    stream.finish();
    group.truncate((length - last) as usize);
    Ok((values, group.freeze()))
}

async fn report(
    write: &OpenWrite,
    block: &LocatedBlock,
    node: &NodeAddress,
    failure: &StreamFailure,
) {
    let StreamFailure { cause, bad_data, .. } = failure;
    tracing::debug!(path = %write.path, block = %block.id, %node, %cause, "a replica failed");
    if !bad_data {
        return;
    }
    let metadata = &write.inner.metadata;
    let reported =
        metadata.report_bad_replica(block.id, block.generation, node.id, cause, &write.trace);
    if let Err(error) = reported.await {
        // The write goes on; the datanode's own scrubber finds the replica in time.
        tracing::warn!(block = %block.id, %node, %error, "a bad replica could not be reported");
    }
}
