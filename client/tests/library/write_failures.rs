//! Writing when pipelines fail: the file arrives whole all the same, or is not there at all.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, ErrorKind, FsError, WriteReport};
use doldam_proto::wire::block_failure::Code;
use tokio::io::AsyncWriteExt;

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, FakeCluster, Fault, b3sum, bytes, config};

const BLOCK_BYTES: u64 = 4 << 20;

async fn write(client: &Client, content: &[u8]) -> Result<WriteReport, ClientError> {
    let mut file = client.create("/f").block_bytes(BLOCK_BYTES).open().await?;
    // An error here comes again from `close`.
    _ = file.write_all(content).await;
    file.close().await
}

/// Writes two blocks and a bit while datanode 1 misbehaves once, and checks the end; returns who was excluded.
async fn survives(fault: Fault) -> Vec<u32> {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    let content = bytes(2 * BLOCK_BYTES as usize + 100_000);
    cluster.datanode(1).next_fails(fault.clone());
    let report = write(&client, &content).await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content), "{fault:?}");
    assert_eq!(report.rewritten_blocks + report.recovered_blocks, 1, "{fault:?}");
    let mut read = client.open("/f").await.unwrap();
    let mut found = Vec::new();
    while let Some(chunk) = read.read_chunk().await.unwrap() {
        found.extend_from_slice(&chunk);
    }
    assert_eq!(found, content, "{fault:?}");
    let calls = cluster.namenode.calls();
    let mut replaced = calls.iter().filter_map(|call| match call {
        Call::Allocate(request) if request.replaces_block_id != 0 => Some(&request.excluded_nodes),
        Call::Recover(request) => Some(&request.excluded_nodes),
        _ => None,
    });
    let excluded = replaced.next().unwrap().clone();
    assert_eq!(replaced.next(), None);
    excluded
}

#[tokio::test]
async fn a_connection_that_breaks_at_any_frame_is_replaced_without_the_node() {
    for frame in [0, 1, 3] {
        assert_eq!(survives(Fault::Reset { frame }).await, [1]);
    }
}

#[tokio::test]
async fn a_failure_in_the_pipeline_excludes_the_node_it_names() {
    for frame in [0, 2] {
        let fault = Fault::Fail { frame, code: Code::Downstream, node: 3 };
        assert_eq!(survives(fault).await, [3]);
    }
    for code in [Code::NoSpace, Code::Disk, Code::Checksum, Code::Busy, Code::Stopping] {
        assert_eq!(survives(Fault::Fail { frame: 1, code, node: 0 }).await, [1]);
    }
}

#[tokio::test]
async fn a_datanode_that_falls_silent_is_given_up_at_its_deadline() {
    assert_eq!(survives(Fault::Stall { frame: 2 }).await, [1]);
    assert_eq!(survives(Fault::NeverDone).await, [1]);
}

/// Waits for long, but soon asks who is alive.
fn patient() -> ClientConfig {
    let minutes = Duration::from_mins(5);
    let probe_after = Duration::from_millis(50);
    ClientConfig { write_timeout: minutes, sync_timeout: minutes, probe_after, ..config() }
}

#[tokio::test]
async fn in_a_silent_pipeline_the_datanode_that_is_stuck_is_found_and_blamed() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client_with(patient()).await;
    // The first node waits for the third, and cannot know why.
    cluster.datanode(1).next_fails(Fault::NeverDone);
    cluster.datanode(3).freeze();
    let report = write(&client, b"hello").await.unwrap();
    assert_eq!(report.rewritten_blocks, 1);
    let Call::Allocate(request) = &cluster.namenode.calls()[1] else { panic!() };
    assert_eq!(request.excluded_nodes, [3]);
}

#[tokio::test]
async fn a_first_datanode_that_takes_the_connection_and_says_nothing_is_found() {
    let cluster = FakeCluster::start(4).await;
    let hour = Duration::from_hours(1);
    let config = ClientConfig { datanode_connect_timeout: hour, ..patient() };
    let client = cluster.client_with(config).await;
    cluster.datanode(1).freeze();
    write(&client, b"hello").await.unwrap();
    let Call::Allocate(request) = &cluster.namenode.calls()[1] else { panic!() };
    assert_eq!(request.excluded_nodes, [1]);
}

#[tokio::test]
async fn who_did_not_answer_one_write_gets_no_block_of_the_next_unless_there_is_no_other() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client_with(patient()).await;
    cluster.datanode(1).freeze();
    write(&client, b"hello").await.unwrap();
    let created = |nth: usize| match &cluster.namenode.calls()[nth] {
        Call::Create(request) => request.excluded_nodes.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(created(0), [0; 0]);
    let calls = cluster.namenode.calls().len();
    client.create("/g").open().await.unwrap().close().await.unwrap();
    assert_eq!(created(calls), [1]);

    cluster.state.tables.lock().nodes.retain(|node, _| node.0 == 1);
    let calls = cluster.namenode.calls().len();
    client.create("/h").open().await.unwrap().abandon().await.unwrap();
    assert_eq!((created(calls), created(calls + 1)), (vec![1], vec![]));
}

#[tokio::test]
async fn a_pipeline_that_is_only_slow_is_waited_for() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client_with(patient()).await;
    cluster.datanode(1).next_fails(Fault::NeverDone);
    let writing = write(&client, b"hello");
    let probed = async {
        // Each was asked, more than once, and answered; the block is still waited for.
        for id in 1..=3 {
            while cluster.datanode(id).requests().1 < 2 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        _ = writing => panic!("it was given up although everybody answers"),
        () = probed => {}
    }
}

#[tokio::test]
async fn an_acknowledgement_that_does_not_say_what_was_asked_for_is_none() {
    for fault in [Fault::WrongValue, Fault::NotDurable, Fault::FewerReceipts] {
        assert_eq!(survives(fault).await, [1]);
    }
}

#[tokio::test]
async fn a_dead_datanode_costs_one_try_and_is_avoided_from_then_on() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    cluster.datanode(1).kill();
    let content = bytes(3 * BLOCK_BYTES as usize);
    let report = write(&client, &content).await.unwrap();
    assert_eq!(report.rewritten_blocks, 1);
    assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content);
}

#[tokio::test]
async fn a_write_that_finds_no_pipeline_names_each_that_was_tried_and_leaves_nothing() {
    let cluster = FakeCluster::start(2).await;
    let config = ClientConfig { block_attempts_max: 3, ..config() };
    let client = cluster.client_with(config).await;
    cluster.datanode(1).kill();
    cluster.datanode(2).kill();
    let error = write(&client, b"hello").await.unwrap_err();
    let ClientError::BlockUnwritable { tried, index: 0, .. } = &error else { panic!("{error:?}") };
    let nodes: Vec<u32> = tried.iter().map(|t| t.node.as_ref().unwrap().id.0).collect();
    assert_eq!(nodes, [1, 2, 1], "when all have failed all are tried again");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(cluster.namenode.call_names().last(), Some(&"abandon"));
    assert_eq!(client.try_stat("/f").await.unwrap(), None);
}

#[tokio::test]
async fn without_datanodes_the_namenodes_reason_is_the_error() {
    let cluster = FakeCluster::start(0).await;
    let client = cluster.client().await;
    let error = client.create("/f").open().await.unwrap_err();
    assert!(matches!(error.refusal(), Some(FsError::NoDatanodes { .. })), "{error:?}");
    assert!(error.next_step().unwrap().contains("admin report"));
    // Not at the first refusal: right after a start they may take a moment to register.
    assert!(cluster.namenode.call_names().len() > 1);
}

#[tokio::test]
async fn an_application_that_pauses_blames_nobody_and_loses_nothing() {
    let cluster = FakeCluster::start(1).await;
    let stall_timeout = Duration::from_millis(50);
    let client = cluster.client_with(ClientConfig { stall_timeout, ..config() }).await;
    let content = bytes(2_500_000);
    let options = client.create("/f").replication(1).block_bytes(BLOCK_BYTES);
    let mut file = options.open().await.unwrap();
    file.write_all(&content[..1_500_000]).await.unwrap();
    // Its stream is given up meanwhile, which the datanode sees as its end.
    tokio::time::timeout(Duration::from_secs(10), async {
        while cluster.datanode(1).open_connections() > 0 || cluster.datanode(1).requests().0 == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    file.write_all(&content[1_500_000..]).await.unwrap();
    let report = file.close().await.unwrap();
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 0));
    assert_eq!(cluster.state.content_on("/f", 1).unwrap(), content);
    assert_eq!(cluster.datanode(1).requests().0, 2);
    let Call::Recover(request) = &cluster.namenode.calls()[1] else { panic!() };
    assert_eq!(request.excluded_nodes, [0; 0]);
    assert_eq!((request.acknowledged, &request.survivors[..]), (1 << 20, &[1][..]));
}

#[tokio::test]
async fn a_writer_that_failed_says_why_at_every_call() {
    let cluster = FakeCluster::start(1).await;
    let config = ClientConfig { block_attempts_max: 1, ..config() };
    let client = cluster.client_with(config).await;
    cluster.datanode(1).kill();
    let mut file = client.create("/f").block_bytes(1 << 20).open().await.unwrap();
    let content = bytes(1 << 20);
    let failed = loop {
        if let Err(error) = file.write_all(&content).await {
            break error;
        }
    };
    let inner = failed.into_inner().unwrap().downcast::<ClientError>().unwrap();
    assert_eq!(inner.kind(), ErrorKind::Unavailable);
    assert!(file.flush().await.is_err());
    assert!(file.write_all(&content).await.is_err());
    assert!(file.shutdown().await.is_err());
    let error = file.close().await.unwrap_err();
    assert_eq!(error.to_string(), inner.to_string());
}

#[tokio::test]
async fn a_lost_answer_of_the_namenode_changes_nothing_twice() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for call in ["create", "allocate", "complete"] {
        cluster.namenode.answer_next(call, Answer::Lose);
    }
    let content = bytes(2 * BLOCK_BYTES as usize);
    let report = write(&client, &content).await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content));
    let calls = cluster.namenode.calls();
    let names = ["create", "create", "allocate", "allocate", "complete", "complete"];
    assert_eq!(cluster.namenode.call_names(), names);
    for pair in calls.chunks(2) {
        assert_eq!(pair[0], pair[1], "a retry is the same request");
    }
}

#[tokio::test]
async fn a_lost_lease_ends_the_write_with_that_error() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let lost = FsError::LeaseLost { inode: 1 };
    cluster.namenode.answer_next("complete", Answer::Refuse(lost.clone()));
    let error = write(&client, b"hello").await.unwrap_err();
    assert_eq!(error.refusal(), Some(&lost));
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert_eq!(client.try_stat("/f").await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_is_renewed_while_a_write_is_open_and_not_after() {
    let cluster = FakeCluster::start(1).await;
    cluster.namenode.set_hello(|hello| hello.lease_soft_ms = 30);
    let client = cluster.client().await;
    let mut file = client.create("/f").replication(1).open().await.unwrap();
    file.write_all(b"hello").await.unwrap();
    cluster.namenode.wait_for("renew").await;
    file.close().await.unwrap();
}
