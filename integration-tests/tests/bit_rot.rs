//! A flipped bit on a datanode's disk: never read, always found, replaced and gone.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;

use doldam_client::{BlockId, FsckBlock};
use doldam_integration_tests::cluster::content::bytes;
use doldam_integration_tests::cluster::disk_fault::{
    ReplicaFile, files_below, flip_bit, replica_file,
};
use doldam_integration_tests::cluster::{Cluster, is_whole};
use tokio::io::AsyncWriteExt;

const BLOCK_BYTES: u64 = 1 << 20;
const LENGTH: usize = 3 * (1 << 20) - 12_345;

async fn put(cluster: &Cluster, path: &str, seed: u64) {
    let client = cluster.client().await;
    let mut file = client.create(path).block_bytes(BLOCK_BYTES).open().await.unwrap();
    file.write_all(&bytes(seed, LENGTH)).await.unwrap();
    file.close().await.unwrap();
}

/// The blocks of one file with their holders, once all are there.
async fn blocks(cluster: &Cluster, path: &str) -> Vec<FsckBlock> {
    cluster.wait_until_healed(path).await.remove(0).blocks
}

/// Indexes of the datanodes that hold `block`.
fn holders(cluster: &Cluster, block: &FsckBlock) -> Vec<usize> {
    block.replicas.iter().map(|node| cluster.index_of(&node.address)).collect()
}

/// Reads the whole file until a read meets a bad replica; every read must return what was written.
async fn read_until_found(cluster: &Cluster, path: &str, seed: u64) {
    let (client, expected) = (cluster.client().await, bytes(seed, LENGTH));
    cluster
        .until("a reader meets the bad replica", || async {
            let reader = client.open(path).await.unwrap();
            assert!(reader.read_at(0, LENGTH).await.unwrap() == expected, "a read is always right");
            (!reader.verification().bad_replicas.is_empty()).then_some(())
        })
        .await;
}

/// Every file of any replica of `block`, anywhere below any datanode's folder, with what is in it.
fn stored(cluster: &Cluster, block: BlockId) -> Vec<(PathBuf, Vec<u8>)> {
    let is_of_block = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        u64::from_str_radix(stem.split('_').next().unwrap_or_default(), 16) == Ok(block.0)
    };
    let files = cluster.datanodes.iter().flat_map(|node| files_below(&node.dir));
    let files = files.filter(is_of_block);
    // One that is removed between listing and reading is gone, which is fine.
    files.filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}

/// Damages one replica of one block, reads until a reader meets it, and waits until all that is stored of the block
/// is three replicas, each equal to what was stored before the damage, and nothing else.
async fn damage_is_found_and_mended(which: ReplicaFile, offset_from_end: u64, seed: u64) {
    let cluster = Cluster::start(4).await;
    put(&cluster, "/file", seed).await;
    let block = blocks(&cluster, "/file").await.remove(1);
    let (data, sidecar): (Vec<_>, Vec<_>) = stored(&cluster, block.id)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .partition(|bytes| bytes.len() as u64 == BLOCK_BYTES);
    assert_eq!((data.len(), sidecar.len()), (3, 3));
    assert!(data.iter().all(|bytes| *bytes == data[0]), "replicas are equal byte for byte");
    assert!(sidecar.iter().all(|bytes| *bytes == sidecar[0]), "and so are their sidecars");

    let holder = holders(&cluster, &block)[0];
    let file = replica_file(&cluster.datanodes[holder].dir, block.id, which).unwrap();
    let length = fs::metadata(&file).unwrap().len();
    flip_bit(&file, length - offset_from_end);
    read_until_found(&cluster, "/file", seed).await;

    cluster
        .until("the bad replica is replaced and gone", || async {
            let files = cluster.fsck("/file").await?;
            let stored = stored(&cluster, block.id);
            let is_good = |bytes: &Vec<u8>| *bytes == data[0] || *bytes == sidecar[0];
            let all_good = stored.len() == 6 && stored.iter().all(|(_, bytes)| is_good(bytes));
            (all_good && files.iter().all(is_whole)).then_some(())
        })
        .await;
    let client = cluster.client().await;
    let reader = client.open("/file").await.unwrap();
    assert!(reader.read_at(0, LENGTH).await.unwrap() == bytes(seed, LENGTH));
    let report = cluster.report().await.unwrap();
    assert_eq!((report.corrupt, report.missing, report.under_replicated), (0, 0, 0));
    assert!(cluster.doldam(&["fsck", "/"]).status.success(), "and fsck is content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_block_is_never_read_and_mended() {
    damage_is_found_and_mended(ReplicaFile::Data, BLOCK_BYTES / 2 + 17, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_at_the_end_of_a_block_is_never_read_and_mended() {
    damage_is_found_and_mended(ReplicaFile::Data, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_sidecar_is_never_read_and_mended() {
    damage_is_found_and_mended(ReplicaFile::Sidecar, 200, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_copy_is_kept_though_it_is_bad_and_never_read() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let mut file = client.create("/only").replication(1).open().await.unwrap();
    file.write_all(&bytes(4, 100_000)).await.unwrap();
    file.close().await.unwrap();
    let block = blocks(&cluster, "/only").await.remove(0);
    let dir = &cluster.datanodes[0].dir;
    flip_bit(&replica_file(dir, block.id, ReplicaFile::Data).unwrap(), 70_000);

    let reader = client.open("/only").await.unwrap();
    let error = reader.read_at(69_000, 2000).await.unwrap_err();
    assert!(!error.is_not_found(), "it is there, but bad: {error}");
    cluster
        .until("fsck calls it missing: no good replica", || async {
            cluster.doldam(&["fsck", "/only"]).status.code().filter(|code| *code == 1)
        })
        .await;
    let kept = files_below(dir)
        .into_iter()
        .filter(|path| path.metadata().is_ok_and(|file| file.len() == 100_000));
    assert_eq!(kept.count(), 1, "a bad last copy is better than none: it is kept for people");
}
