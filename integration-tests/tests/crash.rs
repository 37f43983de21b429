//! `kill -9` of servers in the middle of work: nothing acknowledged is lost, nothing happens twice.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_client::{Client, ClientConfig, GetOptions, PutOptions};
use doldam_integration_tests::cluster::content::{b3sum, bytes, write_file};
use doldam_integration_tests::cluster::disk_fault::files_below;
use doldam_integration_tests::cluster::midway::{self, Midway};
use doldam_integration_tests::cluster::{Cluster, is_whole, live};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 4 * MIB;
const FILE_BYTES: usize = 96 << 20;

fn put_options(progress: doldam_client::Progress) -> PutOptions {
    midway::put_options(BLOCK_BYTES, progress)
}

/// A small file with so many blocks that every node of a small cluster holds some of it.
async fn put_on_every_node(client: &Client, path: &str) {
    let mut file = client.create(path).block_bytes(65_536).open().await.unwrap();
    file.write_all(&bytes(0, 20 * 65_536)).await.unwrap();
    file.close().await.unwrap();
}

/// A datanode that is receiving a block right now, else the first.
fn a_busy_datanode(cluster: &Cluster) -> usize {
    let is_busy = |dir: &Path| !files_below(&dir.join("writing")).is_empty();
    cluster.datanodes.iter().position(|node| is_busy(&node.dir)).unwrap_or(0)
}

/// Gets `path` and compares it with what was put.
async fn assert_identical(cluster: &Cluster, client: &Client, path: &str, digest: &str) {
    let target = cluster.folder().join("got");
    let options = GetOptions { overwrite: true, ..GetOptions::default() };
    let report = client.get_file(path, &target, options).await.unwrap();
    assert_eq!(b3sum(&target), digest, "{path}");
    assert_eq!(report.status.digest.unwrap().to_string(), digest, "{path}");
    assert_eq!(report.verification.bytes_verified, report.status.length, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_killed_during_a_put_costs_nothing_but_a_repair() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let source = cluster.folder().join("source");
    let digest = write_file(&source, 1, FILE_BYTES);

    put_on_every_node(&client, "/before").await;

    let midway = Arc::new(Midway::default());
    let options = put_options(midway.progress(FILE_BYTES as u64 / 4));
    let put = client.put_file(&source, "/file", options);
    let kill = async {
        midway.reached().await;
        let victim = a_busy_datanode(&cluster);
        cluster.datanodes[victim].server.kill();
        cluster
            .until("fsck shows the debt", || async {
                cluster.doldam(&["fsck", "/before"]).status.code().filter(|code| *code == 1)
            })
            .await;
        victim
    };
    let (report, victim) = tokio::join!(put, kill);
    let report = report.unwrap();
    assert_eq!(report.status.length, FILE_BYTES as u64);
    assert_eq!(report.status.digest.unwrap().to_string(), digest);
    assert_identical(&cluster, &client, "/file", &digest).await;

    let files = cluster.wait_until_healed("/").await;
    let dead = &cluster.datanodes[victim].address;
    let holders = files.iter().flat_map(|file| &file.blocks).flat_map(|block| &block.replicas);
    assert!(holders.filter(|holder| holder.address == *dead).count() == 0, "the dead holds none");
    assert!(cluster.doldam(&["fsck", "/"]).status.success());
    assert_identical(&cluster, &client, "/file", &digest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_killed_during_a_get_is_not_noticed() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let (source, target) = (cluster.folder().join("source"), cluster.folder().join("target"));
    let digest = write_file(&source, 2, FILE_BYTES);
    let never = Arc::new(Midway::default());
    client.put_file(&source, "/file", put_options(never.progress(u64::MAX))).await.unwrap();

    let midway = Arc::new(Midway::default());
    let progress = Some(midway.progress(FILE_BYTES as u64 / 8));
    let options = GetOptions { progress, ..GetOptions::default() };
    let get = client.get_file("/file", &target, options);
    let kill = async {
        midway.reached().await;
        // Two of four: whatever is read next, some of it is on one of them.
        cluster.datanodes[0].server.kill();
        cluster.datanodes[1].server.kill();
    };
    let (report, ()) = tokio::join!(get, kill);
    let report = report.unwrap();
    assert_eq!(b3sum(&target), digest);
    assert_eq!(report.verification.bytes_verified, FILE_BYTES as u64);
    assert!(report.verification.bad_replicas.is_empty(), "a dead node is not a bad replica");
}

#[expect(clippy::field_reassign_with_default, reason = "the struct is non-exhaustive")]
/// A client that retries for `patience`: long enough to sit out a restart, or short enough to notice a death.
async fn client_with_patience(cluster: &Cluster, patience: Duration) -> Client {
    let mut config = ClientConfig::default();
    config.operation_timeout = patience;
    config.attempt_timeout = Duration::from_secs(3);
    Client::builder().namenodes([cluster.address()]).config(config).connect().await.unwrap()
}

/// Creates, renames and marks one file, each step exclusive: a step that were applied twice would be refused.
async fn create_one(client: &Client, index: usize, done: &AtomicU64) -> String {
    let (first, last) = (format!("/creates/{index}.new"), format!("/creates/{index}"));
    let mut file = client.create(&first).replication(2).block_bytes(65536).open().await.unwrap();
    if index.is_multiple_of(10) {
        file.write_all(&bytes(index as u64, 1000)).await.unwrap();
    }
    file.close().await.unwrap();
    client.rename(&first, &last, false).await.unwrap();
    assert!(client.mkdir(format!("/creates/{index}.dir"), false).await.unwrap());
    done.fetch_add(1, Ordering::Relaxed);
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namenode_killed_amid_a_thousand_creates_forgets_none_and_repeats_none() {
    const FILES: usize = 1000;
    let mut cluster = Cluster::start(2).await;
    let client = client_with_patience(&cluster, Duration::from_mins(1)).await;
    client.mkdir("/creates", false).await.unwrap();

    let done = AtomicU64::new(0);
    let creates = futures::stream::iter(0..FILES)
        .map(|index| create_one(&client, index, &done))
        .buffer_unordered(32)
        .collect::<BTreeSet<String>>();
    let kills = async {
        for at in [250, 500, 750] {
            while done.load(Ordering::Relaxed) < at {
                tokio::task::yield_now().await;
            }
            cluster.namenode.kill();
            cluster.namenode.restart();
        }
    };
    let (acknowledged, ()) = tokio::join!(creates, kills);
    assert_eq!(acknowledged.len(), FILES);

    let listed: Vec<_> = client.list("/creates").try_collect().await.unwrap();
    let expected = 2 * FILES;
    assert_eq!(listed.len(), expected, "each file and its directory once, and nothing else");
    for index in (0..FILES).step_by(10) {
        let reader = client.open(format!("/creates/{index}")).await.unwrap();
        assert_eq!(reader.read_at(0, 2000).await.unwrap(), bytes(index as u64, 1000));
    }
    assert_eq!(client.stat("/creates/1").await.unwrap().length, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_killed_at_once_come_back_with_every_acknowledged_file() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..3_u64 {
        let client = client_with_patience(&cluster, Duration::from_secs(5)).await;
        let done = AtomicU64::new(0);
        let puts = async {
            // Ends with the first error: by then the servers are dead.
            let mut kept = Vec::new();
            for index in 0.. {
                let seed = round * 1_000_000 + index;
                let path = format!("/round-{round}/{index}");
                if put_small(&client, &path, seed).await.is_err() {
                    return kept;
                }
                kept.push((path, seed));
                done.fetch_add(1, Ordering::Relaxed);
            }
            kept
        };
        let kill = async {
            while done.load(Ordering::Relaxed) < 25 {
                tokio::task::yield_now().await;
            }
            cluster.namenode.kill();
            for node in &mut cluster.datanodes {
                node.server.kill();
            }
        };
        let (kept, ()) = tokio::join!(puts, kill);
        assert!(kept.len() >= 25);
        acknowledged.extend(kept);

        cluster.namenode.restart();
        for node in &mut cluster.datanodes {
            node.server.restart();
        }
        cluster.wait_until_live(3).await;
    }
    let client = cluster.client().await;
    for (path, seed) in &acknowledged {
        let reader = client.open(path).await.unwrap();
        assert_eq!(reader.read_at(0, 300_000).await.unwrap(), small(*seed), "{path}");
    }
    let files = cluster.wait_until_healed("/").await;
    assert!(files.len() >= acknowledged.len() && files.iter().all(is_whole));
}

fn small(seed: u64) -> Vec<u8> {
    bytes(seed, 70_000 + (seed % 97) as usize * 1000)
}

async fn put_small(
    client: &Client,
    path: &str,
    seed: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut file = client.create(path).parents(true).block_bytes(131_072).open().await?;
    file.write_all(&small(seed)).await?;
    file.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_datanode_is_routed_around_and_welcome_back() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let source = cluster.folder().join("source");
    let digest = write_file(&source, 5, 16 << 20);
    let never = Arc::new(Midway::default());
    client.put_file(&source, "/before", put_options(never.progress(u64::MAX))).await.unwrap();

    cluster.datanodes[2].server.freeze();
    cluster.wait_until_live(3).await;
    let never = Arc::new(Midway::default());
    client.put_file(&source, "/during", put_options(never.progress(u64::MAX))).await.unwrap();
    assert_identical(&cluster, &client, "/before", &digest).await;
    assert_identical(&cluster, &client, "/during", &digest).await;
    cluster.wait_until_healed("/").await;

    cluster.datanodes[2].server.thaw();
    cluster.wait_until_live(4).await;
    cluster.wait_until_healed("/").await;
    let report = cluster.report().await.unwrap();
    assert_eq!((live(&report), report.missing, report.corrupt), (4, 0, 0));
    assert!(cluster.datanodes[2].server.stop(), "it stops cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_dies_leaves_nothing_visible_and_its_path_free() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut first = client.create("/file").overwrite(true).open().await.unwrap();
    first.write_all(b"old").await.unwrap();
    first.close().await.unwrap();

    let source = cluster.folder().join("source");
    write_file(&source, 6, 256 << 20);
    let mut command =
        std::process::Command::new(doldam_integration_tests::cluster::process::binary());
    command.args(["--namenode", cluster.address(), "put", "--overwrite"]).arg(&source).arg("/file");
    let mut put = command.spawn().unwrap();
    cluster
        .until("the put is writing", || async {
            let busy = |dir: &Path| !files_below(&dir.join("writing")).is_empty();
            cluster.datanodes.iter().any(|node| busy(&node.dir)).then_some(())
        })
        .await;
    put.kill().unwrap();
    put.wait().unwrap();

    let reader = client.open("/file").await.unwrap();
    assert_eq!(&reader.read_at(0, 10).await.unwrap()[..], b"old", "the old file is still there");
    let listed: Vec<_> = client.list("/").try_collect().await.unwrap();
    assert_eq!(listed.len(), 1, "and nothing else: {listed:?}");
}
