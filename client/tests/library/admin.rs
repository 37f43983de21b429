//! Reports and walks as administrators see them.

use std::time::Duration;

use doldam_client::{BlockHealth, ClientError, CopyReason, FsError, NodeMode, NodeState};
use doldam_proto::wire;
use futures::StreamExt;

use crate::fakes::FakeCluster;

fn file(path: &str, health: wire::BlockHealth) -> wire::FsckFile {
    let block = wire::FsckBlock { block_id: 9, health: health as i32, ..Default::default() };
    wire::FsckFile {
        path: path.into(),
        health: health as i32,
        blocks: vec![block],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_report_tells_of_the_cluster_and_its_datanodes() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let report = client.report().await.unwrap();
    assert_eq!((report.files, &report.cluster_id[..4]), (3, "0303"));
    let [datanode] = &report.datanodes[..] else { panic!("{report:?}") };
    assert_eq!((datanode.node.id.0, datanode.node.state), (7, NodeState::Suspect));
    assert_eq!((&datanode.uuid[..4], datanode.replicas), ("0505", 12));
    assert_eq!((datanode.scrub_passes, datanode.scrub_oldest_secs), (3, 90));

    cluster.namenode.admin.report.lock().datanodes[0].node_uuid = vec![1].into();
    let error = client.report().await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_walk_hands_out_files_as_they_are_found_and_ends_with_its_error() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let broken = FsError::Unavailable { why: "stopping".into() };
    *cluster.namenode.admin.findings.lock() = vec![
        Ok(file("/a", wire::BlockHealth::Healthy)),
        Ok(file("/b", wire::BlockHealth::Missing)),
        Err(broken.clone()),
    ];
    let found: Vec<_> = client.fsck("/", false).collect().await;
    let seen: Vec<(&str, BlockHealth)> = found[..2]
        .iter()
        .map(|file| file.as_ref().unwrap())
        .map(|file| (&file.path[..], file.health))
        .collect();
    assert_eq!(seen, [("/a", BlockHealth::Healthy), ("/b", BlockHealth::Missing)]);
    assert_eq!(found[2].as_ref().unwrap_err().refusal(), Some(&broken));
    assert_eq!(found.len(), 3);

    *cluster.namenode.admin.findings.lock() = vec![Ok(file("/a", wire::BlockHealth::Unspecified))];
    let found: Vec<_> = client.fsck("/", true).collect().await;
    assert!(matches!(found[..], [Err(ClientError::BadAnswer { .. })]), "{found:?}");
    let found: Vec<_> = client.fsck("relative", true).collect().await;
    assert!(matches!(found[..], [Err(ClientError::InvalidPath { .. })]), "{found:?}");
}

#[tokio::test]
async fn decisions_about_a_datanode_arrive_as_they_are_meant() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let drained = client.decommission("a:1", true).await.unwrap();
    assert_eq!((drained.mode, drained.node.id.0), (NodeMode::Draining, 7));
    let away = client.maintain("7", Duration::from_secs(2)).await.unwrap();
    assert_eq!((away.mode, away.maintenance_left_ms), (NodeMode::Maintenance, 2000));
    let back = client.recommission("a").await.unwrap();
    assert_eq!(back.mode, NodeMode::InService);
    let asked = cluster.namenode.admin.asked.lock();
    let asked: Vec<_> = asked.iter().map(|each| (&each.node[..], each.force)).collect();
    assert_eq!(asked, [("a:1", true), ("7", false), ("a", false)]);
}

#[tokio::test]
async fn repair_tells_what_runs_and_what_waits() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let node = |node_id| wire::NodeAddress {
        node_id,
        address: "a:1".into(),
        rack: "/r".into(),
        state: wire::NodeState::Live as i32,
    };
    let copy = wire::RunningCopy {
        block_id: 5,
        source: Some(node(1)),
        target: Some(node(2)),
        reason: wire::CopyReason::Drain as i32,
        ..Default::default()
    };
    let waiting = wire::WaitingBlock { block_id: 6, retry_ms: 0, ..Default::default() };
    *cluster.namenode.admin.repair.lock() = wire::RepairResponse {
        paused: true,
        alarm: "too many".into(),
        copies: vec![copy],
        blocks: vec![waiting.clone(), waiting],
        ..Default::default()
    };
    let report = client.repair(1, 10).await.unwrap();
    assert_eq!((report.paused, &report.alarm[..], report.blocks.len()), (true, "too many", 1));
    let [copy] = &report.copies[..] else { panic!("{report:?}") };
    assert_eq!((copy.reason, copy.source.id.0, copy.target.id.0), (CopyReason::Drain, 1, 2));
    assert_eq!((report.estimate_ms, report.blocks[0].retry_ms), (None, None));

    cluster.namenode.admin.repair.lock().copies[0].reason = 99;
    let error = client.repair(1, 10).await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn balancing_is_started_with_its_limits_and_stopped() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let started = client.start_balance(50_000, Some(7)).await.unwrap();
    assert_eq!((started.running, started.threshold_ppm, started.bytes_per_sec), (true, 50_000, 7));
    assert!(!client.stop_balance().await.unwrap().running);
    assert!(!client.balance().await.unwrap().running);
}
