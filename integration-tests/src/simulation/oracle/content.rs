//! Contents of files, made from a number: whoever reads them again can check every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Names a content that was written at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub u64);

/// What is known of a content.
#[derive(Debug, Clone)]
pub struct Facts {
    /// In bytes.
    pub length: u64,
    /// What `b3sum` prints.
    pub digest: blake3::Hash,
    /// Bytes of each block but the last.
    pub block_bytes: u64,
    /// Of the bytes of each block.
    pub blocks: Vec<blake3::Hash>,
    /// When the close of its file was acknowledged, if it was.
    pub acknowledged: Option<Duration>,
    /// Whether its writer asked for a promise that a power loss may break for a while.
    pub volatile: bool,
    /// A power loss came in that while: its blocks may be gone.
    pub may_be_lost: bool,
}

/// Every content there ever was.
#[derive(Debug, Default)]
pub struct Contents {
    facts: BTreeMap<ContentId, Facts>,
    by_digest: BTreeMap<[u8; 32], ContentId>,
    block_hashes: BTreeSet<[u8; 32]>,
}

/// The bytes of a content.
pub fn bytes_of(id: ContentId, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    blake3::Hasher::new().update(&id.0.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Contents {
    /// A new content; its bytes are [`bytes_of`] it.
    pub fn add(&mut self, length: u64, block_bytes: u64, volatile: bool) -> ContentId {
        let id = ContentId(self.facts.len() as u64 + 1);
        let bytes = bytes_of(id, length);
        let digest = blake3::hash(&bytes);
        if let Some(same) = self.by_digest.get(digest.as_bytes()) {
            return *same; // Of no bytes there is only one.
        }
        let blocks: Vec<_> = bytes.chunks(block_bytes as usize).map(blake3::hash).collect();
        self.block_hashes.extend(blocks.iter().map(|hash| *hash.as_bytes()));
        let (acknowledged, may_be_lost) = (None, false);
        let facts =
            Facts { length, digest, block_bytes, blocks, acknowledged, volatile, may_be_lost };
        self.facts.insert(id, facts);
        self.by_digest.insert(*digest.as_bytes(), id);
        id
    }

    /// What is known of `id`.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, id: ContentId) -> &Facts {
        &self.facts[&id]
    }

    /// The close of its file was acknowledged.
    pub fn acknowledge(&mut self, id: ContentId, now: Duration) {
        if let Some(facts) = self.facts.get_mut(&id) {
            facts.acknowledged = Some(now);
        }
    }

    /// Some nodes lost power: what was promised for later than `window` after its acknowledgement may be lost.
    pub fn power_lost(&mut self, now: Duration, window: Duration) {
        for facts in self.facts.values_mut().filter(|facts| facts.volatile) {
            facts.may_be_lost |= facts.acknowledged.is_none_or(|at| now < at + window);
        }
    }

    /// The bytes of a file were written, block by block.
    pub fn knows(&mut self, bytes: &[u8], block_bytes: u64) {
        let blocks = bytes.chunks(block_bytes as usize).map(blake3::hash);
        self.block_hashes.extend(blocks.map(|hash| *hash.as_bytes()));
    }

    /// Whether a block was written with this hash.
    pub fn is_block(&self, hash: &blake3::Hash) -> bool {
        self.block_hashes.contains(hash.as_bytes())
    }

    /// The content with this digest.
    pub fn find(&self, digest: &[u8; 32]) -> Option<ContentId> {
        self.by_digest.get(digest).copied()
    }
}
