//! A datanode loses one of its two data folders while it runs: the other goes on, and what the lost one held is made
//! again elsewhere.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;

use doldam_client::Client;
use doldam_integration_tests::cluster::content::bytes;
use doldam_integration_tests::cluster::disk_fault::stored_bytes;
use doldam_integration_tests::cluster::layout::Layout;
use doldam_integration_tests::cluster::mount::Disk;
use doldam_integration_tests::cluster::{Cluster, sandbox};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const DATANODES: usize = 4;
const BLOCK_BYTES: u64 = 1 << 20;
const FILE_BYTES: usize = 24 << 20;

/// Where the first datanode has its two folders; the first of them is about to be lost.
fn layout(folders: [PathBuf; 2]) -> Layout {
    // A lost folder shows when it is looked at: by a reader, a writer, or the scrubber.
    let settings = "[datanode]\nscrub_interval = \"2s\"\nscrub_bytes_per_sec = \"1GB\"";
    Layout::new(DATANODES).settings(settings).datanode_dirs(vec![folders.to_vec()])
}

async fn put(client: &Client, path: &str, seed: u64) {
    let mut file = client
        .create(path)
        .replication(DATANODES as u32)
        .block_bytes(BLOCK_BYTES)
        .open()
        .await
        .unwrap();
    file.write_all(&bytes(seed, FILE_BYTES)).await.unwrap();
    file.close().await.unwrap();
}

async fn assert_identical(client: &Client, path: &str, seed: u64) {
    let reader = client.open(path).await.unwrap();
    assert!(reader.read_at(0, FILE_BYTES + 1).await.unwrap() == bytes(seed, FILE_BYTES), "{path}");
}

/// Stores a file, loses the folder by `lose`, and checks that nobody notices and everything is replaced.
async fn lose_a_folder(folders: [PathBuf; 2], lose: impl FnOnce()) -> Cluster {
    let (lost, kept) = (folders[0].clone(), folders[1].clone());
    let cluster = Cluster::start_as(layout(folders)).await;
    let client = cluster.client().await;
    put(&client, "/before", 1).await;
    cluster.wait_until_healed("/").await;
    assert!(stored_bytes(&lost) > 0 && stored_bytes(&kept) > 0, "both are used");

    lose();
    assert_identical(&client, "/before", 1).await;
    put(&client, "/after", 2).await;
    assert_identical(&client, "/after", 2).await;
    cluster
        .until("the folder is reported as failed", || async {
            let report = cluster.report().await?;
            report.datanodes.iter().any(|node| !node.failed_volumes.is_empty()).then_some(())
        })
        .await;
    // Every node has a replica of every block; this one has only one folder left for all of them.
    cluster
        .until("what was lost is in the other folder", || async {
            (stored_bytes(&kept) == 2 * FILE_BYTES as u64).then_some(())
        })
        .await;
    let files = cluster.wait_until_healed("/").await;
    assert_eq!(files.len(), 2);

    // What is counted as a replica is one: all other nodes may go now.
    let mut cluster = cluster;
    for node in &mut cluster.datanodes[1..] {
        node.server.kill();
    }
    for (path, seed) in [("/before", 1), ("/after", 2)] {
        assert_identical(&client, path, seed).await;
    }
    cluster
}

fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("doldam-test-disks-").tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_is_replaced_by_copies_elsewhere() {
    let parent = temporary();
    let folders = [parent.path().join("one"), parent.path().join("two")];
    let lost = folders[0].clone();
    lose_a_folder(folders, || fs::remove_dir_all(lost).unwrap()).await;
}

/// Two disks of the same size, so that both are used.
fn disks(parent: &TempDir) -> [Disk; 2] {
    ["one", "two"].map(|name| {
        let image = parent.path().join(format!("image-{name}"));
        Disk::ext4(parent.path().join(name), image, 256 << 20, "errors=remount-ro")
    })
}

fn data(disks: &[Disk; 2]) -> [PathBuf; 2] {
    [disks[0].path().join("data"), disks[1].path().join("data")]
}

async fn lose_a_disk(lose: impl FnOnce(&Disk)) {
    let parent = temporary();
    let disks = disks(&parent);
    let cluster = lose_a_folder(data(&disks), || lose(&disks[0])).await;
    drop(cluster);
}

#[test]
fn a_disk_that_returns_errors_is_replaced_by_copies_elsewhere() {
    sandbox::run(sandbox::DISKS, || lose_a_disk(Disk::cut_power));
}

#[test]
fn a_disk_that_is_pulled_out_is_replaced_by_copies_elsewhere() {
    sandbox::run(sandbox::DISKS, || lose_a_disk(Disk::pull_out));
}

/// As a file system does that found an error: reads go on, writes fail.
#[test]
fn a_disk_that_is_read_only_takes_nothing_and_serves_what_it_has() {
    sandbox::run(sandbox::DISKS, || async {
        let parent = temporary();
        let disks = disks(&parent);
        let cluster = Cluster::start_as(layout(data(&disks))).await;
        let client = cluster.client().await;
        put(&client, "/before", 1).await;
        cluster.wait_until_healed("/").await;
        disks[0].make_read_only();
        put(&client, "/after", 2).await;
        for (path, seed) in [("/before", 1), ("/after", 2)] {
            assert_identical(&client, path, seed).await;
        }
        let files = cluster.wait_until_healed("/").await;
        assert_eq!(files.len(), 2);
        drop(cluster);
    });
}
