//! Flush and sync: what others see, when, and what failures leave of it.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, Durability, ErrorKind, FileWriter, FsError};
use doldam_proto::wire::block_failure::Code;
use futures::FutureExt;
use tokio::io::AsyncWriteExt;

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, FakeCluster, Fault, b3sum, bytes, config};

/// What a new reader sees is exactly `content`.
async fn sees(client: &Client, content: &[u8]) {
    let mut file = client.open("/f").await.unwrap();
    assert_eq!(file.status().length, content.len() as u64);
    assert_eq!(file.status().digest.unwrap().to_string(), b3sum(content));
    let mut found = Vec::new();
    while let Some(chunk) = file.read_chunk().await.unwrap() {
        found.extend_from_slice(&chunk);
    }
    assert!(found == content, "{} bytes", content.len());
    assert_eq!(file.verification().bad_replicas, []);
}

async fn create(client: &Client, replication: u32) -> FileWriter {
    client.create("/f").replication(replication).open().await.unwrap()
}

#[tokio::test]
async fn what_is_flushed_is_seen_and_nothing_more() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let content = bytes(1_000_000);
    let mut file = create(&client, 3).await;
    let mut written = 0;
    // Inside a group, at its bound, across it, at a block's bound, across several.
    for length in [1, 10, 65_000, 65_536, 65_537, 131_072, 131_073, 500_000, 500_001, 1_000_000] {
        file.write_all(&content[written..length]).await.unwrap();
        written = length;
        file.flush().await.unwrap();
        assert!(client.stat("/f").await.unwrap().being_written);
        sees(&client, &content[..length]).await;
    }
    let report = file.close().await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content));
    assert!(!report.status.being_written);
    sees(&client, &content).await;
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 0));
    assert_eq!(cluster.datanode(1).syncs(), 0, "a flush asks for nothing on stable storage");
}

#[tokio::test]
async fn many_small_flushes_take_little_memory() {
    let cluster = FakeCluster::start(1).await;
    let config = ClientConfig { retained_bytes_max: 9 << 20, ..config() };
    let client = cluster.client_with(config).await;
    let content = bytes(700_000);
    let mut file = client.create("/f").replication(1).block_bytes(16 << 20).open().await.unwrap();
    for piece in content.chunks(9_973) {
        file.write_all(piece).await.unwrap();
        file.flush().await.unwrap();
    }
    file.close().await.unwrap();
    sees(&client, &content).await;
}

#[tokio::test]
async fn a_flush_of_nothing_new_asks_nobody() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut file = create(&client, 1).await;
    file.flush().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().length, 0, "an empty file is there, too");
    file.flush().await.unwrap();
    file.write_all(b"hello").await.unwrap();
    AsyncWriteExt::flush(&mut file).await.unwrap();
    AsyncWriteExt::flush(&mut file).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(cluster.namenode.call_names(), ["create", "flush", "stat", "flush", "complete"]);
    sees(&client, b"hello").await;
}

#[tokio::test]
async fn a_sync_asks_for_stable_storage_also_of_what_was_flushed() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut file = create(&client, 1).await;
    file.write_all(b"hello").await.unwrap();
    file.flush().await.unwrap();
    assert_eq!(cluster.datanode(1).syncs(), 0);
    file.sync().await.unwrap();
    assert_eq!(cluster.datanode(1).syncs(), 1);
    file.sync().await.unwrap();
    assert_eq!(cluster.datanode(1).syncs(), 1, "it is there already");
    file.write_all(&bytes(65_531)).await.unwrap();
    file.sync().await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(cluster.datanode(1).syncs(), 2);
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().length, 65_536);
}

#[tokio::test]
async fn a_sync_is_refused_where_it_would_promise_too_much() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for durability in [Durability::One, Durability::Memory] {
        let options = client.create("/f").overwrite(true).durability(durability);
        let mut file = options.open().await.unwrap();
        let refused = file.sync().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Request);
        assert!(refused.to_string().contains("sync needs all"), "{refused}");
        file.write_all(b"hello").await.unwrap();
        file.flush().await.unwrap();
        file.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_flush_survives_a_pipeline_that_fails_at_any_point() {
    let faults = [
        Fault::Reset { frame: 0 },
        Fault::Reset { frame: 1 },
        Fault::Fail { frame: 1, code: Code::Downstream, node: 2 },
        Fault::Stall { frame: 1 },
    ];
    for fault in faults {
        let cluster = FakeCluster::start(4).await;
        let client = cluster.client().await;
        let content = bytes(100_000);
        cluster.datanode(1).next_fails(fault);
        let mut file = create(&client, 3).await;
        for length in [70_000, 90_000, 100_000] {
            let written = file.length() as usize;
            file.write_all(&content[written..length]).await.unwrap();
            file.sync().await.unwrap();
            sees(&client, &content[..length]).await;
        }
        file.close().await.unwrap();
        sees(&client, &content).await;
    }
}

#[tokio::test]
async fn a_pipeline_that_fails_after_a_flush_goes_back_to_it_if_nobody_else_is_left() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let content = bytes(130_000);
    let mut file = create(&client, 1).await;
    file.write_all(&content[..70_000]).await.unwrap();
    file.flush().await.unwrap();
    cluster.datanode(1).break_connections();
    file.write_all(&content[70_000..]).await.unwrap();
    let report = file.close().await.unwrap();
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 1));
    let calls = cluster.namenode.calls();
    let recovery = calls.iter().find_map(|call| match call {
        Call::Recover(request) => Some(request),
        _ => None,
    });
    assert_eq!(recovery.unwrap().survivors, [0; 0]);
    sees(&client, &content).await;
}

#[tokio::test]
async fn an_application_that_pauses_between_flushes_loses_nothing() {
    let cluster = FakeCluster::start(1).await;
    let stall_timeout = Duration::from_millis(50);
    let client = cluster.client_with(ClientConfig { stall_timeout, ..config() }).await;
    let content = bytes(100_000);
    let mut file = create(&client, 1).await;
    for length in [10, 70_000, 100_000] {
        let written = file.length() as usize;
        file.write_all(&content[written..length]).await.unwrap();
        file.flush().await.unwrap();
        // Its stream is closed meanwhile.
        tokio::time::timeout(Duration::from_secs(10), async {
            while cluster.datanode(1).open_connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        file.sync().await.unwrap();
        // Through connections that end with it.
        sees(&cluster.client().await, &content[..length]).await;
    }
    let report = file.close().await.unwrap();
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 0));
    sees(&client, &content).await;
}

#[tokio::test]
async fn what_was_flushed_stays_when_the_writer_is_dropped() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let content = bytes(100_000);
    let mut file = create(&client, 1).await;
    file.write_all(&content[..70_000]).await.unwrap();
    file.flush().await.unwrap();
    file.write_all(&content[70_000..]).await.unwrap();
    drop(file);
    cluster.namenode.wait_for("abandon").await;
    sees(&client, &content[..70_000]).await;
}

#[tokio::test]
async fn a_flush_that_is_dropped_harms_nothing() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let content = bytes(300_000);
    let mut file = create(&client, 1).await;
    for piece in content.chunks(7_001) {
        file.write_all(piece).await.unwrap();
        _ = file.flush().now_or_never();
    }
    file.flush().await.unwrap();
    sees(&client, &content).await;
    file.close().await.unwrap();
    sees(&client, &content).await;
}

#[tokio::test]
async fn a_reader_keeps_seeing_the_file_as_it_was_when_it_was_opened() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let content = bytes(300_000);
    let mut file = create(&client, 2).await;
    file.write_all(&content[..70_000]).await.unwrap();
    file.flush().await.unwrap();
    let mut reader = client.open("/f").await.unwrap();
    file.write_all(&content[70_000..]).await.unwrap();
    file.flush().await.unwrap();
    assert_eq!(&reader.read_at(60_000, 100_000).await.unwrap()[..], &content[60_000..70_000]);
    file.close().await.unwrap();
    // Also when it has to ask again where the block is.
    for node in [1, 2] {
        let fault = Fault::Fail { frame: 0, code: Code::StaleGeneration, node: 0 };
        cluster.datanode(node).next_fails(fault);
    }
    let mut found = Vec::new();
    while let Some(chunk) = reader.read_chunk().await.unwrap() {
        found.extend_from_slice(&chunk);
    }
    assert!(found == content[..70_000], "{} bytes", found.len());
    assert_eq!(reader.verification().bad_replicas, []);
    assert!(!cluster.namenode.call_names().contains(&"report"));
}

#[tokio::test]
async fn a_flush_that_is_refused_ends_the_write_with_that_error() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let lost = FsError::LeaseLost { inode: 1 };
    cluster.namenode.answer_next("flush", Answer::Refuse(lost.clone()));
    let mut file = create(&client, 1).await;
    file.write_all(b"hello").await.unwrap();
    assert_eq!(file.flush().await.unwrap_err().refusal(), Some(&lost));
    assert_eq!(file.flush().await.unwrap_err().refusal(), Some(&lost));
    assert_eq!(file.close().await.unwrap_err().refusal(), Some(&lost));
}

#[tokio::test]
async fn a_lost_answer_to_a_flush_changes_nothing_twice() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.namenode.answer_next("flush", Answer::Lose);
    let mut file = create(&client, 1).await;
    file.write_all(b"hello").await.unwrap();
    file.flush().await.unwrap();
    let calls = cluster.namenode.calls();
    assert_eq!(calls[1], calls[2], "a retry is the same request");
    sees(&client, b"hello").await;
}
