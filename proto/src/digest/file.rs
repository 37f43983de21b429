//! From blocks to the digest of the file, which is what `b3sum` prints.

use super::block::{BlockDigest, left_leaves, merge, merge_root, subtree_value};
use super::{ChainingValue, FileDigest};

/// Digest of the file whose blocks have these values, in order.
///
/// `first` is the digest of block 0, absent for an empty file; all blocks but the last must be full
/// and of a power-of-two size, which the namenode checks at commit. `None` if block 0 lacks its
/// root value.
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

/// The digest of a file taken block by block: [`file_digest`] without all values in memory at once.
///
/// Keeps one value for each full subtree (Merkle mountain range): two neighbours of equal size are
/// merged only when the next block shows that they are not the whole file, since the last merge is
/// the root's.
#[derive(Debug, Clone, Default)]
pub struct FileTree {
    root_of_first: Option<FileDigest>,
    subtrees: Vec<ChainingValue>,
    blocks: u64,
}

impl FileTree {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next block. All but the last must be full, of the same power-of-two size.
    pub fn push(&mut self, block: &BlockDigest) {
        if self.blocks == 0 {
            self.root_of_first = block.root_value;
        }
        while self.subtrees.len() > self.blocks.count_ones() as usize {
            self.merge_last_two();
        }
        self.subtrees.push(block.chaining_value);
        self.blocks += 1;
    }

    /// The digest of the file; `None` if block 0 lacks its root value and is the whole file.
    pub fn finish(mut self) -> Option<FileDigest> {
        match self.subtrees[..] {
            [] => Some(FileDigest::empty()),
            [_] => self.root_of_first,
            [_, _, ..] => {
                while self.subtrees.len() > 2 {
                    self.merge_last_two();
                }
                Some(merge_root(self.subtrees.first()?, self.subtrees.last()?))
            }
        }
    }

    fn merge_last_two(&mut self) {
        if let Some(right) = self.subtrees.pop()
            && let Some(left) = self.subtrees.pop()
        {
            self.subtrees.push(merge(&left, &right));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_by_block_gives_the_digest_of_all_blocks_at_once() {
        let value = |index: u8| ChainingValue([index; 32]);
        for count in 0..70 {
            let root_value = Some(FileDigest([255; 32]));
            let first = BlockDigest { chaining_value: value(0), root_value };
            let rest: Vec<ChainingValue> = (1..count).map(value).collect();
            let mut tree = FileTree::new();
            if count > 0 {
                tree.push(&first);
            }
            for chaining_value in &rest {
                tree.push(&BlockDigest { chaining_value: *chaining_value, root_value: None });
            }
            let expected = file_digest((count > 0).then_some(&first), &rest);
            assert_eq!(tree.finish(), expected, "{count} blocks");
        }
    }
}
