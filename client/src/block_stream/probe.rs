//! Finds out which datanode of a silent pipeline is the one that is stuck.
//!
//! A pipeline may be silent for a good reason (a slow disk syncs a block) or because a node in it is frozen or cut
//! off, and its first node may know no better. So each is asked something small on a connection of its own: who
//! does not answer is to blame, and if all do, waiting goes on.

use std::time::Duration;

use doldam_proto::block::AllocatedBlock;
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock};
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_runtime::connection::StreamError;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::{StreamFailure, Streams, with_causes};

/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The first datanode of the block's pipeline that turns out not to answer; `None` if all do.
pub(super) async fn find_stuck(
    streams: &Streams,
    block: &AllocatedBlock,
    trace: &str,
) -> Option<StreamFailure> {
    let probes: FuturesUnordered<_> =
        block.targets.iter().map(|node| probe(streams, node, block, trace)).collect();
    probes.filter_map(|stuck| async { stuck }).boxed().next().await
}

/// Any answer will do: most likely it has no such replica yet.
async fn probe(
    streams: &Streams,
    node: &NodeAddress,
    block: &AllocatedBlock,
    trace: &str,
) -> Option<StreamFailure> {
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
    let cause = match timeout(PROBE_TIMEOUT, asked).await {
        Ok(Err(error @ (StreamError::Connect { .. } | StreamError::TimedOut { .. }))) => {
            with_causes(&error)
        }
        // It may refuse to talk, but it is alive.
        Ok(Ok(_) | Err(_)) => return None,
        Err(_elapsed) => format!("{node} does not answer within {PROBE_TIMEOUT:?}"),
    };
    Some(StreamFailure { node: Some(node.id), cause, ..StreamFailure::default() })
}
