//! Disks that fill up: of one datanode, of all of them, of the namenode. Refusals are typed, nothing that was
//! acknowledged is lost, and room that comes back is used.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, ErrorKind, WriteReport};
use doldam_integration_tests::cluster::content::{bytes, write_file};
use doldam_integration_tests::cluster::layout::Layout;
use doldam_integration_tests::cluster::midway::{Midway, put_options};
use doldam_integration_tests::cluster::mount::Disk;
use doldam_integration_tests::cluster::{Cluster, sandbox};
use doldam_integration_tests::oracle::Content;
use doldam_integration_tests::workload::read;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const BLOCK_BYTES: u64 = 1 << 20;
const DISK_BYTES: u64 = 48 << 20;
const FILE_BYTES: usize = 4 << 20;
const DIRECTORIES_MAX: usize = 400_000;

fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("doldam-test-disks-").tempdir().unwrap()
}

/// Disks of `DISK_BYTES`, and a cluster whose first datanodes are on them.
async fn cluster_on(disks: &[Disk], datanodes: usize) -> Cluster {
    let dirs: Vec<Vec<PathBuf>> = disks.iter().map(|disk| vec![disk.path().join("data")]).collect();
    Cluster::start_as(Layout::new(datanodes).datanode_dirs(dirs)).await
}

fn small_disks(parent: &TempDir, count: usize) -> Vec<Disk> {
    let disk = |index| Disk::in_memory(parent.path().join(format!("disk-{index}")), DISK_BYTES);
    (0..count).map(disk).collect()
}

/// A client that does not wait long for a cluster that has no room.
async fn hasty_client(cluster: &Cluster) -> Client {
    let config = ClientConfig {
        operation_timeout: Duration::from_secs(10),
        placement_timeout: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let builder = Client::builder().namenodes([cluster.address()]).config(config);
    builder.connect().await.unwrap()
}

async fn put(client: &Client, index: u64) -> Result<WriteReport, ClientError> {
    let create = client.create(path(index)).block_bytes(BLOCK_BYTES);
    let mut file = create.open().await?;
    // Its cause is kept, and told by `close`.
    let _ = file.write_all(&content(index)).await;
    file.close().await
}

fn path(index: u64) -> String {
    format!("/{index}")
}

fn content(index: u64) -> Vec<u8> {
    bytes(index, FILE_BYTES)
}

/// Each file of `kept` has its bytes, and no other number below `count` has a file.
async fn assert_kept(client: &Client, kept: &[u64], count: u64) {
    for index in 0..count {
        let is_kept = kept.contains(&index);
        let expected = if is_kept { Content::of(&content(index)) } else { Content::Absent };
        assert_eq!(read(client, &path(index)).await.unwrap(), expected, "{index}");
    }
}

#[test]
fn full_datanodes_refuse_with_a_reason_and_take_blocks_again_when_there_is_room() {
    sandbox::run(sandbox::DISKS, || async {
        let parent = temporary();
        let disks = small_disks(&parent, 3);
        let cluster = cluster_on(&disks, 3).await;
        let client = hasty_client(&cluster).await;
        let (mut kept, mut refusal) = (Vec::new(), None);
        let count = DISK_BYTES / FILE_BYTES as u64 + 1;
        for index in 0..count {
            match put(&client, index).await {
                Ok(_) => kept.push(index),
                Err(error) => refusal = Some(error),
            }
        }
        let refusal = refusal.expect("not all of it fits");
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        assert!(kept.len() >= 5, "much of it fits: {}", kept.len());
        assert_kept(&client, &kept, count).await;

        client.delete(path(kept[0]), false).await.unwrap();
        client.delete(path(kept[1]), false).await.unwrap();
        cluster.until("freed room is used", || async { put(&client, kept[0]).await.ok() }).await;
        kept.remove(1);
        cluster.wait_until_healed("/").await;
        assert_kept(&client, &kept, count).await;
    });
}

#[test]
fn a_disk_that_others_fill_in_the_middle_of_a_put_costs_nothing() {
    sandbox::run(sandbox::DISKS, || async {
        let parent = temporary();
        let disks = small_disks(&parent, 1);
        let mut cluster = cluster_on(&disks, 4).await;
        let client = cluster.client().await;
        put(&client, 0).await.unwrap();
        let source = cluster.folder().join("source");
        let digest = write_file(&source, 9, 32 << 20);
        let midway = Arc::new(Midway::default());
        let put_file =
            client.put_file(&source, "/file", put_options(BLOCK_BYTES, midway.progress(8 << 20)));
        let fill = async {
            midway.reached().await;
            disks[0].fill()
        };
        let (report, filling) = tokio::join!(put_file, fill);
        assert_eq!(report.unwrap().status.digest.unwrap().to_string(), digest);
        let healed = cluster.wait_until_healed("/").await;
        assert_eq!(healed.len(), 2);
        assert_kept(&client, &[0], 1).await;
        assert!(cluster.datanodes[0].server.ended().is_none(), "it serves what it has");

        drop(filling);
        for index in 1..4 {
            put(&client, index).await.unwrap();
        }
        cluster.wait_until_healed("/").await;
        assert_kept(&client, &[0, 1, 2, 3], 4).await;
    });
}

/// Makes directories until that is refused; returns those that were made, and why not more.
async fn make_directories(client: &Client) -> (Vec<String>, ClientError) {
    // Long names, to fill the disk soon.
    let path = |index: usize| format!("/{index:0>200}");
    let mut answers = futures::stream::iter(0..DIRECTORIES_MAX)
        .map(|index| async move { (path(index), client.mkdir(path(index), false).await) })
        .buffer_unordered(64);
    let (mut made, mut refused) = (Vec::new(), None);
    while let Some((path, answer)) = answers.next().await {
        match answer {
            Ok(_) => made.push(path),
            Err(error) => refused = Some(error),
        }
        if refused.is_some() {
            break;
        }
    }
    (made, refused.expect("the disk is full at some time"))
}

#[test]
fn a_namenode_whose_disk_is_full_loses_no_acknowledged_change() {
    sandbox::run(sandbox::DISKS, || async {
        let parent = temporary();
        let image = parent.path().join("image");
        let disk = Disk::ext4(parent.path().join("disk"), image, 192 << 20, "defaults");
        // Small, so that checkpoints and new segments come soon.
        let settings = "overlay_bytes = \"256KiB\"\ncheckpoint_interval = \"2s\"";
        let layout = Layout::new(2).settings(settings).namenode_dir(disk.path().join("namenode"));
        let mut cluster = Cluster::start_as(layout).await;
        let client = hasty_client(&cluster).await;
        let filling = disk.fill();
        let (made, refused) = make_directories(&client).await;
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        // It either goes on without changes, or has ended and says why.
        if let Some(code) = cluster.namenode.ended() {
            let log = cluster.namenode.log();
            assert!(code != 0 && log.contains("No space left"), "{code}");
        } else {
            cluster.namenode.kill();
        }
        drop(filling);
        cluster.namenode.restart();
        cluster.wait_until_live(2).await;
        let found = client.stat_many(&made).await.unwrap();
        assert!(found.iter().all(Option::is_some), "{} directories", made.len());
        client.mkdir("/more", false).await.unwrap();
        drop(cluster);
    });
}
