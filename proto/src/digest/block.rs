//! From groups to a block: the left-balanced merge, and the stored tree.

use blake3::hazmat::{Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::group::{GroupValue, group_value};
use super::{ChainingValue, FileDigest};
use crate::limits::{BLOCK_BYTES_MAX, GROUP_BYTES};

/// Most groups of one block: the most leaves of any tree in the protocol.
pub const GROUPS_MAX: usize = (BLOCK_BYTES_MAX / GROUP_BYTES) as usize;

/// What identifies the content of a block at its place in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDigest {
    /// The block's non-root value.
    pub chaining_value: ChainingValue,
    /// For block 0 of a file: the digest of the file if it ends with this block.
    pub root_value: Option<FileDigest>,
}

/// Merges two neighbouring subtrees that are not the whole file.
pub fn merge(left: &ChainingValue, right: &ChainingValue) -> ChainingValue {
    ChainingValue(merge_subtrees_non_root(&left.0, &right.0, Mode::Hash))
}

/// Merges the two halves of a whole file.
pub fn merge_root(left: &ChainingValue, right: &ChainingValue) -> FileDigest {
    FileDigest(*merge_subtrees_root(&left.0, &right.0, Mode::Hash).as_bytes())
}

/// How many of `leaves` (at least 2) go to the left: the largest power of two below it.
pub(crate) fn left_leaves(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// The tree of one block: the value of every group, in order.
///
/// A writer pushes each group as it is sent, a datanode as it is received; both end with the same value.
#[derive(Debug, Clone)]
pub struct BlockTree {
    file_offset: u64,
    groups: Vec<ChainingValue>,
    first_root: Option<FileDigest>,
    length: u64,
}

impl BlockTree {
    /// An empty block that starts at `file_offset`, a multiple of the group size.
    ///
    /// # Panics
    /// If it is not.
    pub fn new(file_offset: u64) -> Self {
        assert!(file_offset.is_multiple_of(GROUP_BYTES), "blocks start at a multiple of a group");
        Self { file_offset, groups: Vec::new(), first_root: None, length: 0 }
    }

    /// A block of which full groups are known by their values, to be gone on with. `first_root` is the root value of
    /// the group at offset 0 of the file, without which a file of just that group has no digest.
    ///
    /// # Panics
    /// If `file_offset` is not a multiple of the group size.
    pub fn from_full_groups(
        file_offset: u64,
        groups: Vec<ChainingValue>,
        first_root: Option<FileDigest>,
    ) -> Self {
        let length = groups.len() as u64 * GROUP_BYTES;
        Self { groups, first_root, length, ..Self::new(file_offset) }
    }

    /// Forgets all but the first `count` groups, which must be full.
    ///
    /// # Panics
    /// If there are fewer full groups.
    pub fn keep_groups(&mut self, count: usize) {
        let length = count as u64 * GROUP_BYTES;
        assert!(length <= self.length, "{count} full groups of {} bytes", self.length);
        self.groups.truncate(count);
        self.length = length;
    }

    /// Root value of the group at offset 0 of the file, if it is among the groups and known.
    pub fn first_root(&self) -> Option<FileDigest> {
        self.first_root.filter(|_| !self.groups.is_empty())
    }

    /// Hashes the next group and appends it; returns its value. Only the last may be short.
    ///
    /// # Panics
    /// If `bytes` is no group (empty, too long), or follows a short one.
    pub fn push_group(&mut self, bytes: &[u8]) -> ChainingValue {
        assert!(self.length.is_multiple_of(GROUP_BYTES), "only the last group may be short");
        let GroupValue { chaining_value, root_value } =
            group_value(self.file_offset + self.length, bytes);
        if self.length == 0 {
            self.first_root = root_value;
        }
        self.groups.push(chaining_value);
        self.length += bytes.len() as u64;
        chaining_value
    }

    /// Bytes pushed so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the block starts in its file.
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// The values of the groups so far.
    pub fn groups(&self) -> &[ChainingValue] {
        &self.groups
    }

    /// What identifies the bytes pushed so far; `None` for an empty block, which does not exist.
    pub fn digest(&self) -> Option<BlockDigest> {
        let chaining_value = subtree_value(&self.groups)?;
        let root_value = (self.file_offset == 0).then(|| match self.groups.len() {
            0 | 1 => self.first_root,
            leaves => {
                let (left, right) = self.groups.split_at(left_leaves(leaves));
                Some(merge_root(&subtree_value(left)?, &subtree_value(right)?))
            }
        });
        Some(BlockDigest { chaining_value, root_value: root_value.flatten() })
    }

    /// All nodes of the tree in order, as the sidecar stores them: see [`node_count`].
    pub fn nodes(&self) -> Vec<ChainingValue> {
        stored_nodes(&self.groups)
    }
}

/// Value of the left-balanced tree over `leaves`; `None` if there are none.
pub fn subtree_value(leaves: &[ChainingValue]) -> Option<ChainingValue> {
    match leaves {
        [] => None,
        [only] => Some(*only),
        _ => {
            let (left, right) = leaves.split_at(left_leaves(leaves.len()));
            Some(merge(&subtree_value(left)?, &subtree_value(right)?))
        }
    }
}

/// Number of nodes of a tree over `leaves` groups.
///
/// They are stored in order: leaf `i` at `2 * i`, and the node whose right half starts with leaf `m` at
/// `2 * m - 1`. So every node has a place of its own, found without pointers.
pub fn node_count(leaves: usize) -> usize {
    (2 * leaves).saturating_sub(1)
}

/// The tree over `leaves` in stored order.
pub fn stored_nodes(leaves: &[ChainingValue]) -> Vec<ChainingValue> {
    let mut nodes = vec![ChainingValue([0; 32]); node_count(leaves.len())];
    if !leaves.is_empty() {
        store_subtree(leaves, 0, &mut nodes);
    }
    nodes
}

/// Stores the tree over `leaves`, the first of which is leaf `start`; returns its value.
fn store_subtree(
    leaves: &[ChainingValue],
    start: usize,
    nodes: &mut [ChainingValue],
) -> ChainingValue {
    if let [only] = leaves {
        nodes[2 * start] = *only;
        return *only;
    }
    let (left, right) = leaves.split_at(left_leaves(leaves.len()));
    let middle = start + left.len();
    let value = merge(&store_subtree(left, start, nodes), &store_subtree(right, middle, nodes));
    nodes[2 * middle - 1] = value;
    value
}

/// Place of the node that covers the leaves `start..end` (not empty, a subtree of the left-balanced tree).
pub fn node_place(start: usize, end: usize) -> usize {
    if end - start == 1 { 2 * start } else { 2 * (start + left_leaves(end - start)) - 1 }
}
