//! Registration, heartbeats and what they make of a node.

use doldam_proto::FsError;
use doldam_proto::limits::PROTOCOL_VERSION;
use doldam_proto::wire;

use super::fake_datanode::{FakeDatanode, register, registration};
use super::{Server, answer};

#[tokio::test]
async fn a_node_keeps_its_id_and_may_change_its_address_and_rack() {
    let server = Server::start().await;
    let first = register(&server, registration(1)).await.unwrap();
    let other = register(&server, registration(2)).await.unwrap();
    assert_ne!(first.node_id, other.node_id);
    assert_eq!(first.cluster_id, server.handle.cluster_id().to_bytes());
    assert_eq!((first.epoch, first.heartbeat_ms), (1, 1000));
    let moved = wire::RegisterRequest {
        address: "new-host:9001".to_owned(),
        rack: "/far/".to_owned(),
        cluster_id: first.cluster_id.clone(),
        ..registration(1)
    };
    assert_eq!(register(&server, moved).await.unwrap().node_id, first.node_id);
    let server = server.restart().await;
    let report = server.report().await;
    let node = report.datanodes[0].node.clone().unwrap();
    assert_eq!((node.address.as_str(), node.rack.as_str()), ("new-host:9001", "/far"));
    assert_eq!(register(&server, registration(1)).await.unwrap().epoch, 2);
    server.stop().await;
}

#[tokio::test]
async fn nodes_that_do_not_belong_here_are_refused_with_both_sides_named() {
    let server = Server::start().await;
    let foreign = wire::RegisterRequest { cluster_id: vec![9; 16].into(), ..registration(1) };
    let refused = register(&server, foreign).await.unwrap_err();
    let expected = server.handle.cluster_id().to_string();
    assert_eq!(refused, FsError::WrongCluster { expected, found: "09".repeat(16) });

    let newer = wire::RegisterRequest { protocol_version: PROTOCOL_VERSION + 1, ..registration(1) };
    let refused = register(&server, newer).await.unwrap_err();
    assert_eq!(
        refused,
        FsError::WrongVersion { expected: PROTOCOL_VERSION, found: PROTOCOL_VERSION + 1 }
    );
    assert_eq!(server.report().await.datanodes, []);
    server.stop().await;
}

#[tokio::test]
async fn a_node_is_live_from_its_first_heartbeat_and_suspect_when_its_stream_ends() {
    let server = Server::start().await;
    register(&server, registration(2)).await.unwrap();
    let node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let targets = created.first.unwrap().targets;
    assert_eq!(targets.iter().map(|node| node.node_id).collect::<Vec<_>>(), [node.id]);

    drop(node); // No time passes on the server's clock.
    let is_suspect = |report: &wire::ReportResponse| {
        let node = report.datanodes[1].node.as_ref().unwrap();
        node.state() == wire::NodeState::Suspect
    };
    server.until("the node is suspect", is_suspect).await;
    let refused = answer(server.client().create(server.create_request(1, "/g")).await);
    let Err(FsError::NoDatanodes { path, refusals }) = refused else { panic!("{refused:?}") };
    assert_eq!((path.as_str(), refusals.len()), ("/g", 2));
    assert!(refusals[0].reason.contains("no heartbeat"), "{refusals:?}");
    assert!(refusals[1].reason.contains("suspect"), "{refusals:?}");
    server.stop().await;
}

#[tokio::test]
async fn silence_makes_a_node_suspect_and_dead_by_the_clock() {
    let server = Server::start().await;
    let mut node = FakeDatanode::join(&server, 1).await;
    let is = |state: wire::NodeState| {
        move |report: &wire::ReportResponse| {
            report.datanodes[0].node.as_ref().unwrap().state() == state
        }
    };
    server.clock.advance(std::time::Duration::from_secs(3));
    server.until("the node is suspect", is(wire::NodeState::Suspect)).await;
    node.beat().await;
    server.until("the node is live again", is(wire::NodeState::Live)).await;
    server.clock.advance(std::time::Duration::from_secs(10));
    server.until("the node is dead", is(wire::NodeState::Dead)).await;
    assert_eq!(node.refusal().await, FsError::NotRegistered { node: node.id });
    server.stop().await;
}

#[tokio::test]
async fn a_stream_without_a_registration_in_this_run_is_refused() {
    let server = Server::start().await;
    let mut stranger = FakeDatanode::open(&server, 7, 1).await;
    stranger.beat().await;
    assert_eq!(stranger.refusal().await, FsError::NotRegistered { node: 7 });

    let registered = register(&server, registration(1)).await.unwrap();
    let server = server.restart().await;
    let mut old = FakeDatanode::open(&server, registered.node_id, registered.epoch).await;
    old.beat().await;
    assert_eq!(old.refusal().await, FsError::NotRegistered { node: registered.node_id });
    FakeDatanode::join(&server, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn of_two_nodes_with_one_identity_the_newer_wins() {
    let server = Server::start().await;
    let mut older = FakeDatanode::join(&server, 1).await;
    let mut newer = FakeDatanode::join(&server, 1).await;
    assert_eq!(older.id, newer.id);
    assert_eq!(older.refusal().await, FsError::NotRegistered { node: older.id });
    newer.beat().await;
    let created = server.create("/f").await;
    assert_eq!(created.first.unwrap().targets.len(), 1, "the end of the older harms nobody");
    server.stop().await;
}

#[tokio::test]
async fn messages_that_break_the_rules_end_the_stream_and_nothing_else() {
    let server = Server::start().await;
    let mut good = FakeDatanode::join(&server, 1).await;
    let bad: [fn(&mut wire::DatanodeMessage); 5] = [
        |message| message.fingerprint = vec![1; 31].into(),
        |message| message.volumes = vec![wire::VolumeStatus::default(); 300],
        |message| message.buckets = vec![wire::BucketHash { bucket: 1024, ..Default::default() }],
        |message| {
            let replicas = vec![wire::ReplicaEntry { block_id: 2, generation: 1, length: 1 }];
            message.listings = vec![wire::BucketListing { bucket: 1, replicas }];
        },
        |message| {
            message.results =
                vec![wire::OrderResult { error: "x".repeat(2000), ..Default::default() }];
        },
    ];
    for break_it in bad {
        let registered = register(&server, registration(2)).await.unwrap();
        let mut node = FakeDatanode::open(&server, registered.node_id, registered.epoch).await;
        let mut message = wire::DatanodeMessage {
            node_id: registered.node_id,
            epoch: registered.epoch,
            fingerprint: vec![0; 32].into(),
            ..wire::DatanodeMessage::default()
        };
        break_it(&mut message);
        node.send(message).await;
        assert!(matches!(node.refusal().await, FsError::InvalidArgument { .. }));
    }
    good.beat().await;
    assert_eq!(server.create("/f").await.first.unwrap().targets[0].node_id, good.id);
    server.stop().await;
}
