//! A replica that is late does not hold up a read. In virtual time: every delay is exact, and takes none.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, GetOptions, Verification};
use doldam_proto::wire::block_failure::Code;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::fakes::namenode::Call;
use crate::fakes::{FakeCluster, Fault, bytes, config};

const BLOCK_BYTES: u64 = 4 << 20;
/// The longest stall there may be.
const STALL_MAX: Duration = Duration::from_secs(1);

fn hedging() -> ClientConfig {
    ClientConfig {
        hedged_reads: true,
        read_timeout: Duration::from_secs(5),
        // Nothing but what was measured decides the order.
        client_host: Some(String::new()),
        ..config()
    }
}

/// Three datanodes with a file of two blocks, to be read from 1, 2, 3 in this order.
async fn cluster_with(content: &[u8]) -> FakeCluster {
    let cluster = FakeCluster::start_virtual(3).await;
    cluster.add_file("/f", content, BLOCK_BYTES, &[1, 2, 3]);
    cluster
}

fn content() -> Vec<u8> {
    bytes(BLOCK_BYTES as usize + 100_000)
}

/// Reads the whole file; returns what was seen and the longest wait for a piece.
async fn read(client: &Client, expected: &[u8]) -> (Verification, Duration) {
    let mut file = client.open("/f").await.unwrap();
    let (mut at, mut longest) = (0, Duration::ZERO);
    loop {
        let asked = Instant::now();
        let Some(piece) = file.read_chunk().await.unwrap() else { break };
        longest = longest.max(asked.elapsed());
        assert!(piece == expected[at..at + piece.len()], "wrong bytes at {at}");
        at += piece.len();
    }
    assert_eq!(at, expected.len());
    (file.verification(), longest)
}

/// Hedges, and how many of them won.
fn hedges(seen: &Verification) -> (u64, u64) {
    (seen.hedges, seen.hedges_won)
}

fn reports(cluster: &FakeCluster) -> usize {
    let calls = cluster.namenode.calls();
    calls.iter().filter(|call| matches!(call, Call::Report(_))).count()
}

/// Reads while datanode 1 is late in whatever way `prepare` makes it: once that costs a short stall and one hedge, and
/// after that nothing, since others are read.
async fn is_passed_over(prepare: impl FnOnce(&FakeCluster)) {
    let content = content();
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    prepare(&cluster);
    let (seen, longest) = read(&client, &content).await;
    assert_eq!((hedges(&seen), seen.failovers), ((1, 1), 1));
    assert!(longest >= Duration::from_millis(400) && longest < STALL_MAX, "{longest:?}");
    let asked = (cluster.datanode(1).connections(), cluster.datanode(1).requests());
    let (seen, longest) = read(&client, &content).await;
    assert_eq!((hedges(&seen), longest), ((0, 0), Duration::ZERO));
    let asked_since = (cluster.datanode(1).connections(), cluster.datanode(1).requests());
    assert_eq!(asked_since, asked, "not read again soon");
    assert_eq!(cluster.datanode(3).requests(), (0, 0), "one hedge is enough");
    assert_eq!(reports(&cluster), 0, "who is late is not bad");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_connections_and_says_nothing_is_passed_over() {
    is_passed_over(|cluster| cluster.datanode(1).freeze()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_even_take_connections_is_passed_over() {
    is_passed_over(|cluster| cluster.net().swallow(&cluster.datanode(1).address)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_in_mid_block_is_passed_over() {
    for frame in [0, 1, 3] {
        is_passed_over(|cluster| cluster.datanode(1).next_fails(Fault::Stall { frame })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_is_passed_over() {
    let by = Duration::from_secs(2);
    is_passed_over(|cluster| cluster.datanode(1).delay_reads(by)).await;
    let slow = Fault::Slow { frame: 2, by };
    is_passed_over(|cluster| cluster.datanode(1).next_fails(slow)).await;
}

#[tokio::test(start_paused = true)]
async fn two_silent_nodes_of_three_cost_two_short_stalls() {
    let content = content();
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    cluster.datanode(1).freeze();
    cluster.datanode(2).freeze();
    let (seen, longest) = read(&client, &content).await;
    assert_eq!(hedges(&seen), (2, 1));
    assert!(longest < STALL_MAX, "{longest:?}");
    assert_eq!(cluster.net().to_datanodes().1, 2, "the first makes room for the third");
    assert_eq!(hedges(&read(&client, &content).await.0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn small_reads_are_hedged_too() {
    let content = content();
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    let file = client.open("/f").await.unwrap();
    cluster.datanode(1).freeze();
    for at in [10, 70_000, BLOCK_BYTES as usize - 5] {
        assert_eq!(file.read_at(at as u64, 100).await.unwrap(), content[at..at + 100]);
    }
    assert_eq!(hedges(&file.verification()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetched_file_is_whole_though_a_node_stops_answering() {
    let content = content();
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("f");
    cluster.datanode(1).next_fails(Fault::Stall { frame: 2 });
    cluster.datanode(1).next_fails(Fault::Stall { frame: 0 });
    let report = client.get_file("/f", &target, GetOptions::default()).await.unwrap();
    assert!(std::fs::read(&target).unwrap() == content);
    assert_eq!(hedges(&report.verification), (2, 2), "one for each block in flight");
}

#[tokio::test(start_paused = true)]
async fn the_first_may_win_after_all_and_the_others_connection_is_not_kept() {
    let content = bytes(1000);
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    cluster.datanode(1).delay_reads(Duration::from_millis(500));
    cluster.datanode(2).delay_reads(Duration::from_millis(500));
    let (seen, _) = read(&client, &content).await;
    assert_eq!((hedges(&seen), seen.failovers), ((1, 0), 0));
    assert_eq!(cluster.net().to_datanodes().0, 1, "only the winner's");
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_another_is_waited_for() {
    let content = bytes(1000);
    let cluster = FakeCluster::start_virtual(1).await;
    cluster.add_file("/f", &content, BLOCK_BYTES, &[1]);
    let client = cluster.client_with(hedging()).await;
    cluster.datanode(1).delay_reads(Duration::from_millis(4900));
    assert_eq!(hedges(&read(&client, &content).await.0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_hedges_a_silent_node_costs_its_deadline() {
    let content = content();
    let cluster = cluster_with(&content).await;
    let config = ClientConfig { hedged_reads: false, ..hedging() };
    let client = cluster.client_with(config).await;
    cluster.datanode(1).freeze();
    let (seen, longest) = read(&client, &content).await;
    assert_eq!((hedges(&seen), seen.failovers), ((0, 0), 1));
    assert!(longest >= Duration::from_secs(5), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn where_all_nodes_are_slow_hedges_end_and_reads_go_on() {
    let content = bytes(1000);
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    for id in 1..=3 {
        cluster.datanode(id).delay_reads(Duration::from_millis(600));
    }
    let file = client.open("/f").await.unwrap();
    for _ in 0..100 {
        assert_eq!(file.read_at(0, 1000).await.unwrap(), content);
    }
    assert_eq!(hedges(&file.verification()), (32, 0), "what was saved up, and not one more");
    let requests: usize = (1..=3).map(|id| cluster.datanode(id).requests().1).sum();
    assert_eq!(requests, 132);
    // All three fail once and count as bad ones then: the next that is asked is waited for, as no other is better.
    for id in 1..=3 {
        cluster.datanode(id).next_fails(Fault::Reset { frame: 0 });
    }
    assert_eq!(file.read_at(0, 1000).await.unwrap(), content);
    let requests: usize = (1..=3).map(|id| cluster.datanode(id).requests().1).sum();
    assert_eq!(requests, 136);
}

#[tokio::test(start_paused = true)]
async fn without_a_hedge_left_a_node_that_is_known_to_be_silent_is_left_for_a_better_one() {
    let content = content();
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    let late = Duration::from_millis(600);
    (1..=3).for_each(|id| cluster.datanode(id).delay_reads(late));
    let file = client.open("/f").await.unwrap();
    for _ in 0..40 {
        file.read_at(0, 1000).await.unwrap();
    }
    assert_eq!(hedges(&file.verification()), (32, 0));
    (1..=3).for_each(|id| cluster.datanode(id).delay_reads(Duration::ZERO));
    // Two blocks in flight when node 1 falls silent. Each waits; nothing says yet that it is the node's fault.
    cluster.datanode(1).next_fails(Fault::Stall { frame: 0 });
    cluster.datanode(1).next_fails(Fault::Stall { frame: 0 });
    let second_block = async {
        // Later, so that it is still waiting when the first one has given up.
        tokio::time::sleep(Duration::from_secs(2)).await;
        file.read_at(BLOCK_BYTES, 1000).await.unwrap();
        Instant::now()
    };
    let first_block = async {
        file.read_at(0, 1000).await.unwrap();
        Instant::now()
    };
    let (first, second) = tokio::join!(first_block, second_block);
    assert!(second < first + STALL_MAX, "it knows from the other: {:?}", second - first);
    assert_eq!(hedges(&file.verification()), (32, 0));
    assert_eq!(file.verification().failovers, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_late_gets_another_chance() {
    let content = bytes(1000);
    let cluster = cluster_with(&content).await;
    let client = cluster.client_with(hedging()).await;
    cluster.datanode(1).next_fails(Fault::Stall { frame: 0 });
    read(&client, &content).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    read(&client, &content).await;
    assert_eq!(cluster.datanode(1).requests(), (0, 2));
    assert_eq!(cluster.datanode(2).requests(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_faster_goes_before_the_namenodes_order() {
    let content = bytes(1000);
    let cluster = cluster_with(&content).await;
    cluster.add_file("/g", &content, BLOCK_BYTES, &[2]);
    let client = cluster.client_with(hedging()).await;
    cluster.datanode(1).delay_reads(Duration::from_millis(100));
    read(&client, &content).await;
    read(&client, &content).await;
    assert_eq!(cluster.datanode(1).requests(), (0, 2), "nothing is known of others");
    let mut other = client.open("/g").await.unwrap();
    other.read_to_end(&mut Vec::new()).await.unwrap();
    read(&client, &content).await;
    assert_eq!(cluster.datanode(1).requests(), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_replica_on_the_own_host_or_rack_is_read_first() {
    let content = bytes(1000);
    let cluster = cluster_with(&content).await;
    let on_host = ClientConfig { client_host: Some("me,datanode3".into()), ..hedging() };
    read(&cluster.client_with(on_host).await, &content).await;
    assert_eq!(cluster.datanode(3).requests(), (0, 1));
    // Every fake stands on `/r`, which says nothing then.
    let on_rack = ClientConfig { client_rack: Some("/r".into()), ..hedging() };
    read(&cluster.client_with(on_rack).await, &content).await;
    assert_eq!(cluster.datanode(1).requests(), (0, 1));
}

/// How a datanode behaves in one exchange.
fn fault() -> impl Strategy<Value = Option<Fault>> {
    let by = (0_u64..3000).prop_map(Duration::from_millis);
    prop_oneof![
        4 => Just(None),
        2 => (0_usize..5, by).prop_map(|(frame, by)| Some(Fault::Slow { frame, by })),
        2 => (0_usize..5).prop_map(|frame| Some(Fault::Stall { frame })),
        1 => (0_usize..5).prop_map(|frame| Some(Fault::Reset { frame })),
        1 => (0_usize..5).prop_map(|frame| Some(Fault::FlipByte { frame })),
        1 => Just(Some(Fault::RepeatFrame)),
        // Not instead of the first one: the connection would be kept, and be counted beside those in use.
        1 => (1_usize..4)
            .prop_map(|frame| Some(Fault::Fail { frame, code: Code::Busy, node: 0 })),
    ]
}

/// Reads while each datanode goes through its faults: right bytes or a typed error, and no storm of requests.
async fn reads_right_or_says_why(faults: &[Vec<Option<Fault>>], frozen: Option<u32>) {
    let content = bytes(BLOCK_BYTES as usize);
    let cluster = cluster_with(&content).await;
    for (id, faults) in (1..).zip(faults) {
        for fault in faults {
            match fault {
                Some(fault) => cluster.datanode(id).next_fails(fault.clone()),
                None => cluster.datanode(id).next_is_well(),
            }
        }
    }
    if let Some(id) = frozen {
        cluster.datanode(id).freeze();
    }
    let client = cluster.client_with(hedging()).await;
    let mut file = client.open("/f").await.unwrap();
    let mut found = Vec::new();
    loop {
        match file.read_chunk().await {
            Ok(Some(piece)) => found.extend_from_slice(&piece),
            Ok(None) => {
                assert!(found == content, "all of it, or an error");
                break;
            }
            Err(error) => {
                assert!(matches!(error, ClientError::BlockUnreadable { .. }), "{error:?}");
                assert!(content.starts_with(&found), "what came before is right");
                break;
            }
        }
    }
    let requests: usize = (1..=3).map(|id| cluster.datanode(id).requests().1).sum();
    // Four pieces, each of which may give two nodes another turn, and two rounds over three nodes.
    assert!(requests <= 4 * 2 + 2 * 3 + 1, "{requests} requests for one block");
    assert!(cluster.net().to_datanodes().1 <= 2, "more than two at a time");
}

#[test]
fn whatever_nodes_do_a_reader_gets_the_right_bytes_or_a_typed_error_and_asks_two_at_a_time() {
    let histories = proptest::collection::vec(proptest::collection::vec(fault(), 0..5), 3);
    let frozen = proptest::option::weighted(0.2, 1_u32..=3);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(48));
    let outcome = runner.run(&(histories, frozen), |(faults, frozen)| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(reads_right_or_says_why(&faults, frozen));
        Ok(())
    });
    outcome.unwrap();
}
