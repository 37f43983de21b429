//! Tests of placement: who is refused and why, and where the replicas of a block come to stand.

use std::collections::BTreeSet;
use std::time::Duration;

use doldam_proto::id::{BlockId, InodeId, NodeId, NodeUuid};
use proptest::prelude::*;

use super::*;
use crate::engine::cluster::capacity::Reservations;
use crate::engine::cluster::{LivenessLimits, Load, NodeIdentity};

const LIMITS: LivenessLimits =
    LivenessLimits { suspect_after: Duration::from_secs(3), dead_after: Duration::from_secs(30) };
const GIB: u64 = 1 << 30;

/// Live nodes 1, 2, ... on these racks, each with its own host `h<id>` and 10 GiB free.
fn cluster(racks: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(LIMITS, [], Duration::ZERO);
    for (id, rack) in (1..).zip(racks) {
        join(&mut cluster, id, rack, 10 * GIB);
    }
    cluster
}

fn join(cluster: &mut Cluster, id: u32, rack: &str, available: u64) {
    let uuid = NodeUuid([id as u8; 16]);
    let address = format!("h{id}:1");
    let identity = NodeIdentity { id: NodeId(id), uuid, address, rack: rack.into() };
    cluster.register(Duration::ZERO, identity, "1".into());
    let session = cluster.open_stream(NodeId(id)).unwrap();
    let load = Load { capacity: available, available, ..Load::default() };
    cluster.heartbeat(Duration::ZERO, NodeId(id), session, load).unwrap();
}

fn choose(cluster: &Cluster, request: &PlacementRequest<'_>, seed: u64) -> Vec<NodeId> {
    let none = Reserved::default();
    place(&RackAware, cluster, &none, request, &mut Chance::new(seed)).unwrap()
}

fn ids(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn the_first_replica_is_on_the_host_of_the_writer() {
    let cluster = cluster(&["/a", "/a", "/b", "/b"]);
    for seed in 0..50 {
        let request = PlacementRequest { replicas: 3, client_host: "h2", ..Default::default() };
        let chosen = choose(&cluster, &request, seed);
        assert_eq!(chosen[0], NodeId(2));
        assert_eq!(cluster.rack(chosen[1]), "/b");
        assert_eq!(cluster.rack(chosen[2]), "/b");
    }
}

#[test]
fn a_repair_goes_to_another_rack_while_all_holders_share_one() {
    let cluster = cluster(&["/a", "/a", "/a", "/b"]);
    for seed in 0..50 {
        let request =
            PlacementRequest { replicas: 1, holders: &ids(&[1, 2]), ..Default::default() };
        assert_eq!(choose(&cluster, &request, seed), ids(&[4]));
    }
}

#[test]
fn more_replicas_than_three_are_spread_over_the_racks() {
    let cluster = cluster(&["/a", "/a", "/b", "/b", "/c", "/c"]);
    for seed in 0..50 {
        let request = PlacementRequest { replicas: 6, ..Default::default() };
        let chosen = choose(&cluster, &request, seed);
        assert_eq!(cluster.racks(&chosen[..4]).len(), 3, "{chosen:?}");
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 6);
    }
}

#[test]
fn with_fewer_nodes_than_replicas_all_of_them_are_used() {
    let request = PlacementRequest { replicas: 3, ..Default::default() };
    assert_eq!(choose(&cluster(&["/a", "/a"]), &request, 1).len(), 2);
}

#[test]
fn a_node_with_more_room_and_less_to_do_is_drawn_more_often() {
    let mut cluster = cluster(&["/a"]);
    join(&mut cluster, 2, "/a", 90 * GIB);
    let request = PlacementRequest { replicas: 1, ..Default::default() };
    let on_second = |cluster: &Cluster| {
        (0..1000).filter(|seed| choose(cluster, &request, *seed) == ids(&[2])).count()
    };
    let by_room = on_second(&cluster);
    assert!((850..950).contains(&by_room), "{by_room}");

    let session = cluster.node(NodeId(2)).unwrap().session();
    let load = Load { available: 90 * GIB, active_streams: 8, ..Load::default() };
    cluster.heartbeat(Duration::ZERO, NodeId(2), session, load).unwrap();
    let by_load = on_second(&cluster);
    assert!((430..570).contains(&by_load), "{by_load}");
}

#[test]
fn every_refused_node_is_listed_with_its_reason() {
    let mut cluster = cluster(&["/a", "/a", "/a", "/a", "/a"]);
    join(&mut cluster, 6, "/a", GIB - 1);
    let session = |id| cluster.node(NodeId(id)).unwrap().session();
    let (first, second) = (session(1), session(2));
    let later = LIMITS.dead_after;
    cluster.stream_closed(Duration::ZERO, NodeId(1), first);
    cluster.tick(later);
    for id in 2..=6 {
        let identity = cluster.node(NodeId(id)).unwrap().identity.clone();
        let available = cluster.node(NodeId(id)).unwrap().load.available;
        cluster.register(later, identity, "1".into());
        if id == 5 {
            continue;
        }
        let session = cluster.open_stream(NodeId(id)).unwrap();
        let load = Load { available, ..Load::default() };
        cluster.heartbeat(later, NodeId(id), session, load).unwrap();
    }
    assert_eq!(cluster.stream_closed(later, NodeId(2), second), None);
    let session = cluster.node(NodeId(2)).unwrap().session();
    cluster.stream_closed(later, NodeId(2), session);

    let mut reserved = Reservations::default();
    reserved.reserve(later, (InodeId(9), BlockId(9)), &[NodeId(6)], 1);
    let request = PlacementRequest {
        replicas: 1,
        bytes: GIB,
        excluded: &ids(&[3]),
        holders: &ids(&[4]),
        ..Default::default()
    };
    let mut chance = Chance::new(0);
    let refusals = place(&RackAware, &cluster, reserved.sums(), &request, &mut chance).unwrap_err();
    let reasons: Vec<_> = refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "dead: silent for long",
            "suspect: connection lost or silent",
            "excluded by the writer",
            "has the block already",
            "registered, no heartbeat yet",
            "full: 1073741822 bytes free, 1073741824 needed",
        ]
    );
    assert_eq!(refusals[1].node, "h2:1");
}

#[test]
fn without_any_node_there_is_nothing_to_list() {
    let (cluster, none) = (cluster(&[]), Reserved::default());
    let request = PlacementRequest { replicas: 1, ..Default::default() };
    let refused = place(&RackAware, &cluster, &none, &request, &mut Chance::new(0));
    assert_eq!(refused, Err(vec![]));
}

#[test]
fn room_is_needed_to_the_byte() {
    let mut cluster = cluster(&[]);
    join(&mut cluster, 1, "/a", GIB);
    let request = |bytes| PlacementRequest { replicas: 1, bytes, ..Default::default() };
    let none = Reserved::default();
    let mut chance = Chance::new(0);
    assert!(place(&RackAware, &cluster, &none, &request(GIB), &mut chance).is_ok());
    assert!(place(&RackAware, &cluster, &none, &request(GIB + 1), &mut chance).is_err());
}

proptest! {
    #[test]
    fn targets_are_distinct_allowed_and_on_two_racks_whenever_there_are_two(
        racks in prop::collection::vec(prop::sample::select(vec!["/a", "/b", "/c"]), 1..9),
        replicas in 1..6_usize,
        excluded in prop::collection::btree_set(1..9_u32, 0..3),
        seed in any::<u64>(),
    ) {
        let cluster = cluster(&racks);
        let excluded: Vec<NodeId> = excluded.into_iter().map(NodeId).collect();
        let request = PlacementRequest { replicas, excluded: &excluded, ..Default::default() };
        let allowed: BTreeSet<NodeId> =
            cluster.nodes().map(|node| node.identity.id).filter(|id| !excluded.contains(id)).collect();
        let none = Reserved::default();
        match place(&RackAware, &cluster, &none, &request, &mut Chance::new(seed)) {
            Err(refusals) => {
                prop_assert!(allowed.is_empty());
                prop_assert_eq!(refusals.len(), racks.len());
            }
            Ok(chosen) => {
                let distinct: BTreeSet<NodeId> = chosen.iter().copied().collect();
                prop_assert_eq!(distinct.len(), chosen.len());
                prop_assert_eq!(chosen.len(), replicas.min(allowed.len()));
                prop_assert!(distinct.is_subset(&allowed));
                if chosen.len() > 1 && cluster.racks(&allowed).len() > 1 {
                    prop_assert!(cluster.racks(&chosen).len() > 1);
                }
            }
        }
    }
}
