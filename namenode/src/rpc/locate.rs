//! Where to read a block: the best replica first.

use doldam_proto::FsError;
use doldam_proto::block::LocatedBlock;
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::node::{NodeAddress, NodeState};
use doldam_proto::wire;

use super::{Context, check_text};
use crate::engine::cluster::Cluster;
use crate::engine::namespace::view::{self, Block};
use crate::engine::placement::Chance;

impl Context {
    pub(super) async fn locate(
        &self,
        request: wire::LocateRequest,
    ) -> Result<wire::LocateResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        check_text("client_host", &request.client_host)?;
        let (offset, max) = (request.offset, request.max_blocks);
        let expected = InodeId(request.expected_inode_id);
        let located =
            self.driver.read(|tables| view::locate(tables, &path, offset, max, expected)).await?;
        let mut chance = self.chance();
        let cluster = self.hub.cluster();
        let blocks = located.blocks.into_iter().map(|block| {
            let replicas = best_first(&cluster, &block, &request.client_host, &mut chance);
            self::located(&block, replicas)
        });
        let blocks = blocks.collect();
        Ok(wire::LocateResponse { status: Some(located.status.into()), blocks })
    }
}

/// A block as a reader is told of it.
pub(super) fn located(block: &Block, replicas: Vec<NodeAddress>) -> wire::LocatedBlock {
    wire::LocatedBlock::from(LocatedBlock {
        id: block.id,
        generation: block.generation,
        index: block.index,
        offset: block.offset,
        length: block.length,
        chaining_value: block.chaining_value,
        replicas,
    })
}

/// The holders of good replicas: on the reader's host, then live ones in random order, then suspect ones, then dead
/// ones. Those of bad replicas only if nobody else is left: a part of them may still verify.
pub(super) fn best_first(
    cluster: &Cluster,
    block: &Block,
    host: &str,
    chance: &mut Chance,
) -> Vec<NodeAddress> {
    let mut holders = block.good.clone();
    if holders.is_empty() {
        holders.clone_from(&block.bad);
    }
    chance.shuffle(&mut holders);
    let rank = |node: &NodeId| match cluster.standing(*node).state() {
        NodeState::Live if cluster.is_on_host(*node, host) => 0,
        NodeState::Live => 1,
        NodeState::Suspect => 2,
        NodeState::Dead => 3,
    };
    holders.sort_by_key(rank);
    holders.into_iter().filter_map(|node| cluster.address(node)).collect()
}
