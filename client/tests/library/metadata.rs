//! Reaching the namenode: several addresses, redirects, retries, deadlines, and what is refused.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, ErrorKind, FileStatus, FsError};
use doldam_proto::limits::PROTOCOL_VERSION;
use doldam_runtime::net::{Net, RealNet};

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, BLOCK, CLUSTER, FakeCluster, config};

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn connect(addresses: &[String], config: ClientConfig) -> Result<Client, ClientError> {
    Client::builder().namenodes(addresses).config(config).connect().await
}

fn quick() -> ClientConfig {
    let connect_timeout = Duration::from_millis(300);
    ClientConfig { connect_timeout, operation_timeout: Duration::from_millis(300), ..config() }
}

#[tokio::test]
async fn an_unreachable_namenode_is_named_with_the_cause_and_the_next_step() {
    let (first, second) = (nobody().await, nobody().await);
    let error = connect(&[first.clone(), second.clone()], quick()).await.unwrap_err();
    let ClientError::Unreachable { tried, .. } = &error else { panic!("{error:?}") };
    let addresses: Vec<&String> = tried.iter().map(|failure| &failure.address).collect();
    assert_eq!(addresses, [&first, &second]);
    assert!(tried.iter().all(|t| t.cause.contains("Connection refused")), "{tried:?}");
    assert!(error.next_step().unwrap().contains(&format!("{first} or {second}")));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_greeting_tells_the_cluster_and_its_defaults() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    assert_eq!(client.cluster_id(), CLUSTER);
    assert_eq!((client.default_block_bytes(), client.default_replication()), (BLOCK, 3));
}

#[tokio::test]
async fn another_namenode_is_tried_when_one_does_not_answer() {
    let cluster = FakeCluster::start(0).await;
    let addresses = [nobody().await, cluster.namenode.address()];
    let client = connect(&addresses, config()).await.unwrap();
    assert!(client.mkdir("/d", false).await.unwrap());
    let listed = format!("{},{}", addresses[0], addresses[1]);
    assert!(Client::connect(&listed).await.is_ok());
}

#[tokio::test]
async fn one_that_takes_connections_and_says_nothing_leaves_time_for_the_others() {
    let cluster = FakeCluster::start(0).await;
    let silent = RealNet.bind("127.0.0.1:0").await.unwrap();
    let addresses = [silent.local_addr().unwrap(), cluster.namenode.address()];
    connect(&addresses, config()).await.unwrap();
}

#[tokio::test]
async fn a_namenode_that_does_not_lead_points_to_the_one_that_does() {
    let (follower, leader) = (FakeCluster::start(0).await, FakeCluster::start(0).await);
    let addresses = [follower.namenode.address(), leader.namenode.address()];
    let client = connect(&addresses, config()).await.unwrap();
    let redirect = FsError::NotLeader { leader: leader.namenode.address() };
    follower.namenode.answer_next("mkdir", Answer::Refuse(redirect));
    client.mkdir("/d", false).await.unwrap();
    client.mkdir("/e", false).await.unwrap();
    assert_eq!(follower.namenode.call_names(), ["mkdir"]);
    assert_eq!(leader.namenode.call_names(), ["mkdir", "mkdir"]);
    // The same request both times.
    assert_eq!(follower.namenode.calls()[0], leader.namenode.calls()[0]);
}

#[tokio::test]
async fn a_namenode_of_another_cluster_or_version_is_refused() {
    let (ours, other) = (FakeCluster::start(0).await, FakeCluster::start(0).await);
    other.namenode.set_hello(|hello| hello.cluster_id = vec![4; 16].into());
    let addresses = [ours.namenode.address(), other.namenode.address()];
    let client = connect(&addresses, config()).await.unwrap();
    ours.namenode.kill().await;
    let error = client.mkdir("/d", false).await.unwrap_err();
    assert!(matches!(error.refusal(), Some(FsError::WrongCluster { .. })), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Mismatch);

    other.namenode.set_hello(|hello| hello.protocol_version = 99);
    let error = connect(&addresses[1..], config()).await.unwrap_err();
    assert_eq!(
        error.refusal(),
        Some(&FsError::WrongVersion { expected: 99, found: PROTOCOL_VERSION })
    );
}

#[tokio::test]
async fn a_busy_namenode_is_asked_again_with_the_same_request() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let busy = FsError::Unavailable { why: "full".into() };
    cluster.namenode.answer_next("mkdir", Answer::Refuse(busy));
    cluster.namenode.answer_next("mkdir", Answer::Lose);
    client.mkdir("/d", false).await.unwrap();
    let calls = cluster.namenode.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls[0] == calls[1] && calls[1] == calls[2]);
    client.mkdir("/e", false).await.unwrap();
    let [.., Call::Other("mkdir", Some(first)), Call::Other("mkdir", Some(second))] =
        &cluster.namenode.calls()[..]
    else {
        panic!()
    };
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!(second.answered_below, 2);
}

#[tokio::test]
async fn a_namenode_that_stays_busy_is_told_as_such() {
    let cluster = FakeCluster::start(0).await;
    let client = connect(&[cluster.namenode.address()], quick()).await.unwrap();
    let busy = FsError::Unavailable { why: "full".into() };
    for _ in 0..100 {
        cluster.namenode.answer_next("stat", Answer::Refuse(busy.clone()));
    }
    let error = client.stat("/d").await.unwrap_err();
    assert_eq!(error.refusal(), Some(&busy));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let cluster = FakeCluster::start(0).await;
    let client = connect(&[cluster.namenode.address()], quick()).await.unwrap();
    cluster.namenode.answer_next("stat", Answer::Silence);
    let error = client.stat("/d").await.unwrap_err();
    let ClientError::Unreachable { operation: "stat", tried, .. } = &error else { panic!() };
    assert_eq!(tried[0].address, cluster.namenode.address());
}

#[tokio::test]
async fn a_namenode_that_restarts_is_found_again() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    client.mkdir("/d", false).await.unwrap();
    cluster.namenode.kill().await;
    let (answer, ()) = tokio::join!(client.mkdir("/e", false), cluster.namenode.revive());
    assert!(answer.unwrap());
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let error = client.delete("/nothing", false).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(cluster.namenode.call_names(), ["delete"]);
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(client.try_stat("/nothing").await.unwrap(), None);
}

#[tokio::test]
async fn every_operation_reaches_the_namenode() {
    let cluster = FakeCluster::start(1).await;
    cluster.add_file("/f", b"", BLOCK, &[1]);
    let client = cluster.client().await;
    client.rename("/f", "/g", true).await.unwrap();
    assert_eq!(client.set_replication("/f", 2).await.unwrap(), 3);
    client.set_modified("/f", 1_700_000_000_000).await.unwrap();
    let found = client.stat_many(&["/f", "/nothing", "/"]).await.unwrap();
    let kinds: Vec<Option<bool>> =
        found.iter().map(|status| status.as_ref().map(FileStatus::is_dir)).collect();
    assert_eq!(kinds, [Some(false), None, Some(true)]);
    client.delete("/f", false).await.unwrap();
    let names = ["rename", "set replication", "set times", "stat batch", "delete"];
    assert_eq!(cluster.namenode.call_names(), names);
}

#[tokio::test]
async fn settings_and_paths_are_checked_before_anything_is_sent() {
    let cluster = FakeCluster::start(0).await;
    let address = [cluster.namenode.address()];
    for config in [
        ClientConfig { metadata_channels: 0, ..config() },
        ClientConfig { read_parallel: 0, ..config() },
        ClientConfig { block_attempts_max: 0, ..config() },
        ClientConfig { retained_bytes_max: 8 << 20, ..config() },
        ClientConfig { stall_timeout: Duration::from_secs(2), ..config() },
        ClientConfig { hedge_delay_min: Duration::from_secs(1), ..config() },
        ClientConfig { client_rack: Some("x".repeat(2000)), ..config() },
        ClientConfig { holder: Some("x".repeat(2000)), ..config() },
    ] {
        let error = connect(&address, config).await.unwrap_err();
        assert!(matches!(error, ClientError::InvalidOption { .. }), "{error:?}");
    }
    for bad in ["", "no port", "http://x:1"] {
        let error = Client::connect(bad).await.unwrap_err();
        assert!(matches!(error, ClientError::InvalidOption { .. }), "{bad}: {error:?}");
    }
    let client = cluster.client().await;
    let error = client.stat("a/../b").await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidPath { .. }));
    assert_eq!(cluster.namenode.call_names(), [""; 0]);
}
