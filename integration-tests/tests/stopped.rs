//! A server that stops doing anything, without dying (`kill -STOP`), in the middle of a transfer: nobody waits for a
//! datanode for ever, and when it goes on, late, it does no harm.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, GetOptions};
use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::{b3sum, write_file};
use doldam_integration_tests::cluster::disk_fault::files_below;
use doldam_integration_tests::cluster::layout::{Layout, SHORT_LEASES};
use doldam_integration_tests::cluster::midway::{Midway, put_options};
use doldam_integration_tests::workload::verdict::wait_until_nothing_is_surplus;

const BLOCK_BYTES: u64 = 4 << 20;
const FILE_BYTES: u64 = 64 << 20;

async fn cluster(datanodes: usize) -> Cluster {
    Cluster::start_as(Layout::new(datanodes).settings(SHORT_LEASES)).await
}

/// A datanode that is receiving a block right now.
async fn a_busy_datanode(cluster: &Cluster) -> usize {
    let is_busy = |dir: &Path| !files_below(&dir.join("writing")).is_empty();
    cluster
        .until("a datanode is writing", || async {
            cluster.datanodes.iter().position(|node| is_busy(&node.dir))
        })
        .await
}

async fn assert_identical(cluster: &Cluster, client: &Client, path: &str, digest: &str) {
    let target = cluster.folder().join("got");
    let options = GetOptions { overwrite: true, ..GetOptions::default() };
    let report = client.get_file(path, &target, options).await.unwrap();
    assert_eq!(b3sum(&target), digest, "{path}");
    assert_eq!(report.status.digest.unwrap().to_string(), digest, "{path}");
}

/// Puts a file, with `disturb` done in the middle, and holds the answer to what was put. Says what `disturb` did, and
/// the digest.
async fn put_while<T>(
    cluster: &Cluster,
    client: &Client,
    seed: u64,
    disturb: impl AsyncFnOnce() -> T,
) -> (T, String) {
    let source = cluster.folder().join("source");
    let digest = write_file(&source, seed, FILE_BYTES as usize);
    let midway = Arc::new(Midway::default());
    let options = put_options(BLOCK_BYTES, midway.progress(FILE_BYTES / 4));
    let disturbing = async {
        midway.reached().await;
        disturb().await
    };
    let (report, disturbed) = tokio::join!(client.put_file(&source, "/file", options), disturbing);
    assert_eq!(report.unwrap().status.digest.unwrap().to_string(), digest);
    (disturbed, digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_stopped_in_the_middle_of_a_put_is_left_behind_and_harmless_when_it_wakes() {
    let cluster = cluster(4).await;
    let client = cluster.client().await;
    let stop = async || {
        let victim = a_busy_datanode(&cluster).await;
        cluster.datanodes[victim].server.freeze();
        victim
    };
    let (victim, digest) = put_while(&cluster, &client, 1, stop).await;
    assert_identical(&cluster, &client, "/file", &digest).await;
    cluster.wait_until_healed("/").await;

    // It goes on in the middle of what it was doing: an old writer's block, minutes late as it thinks.
    cluster.datanodes[victim].server.thaw();
    cluster.wait_until_live(4).await;
    cluster.wait_until_healed("/").await;
    wait_until_nothing_is_surplus(&cluster).await;
    assert_identical(&cluster, &client, "/file", &digest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_that_only_pauses_in_a_put_loses_and_spoils_nothing() {
    let cluster = cluster(3).await;
    let client = cluster.client().await;
    let pause = async || {
        for victim in 0..3 {
            cluster.datanodes[victim].server.freeze();
            // Long enough to be noticed: it is the namenode that says so.
            cluster.wait_until_live(2).await;
            cluster.datanodes[victim].server.thaw();
            cluster.wait_until_live(3).await;
        }
    };
    let ((), digest) = put_while(&cluster, &client, 2, pause).await;
    cluster.wait_until_healed("/").await;
    assert_identical(&cluster, &client, "/file", &digest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datanodes_stopped_in_the_middle_of_a_get_are_read_around() {
    let cluster = cluster(4).await;
    let client = cluster.client().await;
    let (source, target) = (cluster.folder().join("source"), cluster.folder().join("target"));
    let digest = write_file(&source, 3, FILE_BYTES as usize);
    let never = Arc::new(Midway::default());
    let options = put_options(BLOCK_BYTES, never.progress(u64::MAX));
    client.put_file(&source, "/file", options).await.unwrap();

    let midway = Arc::new(Midway::default());
    let progress = Some(midway.progress(FILE_BYTES / 8));
    let get = client.get_file("/file", &target, GetOptions { progress, ..GetOptions::default() });
    let stop = async {
        midway.reached().await;
        // Two of four: whatever is read next, some of it is on one of them.
        cluster.datanodes[0].server.freeze();
        cluster.datanodes[1].server.freeze();
    };
    let (report, ()) = tokio::join!(get, stop);
    let report = report.unwrap();
    assert_eq!(b3sum(&target), digest);
    assert!(report.verification.bad_replicas.is_empty(), "one that sleeps is no bad replica");
    for victim in 0..2 {
        cluster.datanodes[victim].server.thaw();
    }
    cluster.wait_until_live(4).await;
    cluster.wait_until_healed("/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namenode_that_pauses_delays_a_put_and_spoils_nothing() {
    let cluster = cluster(3).await;
    let client = cluster.client().await;
    let operation_timeout = Duration::from_secs(3);
    let config = ClientConfig { operation_timeout, ..ClientConfig::default() };
    let hasty = Client::builder().namenodes([cluster.address()]).config(config);
    let hasty = hasty.connect().await.unwrap();
    let pause = async || {
        cluster.namenode.freeze();
        // Longer than datanodes may be silent: when it wakes it must not take all of them for gone.
        let refused = hasty.stat("/file").await.unwrap_err();
        assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused}");
        cluster.namenode.thaw();
    };
    let ((), digest) = put_while(&cluster, &client, 4, pause).await;
    cluster.wait_until_live(3).await;
    cluster.wait_until_healed("/").await;
    assert_identical(&cluster, &client, "/file", &digest).await;
}
