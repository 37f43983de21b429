//! Reports and walks as administrators see them.

use doldam_client::{BlockHealth, ClientError, FsError, NodeState};
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
