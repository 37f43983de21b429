//! Reading from replicas that are gone, silent, rotten or lying.

use doldam_client::{Client, ClientError, ErrorKind, Verification};
use doldam_proto::wire::block_failure::Code;
use tokio::io::AsyncReadExt;

use crate::fakes::namenode::Call;
use crate::fakes::{FakeCluster, Fault, bytes};

const BLOCK_BYTES: u64 = 4 << 20;

async fn read(client: &Client) -> (Vec<u8>, Verification) {
    let mut file = client.open("/f").await.unwrap();
    let mut found = Vec::new();
    file.read_to_end(&mut found).await.unwrap();
    (found, file.verification())
}

/// Reads a file while datanode 1 misbehaves in its first exchange; returns what was seen and who was reported.
async fn survives(fault: Fault) -> (Verification, Vec<u32>) {
    let content = bytes(BLOCK_BYTES as usize + 100_000);
    let cluster = FakeCluster::start(3).await;
    cluster.add_file("/f", &content, BLOCK_BYTES, &[1, 2, 3]);
    let client = cluster.client().await;
    cluster.datanode(1).next_fails(fault.clone());
    let (found, verification) = read(&client).await;
    assert_eq!(found, content, "{fault:?}");
    assert_eq!(verification.failovers, 1, "{fault:?}");
    let calls = cluster.namenode.calls();
    let reported = calls.iter().filter_map(|call| match call {
        Call::Report(report) => Some(report.node_id),
        _ => None,
    });
    (verification, reported.collect())
}

#[tokio::test]
async fn a_read_goes_on_elsewhere_from_the_exact_byte() {
    for frame in [0, 1, 3] {
        let (verification, reported) = survives(Fault::Reset { frame }).await;
        assert_eq!(verification.bytes_verified, BLOCK_BYTES + 100_000, "no byte is read twice");
        assert_eq!(reported, [0; 0], "a broken connection is no bad replica");
    }
}

#[tokio::test]
async fn a_replica_that_fails_verification_is_reported_with_what_was_seen() {
    for fault in [Fault::FlipByte { frame: 0 }, Fault::FlipByte { frame: 3 }, Fault::FlipProof] {
        let (verification, reported) = survives(fault).await;
        assert_eq!(reported, [1]);
        let [bad] = &verification.bad_replicas[..] else { panic!("{verification:?}") };
        assert_eq!(bad.node.id.0, 1);
    }
    let (verification, _) = survives(Fault::FlipByte { frame: 1 }).await;
    let what = &verification.bad_replicas[0].what;
    assert_eq!(what, "bytes 1048576..1114112 of the replica fail verification");
    let (verification, reported) = survives(Fault::WrongLength).await;
    let what = &verification.bad_replicas[0].what;
    assert_eq!(what, "the replica has 4194305 bytes, the block 4194304");
    assert_eq!(reported, [1]);
}

#[tokio::test]
async fn a_datanode_that_says_its_replica_is_bad_or_gone_is_reported_and_one_that_is_busy_is_not() {
    for code in [Code::Corrupt, Code::NotFound, Code::Checksum] {
        for frame in [0, 2] {
            assert_eq!(survives(Fault::Fail { frame, code, node: 0 }).await.1, [1], "{code:?}");
        }
    }
    // One of another generation is only newer than what the reader knows.
    for code in [Code::Busy, Code::Stopping, Code::Disk, Code::StaleGeneration] {
        assert_eq!(survives(Fault::Fail { frame: 0, code, node: 0 }).await.1, [0; 0], "{code:?}");
    }
}

#[tokio::test]
async fn a_replica_of_another_generation_proves_itself_or_is_left_without_an_accusation() {
    for rotten in [false, true] {
        let cluster = FakeCluster::start(2).await;
        let client = cluster.client().await;
        let content = bytes(200_000);
        cluster.add_file("/f", &content, 1 << 20, &[1, 2]);
        if rotten {
            cluster.datanode(1).rot();
        }
        for ((node, _), replica) in &mut cluster.state.tables.lock().replicas {
            replica.generation.0 += u64::from(node.0 == 1);
        }
        let mut file = client.open("/f").await.unwrap();
        let mut found = Vec::new();
        while let Some(chunk) = file.read_chunk().await.unwrap() {
            found.extend_from_slice(&chunk);
        }
        assert!(found == content);
        assert_eq!(file.verification().failovers, u64::from(rotten));
        assert_eq!(file.verification().bad_replicas, []);
        assert_eq!(cluster.namenode.call_names(), ["locate"], "nobody is reported");
    }
}

#[tokio::test]
async fn silence_and_nonsense_end_a_stream() {
    survives(Fault::Stall { frame: 0 }).await;
    survives(Fault::Stall { frame: 2 }).await;
    survives(Fault::RepeatFrame).await;
    survives(Fault::WrongAnswer).await;
}

#[tokio::test]
async fn a_dead_datanode_is_tried_once_per_file_and_not_per_block() {
    let content = bytes(10 * 65_536);
    let cluster = FakeCluster::start(2).await;
    cluster.add_file("/f", &content, 65_536, &[1, 2]);
    let client = cluster.client().await;
    cluster.datanode(1).kill();
    let (found, verification) = read(&client).await;
    assert_eq!(found, content);
    assert_eq!(verification.failovers, 1);
}

#[tokio::test]
async fn a_rotten_disk_never_gets_through_whatever_is_read() {
    let content = bytes(3 * 65_536);
    let cluster = FakeCluster::start(2).await;
    cluster.add_file("/f", &content, 65_536, &[1, 2]);
    cluster.datanode(1).rot();
    let client = cluster.client().await;
    let file = client.open("/f").await.unwrap();
    for block in 0..3 {
        let at = block * 65_536;
        assert_eq!(file.read_at(at as u64, 10).await.unwrap(), content[at..at + 10]);
    }
    let found = read(&client).await;
    assert_eq!(found.0, content);
}

#[tokio::test]
async fn a_block_that_nobody_can_send_names_every_node_with_its_cause() {
    let cluster = FakeCluster::start(3).await;
    cluster.add_file("/f", &bytes(100), 65_536, &[1, 2, 3]);
    let client = cluster.client().await;
    cluster.datanode(1).kill();
    cluster.datanode(2).rot();
    for _ in 0..2 {
        let fault = Fault::Fail { frame: 0, code: Code::Busy, node: 0 };
        cluster.datanode(3).next_fails(fault);
    }
    let file = client.open("/f").await.unwrap();
    let error = file.read_at(0, 10).await.unwrap_err();
    let ClientError::BlockUnreadable { tried, offset: 0, .. } = &error else { panic!("{error}") };
    let seen: Vec<(u32, bool)> = tried
        .iter()
        .map(|failure| (failure.node.as_ref().unwrap().id.0, failure.bad_data))
        .collect();
    assert_eq!(seen, [(2, true), (1, false), (3, false)]);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(error.next_step().unwrap().contains("doldam fsck /f"));
    // The locations were asked for once more before giving up.
    let located = cluster.namenode.call_names().into_iter().filter(|name| *name == "locate");
    assert_eq!(located.count(), 2);
    // What failed may work later.
    cluster.datanode(3).next_is_well();
    assert_eq!(file.read_at(0, 10).await.unwrap(), bytes(100)[..10]);
}

#[tokio::test]
async fn all_replicas_rotten_is_damage() {
    let cluster = FakeCluster::start(2).await;
    cluster.add_file("/f", &bytes(100), 65_536, &[1, 2]);
    cluster.datanode(1).rot();
    cluster.datanode(2).rot();
    let client = cluster.client().await;
    let mut file = client.open("/f").await.unwrap();
    let error = file.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let inner = error.into_inner().unwrap().downcast::<ClientError>().unwrap();
    assert_eq!(inner.kind(), ErrorKind::Damaged);
    assert_eq!(file.verification().bytes_verified, 0);
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_no_failure_of_its_node() {
    let content = bytes(100);
    let cluster = FakeCluster::start(1).await;
    cluster.add_file("/f", &content, 65_536, &[1]);
    let client = cluster.client().await;
    let file = client.open("/f").await.unwrap();
    assert_eq!(file.read_at(0, 9).await.unwrap(), content[..9]);
    cluster.datanode(1).break_connections();
    assert_eq!(file.read_at(0, 9).await.unwrap(), content[..9]);
    assert_eq!(file.verification().failovers, 0);
}
