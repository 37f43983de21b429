//! Why a node was refused, for the user who reads "no datanode can take a block".

use doldam_proto::error::Refusal;

use super::{Candidate, PlacementRequest};
use crate::engine::cluster::capacity::Reserved;
use crate::engine::cluster::{Cluster, Mode, Node, Standing};

/// What stands against a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Not heard of since the namenode started.
    Awaited,
    /// Registered, but no heartbeat yet.
    Joining,
    /// Its connection closed or it is silent.
    Suspect,
    /// Silent for long.
    Dead,
    /// It is to be emptied.
    Draining,
    /// It may go away any time.
    Maintenance,
    /// The writer asked not to use it.
    Excluded,
    /// Has the block already.
    Holder,
    /// Not enough room left.
    Full {
        /// What it could still take.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Awaited => formatter.write_str("not heard of since the namenode started"),
            Self::Joining => formatter.write_str("registered, no heartbeat yet"),
            Self::Suspect => formatter.write_str("suspect: connection lost or silent"),
            Self::Dead => formatter.write_str("dead: silent for long"),
            Self::Draining => formatter.write_str("draining"),
            Self::Maintenance => formatter.write_str("in maintenance"),
            Self::Excluded => formatter.write_str("excluded by the writer"),
            Self::Holder => formatter.write_str("has the block already"),
            Self::Full { free_bytes, needed_bytes } => {
                write!(formatter, "full: {free_bytes} bytes free, {needed_bytes} needed")
            }
        }
    }
}

/// What stands against `node`, the first reason that applies; or the room it has.
pub(crate) fn judge(
    node: &Node,
    reserved: &Reserved,
    request: &PlacementRequest<'_>,
) -> Result<u64, RefusalReason> {
    let id = node.identity.id;
    match node.standing() {
        Standing::Live => {}
        Standing::Awaited => return Err(RefusalReason::Awaited),
        Standing::Joining => return Err(RefusalReason::Joining),
        Standing::Suspect => return Err(RefusalReason::Suspect),
        Standing::Dead => return Err(RefusalReason::Dead),
    }
    match node.mode {
        Mode::InService => {}
        Mode::Draining { .. } => return Err(RefusalReason::Draining),
        Mode::Maintenance { .. } => return Err(RefusalReason::Maintenance),
    }
    if request.holders.contains(&id) {
        return Err(RefusalReason::Holder);
    }
    if request.excluded.contains(&id) {
        return Err(RefusalReason::Excluded);
    }
    let free_bytes = node.load.available.saturating_sub(reserved.on(id));
    if free_bytes < request.bytes {
        return Err(RefusalReason::Full { free_bytes, needed_bytes: request.bytes });
    }
    Ok(free_bytes)
}

/// The nodes nothing stands against.
pub(super) fn candidates<'a>(
    cluster: &'a Cluster,
    reserved: &Reserved,
    request: &PlacementRequest<'_>,
) -> Vec<Candidate<'a>> {
    let candidate = |node: &'a Node| {
        let free_bytes = judge(node, reserved, request).ok()?;
        Some(Candidate {
            node: node.identity.id,
            rack: &node.identity.rack,
            free_bytes,
            active_streams: node.load.active_streams,
        })
    };
    cluster.nodes().filter_map(candidate).collect()
}

/// Each refused node with its reason.
pub(super) fn refusals(
    cluster: &Cluster,
    reserved: &Reserved,
    request: &PlacementRequest<'_>,
) -> Vec<Refusal> {
    let refusal = |node: &Node| {
        let reason = judge(node, reserved, request).err()?.to_string();
        Some(Refusal { node: node.identity.address.clone(), reason })
    };
    cluster.nodes().filter_map(refusal).take(REFUSALS_MAX).collect()
}

/// Most nodes an error lists.
const REFUSALS_MAX: usize = 100;
