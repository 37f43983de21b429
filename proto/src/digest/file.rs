//! From blocks to the digest of the file, which is what `b3sum` prints.

use super::block::{BlockDigest, left_leaves, merge_root, subtree_value};
use super::{ChainingValue, FileDigest};

/// Digest of the file whose blocks have these values, in order.
///
/// `first` is the digest of block 0, absent for an empty file; all blocks but the last must be full and of
/// a power-of-two size, which the namenode checks at commit. `None` if block 0 lacks its root value.
pub fn file_digest(first: Option<&BlockDigest>, rest: &[ChainingValue]) -> Option<FileDigest> {
    let Some(first) = first else { return Some(FileDigest::empty()) };
    if rest.is_empty() {
        return first.root_value;
    }
    let mut blocks = Vec::with_capacity(rest.len() + 1);
    blocks.push(first.chaining_value);
    blocks.extend_from_slice(rest);
    let (left, right) = blocks.split_at(left_leaves(blocks.len()));
    Some(merge_root(&subtree_value(left)?, &subtree_value(right)?))
}
