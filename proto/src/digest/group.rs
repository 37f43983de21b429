//! From bytes to the value of a group, the unit of verification.

use blake3::hazmat::HasherExt;

use super::{ChainingValue, FileDigest};
use crate::limits::GROUP_BYTES;

/// Value of a group. The first group of a file has a second one, for a file that ends with it:
/// only the root flag differs, and a non-root value cannot be turned into a root value later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupValue {
    /// What the tree is built from.
    pub chaining_value: ChainingValue,
    /// For the group at offset 0 of the file: its digest if the file is no longer than this group.
    pub root_value: Option<FileDigest>,
}

/// Hashes one group that starts at `file_offset`.
///
/// # Panics
/// If `bytes` is empty or longer than a group, or `file_offset` is no multiple of the group size:
/// callers check what comes from a peer first.
pub fn group_value(file_offset: u64, bytes: &[u8]) -> GroupValue {
    assert!(file_offset.is_multiple_of(GROUP_BYTES), "a group starts at a multiple of its size");
    assert!(!bytes.is_empty() && bytes.len() as u64 <= GROUP_BYTES, "a group has 1..=64 KiB");
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(file_offset).update(bytes);
    GroupValue {
        chaining_value: ChainingValue(hasher.finalize_non_root()),
        root_value: (file_offset == 0).then(|| FileDigest(*hasher.finalize().as_bytes())),
    }
}

/// The chaining value alone, for whoever verifies.
///
/// # Panics
/// As [`group_value`].
pub fn group_chaining_value(file_offset: u64, bytes: &[u8]) -> ChainingValue {
    assert!(file_offset.is_multiple_of(GROUP_BYTES), "a group starts at a multiple of its size");
    assert!(!bytes.is_empty() && bytes.len() as u64 <= GROUP_BYTES, "a group has 1..=64 KiB");
    let mut hasher = blake3::Hasher::new();
    ChainingValue(hasher.set_input_offset(file_offset).update(bytes).finalize_non_root())
}
