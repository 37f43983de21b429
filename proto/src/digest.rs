//! One BLAKE3 tree from the sector to `b3sum`.
//!
//! BLAKE3 is a Merkle tree over chunks of 1 KiB (BLAKE3 paper, sections 2.1 and 2.7), so the value of any
//! aligned subtree can be kept and merged later. A block is cut in groups of 64 KiB; a group's
//! [`ChainingValue`] is taken at its offset in the *file*; groups merge to the value of the block, blocks to
//! the [`FileDigest`], which is what the public `b3sum` prints.
//!
//! * [`group`]: from bytes to the value of a group.
//! * [`block`]: from groups to a block, its stored tree, and the merge of any left-balanced tree.
//! * [`file`](mod@file): from blocks to the digest of the file.
//! * [`proof`]: the values that tie a range of groups to the value of their block.

pub mod block;
pub mod file;
pub mod group;
pub mod proof;

#[cfg(test)]
mod digest_test;
#[cfg(test)]
mod proof_test;

use std::fmt;

pub use block::{BlockDigest, BlockTree};
pub use group::GroupValue;

/// Bytes of a chaining value and of a digest.
pub const VALUE_BYTES: usize = 32;

/// Value of a subtree that is not the root of its tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainingValue(pub [u8; VALUE_BYTES]);

/// Digest of a whole file, as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileDigest(pub [u8; VALUE_BYTES]);

impl ChainingValue {
    /// Reads a value from `bytes`; `None` unless there are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The value as a message field.
    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl FileDigest {
    /// Digest of the empty file.
    pub fn empty() -> Self {
        Self(*blake3::hash(b"").as_bytes())
    }

    /// Reads a digest from `bytes`; `None` unless there are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads the 64 hexadecimal digits that `b3sum` prints.
    pub fn from_hex(text: &str) -> Option<Self> {
        bytes_from_hex(text).map(Self)
    }

    /// The digest as a message field.
    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

/// Reads exactly `2 * N` hexadecimal digits.
pub fn bytes_from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |index: usize| char::from(digits[index]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

impl fmt::Display for FileDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FileDigest({self})")
    }
}

impl fmt::Display for ChainingValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for ChainingValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChainingValue({self})")
    }
}
