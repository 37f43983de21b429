//! What a heartbeat says.

use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::wire;
use doldam_proto::wire::replica_event::Kind;
use tracing::trace;

use super::Registration;
use crate::engine::orders::Answer;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::ReplicaKey;
use crate::metrics::Gauges;
use crate::news::{Bundle, Report};
use crate::node::Node;

/// A heartbeat with all there is to tell. Asks no disk, which might hang.
pub(crate) fn compose(
    node: &Node,
    registration: Registration,
    sequence: u64,
    bundle: Bundle,
) -> wire::DatanodeMessage {
    let volumes: Vec<wire::VolumeStatus> = volumes(node);
    let (fingerprint, replicas, quarantined, withdrawn, left_open) = {
        let state = node.store.state();
        let left_open = state.open.without_writer().count() as u64;
        let inventory = &state.inventory;
        let (bad, withdrawn) = (inventory.quarantined_count(), inventory.withdrawn_count());
        (inventory.root(), inventory.len(), bad, withdrawn, left_open)
    };
    let active_streams = node.active_streams() as u64;
    node.metrics.show(&Gauges {
        active_streams,
        replicas,
        quarantined,
        left_open,
        withdrawn,
        registered: true,
        folders: volumes
            .iter()
            .map(|volume| (volume.path.clone(), volume.available, volume.used, volume.failed))
            .collect(),
    });
    trace!(sequence, replicas, events = bundle.events.len(), "heartbeat");
    let mut message = wire::DatanodeMessage {
        node_id: registration.node.0,
        epoch: registration.epoch,
        sequence,
        volumes,
        active_streams: active_streams as u32,
        fingerprint: fingerprint.to_bytes().to_vec().into(),
        replica_count: replicas,
        unverified: node.store.late_syncs().unverified(),
        events: bundle.events.into_iter().map(event).collect(),
        results: bundle.answers.into_iter().map(result).collect(),
        ..Default::default()
    };
    match bundle.report {
        Some(Report::Buckets(buckets)) => {
            message.buckets = buckets;
            message.buckets_answered = true;
        }
        Some(Report::Listings(listings)) => message.listings = listings,
        Some(Report::Recovered(recovered)) => message.recovered.push(recovered),
        None => {}
    }
    message
}

fn volumes(node: &Node) -> Vec<wire::VolumeStatus> {
    let of = |volume: &std::sync::Arc<crate::blocks::volume::Volume>| {
        let (space, scrub) = (volume.seen_space(), volume.scrub());
        let mut failure = volume.failure().unwrap_or_default();
        failure.truncate(failure.floor_char_boundary(TEXT_BYTES_MAX));
        wire::VolumeStatus {
            path: volume.layout().root().display().to_string(),
            capacity: space.total,
            used: node.store.used_bytes(volume.index()),
            available: space.available,
            failed: volume.has_failed(),
            failure,
            scrub_passes: scrub.passes,
            scrub_oldest_secs: scrub.oldest_ms(node.seams.clock.wall_ms()) / 1000,
        }
    };
    node.store.volumes().iter().map(of).collect()
}

fn event((key, event): (ReplicaKey, ReplicaEvent)) -> wire::ReplicaEvent {
    let mut message = wire::ReplicaEvent {
        block_id: key.block.0,
        generation: key.generation.0,
        ..Default::default()
    };
    match event {
        ReplicaEvent::Stored { length, value } => {
            message.set_kind(Kind::Stored);
            message.length = length;
            message.chaining_value = value.to_bytes();
        }
        ReplicaEvent::Open { length } => {
            message.set_kind(Kind::Open);
            message.length = length;
        }
        ReplicaEvent::Dropped => message.set_kind(Kind::Dropped),
        ReplicaEvent::Bad { length, what } => {
            message.set_kind(Kind::Bad);
            message.length = length;
            message.what = what;
        }
    }
    message
}

fn result(answer: Answer) -> wire::OrderResult {
    let done = answer.result.is_ok();
    wire::OrderResult {
        order_id: answer.order,
        done,
        error: answer.result.err().unwrap_or_default(),
    }
}
