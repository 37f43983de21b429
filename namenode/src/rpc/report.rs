//! From a datanode's message to what the engine understands: the only checks of it.

use std::collections::BTreeMap;

use doldam_proto::convert::BadMessage;
use doldam_proto::convert::types::short_text;
use doldam_proto::digest::{ChainingValue, FileDigest, VALUE_BYTES};
use doldam_proto::fingerprint::{Fingerprint, ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::limits::{BLOCK_BYTES_MAX, GROUP_BYTES, REPORT_BUCKETS};
use doldam_proto::wire;
use doldam_proto::wire::replica_event::Kind;
use tracing::warn;

use crate::engine::cluster::Load;
use crate::engine::recovery::{RecoveredReplica, Starts};
use crate::engine::repair::{Event, OrderEnd};

/// Most volumes of one datanode.
const VOLUMES_MAX: usize = 256;

/// A message, checked.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) load: Load,
    pub(super) sum: (Fingerprint, u64),
    pub(super) events: Vec<Event>,
    pub(super) buckets: Option<BTreeMap<u32, Fingerprint>>,
    pub(super) listings: Vec<(u32, Vec<ReplicaId>)>,
    pub(super) recovered: Vec<RecoveredReplica>,
}

/// Checks what `node` sent.
pub(super) fn check(node: NodeId, message: wire::DatanodeMessage) -> Result<Report, BadMessage> {
    let load = Load {
        unverified: message.unverified,
        ..load(message.volumes, message.active_streams, message.replica_count)?
    };
    let root = fingerprint("fingerprint", &message.fingerprint)?;
    let mut events = Vec::with_capacity(message.events.len() + message.results.len());
    for event in message.events {
        events.extend(replica_event(node, event)?);
    }
    for result in message.results {
        events.push(order_result(node, result)?);
    }
    let mut buckets = BTreeMap::new();
    for each in message.buckets {
        buckets.insert(bucket(each.bucket)?, fingerprint("buckets.hash", &each.hash)?);
    }
    let listings = message.listings.into_iter().map(listing).collect::<Result<_, _>>()?;
    Ok(Report {
        load,
        sum: (root, message.replica_count),
        events,
        buckets: message.buckets_answered.then_some(buckets),
        listings,
        recovered: message.recovered.into_iter().map(recovered).collect::<Result<_, _>>()?,
    })
}

fn load(
    volumes: Vec<wire::VolumeStatus>,
    active_streams: u32,
    replicas: u64,
) -> Result<Load, BadMessage> {
    if volumes.len() > VOLUMES_MAX {
        let why = format!("{} are more than {VOLUMES_MAX}", volumes.len());
        return Err(BadMessage::new("volumes", why));
    }
    let mut load = Load { active_streams, replicas, ..Load::default() };
    let working = volumes.iter().filter(|volume| !volume.failed);
    load.scrub_passes = working.map(|volume| volume.scrub_passes).min().unwrap_or(0);
    for volume in volumes {
        let path = short_text("volumes.path", volume.path)?;
        let failure = short_text("volumes.failure", volume.failure)?;
        if volume.failed {
            let why = if failure.is_empty() { path } else { format!("{path}: {failure}") };
            load.failed_volumes.push(why);
            continue;
        }
        load.capacity = load.capacity.saturating_add(volume.capacity);
        load.used = load.used.saturating_add(volume.used);
        load.available = load.available.saturating_add(volume.available);
        load.scrub_oldest_secs = load.scrub_oldest_secs.max(volume.scrub_oldest_secs);
    }
    Ok(load)
}

/// `None` for a kind that a newer datanode may know.
fn replica_event(node: NodeId, event: wire::ReplicaEvent) -> Result<Option<Event>, BadMessage> {
    let (block, generation) = (BlockId(event.block_id), Generation(event.generation));
    Ok(match event.kind() {
        Kind::Unspecified => None,
        Kind::Stored => {
            let value = ChainingValue::from_slice(&event.chaining_value);
            let value =
                value.ok_or_else(|| BadMessage::new("events.chaining_value", "not 32 bytes"))?;
            let replica = ReplicaId { block, generation, length: event.length };
            Some(Event::Stored(node, replica, value))
        }
        Kind::Open => Some(Event::Open(node, block, generation)),
        Kind::Dropped => Some(Event::Dropped(node, block, generation)),
        Kind::Bad => {
            let what = short_text("events.what", event.what)?;
            warn!(%node, %block, what, "a datanode found a replica bad");
            Some(Event::Bad(node, block, generation))
        }
    })
}

fn order_result(node: NodeId, result: wire::OrderResult) -> Result<Event, BadMessage> {
    let end = if result.done {
        OrderEnd::Done
    } else {
        let error = short_text("results.error", result.error)?;
        warn!(%node, order = result.order_id, error, "a datanode could not do as ordered");
        OrderEnd::Failed
    };
    Ok(Event::Answered(node, result.order_id, end))
}

fn listing(listing: wire::BucketListing) -> Result<(u32, Vec<ReplicaId>), BadMessage> {
    let bucket = bucket(listing.bucket)?;
    let replica = |entry: wire::ReplicaEntry| {
        let block = BlockId(entry.block_id);
        if bucket_of(block) != bucket {
            let why = format!("block {block} does not belong in bucket {bucket}");
            return Err(BadMessage::new("listings.replicas", why));
        }
        Ok(ReplicaId { block, generation: Generation(entry.generation), length: entry.length })
    };
    Ok((bucket, listing.replicas.into_iter().map(replica).collect::<Result<_, _>>()?))
}

/// What a node has of a block, with the value of each group of it.
fn recovered(replica: wire::RecoveredReplica) -> Result<RecoveredReplica, BadMessage> {
    if replica.length > BLOCK_BYTES_MAX {
        let why = format!("{} bytes are more than {BLOCK_BYTES_MAX}", replica.length);
        return Err(BadMessage::new("recovered.length", why));
    }
    let groups = replica.length.div_ceil(GROUP_BYTES);
    let (values, rest) = replica.group_values.as_chunks::<VALUE_BYTES>();
    if values.len() as u64 != groups || !rest.is_empty() {
        let why = format!("{} bytes for {groups} groups", replica.group_values.len());
        return Err(BadMessage::new("recovered.group_values", why));
    }
    let first_root = FileDigest::from_slice(&replica.first_root);
    if first_root.is_none() && !replica.first_root.is_empty() {
        return Err(BadMessage::new("recovered.first_root", "neither empty nor 32 bytes"));
    }
    Ok(RecoveredReplica {
        order: replica.order_id,
        block: BlockId(replica.block_id),
        generation: Generation(replica.generation),
        length: replica.length,
        groups: values.iter().copied().map(ChainingValue).collect(),
        first_root,
        starts: replica.starts.map(|starts| {
            let wire::StartsFound { shown, floor, is_replica } = starts;
            Starts { shown, floor, is_replica }
        }),
    })
}

fn bucket(bucket: u32) -> Result<u32, BadMessage> {
    if bucket < REPORT_BUCKETS {
        return Ok(bucket);
    }
    Err(BadMessage::new("bucket", format!("{bucket} is not below {REPORT_BUCKETS}")))
}

fn fingerprint(field: &'static str, bytes: &[u8]) -> Result<Fingerprint, BadMessage> {
    let wrong = || BadMessage::new(field, format!("{} bytes, not 32", bytes.len()));
    Fingerprint::from_slice(bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_verified_as_far_as_the_worst_of_its_working_folders() {
        let volume = |scrub_passes, scrub_oldest_secs, failed| wire::VolumeStatus {
            scrub_passes,
            scrub_oldest_secs,
            failed,
            ..wire::VolumeStatus::default()
        };
        let scrubbed = |volumes| {
            let load = load(volumes, 0, 0).unwrap();
            (load.scrub_passes, load.scrub_oldest_secs)
        };
        let two = vec![volume(7, 20, false), volume(4, 30, false), volume(1, 99, true)];
        assert_eq!(scrubbed(two), (4, 30));
        assert_eq!(scrubbed(vec![volume(7, 20, false), volume(0, 0, false)]), (0, 20));
        assert_eq!(scrubbed(vec![volume(1, 99, true)]), (0, 0));
    }

    #[test]
    fn each_broken_rule_of_what_was_recovered_names_its_field() {
        let good = || wire::RecoveredReplica {
            length: GROUP_BYTES + 1,
            group_values: vec![1; 2 * VALUE_BYTES].into(),
            ..wire::RecoveredReplica::default()
        };
        let known = recovered(good()).unwrap();
        assert_eq!((known.groups.len(), known.first_root), (2, None));
        assert_eq!(recovered(wire::RecoveredReplica::default()).unwrap().groups, []);
        let field = |replica| recovered(replica).unwrap_err().field;
        let length = BLOCK_BYTES_MAX + 1;
        assert_eq!(field(wire::RecoveredReplica { length, ..good() }), "recovered.length");
        for bytes in [VALUE_BYTES, 2 * VALUE_BYTES - 1, 2 * VALUE_BYTES + 1, 3 * VALUE_BYTES] {
            let group_values = vec![1; bytes].into();
            let replica = wire::RecoveredReplica { group_values, ..good() };
            assert_eq!(field(replica), "recovered.group_values");
        }
        let first_root = vec![1; 31].into();
        let replica = wire::RecoveredReplica { first_root, ..good() };
        assert_eq!(field(replica), "recovered.first_root");
    }
}
