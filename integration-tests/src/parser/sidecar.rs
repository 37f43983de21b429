//! Sidecars of replicas, as a datanode or a tool finds them.

use doldam_proto::digest::BlockTree;
use doldam_proto::limits::{BLOCK_BYTES_MAX, GROUP_BYTES};

const HEADER_BYTES: usize = 128;
/// Bits of the first byte of an input: make the hash of the nodes, or the checksum of the header, right.
const MEND_NODES: u8 = 1;
const MEND_HEADER: u8 = 2;

/// A sidecar: what is accepted is as long as its block asks for, and of a block that may be.
///
/// Checksums keep random changes out of everything behind them, so the first byte of the input says which of them
/// are made right again.
pub fn sidecar(bytes: &[u8]) {
    let Some((mend, bytes)) = bytes.split_first() else { return };
    let mut file = bytes.to_vec();
    if file.len() >= HEADER_BYTES {
        if mend & MEND_NODES != 0 {
            let hash = blake3::hash(&file[HEADER_BYTES..]);
            file[72..104].copy_from_slice(hash.as_bytes());
        }
        if mend & MEND_HEADER != 0 {
            let hash = blake3::hash(&file[..104]);
            file[104..HEADER_BYTES].copy_from_slice(&hash.as_bytes()[..24]);
        }
    }
    if let Ok(facts) = doldam_datanode::inspect::sidecar(&file) {
        assert!((1..=BLOCK_BYTES_MAX).contains(&facts.length));
        let groups = facts.length.div_ceil(GROUP_BYTES) as usize;
        assert_eq!(file.len(), HEADER_BYTES + 32 * (2 * groups - 1));
        assert_eq!(file[40..72], facts.value.0);
        assert!(facts.file_offset.is_multiple_of(GROUP_BYTES));
    }
}

pub(super) fn sidecar_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for length in [1, 65_536, 65_537, 300_000] {
        let mut tree = BlockTree::new(1 << 20);
        for group in vec![7; length].chunks(GROUP_BYTES as usize) {
            tree.push_group(group);
        }
        let Some(digest) = tree.digest() else { continue };
        let mut file = b"DLDS\x01\0\0\0".to_vec();
        for number in [9, 1, length as u64, 1 << 20] {
            file.extend(u64::to_le_bytes(number));
        }
        file.extend(digest.chaining_value.0);
        file.resize(HEADER_BYTES, 0);
        file.extend(tree.nodes().into_iter().flat_map(|node| node.0));
        seeds.push([&[MEND_NODES | MEND_HEADER][..], &file].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_seed_is_accepted_and_one_with_a_wrong_node_is_not() {
        for seed in sidecar_seeds() {
            let mut file = seed[1..].to_vec();
            let hash = blake3::hash(&file[HEADER_BYTES..]);
            file[72..104].copy_from_slice(hash.as_bytes());
            let hash = blake3::hash(&file[..104]);
            file[104..HEADER_BYTES].copy_from_slice(&hash.as_bytes()[..24]);
            assert_eq!(doldam_datanode::inspect::sidecar(&file).unwrap().block.0, 9);
            let last = file.len() - 1;
            file[last] ^= 1;
            assert!(doldam_datanode::inspect::sidecar(&file).is_err());
        }
    }
}
