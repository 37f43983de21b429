//! Which datanodes a block is written to.

use doldam_proto::FsError;
use doldam_proto::id::NodeId;

use crate::engine::placement::{PlacementRequest, RackAware, place};
use crate::rpc::{Context, check_text};

/// Most nodes a writer may exclude.
const EXCLUDED_MAX: usize = 1000;

/// What placement has to know of a block.
pub(super) struct Wish<'a> {
    /// How many nodes are wanted.
    pub(super) replicas: usize,
    pub(super) block_bytes: u64,
    pub(super) client_host: &'a str,
    pub(super) excluded: &'a [u32],
    /// Nodes that have some of the block, and are not chosen again.
    pub(super) holders: &'a [NodeId],
}

impl Context {
    /// Chooses nodes.
    pub(super) fn place(&self, path: &str, wish: &Wish<'_>) -> Result<Vec<u32>, FsError> {
        let excluded: Vec<NodeId> = wish.excluded.iter().copied().map(NodeId).collect();
        let request = PlacementRequest {
            replicas: wish.replicas,
            bytes: wish.block_bytes,
            client_host: wish.client_host,
            excluded: &excluded,
            holders: wish.holders,
        };
        let mut chance = self.chance();
        let cluster = self.hub.cluster();
        let placed = self
            .hub
            .with_reserved(|reserved| place(&RackAware, &cluster, reserved, &request, &mut chance));
        match placed {
            Ok(nodes) => Ok(nodes.into_iter().map(|node| node.0).collect()),
            Err(refusals) => Err(FsError::NoDatanodes { path: path.to_owned(), refusals }),
        }
    }

    /// The holders, and behind them as many others as are missing and can be found.
    pub(super) fn place_behind(&self, replication: u32, wish: &Wish<'_>) -> Vec<u32> {
        let mut targets: Vec<u32> = wish.holders.iter().map(|node| node.0).collect();
        let missing = (replication as usize).saturating_sub(targets.len());
        if missing > 0
            && let Ok(more) = self.place("", &Wish { replicas: missing, ..*wish })
        {
            targets.extend(more);
        }
        targets
    }

    /// Those of `nodes` that a writer can reach, as far as is known, without those it does not want; in order.
    pub(super) fn usable(&self, nodes: &[NodeId], excluded: &[u32]) -> Vec<NodeId> {
        let cluster = self.hub.cluster();
        let is_usable =
            |node: &NodeId| cluster.standing(*node).is_live() && !excluded.contains(&node.0);
        nodes.iter().copied().filter(is_usable).collect()
    }

    /// Why none of the nodes that have the bytes can be gone on with.
    pub(super) fn no_holder(&self, path: &str, holders: &[NodeId], excluded: &[u32]) -> FsError {
        let cluster = self.hub.cluster();
        let refusal = |node: &NodeId| {
            let known = cluster.address(*node);
            let node_text = known.map_or_else(|| format!("datanode {node}"), |known| known.address);
            let reason = if excluded.contains(&node.0) {
                "has the bytes, and the writer excluded it"
            } else {
                "has the bytes, and is not live"
            };
            doldam_proto::error::Refusal { node: node_text, reason: reason.to_owned() }
        };
        let refusals = holders.iter().map(refusal).collect();
        FsError::NoDatanodes { path: path.to_owned(), refusals }
    }
}

/// Checks what a client says for placement.
pub(super) fn check_placement_fields(client_host: &str, excluded: &[u32]) -> Result<(), FsError> {
    check_text("client_host", client_host)?;
    if excluded.len() > EXCLUDED_MAX {
        let why = format!("{} nodes are more than {EXCLUDED_MAX}", excluded.len());
        return Err(FsError::InvalidArgument { field: "excluded_nodes".to_owned(), why });
    }
    Ok(())
}
