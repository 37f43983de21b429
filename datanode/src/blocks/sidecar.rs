//! The sidecar: what a block is, and the tree over its groups. All numbers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `DLDS` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 8 | block id |
//! | 16 | 8 | generation |
//! | 24 | 8 | length of the block in bytes, 1 to 1 GiB |
//! | 32 | 8 | where the block starts in its file, a multiple of 64 KiB |
//! | 40 | 32 | the block's value |
//! | 72 | 32 | BLAKE3 hash of all nodes |
//! | 104 | 24 | checksum: the first bytes of the BLAKE3 hash of all before |
//! | 128 | 32 × (2 × groups − 1) | the nodes of the tree, in the order of [`node_count`] |
//!
//! The header comes first and is checked by itself, so that a small read looks at 128 bytes and a
//! few nodes; the nodes it needs prove themselves to the reader, who knows the block's value. The
//! hash of all nodes is for whoever reads them all: a damaged node is found even where no read
//! would need it. Inner nodes are kept so that a proof is a lookup.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use doldam_proto::digest::block::{BlockDigest, node_count};
use doldam_proto::digest::{BlockTree, ChainingValue, VALUE_BYTES};
use doldam_proto::limits::{BLOCK_BYTES_MAX, GROUP_BYTES};
use doldam_runtime::disk::{Disk, DiskFile, OpenMode};

use super::StoreError;
use crate::engine::replica::ReplicaKey;

/// Length of the header.
pub(crate) const SIDECAR_HEADER_BYTES: usize = 128;
/// Version of the format.
pub(crate) const SIDECAR_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"DLDS";
const CHECKED_BYTES: usize = 104;
/// Nodes closer than this are fetched by one read: as cheap as a second call, at most.
const GAP_NODES_MAX: usize = 128;

/// What the header of a sidecar says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SidecarHeader {
    /// Whose sidecar.
    pub(crate) key: ReplicaKey,
    /// Bytes of the block.
    pub(crate) length: u64,
    /// Where the block starts in its file.
    pub(crate) file_offset: u64,
    /// The block's value.
    pub(crate) value: ChainingValue,
    /// Hash of all nodes.
    pub(crate) nodes_hash: [u8; 32],
}

/// Why a sidecar is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SidecarError {
    /// Not one of ours.
    #[error("its sidecar is no sidecar")]
    NotOurs,
    /// Written by another release.
    #[error("its sidecar has version {found}, this release reads {SIDECAR_VERSION}")]
    OtherVersion {
        /// What the file says.
        found: u16,
    },
    /// Its bytes are not what was written.
    #[error("the header of its sidecar is damaged")]
    Damaged,
    /// It is another replica's.
    #[error("its sidecar is that of another replica")]
    OtherReplica,
    /// Nodes are not what was written.
    #[error("the tree in its sidecar is damaged")]
    DamagedNodes,
}

/// How many groups a block has.
pub(crate) fn groups_of(length: u64) -> usize {
    length.div_ceil(GROUP_BYTES) as usize
}

/// How long the sidecar of a block is.
pub(crate) fn sidecar_bytes(length: u64) -> u64 {
    (SIDECAR_HEADER_BYTES + VALUE_BYTES * node_count(groups_of(length))) as u64
}

/// The sidecar of a block, ready to be written.
pub(crate) fn encode_sidecar(key: ReplicaKey, tree: &BlockTree, digest: &BlockDigest) -> Vec<u8> {
    let nodes = tree.nodes();
    let mut bytes = vec![0; SIDECAR_HEADER_BYTES];
    bytes.reserve_exact(nodes.len() * VALUE_BYTES);
    for node in &nodes {
        bytes.extend_from_slice(&node.0);
    }
    let header = SidecarHeader {
        key,
        length: tree.length(),
        file_offset: tree.file_offset(),
        value: digest.chaining_value,
        nodes_hash: *blake3::hash(&bytes[SIDECAR_HEADER_BYTES..]).as_bytes(),
    };
    bytes[..SIDECAR_HEADER_BYTES].copy_from_slice(&header.encode());
    bytes
}

impl SidecarHeader {
    /// The bytes of the header.
    pub(crate) fn encode(&self) -> [u8; SIDECAR_HEADER_BYTES] {
        let mut bytes = [0; SIDECAR_HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&SIDECAR_VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.block.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.key.generation.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.file_offset.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.value.0);
        bytes[72..104].copy_from_slice(&self.nodes_hash);
        let hash = blake3::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&hash.as_bytes()[..24]);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is anything else.
    pub(crate) fn decode(bytes: &[u8; SIDECAR_HEADER_BYTES]) -> Result<Self, SidecarError> {
        if bytes[..4] != MAGIC {
            return Err(SidecarError::NotOurs);
        }
        let found = u16::from_le_bytes([bytes[4], bytes[5]]);
        if found != SIDECAR_VERSION {
            return Err(SidecarError::OtherVersion { found });
        }
        let hash = blake3::hash(&bytes[..CHECKED_BYTES]);
        if hash.as_bytes()[..24] != bytes[CHECKED_BYTES..] || bytes[6..8] != [0, 0] {
            return Err(SidecarError::Damaged);
        }
        let number = |offset: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[offset..offset + 8]);
            u64::from_le_bytes(number)
        };
        let value32 = |offset: usize| {
            let mut value = [0; 32];
            value.copy_from_slice(&bytes[offset..offset + 32]);
            value
        };
        let header = Self {
            key: ReplicaKey::new(number(8), number(16)),
            length: number(24),
            file_offset: number(32),
            value: ChainingValue(value32(40)),
            nodes_hash: value32(72),
        };
        let in_range = (1..=BLOCK_BYTES_MAX).contains(&header.length)
            && header.file_offset.is_multiple_of(GROUP_BYTES)
            && header.file_offset.checked_add(header.length).is_some();
        if in_range { Ok(header) } else { Err(SidecarError::Damaged) }
    }
}

/// The sidecar of a replica, open to be read.
pub(crate) struct Sidecar {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: SidecarHeader,
}

impl Sidecar {
    /// Opens the sidecar of the replica `key` of `length` bytes, and checks that it is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not, [`StoreError::Disk`] if it cannot be read.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        key: ReplicaKey,
        length: u64,
    ) -> Result<Self, StoreError> {
        let file =
            disk.open(path, OpenMode::Read).map_err(StoreError::disk(path, "opening a sidecar"))?;
        let mut bytes = [0; SIDECAR_HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(StoreError::disk(path, "reading a sidecar"))?;
        let header = SidecarHeader::decode(&bytes).and_then(|header| {
            let is_ours = header.key == key && header.length == length;
            if is_ours { Ok(header) } else { Err(SidecarError::OtherReplica) }
        });
        let header =
            header.map_err(|cause| StoreError::Damaged { key, what: cause.to_string() })?;
        Ok(Self { path: path.to_owned(), file, header })
    }

    /// What it says of the replica.
    pub(crate) fn header(&self) -> &SidecarHeader {
        &self.header
    }

    /// Appends the nodes at `places` (in any order) to `buffer`. They are not checked: whoever gets
    /// them does, against the block's value.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn read_nodes(
        &self,
        places: &[usize],
        buffer: &mut BytesMut,
    ) -> Result<(), StoreError> {
        let mut sorted = places.to_vec();
        sorted.sort_unstable();
        // Runs of places with small gaps, each fetched by one read.
        let mut runs: Vec<(usize, Vec<u8>)> = Vec::new();
        for run in sorted.chunk_by(|place, next| next - place <= GAP_NODES_MAX) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let mut nodes = vec![0; (last - first + 1) * VALUE_BYTES];
            self.read_at(&mut nodes, first)?;
            runs.push((first, nodes));
        }
        buffer.reserve(places.len() * VALUE_BYTES);
        for place in places {
            let run = runs.partition_point(|(first, _)| first <= place) - 1;
            let (first, nodes) = &runs[run];
            let start = (place - first) * VALUE_BYTES;
            buffer.extend_from_slice(&nodes[start..start + VALUE_BYTES]);
        }
        Ok(())
    }

    /// All nodes, checked against their hash.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if they are not what was written, [`StoreError::Disk`] if they
    /// cannot be read.
    pub(crate) fn read_all_nodes(&self) -> Result<Vec<u8>, StoreError> {
        let (found, expected) = (self.file.len(), sidecar_bytes(self.header.length));
        let found = found.map_err(StoreError::disk(&self.path, "reading a sidecar"))?;
        if found != expected {
            let what = format!("its sidecar has {found} bytes instead of {expected}");
            return Err(StoreError::Damaged { key: self.header.key, what });
        }
        let mut nodes = vec![0; node_count(groups_of(self.header.length)) * VALUE_BYTES];
        self.read_at(&mut nodes, 0)?;
        if *blake3::hash(&nodes).as_bytes() != self.header.nodes_hash {
            let what = SidecarError::DamagedNodes.to_string();
            return Err(StoreError::Damaged { key: self.header.key, what });
        }
        Ok(nodes)
    }

    fn read_at(&self, nodes: &mut [u8], first: usize) -> Result<(), StoreError> {
        let offset = (SIDECAR_HEADER_BYTES + first * VALUE_BYTES) as u64;
        let read = self.file.read_exact_at(nodes, offset);
        read.map_err(StoreError::disk(&self.path, "reading a sidecar"))
    }
}

#[cfg(test)]
#[path = "sidecar_test.rs"]
mod tests;
