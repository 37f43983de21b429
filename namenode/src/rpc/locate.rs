//! Where to read a block: the best replica first.

use doldam_proto::FsError;
use doldam_proto::block::LocatedBlock;
use doldam_proto::id::InodeId;
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;

use super::{Context, check_text};
use crate::engine::cluster::Cluster;
use crate::engine::cluster::topology::normal_rack;
use crate::engine::namespace::view::{self, Block};
use crate::engine::placement::Chance;

impl Context {
    pub(super) async fn locate(
        &self,
        request: wire::LocateRequest,
    ) -> Result<wire::LocateResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        check_text("client_host", &request.client_host)?;
        let wanted_rack = rack_of(&request)?;
        let (offset, max) = (request.offset, request.max_blocks);
        let expected = InodeId(request.expected_inode_id);
        let located =
            self.driver.read(|tables| view::locate(tables, &path, offset, max, expected)).await?;
        let mut chance = self.chance();
        let cluster = self.hub.cluster();
        let (hosts, rack) = match &wanted_rack {
            Some(rack) => (&*request.client_host, rack.as_str()),
            None => (&*request.client_host, cluster.rack_of_host(&request.client_host)),
        };
        let blocks = located.blocks.into_iter().map(|block| {
            let replicas = best_first(&cluster, &block, (hosts, rack), &mut chance);
            self::located(&block, replicas)
        });
        let blocks = blocks.collect();
        let (status, client_rack) = (Some(located.status.into()), rack.to_owned());
        Ok(wire::LocateResponse { status, blocks, client_rack })
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

/// The rack that the reader names, if it does.
fn rack_of(request: &wire::LocateRequest) -> Result<Option<String>, FsError> {
    if request.client_rack.is_empty() {
        return Ok(None);
    }
    normal_rack(&request.client_rack).map(Some).map_err(|why| FsError::InvalidArgument {
        field: "client_rack".to_owned(),
        why: why.to_owned(),
    })
}

/// The holders of good replicas: live ones, then suspect ones, then dead ones; among these the nearest to the reader's
/// hosts and rack, and else in random order, so that readers spread. Those of bad replicas only if nobody else is left:
/// a part of them may still verify.
pub(super) fn best_first(
    cluster: &Cluster,
    block: &Block,
    (hosts, rack): (&str, &str),
    chance: &mut Chance,
) -> Vec<NodeAddress> {
    let mut holders = block.good.clone();
    if holders.is_empty() {
        holders.clone_from(&block.bad);
    }
    chance.shuffle(&mut holders);
    let mut holders: Vec<NodeAddress> =
        holders.into_iter().filter_map(|node| cluster.address(node)).collect();
    holders.sort_by_key(|node| (node.state, node.nearness(hosts, rack)));
    holders
}
