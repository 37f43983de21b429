//! The sidecar is read back as it was written, and no flipped bit passes.

use doldam_proto::digest::proof::{proof_places, verify_proof};
use doldam_runtime::disk::RealDisk;

use super::*;

const KEY: ReplicaKey = ReplicaKey {
    block: doldam_proto::id::BlockId(77),
    generation: doldam_proto::id::Generation(2),
};

fn tree(length: usize) -> BlockTree {
    let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 253) as u8).collect();
    let mut tree = BlockTree::new(4 * GROUP_BYTES);
    bytes.chunks(GROUP_BYTES as usize).for_each(|group| {
        tree.push_group(group);
    });
    tree
}

fn written(length: usize) -> (BlockTree, Vec<u8>) {
    let tree = tree(length);
    let bytes = encode_sidecar(KEY, &tree, &tree.digest().unwrap());
    assert_eq!(bytes.len() as u64, sidecar_bytes(length as u64));
    (tree, bytes)
}

fn open(bytes: &[u8], length: u64) -> Result<Sidecar, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("side");
    std::fs::write(&path, bytes).unwrap();
    Sidecar::open(&RealDisk, &path, KEY, length)
}

#[test]
fn what_is_written_is_read_back_at_every_length_around_the_boundaries() {
    let group = GROUP_BYTES as usize;
    for length in [1, group - 1, group, group + 1, 2 * group, 5 * group + 3, 33 * group] {
        let (tree, bytes) = written(length);
        let sidecar = open(&bytes, length as u64).unwrap();
        assert_eq!(sidecar.header().value, tree.digest().unwrap().chaining_value);
        assert_eq!(sidecar.header().file_offset, tree.file_offset());
        let nodes: Vec<u8> = tree.nodes().iter().flat_map(|node| node.0).collect();
        assert_eq!(sidecar.read_all_nodes().unwrap(), nodes);
    }
}

#[test]
fn a_proof_is_a_lookup_for_every_range() {
    // More groups than one run of nodes covers, so that a proof takes several reads.
    let groups = 300;
    let (tree, bytes) = written(groups * GROUP_BYTES as usize - 1);
    let sidecar = open(&bytes, tree.length()).unwrap();
    let value = tree.digest().unwrap().chaining_value;
    for range in [0..1, 0..300, 7..8, 128..300, 299..300, 150..190] {
        let places = proof_places(groups, range.clone()).unwrap();
        let mut proof = BytesMut::new();
        sidecar.read_nodes(&places, &mut proof).unwrap();
        let found = verify_proof(&value, groups, range.clone(), &proof).unwrap();
        assert_eq!(found, tree.groups()[range]);
    }
}

#[test]
fn one_flipped_bit_at_any_place_is_found_by_who_reads_all() {
    let (_, bytes) = written(3 * GROUP_BYTES as usize);
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        let found = open(&flipped, 3 * GROUP_BYTES).and_then(|sidecar| sidecar.read_all_nodes());
        assert!(matches!(found, Err(StoreError::Damaged { .. })), "byte {place}: {found:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_not_a_panic() {
    let (_, bytes) = written(2 * GROUP_BYTES as usize);
    for length in 0..bytes.len() {
        let found =
            open(&bytes[..length], 2 * GROUP_BYTES).and_then(|sidecar| sidecar.read_all_nodes());
        assert!(found.is_err(), "{length} bytes");
    }
}

#[test]
fn the_sidecar_of_another_replica_is_refused() {
    let (_, bytes) = written(100);
    let refused = open(&bytes, 101).err().unwrap();
    assert!(refused.to_string().contains("another replica"), "{refused}");
}

#[test]
fn another_version_is_refused_by_its_number() {
    let (_, mut bytes) = written(100);
    bytes[4] = 9;
    let refused = open(&bytes, 100).err().unwrap();
    assert!(refused.to_string().contains("version 9"), "{refused}");
}

#[test]
fn a_header_that_lies_within_its_checksum_is_refused() {
    let (tree, _) = written(100);
    let value = tree.digest().unwrap().chaining_value;
    let good = SidecarHeader { key: KEY, length: 100, file_offset: 0, value, nodes_hash: [0; 32] };
    assert_eq!(SidecarHeader::decode(&good.encode()), Ok(good));
    for bad in [
        SidecarHeader { length: 0, ..good },
        SidecarHeader { length: BLOCK_BYTES_MAX + 1, ..good },
        SidecarHeader { file_offset: 1, ..good },
        SidecarHeader { file_offset: u64::MAX - GROUP_BYTES + 1, length: GROUP_BYTES, ..good },
    ] {
        assert_eq!(SidecarHeader::decode(&bad.encode()), Err(SidecarError::Damaged), "{bad:?}");
    }
}
