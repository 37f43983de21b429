//! Datanodes that leave and join as administrators decide: drained during writes, away for maintenance, a second rack,
//! a new empty node. Real processes, steered by the real command line.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use doldam_client::{Client, DatanodeReport, NodeMode, NodeState};
use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::bytes;
use doldam_integration_tests::cluster::disk_fault::stored_bytes;
use doldam_runtime::tasks::spawn_detached;
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1 << 20;

async fn put(client: &Client, path: &str, replication: u32, content: &[u8]) {
    let create = client.create(path).parents(true).replication(replication).block_bytes(MIB);
    let mut file = create.open().await.unwrap();
    file.write_all(content).await.unwrap();
    file.close().await.unwrap();
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let reader = client.open(path).await.unwrap();
    reader.read_at(0, reader.status().length as usize + 1).await.unwrap().to_vec()
}

/// Runs `doldam admin`, which must do as asked; what it printed.
fn admin(cluster: &Cluster, arguments: &[&str]) -> String {
    let arguments = [&["--json", "admin"], arguments].concat();
    tokio::task::block_in_place(|| cluster.doldam_ok(&arguments))
}

async fn node(cluster: &Cluster, index: usize) -> DatanodeReport {
    let address = &cluster.datanodes[index].address;
    let report = cluster.until("the namenode reports", || cluster.report()).await;
    report.datanodes.into_iter().find(|node| node.node.address == *address).unwrap()
}

/// How many blocks under `/` have a replica on the datanode.
async fn blocks_on(cluster: &Cluster, index: usize) -> usize {
    let address = &cluster.datanodes[index].address;
    let files = cluster.until("fsck answers", || cluster.fsck("/")).await;
    let blocks = files.iter().flat_map(|file| &file.blocks);
    blocks.filter(|block| block.replicas.iter().any(|node| node.address == *address)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_drained_during_writes_and_reads_is_killed_and_no_block_lacks_a_replica() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    for file in 0..6 {
        put(&client, &format!("/before/{file}"), 3, &bytes(file, 3 << 20)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writing = spawn_detached("client", {
        let (client, stop, written) = (client.clone(), Arc::clone(&stop), Arc::clone(&written));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let file = written.load(Ordering::Relaxed);
                put(&client, &format!("/during/{file}"), 3, &bytes(file, 2 << 20)).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let reading = spawn_detached("client", {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        async move {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) || reads < 6 {
                let file = reads % 6;
                assert!(get(&client, &format!("/before/{file}")).await == bytes(file, 3 << 20));
                reads += 1;
            }
        }
    });
    cluster
        .until("something is written", || async {
            (written.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;

    let address = cluster.datanodes[0].address.clone();
    let printed = admin(&cluster, &["decommission", "--wait", "--wait-max", "80s", &address]);
    assert!(printed.contains("\"safe_to_stop\":true"), "{printed}");
    let at_drain = written.load(Ordering::Relaxed);
    assert_eq!(blocks_on(&cluster, 0).await, 0);
    cluster
        .until("writes go on without it", || async {
            (written.load(Ordering::Relaxed) > at_drain).then_some(())
        })
        .await;
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    reading.await.unwrap();

    cluster.datanodes[0].server.kill();
    cluster
        .until("it is dead", || async {
            (node(&cluster, 0).await.node.state == NodeState::Dead).then_some(())
        })
        .await;
    let report = cluster.report().await.unwrap();
    assert_eq!((report.under_replicated, report.missing, report.repairs_running), (0, 0, 0));
    let files = cluster.wait_until_healed("/").await;
    assert_eq!(files.len() as u64, 6 + written.load(Ordering::Relaxed));
    for file in 0..written.load(Ordering::Relaxed) {
        assert!(get(&client, &format!("/during/{file}")).await == bytes(file, 2 << 20), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_be_is_refused_and_one_that_is_taken_back_leaves_no_trace() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    put(&client, "/file", 3, &bytes(1, 2 << 20)).await;
    let address = cluster.datanodes[0].address.clone();
    let refused = cluster.doldam(&["admin", "decommission", &address]);
    assert_eq!(refused.status.code(), Some(2));
    let errors = String::from_utf8(refused.stderr).unwrap();
    for part in [&address[..], "3 replicas", "2 datanodes are in service", "--force"] {
        assert!(errors.contains(part), "no {part} in {errors}");
    }
    admin(&cluster, &["decommission", "--force", &address]);
    admin(&cluster, &["recommission", &address]);
    assert_eq!(node(&cluster, 0).await.mode, NodeMode::InService);
    cluster.wait_until_healed("/").await;
    assert!(get(&client, "/file").await == bytes(1, 2 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_maintenance_is_away_without_its_blocks_being_copied_until_its_time_is_over() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    put(&client, "/file", 3, &bytes(1, 4 << 20)).await;
    put(&client, "/only", 1, &bytes(2, 4 << 20)).await;
    cluster.wait_until_healed("/").await;
    let address = cluster.datanodes[0].address.clone();
    admin(&cluster, &["maintenance", "--for", "10m", "--wait", "--wait-max", "80s", &address]);
    let before = blocks_on(&cluster, 0).await;
    cluster.datanodes[0].server.kill();
    cluster
        .until("it is dead", || async {
            (node(&cluster, 0).await.node.state == NodeState::Dead).then_some(())
        })
        .await;
    assert_eq!(blocks_on(&cluster, 0).await, before, "nothing was made elsewhere");
    assert!(get(&client, "/file").await == bytes(1, 4 << 20));
    assert!(get(&client, "/only").await == bytes(2, 4 << 20), "its only replicas were copied");
    let report = cluster.report().await.unwrap();
    assert_eq!((report.repairs_running, report.missing), (0, 0));

    // A new end, which passes while the node is still away.
    admin(&cluster, &["maintenance", "--for", "1s", &address]);
    cluster.wait_until_healed("/").await;
    assert_eq!(blocks_on(&cluster, 0).await, 0);
    assert_eq!(node(&cluster, 0).await.mode, NodeMode::InService);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_on_one_rack_are_spread_when_a_second_rack_joins() {
    let mut cluster = Cluster::start_in_racks(&["/r1", "/r1", "/r1"]).await;
    let client = cluster.client().await;
    put(&client, "/file", 3, &bytes(1, 6 << 20)).await;
    cluster.add_datanode("/r2");
    cluster.wait_until_live(4).await;
    cluster
        .until("every block is on two racks", || async {
            let files = cluster.fsck("/").await?;
            let is_spread = |block: &doldam_client::FsckBlock| {
                let racks: BTreeSet<_> = block.replicas.iter().map(|node| &node.rack).collect();
                racks.len() == 2
            };
            files.iter().all(|file| file.blocks.iter().all(is_spread)).then_some(())
        })
        .await;
    cluster.wait_until_healed("/").await;
    assert!(get(&client, "/file").await == bytes(1, 6 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_empty_node_is_filled_by_balancing_and_nothing_is_lost_on_the_way() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    for file in 0..8 {
        put(&client, &format!("/{file}"), 3, &bytes(file, 6 << 20)).await;
    }
    let index = cluster.add_datanode("/r1");
    cluster.wait_until_live(4).await;
    // All are on one disk, so shares are tiny: eight megabytes of it are the threshold.
    let full = cluster
        .until("what is stored is reported", || async {
            let full = node(&cluster, 0).await;
            (full.used >= 48 * MIB).then_some(full)
        })
        .await;
    let percent = (8 * MIB) as f64 * 100.0 / (full.used + full.available) as f64;
    let threshold = format!("{:.4}", percent.max(0.0001));
    let arguments = [
        "balance",
        "--threshold",
        &threshold,
        "--bandwidth",
        "1GiB",
        "--wait",
        "--wait-max",
        "80s",
    ];
    let printed = admin(&cluster, &arguments);
    assert!(printed.contains("every datanode is within the threshold"), "{printed}");
    cluster.wait_until_healed("/").await;
    let stored = stored_bytes(&cluster.datanodes[index].dir);
    assert!((20 * MIB..=48 * MIB).contains(&stored), "{stored} bytes: {printed}");
    for file in 0..8 {
        assert!(get(&client, &format!("/{file}")).await == bytes(file, 6 << 20));
    }
}
