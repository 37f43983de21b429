//! Looks at files of a data folder without a running datanode: for tools and for fuzzing. Reads
//! bytes, writes nothing.

use doldam_proto::digest::block::{stored_nodes, subtree_value};
use doldam_proto::digest::{ChainingValue, VALUE_BYTES};
use doldam_proto::id::{BlockId, ClusterId, Generation, NodeUuid};

use crate::blocks::layout::ReplicaName;
use crate::blocks::scrub_file::{decode_position, encode_position};
use crate::blocks::sidecar::{SIDECAR_HEADER_BYTES, SidecarError, SidecarHeader, sidecar_bytes};
use crate::blocks::version_file::{FolderIdentity, VersionFileError};

/// What a sidecar says of its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarFacts {
    /// The block.
    pub block: BlockId,
    /// Its generation.
    pub generation: Generation,
    /// In bytes, 1 to 1 GiB.
    pub length: u64,
    /// Where the block starts in its file.
    pub file_offset: u64,
    /// The block's value.
    pub value: ChainingValue,
}

/// A file is no sidecar, or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadSidecar {
    why: String,
}

/// Reads a whole sidecar and checks all that can be checked without the block: header, length, and
/// that the tree is one and leads to the block's value.
///
/// # Errors
/// If anything does not fit. Never panics, whatever the bytes are.
pub fn sidecar(bytes: &[u8]) -> Result<SidecarFacts, BadSidecar> {
    let bad = |why: &dyn std::fmt::Display| BadSidecar { why: why.to_string() };
    let Some((header, nodes)) = bytes.split_first_chunk::<SIDECAR_HEADER_BYTES>() else {
        return Err(bad(&format!("{} bytes, a header has {SIDECAR_HEADER_BYTES}", bytes.len())));
    };
    let header = SidecarHeader::decode(header).map_err(|cause| bad(&cause))?;
    let expected = sidecar_bytes(header.length);
    if bytes.len() as u64 != expected {
        return Err(bad(&format!("{} bytes where {expected} are needed", bytes.len())));
    }
    if *blake3::hash(nodes).as_bytes() != header.nodes_hash {
        return Err(bad(&SidecarError::DamagedNodes));
    }
    let nodes: Vec<ChainingValue> =
        nodes.chunks_exact(VALUE_BYTES).filter_map(ChainingValue::from_slice).collect();
    let groups: Vec<ChainingValue> = nodes.iter().copied().step_by(2).collect();
    if stored_nodes(&groups) != nodes || subtree_value(&groups) != Some(header.value) {
        return Err(bad(&"the tree does not lead to the block's value"));
    }
    Ok(SidecarFacts {
        block: header.key.block,
        generation: header.key.generation,
        length: header.length,
        file_offset: header.file_offset,
        value: header.value,
    })
}

/// Whose data folder a `VERSION` file says this is: the node, and its cluster once it has joined one.
///
/// # Errors
/// If it is no such file, of another version or damaged.
pub fn version_file(bytes: &[u8]) -> Result<(NodeUuid, Option<ClusterId>), VersionFileError> {
    FolderIdentity::decode(bytes).map(|identity| (identity.node, identity.cluster))
}

/// Whether a `SCRUB` file is one, and what it holds is the same when it is written again but for what has no meaning.
pub fn scrub_file(bytes: &[u8]) -> bool {
    let position = decode_position(bytes);
    position.is_some_and(|found| decode_position(&encode_position(&found)) == Some(found))
}

/// The block, generation and length that a file of a replica is named after; no length while it is being received.
/// `None` if it is not named like one.
pub fn replica_file(name: &str) -> Option<(BlockId, Generation, Option<u64>)> {
    let (name, _) = ReplicaName::parse(name)?;
    Some((name.key.block, name.key.generation, name.length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::sidecar::encode_sidecar;
    use crate::engine::replica::ReplicaKey;
    use crate::testing::{bytes, tree_of};

    #[test]
    fn a_sidecar_is_read_and_no_flipped_bit_passes() {
        let (tree, digest) = tree_of(1 << 20, &bytes(200_000));
        let file = encode_sidecar(ReplicaKey::new(7, 3), &tree, &digest);
        let facts = sidecar(&file).unwrap();
        assert_eq!((facts.block, facts.generation), (BlockId(7), Generation(3)));
        assert_eq!((facts.length, facts.file_offset), (200_000, 1 << 20));
        assert_eq!(facts.value, digest.chaining_value);
        for place in 0..file.len() {
            let mut flipped = file.clone();
            flipped[place] ^= 1 << (place % 8);
            assert!(sidecar(&flipped).is_err(), "byte {place}");
            assert!(sidecar(&file[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn a_tree_that_is_none_is_refused_even_under_a_right_hash() {
        let (tree, digest) = tree_of(0, &bytes(200_000));
        let mut file = encode_sidecar(ReplicaKey::new(7, 3), &tree, &digest);
        // An inner node, and both checksums made right again.
        file[SIDECAR_HEADER_BYTES + 32] ^= 1;
        let hash = blake3::hash(&file[SIDECAR_HEADER_BYTES..]);
        file[72..104].copy_from_slice(hash.as_bytes());
        let hash = blake3::hash(&file[..104]);
        file[104..128].copy_from_slice(&hash.as_bytes()[..24]);
        let refused = sidecar(&file).unwrap_err();
        assert!(refused.to_string().contains("does not lead"), "{refused}");
    }
}
