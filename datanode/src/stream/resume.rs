//! How a write begins: from the block's first byte, or behind what is here already; and with what the nodes behind
//! this one have to be told for it.

use std::sync::Arc;

use doldam_proto::convert::block_stream::{Resume, WriteBlock};
use doldam_proto::id::NodeId;
use doldam_proto::node::NodeAddress;
use doldam_runtime::telemetry::TraceId;

use super::failure::{Code, Failure};
use super::forward::{self, Patience};
use super::write::Next;
use crate::blocks::partial::PartialReplica;
use crate::blocks::takeover::Start;
use crate::engine::receive::{BlockReceiver, Ordered};
use crate::engine::replica::ReplicaKey;
use crate::node::Node;
use doldam_runtime::tasks::run_blocking;

/// A write that may go on.
pub(super) struct Begun {
    /// Its file.
    pub(super) partial: PartialReplica,
    /// What may come.
    pub(super) receiver: BlockReceiver,
}

/// Begins to receive what is asked for.
///
/// # Errors
/// If that cannot be: what is here is newer, or other than the request says, or there is no room.
pub(super) async fn begin(
    node: &Arc<Node>,
    request: &WriteBlock,
    here: NodeId,
    key: ReplicaKey,
    ordered: Option<Ordered>,
) -> Result<Begun, Failure> {
    let (file_offset, block_bytes) = (request.file_offset, request.block_bytes.get());
    let receiver = BlockReceiver::new(file_offset, block_bytes, ordered)?;
    if let Some(resume) = &request.resume {
        return resume_here(node, resume, here, key, (file_offset, block_bytes)).await;
    }
    let partial = match ordered {
        Some(ordered) => node.store.begin_copy(key, ordered.length)?,
        None => node.store.begin_write(key, file_offset, block_bytes)?,
    };
    Ok(Begun { partial, receiver })
}

async fn resume_here(
    node: &Arc<Node>,
    resume: &Resume,
    here: NodeId,
    key: ReplicaKey,
    (file_offset, block_bytes): (u64, u64),
) -> Result<Begun, Failure> {
    if !resume.holders.contains(&here) {
        let message = format!("{key} is to be gone on with here, but datanode {here} is no holder");
        return Err(Failure::here(Code::BadRequest, message));
    }
    let take = node.store.begin_take_over(key)?;
    node.store.writers_out(key, node.config.downstream_timeout.0).await?;
    let start = Start {
        file_offset,
        length: resume.length,
        value: resume.chaining_value,
        length_max: block_bytes,
    };
    let store = Arc::clone(&node.store);
    // It reads, and may have to read or copy the whole block.
    let taken = run_blocking(move || store.take_over(take, start)).await;
    let (partial, tree) =
        taken.map_err(|_panicked| Failure::here(Code::Disk, "going on with a block failed"))??;
    Ok(Begun { partial, receiver: BlockReceiver::resumed(tree, block_bytes)? })
}

/// Connects to the next node of the pipeline, if there is one. One that holds the start of the block is asked to go on
/// behind it; any other gets it from this node.
///
/// # Errors
/// If it cannot be reached; the failure names it.
pub(super) async fn open_next(
    node: &Node,
    request: WriteBlock,
    trace: &TraceId,
) -> Result<Option<Next>, Failure> {
    let mut downstream = request.downstream.into_iter();
    let Some(address) = downstream.next() else { return Ok(None) };
    let downstream: Vec<NodeAddress> = downstream.collect();
    let patience = Patience::of(&node.config, downstream.len());
    let resume = request.resume.filter(|resume| resume.holders.contains(&address.id));
    let has = resume.as_ref().map_or(0, |resume| resume.length);
    let request = WriteBlock { downstream, position: request.position + 1, resume, ..request };
    let connection = forward::open(node, &address, request, trace).await?;
    Ok(Some(Next { address, connection, patience, has }))
}

#[cfg(test)]
#[path = "resume_test.rs"]
mod tests;
