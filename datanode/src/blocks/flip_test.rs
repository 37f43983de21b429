//! One flipped bit anywhere in the files of a replica: it is found by whoever verifies the whole, and no reader ever
//! gets a wrong byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::RealDisk;
use doldam_runtime::disk::unreliable::flip_bit;

use super::StoreError;
use super::store::BlockStore;
use super::verify::Verification;
use crate::testing::cluster::{TestNode, key, read_verified};
use crate::testing::{bytes, open_store, store_block, tree_of};

/// Verifies as the scrubber does, but leaves the replica where it is.
fn verify(store: &Arc<BlockStore>) -> Result<(), StoreError> {
    let replica = store.find(key(1))?;
    let mut verification = Verification::begin(store.open_files(key(1), replica)?, None)?;
    while verification.step()? > 0 {}
    Ok(())
}

fn files(dir: &Path, length: usize) -> [PathBuf; 2] {
    ["data", "side"].map(|end| dir.join(format!("blocks/01/0000000000000001_1_{length}.{end}")))
}

/// Flips the chosen bits of both files, one after the other, and expects each to be noticed.
fn assert_found(length: usize, bits_of: impl Fn(u64, &Path) -> Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(Arc::new(RealDisk), &[dir.path()]);
    store_block(&store, key(1), &bytes(length), true);
    verify(&store).unwrap();
    for path in files(dir.path(), length) {
        for place in 0..std::fs::metadata(&path).unwrap().len() {
            for bit in bits_of(place, &path) {
                flip_bit(&path, place, bit).unwrap();
                let found = verify(&store);
                let is_found = matches!(found, Err(StoreError::Damaged { .. }));
                assert!(is_found, "{}: bit {bit} of byte {place}: {found:?}", path.display());
                flip_bit(&path, place, bit).unwrap();
            }
        }
    }
    verify(&store).unwrap();
}

#[test]
fn every_flipped_bit_of_a_small_block_and_its_sidecar_is_found() {
    assert_found(700, |_, _| (0..8).collect());
}

/// Two groups, so that there are inner nodes: every bit of the sidecar, one bit of each byte of the block.
#[test]
fn a_flipped_bit_in_every_byte_of_a_block_of_two_groups_is_found() {
    let is_side = |path: &Path| path.extension().is_some_and(|end| end == "side");
    assert_found(GROUP_BYTES as usize + 300, |place, path| {
        if is_side(path) { (0..8).collect() } else { vec![(place % 8) as u8] }
    });
}

#[tokio::test]
async fn no_flipped_bit_reaches_a_reader() {
    const LENGTH: usize = 300;
    let (node, content) = (TestNode::start(1).await, bytes(LENGTH));
    let digest = tree_of(0, &content).1;
    store_block(&node.store, key(1), &content, true);
    // A reader that finds a wrong byte leaves the rest where it is: each gets a connection of its own.
    let read = async || {
        let mut connection = node.connect().await;
        read_verified(&mut connection, key(1), &digest, 0, LENGTH as u64).await
    };
    let [data, side] = files(node.dir.path(), LENGTH);
    for place in 0..LENGTH as u64 {
        flip_bit(&data, place, (place % 8) as u8).unwrap();
        assert!(read().await.is_err(), "byte {place} of the block");
        flip_bit(&data, place, (place % 8) as u8).unwrap();
    }
    for place in 0..std::fs::metadata(&side).unwrap().len() {
        flip_bit(&side, place, (place % 8) as u8).unwrap();
        let found = read().await;
        assert!(found.is_err() || found.unwrap() == content, "byte {place} of the sidecar");
        // It may be in quarantine now.
        node.store.drop_replica(key(1)).unwrap();
        store_block(&node.store, key(1), &content, true);
    }
    assert_eq!(read().await.unwrap(), content);
}
