//! `VERSION`: whose data folder this is. 48 bytes, all numbers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `DLDV` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | flags: bit 0, the node has joined a cluster |
//! | 8 | 16 | uuid of the node |
//! | 24 | 16 | id of the cluster; zeros without bit 0 |
//! | 40 | 8 | checksum: the first bytes of the BLAKE3 hash of all before |

use doldam_proto::id::{ClusterId, NodeUuid};

/// Length of the file.
pub(crate) const VERSION_FILE_BYTES: usize = 48;
/// Version of the whole layout of a data folder.
pub(crate) const LAYOUT_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"DLDV";
const FLAG_JOINED: u16 = 1;
const CHECKED_BYTES: usize = 40;

/// Whose data folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderIdentity {
    /// The node, as it knows itself.
    pub(crate) node: NodeUuid,
    /// Its cluster, once it has joined one; it never joins another.
    pub(crate) cluster: Option<ClusterId>,
}

/// Why a `VERSION` file is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionFileError {
    /// Not one of ours.
    #[error("this is no VERSION file of a Doldam data folder")]
    NotOurs,
    /// Written by another release.
    #[error("the data folder has layout version {found}, this release reads {expected}")]
    OtherVersion {
        /// What this release reads.
        expected: u16,
        /// What the file says.
        found: u16,
    },
    /// Its bytes are not what was written.
    #[error("the VERSION file is damaged")]
    Damaged,
}

impl FolderIdentity {
    /// The bytes of the file.
    pub(crate) fn encode(&self) -> [u8; VERSION_FILE_BYTES] {
        let mut bytes = [0; VERSION_FILE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.node.0);
        if let Some(cluster) = self.cluster {
            bytes[6..8].copy_from_slice(&FLAG_JOINED.to_le_bytes());
            bytes[24..40].copy_from_slice(&cluster.0);
        }
        let checksum = checksum(&bytes);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it is anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VersionFileError> {
        if bytes.len() < 6 || bytes[..4] != MAGIC {
            return Err(VersionFileError::NotOurs);
        }
        let found = u16::from_le_bytes([bytes[4], bytes[5]]);
        // Before the checksum: another version may have another length.
        if found != LAYOUT_VERSION {
            return Err(VersionFileError::OtherVersion { expected: LAYOUT_VERSION, found });
        }
        if bytes.len() != VERSION_FILE_BYTES || checksum(bytes) != bytes[CHECKED_BYTES..] {
            return Err(VersionFileError::Damaged);
        }
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        let (Some(node), Some(cluster)) =
            (NodeUuid::from_slice(&bytes[8..24]), ClusterId::from_slice(&bytes[24..40]))
        else {
            return Err(VersionFileError::Damaged);
        };
        match flags {
            0 => Ok(Self { node, cluster: None }),
            FLAG_JOINED => Ok(Self { node, cluster: Some(cluster) }),
            _ => Err(VersionFileError::Damaged),
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(&bytes[..CHECKED_BYTES]);
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&hash.as_bytes()[..8]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: Option<ClusterId>) -> FolderIdentity {
        FolderIdentity { node: NodeUuid([7; 16]), cluster }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for cluster in [None, Some(ClusterId([9; 16])), Some(ClusterId([0; 16]))] {
            let identity = identity(cluster);
            assert_eq!(FolderIdentity::decode(&identity.encode()), Ok(identity));
        }
    }

    #[test]
    fn one_flipped_bit_at_any_place_is_refused() {
        let bytes = identity(Some(ClusterId([9; 16]))).encode();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[place] ^= 1 << bit;
                assert!(FolderIdentity::decode(&flipped).is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn another_version_is_refused_with_both_numbers() {
        let mut bytes = identity(None).encode();
        bytes[4] = 2;
        let other = VersionFileError::OtherVersion { expected: 1, found: 2 };
        assert_eq!(FolderIdentity::decode(&bytes), Err(other.clone()));
        assert_eq!(FolderIdentity::decode(&bytes[..10]), Err(other));
    }

    #[test]
    fn no_length_panics() {
        let bytes = identity(None).encode();
        for length in 0..bytes.len() {
            assert!(FolderIdentity::decode(&bytes[..length]).is_err());
        }
    }
}
