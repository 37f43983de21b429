//! Orders on blocks that writers left: to find out what there is, to make replicas of it, to drop it.
//!
//! Each first sees to it that no writer is left under an older generation, which may take a moment, and does the rest
//! in a thread that may wait for the disk.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use doldam_proto::convert::datanode::{FinishOrder, RecoverOrder};
use doldam_proto::digest::{FileDigest, VALUE_BYTES};
use doldam_proto::wire;

use crate::blocks::StoreError;
use crate::blocks::recovery::Recovered;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::ReplicaKey;
use crate::news::Report;
use crate::node::Node;
use doldam_runtime::tasks::run_blocking;

/// Fences writers off and reports what there is of the block.
pub(super) async fn recover(
    node: Arc<Node>,
    order_id: u64,
    order: RecoverOrder,
) -> Result<(), StoreError> {
    let key = ReplicaKey { block: order.block, generation: order.generation };
    let take = node.store.begin_recovery(key)?;
    node.store.writers_out(key, node.config.downstream_timeout.0).await?;
    let store = Arc::clone(&node.store);
    let recovered = in_thread(move || store.recover(&take, order)).await?;
    let report = Report::Recovered(report_of(order_id, key, recovered));
    node.store.news().report(vec![report]).map_err(|why| failed("reporting", why))
}

fn report_of(order_id: u64, key: ReplicaKey, recovered: Recovered) -> wire::RecoveredReplica {
    let Recovered { copy, has_shown, has_floor } = recovered;
    let nothing = wire::RecoveredReplica {
        order_id,
        block_id: key.block.0,
        starts: Some(wire::StartsFound {
            shown: has_shown,
            floor: has_floor,
            is_replica: copy.as_ref().is_some_and(|copy| copy.is_replica),
        }),
        ..Default::default()
    };
    let Some(copy) = copy else { return nothing };
    let mut group_values = BytesMut::with_capacity(copy.groups.len() * VALUE_BYTES);
    copy.groups.iter().for_each(|value| group_values.extend_from_slice(&value.0));
    wire::RecoveredReplica {
        generation: copy.written_under.generation.0,
        length: copy.length,
        group_values: group_values.freeze(),
        first_root: copy.first_root.map_or_else(Bytes::new, FileDigest::to_bytes),
        ..nothing
    }
}

/// Makes a replica of the start of what there is of the block. One that is a replica already is reported again.
pub(super) async fn finish(node: Arc<Node>, order: FinishOrder) -> Result<(), StoreError> {
    let key = ReplicaKey { block: order.block, generation: order.generation };
    let take = match node.store.begin_take_over(key) {
        Err(StoreError::Exists { .. }) => {
            let store = Arc::clone(&node.store);
            return in_thread(move || {
                let (length, value) = (order.length, order.chaining_value);
                let replica = store.open(key)?;
                if (replica.length, replica.sidecar.header().value) != (length, value) {
                    return Err(StoreError::OtherBytes { key, length });
                }
                store.news().event(key, ReplicaEvent::Stored { length, value });
                Ok(())
            })
            .await;
        }
        begun => begun?,
    };
    node.store.writers_out(key, node.config.downstream_timeout.0).await?;
    let store = Arc::clone(&node.store);
    in_thread(move || store.finish(take, order)).await
}

/// Drops a replica, or what a writer left or is writing of it.
pub(super) async fn drop_replica(node: Arc<Node>, key: ReplicaKey) -> Result<(), StoreError> {
    node.store.end_writer(key, node.config.downstream_timeout.0).await?;
    let store = Arc::clone(&node.store);
    in_thread(move || store.drop_replica(key).map(|_was_here| ())).await
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| failed("carrying out an order", "it panicked".to_owned());
    run_blocking(work).await.map_err(panicked)?
}

fn failed(during: &'static str, why: String) -> StoreError {
    StoreError::Disk { path: "orders".into(), during, source: io::Error::other(why) }
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod tests;
