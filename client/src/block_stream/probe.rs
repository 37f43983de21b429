//! Finds out which datanode of a silent pipeline is the one that is stuck.
//!
//! A pipeline may be silent for a good reason (a slow disk syncs a block) or because a node in it is frozen or cut
//! off, and its first node may know no better. So each is asked something small on a connection of its own: who
//! does not answer though others do is to blame ([`silence`](crate::engine::silence)), and if all do, waiting goes on.

use doldam_proto::block::AllocatedBlock;
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock};
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_runtime::connection::StreamError;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::{StreamFailure, Streams, with_causes};
use crate::engine::silence::Answers;

/// The first datanode of the block's pipeline that turns out not to answer; `None` if all do, or it cannot be told.
pub(super) async fn find_stuck(
    streams: &Streams,
    block: &AllocatedBlock,
    trace: &str,
) -> Option<StreamFailure> {
    let asked_at = Instant::now();
    let mut answers = Answers::default();
    let mut waiting: Vec<&NodeAddress> = block.targets.iter().collect();
    let asking = |node| async move { (node, probe(streams, node, block, trace).await) };
    let mut probes: FuturesUnordered<_> = block.targets.iter().map(asking).collect();
    loop {
        let patience = answers.patience();
        match timeout_at(asked_at + patience, probes.next()).await {
            Ok(None) => return None,
            Ok(Some((node, Ok(())))) => {
                answers.answered(asked_at.elapsed());
                waiting.retain(|other| other.id != node.id);
            }
            Ok(Some((node, Err(cause)))) => return Some(stuck(node, cause)),
            Err(_elapsed) if !answers.is_proof(asked_at.elapsed()) => return None,
            Err(_elapsed) => {
                let node = *waiting.first()?;
                return Some(stuck(node, format!("{node} does not answer within {patience:?}")));
            }
        }
    }
}

fn stuck(node: &NodeAddress, cause: String) -> StreamFailure {
    StreamFailure { node: Some(node.id), cause, stuck: true, ..StreamFailure::default() }
}

/// Any answer will do: most likely it has no such replica yet.
///
/// # Errors
/// If it cannot be reached.
async fn probe(
    streams: &Streams,
    node: &NodeAddress,
    block: &AllocatedBlock,
    trace: &str,
) -> Result<(), String> {
    let (id, generation) = (block.id, block.generation);
    let operation = BlockOperation::Read(ReadBlock {
        id,
        generation,
        offset: 0,
        length: 1,
        block_length: None,
        values_only: true,
    });
    let request: wire::BlockRequest = BlockRequest { trace: trace.to_owned(), operation }.into();
    let asked = async {
        let mut connection = streams.pool.get_fresh(&node.address).await?;
        connection.send_message(&request).await?;
        connection.recv_message::<wire::BlockResponse>().await
    };
    match asked.await {
        Err(error @ (StreamError::Connect { .. } | StreamError::TimedOut { .. })) => {
            Err(with_causes(&error))
        }
        // It may refuse to talk, but it is alive.
        Ok(_) | Err(_) => Ok(()),
    }
}
