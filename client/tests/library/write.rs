//! Writing when all goes well: what becomes visible, when, and with how many calls.

use std::pin::Pin;

use doldam_client::{ClientConfig, Durability, ErrorKind, FsError};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::fakes::namenode::Call;
use crate::fakes::{BLOCK, FakeCluster, b3sum, bytes, config};

#[tokio::test]
async fn a_small_file_takes_two_calls_and_one_stream() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").open().await.unwrap();
    file.write_all(b"hello").await.unwrap();
    let report = file.close().await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(b"hello"));
    assert_eq!((report.bytes, report.rewritten_blocks), (5, 0));
    assert_eq!(report.under_replicated_blocks, 0);
    assert_eq!(cluster.namenode.call_names(), ["create", "complete"]);
    assert_eq!(cluster.datanode(1).requests(), (1, 0));
    assert_eq!(cluster.state.content_on("/f", 3).unwrap(), b"hello");
}

#[tokio::test]
async fn every_length_around_a_block_and_a_group_arrives_whole() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let block = BLOCK as usize;
    for length in [0, 1, 65_535, 65_536, 65_537, block - 1, block, block + 1, 3 * block, 400_001] {
        let content = bytes(length);
        let mut file = client.create("/f").overwrite(true).open().await.unwrap();
        file.write_all(&content).await.unwrap();
        let report = file.close().await.unwrap();
        assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content), "{length}");
        assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content, "{length}");
    }
}

#[tokio::test]
async fn blocks_of_many_frames_arrive_whole_and_commits_ride_on_allocations() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let content = bytes((9 << 20) + 123);
    let mut file = client.create("/f").block_bytes(4 << 20).open().await.unwrap();
    file.write_all(&content).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(cluster.state.content_on("/f", 1).unwrap(), content);
    let calls = cluster.namenode.calls();
    let commits = calls.iter().map(|call| match call {
        Call::Allocate(request) => request.commits.len(),
        Call::Complete(request) => request.commits.len(),
        _ => 0,
    });
    assert_eq!(commits.sum::<usize>(), 3);
    assert_eq!(cluster.namenode.call_names(), ["create", "allocate", "allocate", "complete"]);
}

#[tokio::test]
async fn tiny_writes_make_full_frames() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let content = bytes((1 << 20) + 70_000);
    let mut file = client.create("/f").block_bytes(2 << 20).open().await.unwrap();
    for piece in content.chunks(997) {
        file.write_all(piece).await.unwrap();
    }
    assert_eq!(file.length(), content.len() as u64);
    file.close().await.unwrap();
    assert_eq!(cluster.state.content_on("/f", 1).unwrap(), content);
}

#[tokio::test]
async fn what_is_kept_in_memory_stays_within_its_bound() {
    let cluster = FakeCluster::start(1).await;
    let config = ClientConfig { retained_bytes_max: 12 << 20, ..config() };
    let client = cluster.client_with(config).await;
    // The datanode takes nothing: the writer must stop at the bound, not at the end.
    cluster.datanode(1).next_fails(crate::fakes::Fault::Stall { frame: 0 });
    let mut file = client.create("/f").block_bytes(4 << 20).open().await.unwrap();
    let content = bytes(1 << 20);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut taken = 0;
    while let std::task::Poll::Ready(bytes) = Pin::new(&mut file).poll_write(&mut context, &content)
    {
        taken += bytes.unwrap();
    }
    assert_eq!(taken, 12 << 20);
}

#[tokio::test]
async fn options_out_of_range_are_refused_before_anything_is_sent() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for (bytes, replicas) in [(100_000, 1), (1 << 15, 1), (1 << 20, 0), (1 << 20, 17)] {
        let options = client.create("/f").block_bytes(bytes).replication(replicas);
        assert_eq!(options.open().await.unwrap_err().kind(), ErrorKind::Request);
    }
    let refused = client.create("relative").open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Request);
    assert_eq!(cluster.namenode.call_names(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_of_the_namenode_arrives_as_it_is() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.add_file("/f", b"old", BLOCK, &[1]);
    let refused = client.create("/f").open().await.unwrap_err();
    assert_eq!(refused.refusal(), Some(&FsError::AlreadyExists { path: "/f".into() }));
    assert_eq!(cluster.state.content_on("/f", 1).unwrap(), b"old");
}

#[tokio::test]
async fn options_reach_the_namenode() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let options = client.create("/f").replication(2).block_bytes(1 << 20).parents(true);
    let file = options.overwrite(true).durability(Durability::One).open().await.unwrap();
    let report = file.close().await.unwrap();
    assert_eq!(report.status.replication, 2);
    assert_eq!(report.status.durability, Some(Durability::One));
    let Call::Create(request) = &cluster.namenode.calls()[0] else { panic!() };
    assert!(request.parents && request.overwrite && request.allocate_first);
    assert!(request.holder.contains("process"), "{}", request.holder);
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing_and_says_so_to_the_namenode() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").open().await.unwrap();
    file.write_all(&bytes(300_000)).await.unwrap();
    drop(file);
    cluster.namenode.wait_for("abandon").await;
    assert_eq!(client.try_stat("/f").await.unwrap(), None);
}

#[tokio::test]
async fn a_writer_that_is_abandoned_leaves_nothing() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").open().await.unwrap();
    file.write_all(b"hello").await.unwrap();
    file.abandon().await.unwrap();
    assert_eq!(cluster.namenode.call_names(), ["create", "abandon"]);
    assert_eq!(client.try_stat("/f").await.unwrap(), None);
}

#[tokio::test]
async fn shutdown_closes_and_its_report_is_kept() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").replication(1).open().await.unwrap();
    file.write_all(b"hello").await.unwrap();
    assert_eq!(file.report(), None);
    assert_eq!(client.try_stat("/f").await.unwrap(), None, "nothing is visible yet");
    file.shutdown().await.unwrap();
    assert_eq!(file.report().unwrap().bytes, 5);
    assert_eq!(client.stat("/f").await.unwrap().length, 5);
    file.shutdown().await.unwrap();
    assert!(file.write_all(b"more").await.is_err());
    let kept = file.report().unwrap().clone();
    assert_eq!(file.close().await.unwrap(), kept);
    assert_eq!(cluster.namenode.call_names(), ["create", "stat", "complete", "stat"]);
}

#[tokio::test]
async fn a_missing_replica_is_told_in_the_report() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").replication(3).open().await.unwrap();
    file.write_all(&bytes(BLOCK as usize + 1)).await.unwrap();
    assert_eq!(file.close().await.unwrap().under_replicated_blocks, 2);
}

#[tokio::test]
async fn connections_are_used_again() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for at in 0..5 {
        let mut file = client.create(format!("/f{at}")).replication(1).open().await.unwrap();
        file.write_all(b"hello").await.unwrap();
        file.close().await.unwrap();
        client.open(format!("/f{at}")).await.unwrap().read_at(0, 5).await.unwrap();
    }
    assert_eq!(cluster.datanode(1).requests(), (5, 5));
    assert_eq!(cluster.datanode(1).connections(), 1);
}
