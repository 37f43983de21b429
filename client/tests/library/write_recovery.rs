//! Blocks that are gone on with in mid-stream: what is sent again, to whom, and how much is kept for it.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, WriteReport};
use doldam_proto::wire::{self, block_failure::Code};
use tokio::io::AsyncWriteExt;

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, FakeCluster, Fault, b3sum, bytes, config};

const BLOCK_BYTES: u64 = 4 << 20;
const MIB: u64 = 1 << 20;

async fn write(
    client: &Client,
    replication: u32,
    content: &[u8],
) -> Result<WriteReport, ClientError> {
    let options = client.create("/f").block_bytes(BLOCK_BYTES).replication(replication);
    let mut file = options.open().await?;
    // An error here comes again from `close`.
    _ = file.write_all(content).await;
    file.close().await
}

fn recoveries(cluster: &FakeCluster) -> Vec<wire::RecoverBlockRequest> {
    let calls = cluster.namenode.calls().into_iter();
    let recoveries = calls.filter_map(|call| match call {
        Call::Recover(request) => Some(request),
        _ => None,
    });
    recoveries.collect()
}

#[tokio::test]
async fn what_the_survivors_acknowledged_is_not_sent_again() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    let content = bytes(BLOCK_BYTES as usize);
    cluster.datanode(1).next_fails(Fault::Fail { frame: 2, code: Code::Downstream, node: 3 });
    let report = write(&client, 3, &content).await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content));
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 1));
    let [recovery] = &recoveries(&cluster)[..] else { panic!() };
    assert_eq!((recovery.acknowledged, &recovery.survivors[..]), (2 * MIB, &[1, 2][..]));
    assert_eq!(recovery.excluded_nodes, [3]);
    for node in [1, 2, 4] {
        assert_eq!(cluster.state.content_on("/f", node).unwrap(), content, "{node}");
    }
}

#[tokio::test]
async fn a_block_survives_one_failure_after_another() {
    let cluster = FakeCluster::start(6).await;
    let client = cluster.client().await;
    let content = bytes(BLOCK_BYTES as usize);
    for id in 1..=5 {
        let code = if id % 2 == 0 { Code::Disk } else { Code::Busy };
        cluster.datanode(id).next_fails(Fault::Fail { frame: 1, code, node: 0 });
    }
    let report = write(&client, 3, &content).await.unwrap();
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content));
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 1));
    let acknowledged: Vec<u64> = recoveries(&cluster).iter().map(|r| r.acknowledged).collect();
    assert_eq!(acknowledged, [MIB, 2 * MIB, 3 * MIB]);
    let generations: Vec<u64> = recoveries(&cluster).iter().map(|r| r.generation).collect();
    assert_eq!(generations, [1, 2, 3]);
}

#[tokio::test]
async fn a_survivor_that_turns_out_to_have_nothing_is_left_out() {
    for code in [Code::NotFound, Code::Checksum, Code::StaleGeneration] {
        let cluster = FakeCluster::start(4).await;
        let client = cluster.client().await;
        let content = bytes(BLOCK_BYTES as usize);
        cluster.datanode(1).next_fails(Fault::Fail { frame: 2, code: Code::Disk, node: 0 });
        cluster.datanode(2).next_fails(Fault::Fail { frame: 0, code, node: 0 });
        write(&client, 3, &content).await.unwrap();
        let survivors: Vec<Vec<u32>> =
            recoveries(&cluster).into_iter().map(|recovery| recovery.survivors).collect();
        // Node 4 was to be given what node 3 has, and need not have got it.
        assert_eq!(survivors, [vec![2, 3], vec![3]]);
        assert_eq!(cluster.state.content_on("/f", 3).unwrap(), content);
    }
}

#[tokio::test]
async fn a_block_whose_last_node_is_lost_is_sent_again_from_its_start() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    let content = bytes(BLOCK_BYTES as usize);
    cluster.datanode(1).next_fails(Fault::Reset { frame: 3 });
    let report = write(&client, 1, &content).await.unwrap();
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (1, 0));
    assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content);
}

#[tokio::test]
async fn a_block_that_is_lost_at_its_very_end_is_only_ended_again() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    // All of it is acknowledged by then but for the last frame.
    let content = bytes(2 * MIB as usize + 70_000);
    cluster.datanode(1).next_fails(Fault::WrongValue);
    let report = write(&client, 3, &content).await.unwrap();
    assert_eq!(report.recovered_blocks, 1);
    assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content);
    assert_eq!(recoveries(&cluster)[0].acknowledged, 2 * MIB);
}

#[tokio::test]
async fn a_lost_answer_to_a_recovery_changes_nothing_twice() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    let content = bytes(BLOCK_BYTES as usize);
    cluster.namenode.answer_next("recover", Answer::Lose);
    cluster.datanode(1).next_fails(Fault::Reset { frame: 3 });
    write(&client, 3, &content).await.unwrap();
    let [first, again] = &recoveries(&cluster)[..] else { panic!() };
    assert_eq!(first, again, "a retry is the same request");
    assert_eq!(cluster.state.content_on("/f", 3).unwrap(), content);
}

#[tokio::test]
async fn a_node_that_holds_the_others_up_is_left_out_unless_that_is_switched_off() {
    for (slow_node_factor, left_out) in [(8, vec![3]), (0, vec![])] {
        let cluster = FakeCluster::start(4).await;
        let config = ClientConfig { slow_node_factor, slow_node_after: Duration::ZERO, ..config() };
        let client = cluster.client_with(config).await;
        // More than is sent ahead of the acknowledgements that tell.
        let content = bytes(16 << 20);
        cluster.datanode(1).next_fails(Fault::SlowWrite { node: 3 });
        let mut file = client.create("/f").block_bytes(16 << 20).open().await.unwrap();
        file.write_all(&content).await.unwrap();
        let report = file.close().await.unwrap();
        assert_eq!(report.recovered_blocks as usize, left_out.len());
        let excluded: Vec<u32> =
            recoveries(&cluster).into_iter().flat_map(|recovery| recovery.excluded_nodes).collect();
        assert_eq!(excluded, left_out);
        assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content);
    }
}

/// Blocks that are larger than what may be kept of them.
async fn written_with_little_memory(replication: u32, fault: Fault) -> Result<(), ClientError> {
    let cluster = FakeCluster::start(3).await;
    let config = ClientConfig { retained_bytes_max: 9 << 20, ..config() };
    let client = cluster.client_with(config).await;
    let content = bytes(20 << 20);
    cluster.datanode(1).next_fails(fault);
    let options = client.create("/f").block_bytes(16 << 20).replication(replication);
    let mut file = options.open().await?;
    _ = file.write_all(&content).await;
    file.close().await?;
    assert_eq!(cluster.state.content_on("/f", 2).unwrap(), content);
    Ok(())
}

#[tokio::test]
async fn a_block_larger_than_the_bound_on_memory_is_written_and_gone_on_with() {
    let fault = Fault::Fail { frame: 13, code: Code::Disk, node: 0 };
    written_with_little_memory(2, fault).await.unwrap();
}

#[tokio::test]
async fn a_block_larger_than_the_bound_on_memory_does_not_survive_its_last_node_and_says_why() {
    let lost = written_with_little_memory(1, Fault::Reset { frame: 13 }).await.unwrap_err();
    let ClientError::BlockUnwritable { index: 0, tried, .. } = &lost else { panic!("{lost:?}") };
    assert_eq!(tried[0].node.as_ref().map(|node| node.id.0), Some(1));
    assert!(lost.to_string().contains("no longer kept here (retained_bytes_max)"), "{lost}");
}
