//! Draining, maintenance, racks, balancing and what repair tells, over the wire.

use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{self, NodeMode, balance_request::Action, replica_event};

use super::fake_datanode::{FakeDatanode, LENGTH};
use super::{Server, answer};

impl Server {
    async fn decide(&self, node: &str, mode: NodeMode) -> Result<wire::DatanodeReport, FsError> {
        let duration_ms = if mode == NodeMode::Maintenance { 60_000 } else { 0 };
        let (node, mode, force) = (node.to_owned(), mode as i32, false);
        let request = wire::SetNodeModeRequest { node, mode, duration_ms, force };
        Ok(answer(self.admin().set_node_mode(request).await)?.node.unwrap())
    }

    async fn repair(&self) -> wire::RepairResponse {
        let request = wire::RepairRequest { blocks_max: 10, copies_max: 10 };
        answer(self.admin().repair(request).await).unwrap()
    }

    /// A file of one block with this many replicas, all there.
    async fn file(&self, path: &str, nodes: &mut [&mut FakeDatanode]) -> u64 {
        let mut request = self.create_request(1, path);
        request.replication = nodes.len() as u32;
        let created = answer(self.client().create(request).await).unwrap();
        let block = created.first.as_ref().unwrap().block_id;
        let mut ids = Vec::new();
        for node in nodes {
            node.hold(block);
            node.beat().await;
            ids.push(node.id);
        }
        self.complete(&created, &ids).await;
        block
    }
}

fn report_of(report: &wire::ReportResponse, id: u32) -> &wire::DatanodeReport {
    let is_it = |node: &&wire::DatanodeReport| node.node.as_ref().unwrap().node_id == id;
    report.datanodes.iter().find(is_it).unwrap()
}

#[tokio::test]
async fn a_drained_node_serves_until_its_last_block_is_elsewhere_and_stays_drained_over_a_restart()
{
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    let mut third = FakeDatanode::join(&server, 3).await;
    let block = server.file("/f", &mut [&mut first, &mut second]).await;

    let drained = server.decide("h1", NodeMode::Draining).await.unwrap();
    assert_eq!((drained.mode(), drained.blocks_left), (NodeMode::Draining, 1));
    assert!(!drained.safe_to_stop);
    let located = server.locate("/f").await.blocks.remove(0).replicas;
    assert_eq!(located.len(), 2, "it is read as before");
    let created = server.create("/g").await;
    let targets: Vec<u32> =
        created.first.as_ref().unwrap().targets.iter().map(|node| node.node_id).collect();
    assert!(!targets.contains(&first.id), "no new blocks: {targets:?}");

    let source = tokio::select! {
        order = first.next_order() => order,
        order = second.next_order() => order,
    };
    let Kind::Copy(copy) = source else { panic!("not a copy: {source:?}") };
    assert_eq!((copy.block_id, copy.targets[0].node_id), (block, third.id));
    let running = server.repair().await;
    let reasons: Vec<_> = running.copies.iter().map(wire::RunningCopy::reason).collect();
    assert_eq!(reasons, [wire::CopyReason::Drain]);
    assert_eq!(running.leaving.len(), 1);
    third.stored(block).await;
    let dropped = Kind::Drop(wire::DropOrder { block_id: block, generation: 1, only_bad: false });
    assert_eq!(first.next_order().await, dropped);
    first.tell(replica_event::Kind::Dropped, block).await;
    let report = server.report().await;
    assert!(report_of(&report, first.id).safe_to_stop, "{report:?}");
    assert_eq!(server.locate("/f").await.blocks[0].replicas.len(), 2);

    drop((first, second, third));
    let server = server.restart().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    assert_eq!(report_of(&server.report().await, first.id).mode(), NodeMode::Draining);
    let back = server.decide("1", NodeMode::Unspecified).await.unwrap();
    assert_eq!(back.mode(), NodeMode::Unspecified);
    first.beat().await;
    server.stop().await;
}

#[tokio::test]
async fn a_block_being_written_to_a_draining_node_keeps_it_from_being_decommissioned() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(FakeDatanode::join(&server, number).await);
    }
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    let mut fourth = FakeDatanode::join(&server, 4).await;
    let drained = server.decide("h1:9000", NodeMode::Draining).await.unwrap();
    assert_eq!(
        (drained.blocks_left, drained.open_blocks_left, drained.safe_to_stop),
        (0, 1, false)
    );

    for node in &mut nodes {
        node.hold(block);
        node.beat().await;
    }
    server.complete(&created, &[1, 2, 3]).await;
    fourth.beat().await;
    let copy = async {
        let [first, second, third] = &mut nodes[..] else { panic!() };
        tokio::select! {
            order = first.next_order() => order,
            order = second.next_order() => order,
            order = third.next_order() => order,
        }
    };
    let Kind::Copy(copy) = copy.await else { panic!("not a copy") };
    assert_eq!((copy.block_id, copy.targets[0].node_id), (block, fourth.id));
    let report = server.report().await;
    let drained = report_of(&report, 1);
    assert_eq!((drained.blocks_left, drained.open_blocks_left), (1, 0));
    server.stop().await;
}

#[tokio::test]
async fn a_drain_for_which_too_few_nodes_are_left_is_refused_unless_it_is_forced() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    server.file("/f", &mut [&mut first, &mut second]).await;
    let refusal = server.decide("1", NodeMode::Draining).await.unwrap_err();
    let FsError::NotAllowed { path, why } = refusal else { panic!("{refusal:?}") };
    assert_eq!(path, "datanode 1 (h1:9000)");
    assert!(why.contains("2 replicas") && why.contains("1 datanodes are in service"), "{why}");
    let request = wire::SetNodeModeRequest {
        node: "1".to_owned(),
        mode: NodeMode::Draining as i32,
        force: true,
        ..Default::default()
    };
    answer(server.admin().set_node_mode(request).await).unwrap();
    let Kind::Drop(_) = first.next_order().await else { panic!("not a drop") };
    assert!(report_of(&server.report().await, 1).safe_to_stop);
    // Once it is draining, asking again without force is no new question.
    server.decide("1", NodeMode::Draining).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_known_is_told_with_those_that_are() {
    let server = Server::start().await;
    let _first = FakeDatanode::join(&server, 1).await;
    for unknown in ["h9", "9", "h1:1", ""] {
        let refusal = server.decide(unknown, NodeMode::Draining).await.unwrap_err();
        let FsError::InvalidArgument { field, why } = refusal else { panic!("{refusal:?}") };
        assert_eq!(field, "node");
        assert!(why.contains("1 (h1:9000)"), "{why}");
    }
    for (mode, duration_ms) in [(NodeMode::Maintenance as i32, 0), (99, 1)] {
        let node = "1".to_owned();
        let request = wire::SetNodeModeRequest { node, mode, duration_ms, force: false };
        let refusal = answer(server.admin().set_node_mode(request).await).unwrap_err();
        assert!(matches!(refusal, FsError::InvalidArgument { .. }), "{refusal:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_node_in_maintenance_may_be_away_until_its_time_is_over() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    let mut third = FakeDatanode::join(&server, 3).await;
    let block = server.file("/f", &mut [&mut first, &mut second]).await;
    let left = server.decide("1", NodeMode::Maintenance).await.unwrap();
    assert_eq!((left.mode(), left.maintenance_left_ms), (NodeMode::Maintenance, 60_000));
    server.until("it may go", |report| report_of(report, 1).safe_to_stop).await;
    drop(first);
    server
        .until("it is gone", |report| {
            report_of(report, 1).node.as_ref().unwrap().state() != wire::NodeState::Live
        })
        .await;
    let is_dead = |report: &wire::ReportResponse| {
        report_of(report, 1).node.as_ref().unwrap().state() == wire::NodeState::Dead
    };
    for passed in 1..=11 {
        server.clock.advance(Duration::from_secs(5));
        second.beat().await;
        third.beat().await;
        if passed == 2 {
            server.until("it is dead", is_dead).await;
        }
    }
    let report = server.report().await;
    assert!(is_dead(&report));
    let mode = report_of(&report, 1).mode();
    assert_eq!((mode, report.repairs_running), (NodeMode::Maintenance, 0));
    server.clock.advance(Duration::from_secs(5));
    second.beat().await;
    third.beat().await;
    let Kind::Copy(copy) = second.next_order().await else { panic!("not a copy") };
    assert_eq!((copy.block_id, copy.targets[0].node_id), (block, third.id));
    assert_eq!(report_of(&server.report().await, 1).mode(), NodeMode::Unspecified);
    server.stop().await;
}

#[tokio::test]
async fn what_waits_is_told_with_its_file_and_what_stands_against_each_node() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    let block = server.file("/f", &mut [&mut first, &mut second]).await;
    let set = wire::SetReplicationRequest {
        request: Some(server.request(1)),
        path: "/f".to_owned(),
        replication: 3,
    };
    answer(server.client().set_replication(set).await).unwrap();
    server.until("it waits", |report| report.repairs_waiting == 1).await;
    let repair = server.repair().await;
    assert_eq!(repair.at_risk, [wire::AtRisk { live: 2, blocks: 1 }]);
    assert_eq!(repair.todo_bytes, LENGTH);
    let [waiting] = &repair.blocks[..] else { panic!("{repair:?}") };
    assert_eq!((waiting.block_id, &waiting.path[..], waiting.wanted), (block, "/f", 3));
    assert_eq!(waiting.why, "no datanode can take another replica");
    assert!(waiting.retry_ms > 0);
    let none = wire::RepairRequest { blocks_max: 0, copies_max: 0 };
    assert_eq!(answer(server.admin().repair(none).await).unwrap().blocks, []);
    drop((first, second));
    server.until("it is missing", |report| report.missing == 1).await;
    let [waiting] = &server.repair().await.blocks[..] else { panic!() };
    assert_eq!((waiting.live, waiting.nodes.len()), (0, 2), "{waiting:?}");
    assert!(waiting.nodes[0].node.contains("h1:9000"), "{waiting:?}");
    server.stop().await;
}

#[tokio::test]
async fn balancing_is_started_looked_at_and_stopped() {
    let server = Server::start().await;
    let _first = FakeDatanode::join(&server, 1).await;
    let balance = |action: Action, threshold_ppm| {
        let request =
            wire::BalanceRequest { action: action as i32, threshold_ppm, bytes_per_sec: 0 };
        let mut admin = server.admin();
        async move { answer(admin.balance(request).await).map(|answer| answer.status.unwrap()) }
    };
    let status = balance(Action::Unspecified, 0).await.unwrap();
    assert_eq!(status, wire::BalanceStatus::default());
    for nonsense in [0, 1_000_000] {
        let refusal = balance(Action::Start, nonsense).await.unwrap_err();
        assert!(matches!(refusal, FsError::InvalidArgument { .. }), "{refusal:?}");
    }
    let started = balance(Action::Start, 100_000).await.unwrap();
    assert_eq!((started.threshold_ppm, started.bytes_per_sec), (100_000, 64 << 20));
    let status = async {
        loop {
            let status = balance(Action::Unspecified, 0).await.unwrap();
            if !status.running {
                return status;
            }
        }
    };
    let status = super::in_time("one node is balanced", status).await;
    assert_eq!(status.ended, "every datanode is within the threshold");
    balance(Action::Stop, 0).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn when_repair_holds_still_report_health_page_and_metric_say_so() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for number in 1..=4 {
        nodes.push(FakeDatanode::join(&server, number).await);
    }
    assert!(server.page("/health").await.contains(r#""state":"serving""#));
    assert_eq!(server.repair().await.alarm, "");
    nodes.truncate(1);
    server.until("repair holds still", |report| report.repair_paused).await;
    let alarm = server.repair().await.alarm;
    for part in ["3 datanodes vanished", "600 s", "datanode 2 (h2:9000)", "datanode 4 (h4:9000)"] {
        assert!(alarm.contains(part), "no {part} in {alarm}");
    }
    let health = server.page("/health").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains(r#""state":"degraded""#));
    let measured = async {
        // Measured once a second by the clock of the test.
        server.clock.advance(Duration::from_secs(1));
        nodes[0].beat().await;
        while !server.page("/metrics").await.contains("doldam_namenode_repair_paused 1") {}
    };
    super::in_time("it is measured", measured).await;
    server.stop().await;
}
