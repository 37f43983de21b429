//! Life in a cluster of real processes: joining, leaving, racks, healing, trimming, and the size of things.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use doldam_client::{Client, FsckFile, GetOptions, PutOptions, WriteOptions};
use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::{b3sum, bytes, write_file};
use doldam_integration_tests::cluster::disk_fault::stored_bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1 << 20;

async fn put(client: &Client, path: &str, replication: u32, content: &[u8]) -> u32 {
    let create = client.create(path).parents(true).replication(replication).block_bytes(MIB);
    let mut file = create.open().await.unwrap();
    file.write_all(content).await.unwrap();
    file.close().await.unwrap().under_replicated_blocks
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let reader = client.open(path).await.unwrap();
    reader.read_at(0, reader.status().length as usize + 1).await.unwrap().to_vec()
}

fn addresses(file: &FsckFile) -> Vec<BTreeSet<String>> {
    let of = |block: &doldam_client::FsckBlock| {
        block.replicas.iter().map(|node| node.address.clone()).collect()
    };
    file.blocks.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_equal_b3sum_whatever_the_size_and_the_blocks() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let (source, target) = (cluster.folder().join("source"), cluster.folder().join("target"));
    let sizes =
        [0, 1, 1024, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 5 * MIB + 4321, 48 * MIB];
    for (index, size) in sizes.into_iter().enumerate() {
        let path = format!("/sizes/{size}");
        let digest = write_file(&source, index as u64, size as usize);
        let create =
            WriteOptions { block_bytes: Some(MIB), parents: true, ..WriteOptions::default() };
        let options = PutOptions { create, ..PutOptions::default() };
        let report = client.put_file(&source, &path, options).await.unwrap();
        assert_eq!(report.status.digest.unwrap().to_string(), digest, "{size}");
        assert_eq!(report.under_replicated_blocks, 0);
        let options = GetOptions { overwrite: true, ..GetOptions::default() };
        client.get_file(&path, &target, options).await.unwrap();
        assert_eq!(b3sum(&target), digest, "{size}");
        let printed = cluster.doldam_ok(&["checksum", &path]);
        assert_eq!(printed, format!("{digest}  {path}\n"), "as b3sum prints it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_on_distinct_nodes_and_on_two_racks() {
    let cluster = Cluster::start_in_racks(&["/r1", "/r1", "/r2", "/r2"]).await;
    let client = cluster.client().await;
    put(&client, "/file", 3, &bytes(1, 12 << 20)).await;
    let file = cluster.wait_until_healed("/file").await.remove(0);
    assert_eq!(file.blocks.len(), 12);
    for block in &file.blocks {
        let nodes: BTreeSet<_> = block.replicas.iter().map(|node| node.id).collect();
        let racks: BTreeSet<_> = block.replicas.iter().map(|node| node.rack.as_str()).collect();
        assert_eq!((nodes.len(), racks.len()), (3, 2), "{block:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_too_few_nodes_succeeds_and_is_healed_when_nodes_join() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let content = bytes(2, 3 << 20);
    assert_eq!(put(&client, "/file", 3, &content).await, 3, "each of its blocks lacks replicas");
    assert_eq!(cluster.doldam(&["fsck", "/"]).status.code(), Some(1));
    cluster.add_datanode("/r1");
    cluster.add_datanode("/r2");
    let file = cluster.wait_until_healed("/file").await.remove(0);
    assert!(addresses(&file).iter().all(|holders| holders.len() == 3));
    assert!(cluster.doldam(&["fsck", "/"]).status.success());

    // Each new replica is good for itself: with the first node gone the file is whole.
    cluster.datanodes[0].server.kill();
    assert!(get(&client, "/file").await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_came_back_and_are_too_many_are_trimmed() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let content = bytes(3, 8 << 20);
    put(&client, "/file", 3, &content).await;
    cluster.wait_until_healed("/file").await;
    cluster.datanodes[0].server.kill();
    cluster.wait_until_live(3).await;
    cluster.wait_until_healed("/file").await;
    cluster.datanodes[0].server.restart();
    cluster.wait_until_live(4).await;
    cluster
        .until("surplus replicas are dropped from disk", || async {
            let stored: u64 = cluster.datanodes.iter().map(|node| stored_bytes(&node.dir)).sum();
            (stored == 3 * content.len() as u64).then_some(())
        })
        .await;
    cluster.wait_until_healed("/file").await;
    assert!(get(&client, "/file").await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_replication_is_followed_both_ways() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    put(&client, "/file", 1, &bytes(4, 2 << 20)).await;
    let held = || cluster.datanodes.iter().map(|node| stored_bytes(&node.dir)).sum::<u64>();
    for replication in [3_u32, 2] {
        client.set_replication("/file", replication).await.unwrap();
        let file = cluster.wait_until_healed("/file").await.remove(0);
        assert_eq!(file.replication, replication);
        cluster
            .until("the disks hold just that", || async {
                (held() == u64::from(replication) * (2 << 20)).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_replaced_files_free_the_disks() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let held = || cluster.datanodes.iter().map(|node| stored_bytes(&node.dir)).sum::<u64>();
    let freed_to = async |bytes: u64| {
        cluster.until("the disks are freed", || async { (held() == bytes).then_some(()) }).await;
    };
    for index in 0..20 {
        put(&client, &format!("/d/{index}"), 2, &bytes(index, 1 << 20)).await;
    }
    assert_eq!(held(), 40 * MIB);
    let mut file = client.create("/d/0").replication(2).overwrite(true).open().await.unwrap();
    file.write_all(b"short").await.unwrap();
    file.close().await.unwrap();
    freed_to(38 * MIB + 10).await;
    client.delete("/d", true).await.unwrap();
    freed_to(0).await;
    assert_eq!(client.list("/").count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_of_another_cluster_is_refused_and_keeps_its_data() {
    let mut first = Cluster::start(2).await;
    let second = Cluster::start(1).await;
    let client = first.client().await;
    let content = bytes(5, 300_000);
    put(&client, "/file", 2, &content).await;
    first.datanodes[1].server.kill();

    // The same folder, told to join the other cluster.
    let stray = std::process::Command::new(doldam_integration_tests::cluster::process::binary())
        .arg("datanode")
        .arg("--dir")
        .arg(&first.datanodes[1].dir)
        .args(["--listen", &first.datanodes[1].address, "--namenode", second.address()])
        .output()
        .unwrap();
    assert_eq!(stray.status.code(), Some(3), "{}", String::from_utf8_lossy(&stray.stderr));
    let errors = String::from_utf8_lossy(&stray.stderr);
    assert!(errors.contains("cluster"), "it says why: {errors}");
    assert_eq!(second.report().await.unwrap().datanodes.len(), 1);

    first.datanodes[1].server.restart();
    first.wait_until_live(2).await;
    first.datanodes[0].server.kill();
    assert!(get(&client, "/file").await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_server() {
    let cluster = Cluster::start(1).await;
    let command = |kind: &str, dir: &std::path::Path, more: &[&str]| {
        let binary = doldam_integration_tests::cluster::process::binary();
        let mut command = std::process::Command::new(binary);
        command.arg(kind).arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]).args(more);
        command.output().unwrap()
    };
    let namenode = command("namenode", &cluster.folder().join("namenode"), &[]);
    let datanode =
        command("datanode", &cluster.datanodes[0].dir, &["--namenode", cluster.address()]);
    for second in [namenode, datanode] {
        let errors = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success(), "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
    let client = cluster.client().await;
    put(&client, "/file", 1, b"still fine").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_twenty_thousand_entries_is_listed_whole_and_in_order() {
    const ENTRIES: usize = 20_000;
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    client.mkdir("/many", false).await.unwrap();
    let made = futures::stream::iter(0..ENTRIES)
        .map(|index| {
            let client = client.clone();
            async move { client.mkdir(format!("/many/{index:05}"), false).await.unwrap() }
        })
        .buffer_unordered(64)
        .filter(|created| std::future::ready(*created))
        .count()
        .await;
    assert_eq!(made, ENTRIES);
    for _before_and_after_a_restart in 0..2 {
        let names: Vec<String> =
            client.list("/many").map_ok(|entry| entry.path).try_collect().await.unwrap();
        let expected: Vec<String> = (0..ENTRIES).map(|index| format!("{index:05}")).collect();
        assert!(names == expected, "{} names", names.len());
        cluster.namenode.kill();
        cluster.namenode.restart();
        cluster.wait_until_live(1).await;
    }
    client.delete("/many", true).await.unwrap();
    assert!(client.try_stat("/many").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_datanodes_a_write_says_so_and_leaves_nothing() {
    let cluster = Cluster::start(0).await;
    let source = cluster.folder().join("source");
    write_file(&source, 6, 1000);
    let put = cluster.doldam(&["put", source.to_str().unwrap(), "/file"]);
    let errors = String::from_utf8_lossy(&put.stderr);
    assert_eq!(put.status.code(), Some(3), "{errors}");
    assert!(errors.contains("datanode"), "{errors}");
    let client = cluster.client().await;
    assert_eq!(client.list("/").count().await, 0);
}
