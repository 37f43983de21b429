//! Writing on behind the end of a file, and cutting one.

use doldam_client::{Client, ClientError, ErrorKind, FsError};
use doldam_proto::wire::block_failure::Code;
use tokio::io::AsyncWriteExt;

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, BLOCK, FakeCluster, Fault, b3sum, bytes};

/// Lengths at and around the bounds of groups and blocks.
const LENGTHS: [usize; 9] = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 300_000];

async fn content_of(client: &Client, path: &str) -> Vec<u8> {
    let mut file = client.open(path).await.unwrap();
    let mut found = Vec::new();
    while let Some(chunk) = file.read_chunk().await.unwrap() {
        found.extend_from_slice(&chunk);
    }
    assert_eq!(file.status().digest.unwrap().to_string(), b3sum(&found));
    assert_eq!(file.verification().bad_replicas, []);
    found
}

#[tokio::test]
async fn a_file_of_any_length_is_written_on_where_it_ends() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    for before in LENGTHS {
        for more in [0, 1, 65_536, 200_001] {
            let (path, content) = (format!("/{before}-{more}"), bytes(before + more));
            cluster.add_file(&path, &content[..before], BLOCK, &[1, 2]);
            let mut file = client.append(&path).open().await.unwrap();
            assert_eq!(file.length(), before as u64);
            file.write_all(&content[before..]).await.unwrap();
            let report = file.close().await.unwrap();
            assert_eq!(report.bytes, more as u64, "{path}");
            assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content), "{path}");
            assert!(content_of(&client, &path).await == content, "{path}");
        }
    }
}

#[tokio::test]
async fn an_append_reads_one_group_and_sends_nothing_that_is_there() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let content = bytes((3 << 20) + 70_100);
    let before = (3 << 20) + 70_000;
    cluster.add_file("/f", &content[..before], 4 << 20, &[1, 2]);
    let mut file = client.append("/f").open().await.unwrap();
    // The values of the groups, and the last of these.
    assert_eq!(cluster.datanode(1).requests(), (0, 2));
    file.write_all(&content[before..]).await.unwrap();
    file.flush().await.unwrap();
    assert!(content_of(&client, "/f").await == content);
    file.close().await.unwrap();
    assert!(content_of(&client, "/f").await == content);
    let calls = cluster.namenode.calls();
    let [Call::Append(append), Call::Flush(flush), ..] = &calls[..] else { panic!("{calls:?}") };
    assert!(!append.truncate && append.holder.contains("process"));
    assert_eq!(flush.open.as_ref().unwrap().generation, 2);
}

#[tokio::test]
async fn an_append_of_nothing_leaves_the_file_as_it_was() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.add_file("/f", &bytes(70_000), BLOCK, &[1]);
    let mut file = client.append("/f").open().await.unwrap();
    file.flush().await.unwrap();
    file.close().await.unwrap();
    assert_eq!(cluster.namenode.call_names(), ["append", "complete"]);
    assert_eq!(cluster.datanode(1).requests().0, 0, "nothing is sent");
    assert!(content_of(&client, "/f").await == bytes(70_000));
}

#[tokio::test]
async fn an_append_that_is_dropped_leaves_the_file_as_it_was() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let content = bytes(200_000);
    cluster.add_file("/f", &content[..100_000], BLOCK, &[1]);
    let mut file = client.append("/f").open().await.unwrap();
    file.write_all(&content[100_000..]).await.unwrap();
    drop(file);
    cluster.namenode.wait_for("abandon").await;
    assert!(content_of(&client, "/f").await == content[..100_000]);
}

#[tokio::test]
async fn a_bad_replica_of_the_end_is_reported_and_another_is_read() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let content = bytes(110_000);
    cluster.add_file("/f", &content[..100_000], BLOCK, &[1, 2]);
    cluster.datanode(1).next_fails(Fault::FlipProof);
    let mut file = client.append("/f").open().await.unwrap();
    let calls = cluster.namenode.calls();
    let Call::Report(report) = &calls[1] else { panic!("{calls:?}") };
    assert_eq!(report.node_id, 1);
    file.write_all(&content[100_000..]).await.unwrap();
    file.close().await.unwrap();
    assert!(content_of(&client, "/f").await == content);
}

#[tokio::test]
async fn a_file_whose_end_cannot_be_read_is_not_written_on() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.add_file("/f", &bytes(100_000), BLOCK, &[1]);
    cluster.datanode(1).rot();
    let error = client.append("/f").open().await.unwrap_err();
    assert!(matches!(error, ClientError::BlockUnreadable { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    cluster.namenode.wait_for("abandon").await;
    assert!(!client.stat("/f").await.unwrap().being_written);
}

#[tokio::test]
async fn an_append_survives_the_failure_of_its_pipeline() {
    for (nodes, fault) in [
        (&[1, 2][..], Fault::Reset { frame: 0 }),
        (&[1, 2], Fault::Fail { frame: 1, code: Code::Downstream, node: 2 }),
        (&[1], Fault::Reset { frame: 0 }),
        (&[1], Fault::Reset { frame: 1 }),
    ] {
        let cluster = FakeCluster::start(3).await;
        let client = cluster.client().await;
        let content = bytes((2 << 20) + 100_000);
        cluster.add_file("/f", &content[..100_000], 4 << 20, nodes);
        // The reads that come first are well.
        cluster.datanode(1).next_is_well();
        cluster.datanode(1).next_is_well();
        cluster.datanode(1).next_fails(fault.clone());
        let mut file = client.append("/f").open().await.unwrap();
        file.write_all(&content[100_000..]).await.unwrap();
        let report = file.close().await.unwrap();
        assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 1), "{fault:?}");
        assert!(content_of(&client, "/f").await == content, "{fault:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_or_not_there_is_refused() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    assert!(client.append("/f").open().await.unwrap_err().is_not_found());
    assert!(client.truncate("/f", 0).await.unwrap_err().is_not_found());
    cluster.add_file("/f", b"hello", BLOCK, &[1]);
    let held = client.append("/f").open().await.unwrap();
    let error = client.append("/f").open().await.unwrap_err();
    assert!(matches!(error.refusal(), Some(FsError::LeaseHeld { ends_in_secs: 1, .. })));
    assert!(error.next_step().unwrap().contains("wait for the other writer"));
    held.close().await.unwrap();
    client.append("/f").open().await.unwrap().abandon().await.unwrap();
    assert!(content_of(&client, "/f").await == b"hello");
}

#[tokio::test]
async fn a_lost_answer_to_an_append_changes_nothing_twice() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.add_file("/f", b"hello", BLOCK, &[1]);
    cluster.namenode.answer_next("append", Answer::Lose);
    let mut file = client.append("/f").open().await.unwrap();
    file.write_all(b" world").await.unwrap();
    file.close().await.unwrap();
    assert!(content_of(&client, "/f").await == b"hello world");
}

#[tokio::test]
async fn a_file_is_cut_at_any_length() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let content = bytes(300_000);
    for length in LENGTHS {
        let path = format!("/{length}");
        cluster.add_file(&path, &content, BLOCK, &[1, 2]);
        let report = client.truncate(&path, length as u64).await.unwrap();
        assert_eq!((report.bytes, report.status.length), (0, length as u64));
        assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content[..length]));
        assert!(content_of(&client, &path).await == content[..length], "{length}");
        // And written on.
        let mut file = client.append(&path).open().await.unwrap();
        file.write_all(&content[length..]).await.unwrap();
        file.close().await.unwrap();
        assert!(content_of(&client, &path).await == content, "{length}");
    }
}

#[tokio::test]
async fn a_file_is_not_cut_to_more_than_it_has() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    cluster.add_file("/f", b"hello", BLOCK, &[1]);
    let error = client.truncate("/f", 6).await.unwrap_err();
    assert!(matches!(error.refusal(), Some(FsError::InvalidArgument { .. })), "{error:?}");
    assert!(content_of(&client, "/f").await == b"hello");
}
