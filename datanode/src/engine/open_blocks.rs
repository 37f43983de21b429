//! Blocks that are no replicas yet: who writes them, who left them, and who may go on with them.
//!
//! A block that is being received is *open*. When its writer leaves, what is verified of it stays, open without a
//! writer, until a writer of a newer generation takes it over, or the namenode orders it dropped or made a replica.
//! While somebody has a block in hand under a generation, that is *claimed*: nobody else touches it then.
//!
//! The newest generation of a block that was ever seen here is a *fence*: who comes with an older one is refused. Most
//! of it follows from what is held; what does not is remembered for as many blocks as there is room for.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use doldam_proto::id::{BlockId, Generation};

use super::replica::ReplicaKey;

/// Blocks whose newest generation is remembered without anything of them being here.
const FENCES_MAX: usize = 100_000;

/// What somebody has a block in hand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed<S> {
    /// To write it; by the signal the writer is told to leave.
    Writer(S),
    /// To write a repair copy of it.
    Copy,
    /// To remove it, or to make something else of it.
    Taken,
}

/// Why a block may not be had under a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A newer one was seen.
    Newer(Generation),
    /// Somebody has it in hand.
    Claimed,
    /// It was written under this generation, and left.
    Left,
}

/// What there is of a block under one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Under which.
    pub(crate) generation: Generation,
    /// Verified bytes.
    pub(crate) length: u64,
    /// Whether it is open, rather than a replica.
    pub(crate) is_open: bool,
}

/// The blocks that are open or claimed. `F` is what the shell keeps of an open one, `S` how a writer is told to leave.
#[derive(Debug)]
pub(crate) struct OpenBlocks<F, S> {
    open: BTreeMap<ReplicaKey, F>,
    claims: BTreeMap<ReplicaKey, Claimed<S>>,
    fences: BTreeMap<BlockId, Generation>,
    /// Of the fences, in the order they came.
    fenced: VecDeque<BlockId>,
    /// Of what is here and could not be taken in.
    left_out: BTreeMap<BlockId, PathBuf>,
}

impl<F, S> Default for OpenBlocks<F, S> {
    fn default() -> Self {
        let (open, claims) = (BTreeMap::new(), BTreeMap::new());
        let (fences, left_out) = (BTreeMap::new(), BTreeMap::new());
        Self { open, claims, fences, fenced: VecDeque::new(), left_out }
    }
}

impl<F, S> OpenBlocks<F, S> {
    /// The newest generation of `key`'s block that was seen, if it is newer than `key`'s; `stored` is the newest of
    /// the replicas.
    pub(crate) fn newer_than(
        &self,
        key: ReplicaKey,
        stored: Option<Generation>,
    ) -> Option<Generation> {
        let last = |newest: Option<(&ReplicaKey, _)>| newest.map(|(key, ())| key.generation);
        let open = last(self.open.range(all_of(key.block)).next_back().map(|(key, _)| (key, ())));
        let claimed =
            last(self.claims.range(all_of(key.block)).next_back().map(|(key, _)| (key, ())));
        let fence = self.fences.get(&key.block).copied();
        let newest = stored.max(open).max(claimed).max(fence);
        newest.filter(|newest| *newest > key.generation)
    }

    /// The same for a repair copy, which the namenode ordered: only replicas and other copies stand against it, for
    /// what is open may come to nothing.
    pub(crate) fn newer_than_copy(
        &self,
        key: ReplicaKey,
        stored: Option<Generation>,
    ) -> Option<Generation> {
        let copies =
            self.claims.range(all_of(key.block)).filter_map(|(key, claimed)| match claimed {
                Claimed::Copy => Some(key.generation),
                Claimed::Writer(_) | Claimed::Taken => None,
            });
        stored.max(copies.max()).filter(|newest| *newest > key.generation)
    }

    /// Takes a block in hand under a generation, until [`release`](Self::release).
    ///
    /// # Errors
    /// If a newer one was seen, or somebody has this one in hand.
    pub(crate) fn claim(
        &mut self,
        key: ReplicaKey,
        claimed: Claimed<S>,
        stored: Option<Generation>,
    ) -> Result<(), Refusal> {
        let newer = match claimed {
            Claimed::Writer(_) | Claimed::Taken => self.newer_than(key, stored),
            Claimed::Copy => self.newer_than_copy(key, stored),
        };
        if let Some(newer) = newer {
            return Err(Refusal::Newer(newer));
        }
        self.take(key, claimed)
    }

    /// Takes a block in hand whatever its generation is.
    ///
    /// # Errors
    /// If somebody has it in hand.
    pub(crate) fn take(&mut self, key: ReplicaKey, claimed: Claimed<S>) -> Result<(), Refusal> {
        if self.claims.contains_key(&key) {
            return Err(Refusal::Claimed);
        }
        self.claims.insert(key, claimed);
        Ok(())
    }

    /// As [`claim`](Self::claim) for a writer that brings the block from its first byte on.
    ///
    /// # Errors
    /// As there, or if there is something of it under this very generation.
    pub(crate) fn claim_anew(
        &mut self,
        key: ReplicaKey,
        signal: S,
        stored: Option<Generation>,
    ) -> Result<(), Refusal> {
        if self.open.contains_key(&key) && !self.claims.contains_key(&key) {
            return Err(Refusal::Left);
        }
        self.claim(key, Claimed::Writer(signal), stored)
    }

    /// Gives a block back.
    pub(crate) fn release(&mut self, key: ReplicaKey) {
        self.claims.remove(&key);
    }

    /// Refuses generations of `key`'s block below `key`'s from now on.
    pub(crate) fn fence(&mut self, key: ReplicaKey) {
        let known = self.fences.get(&key.block).copied();
        if known.is_none() {
            if self.fenced.len() >= FENCES_MAX
                && let Some(oldest) = self.fenced.pop_front()
            {
                self.fences.remove(&oldest);
            }
            self.fenced.push_back(key.block);
        }
        self.fences.insert(key.block, known.unwrap_or_default().max(key.generation));
    }

    /// Signals of the writers of `key`'s block under older generations.
    pub(crate) fn writers_below(&self, key: ReplicaKey) -> impl Iterator<Item = &S> {
        self.claims.range(older_than(key)).filter_map(|(_, claimed)| match claimed {
            Claimed::Writer(signal) => Some(signal),
            Claimed::Copy | Claimed::Taken => None,
        })
    }

    /// Whether somebody has `key`'s block in hand under an older generation, other than for a repair copy.
    pub(crate) fn is_claimed_below(&self, key: ReplicaKey) -> bool {
        self.claims.range(older_than(key)).any(|(_, claimed)| match claimed {
            Claimed::Writer(_) | Claimed::Taken => true,
            Claimed::Copy => false,
        })
    }

    /// What a block is in hand for under this generation.
    pub(crate) fn claimed(&self, key: ReplicaKey) -> Option<&Claimed<S>> {
        self.claims.get(&key)
    }

    /// A block is open from now on.
    pub(crate) fn insert(&mut self, key: ReplicaKey, file: F) -> Option<F> {
        self.open.insert(key, file)
    }

    /// There is an open one that cannot be used: what it has is not known.
    pub(crate) fn leave_out(&mut self, block: BlockId, path: PathBuf) {
        self.left_out.insert(block, path);
    }

    /// What is here of a block and cannot be used, if anything.
    pub(crate) fn left_out(&self, block: BlockId) -> Option<&Path> {
        self.left_out.get(&block).map(PathBuf::as_path)
    }

    /// A block is open no more.
    pub(crate) fn remove(&mut self, key: ReplicaKey) -> Option<F> {
        self.open.remove(&key)
    }

    /// What is open under a generation.
    pub(crate) fn get(&self, key: ReplicaKey) -> Option<&F> {
        self.open.get(&key)
    }

    /// What is open of a block, the oldest first.
    pub(crate) fn of_block(&self, block: BlockId) -> impl Iterator<Item = (ReplicaKey, &F)> {
        self.open.range(all_of(block)).map(|(key, file)| (*key, file))
    }

    /// All that is open, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ReplicaKey, &F)> {
        self.open.iter().map(|(key, file)| (*key, file))
    }

    /// What is open and nobody has in hand, in order.
    pub(crate) fn without_writer(&self) -> impl Iterator<Item = (ReplicaKey, &F)> {
        self.iter().filter(|(key, _)| !self.claims.contains_key(key))
    }
}

fn all_of(block: BlockId) -> std::ops::RangeInclusive<ReplicaKey> {
    let key = |generation| ReplicaKey { block, generation: Generation(generation) };
    key(0)..=key(u64::MAX)
}

fn older_than(key: ReplicaKey) -> std::ops::Range<ReplicaKey> {
    ReplicaKey { generation: Generation(0), ..key }..key
}

/// Of what there is of a block, that from which its first `length` bytes may be gone on with under `generation`: the
/// newest first, and at one generation what is open first.
pub(crate) fn sources(mut held: Vec<Held>, generation: Generation, length: u64) -> Vec<Held> {
    held.retain(|it| it.generation <= generation && it.length >= length);
    held.sort_unstable_by_key(|it| std::cmp::Reverse((it.generation, it.is_open)));
    held
}

/// Whether the file of `source` may be written from `length` on. What else there is of the block may be the same file
/// under another name: of that no byte may change.
pub(crate) fn may_share_file(held: &[Held], source: Held, length: u64) -> bool {
    held.iter().all(|it| (*it == source && it.is_open) || (!it.is_open && it.length <= length))
}

/// Of what there is of a block, the one to read its first `length` bytes from: of the generation asked for if it can
/// be, else the newest; a replica before what is open.
pub(crate) fn to_read(held: &[Held], asked: Generation, length: u64) -> Option<Held> {
    let long_enough = held.iter().filter(|it| it.length >= length);
    long_enough.max_by_key(|it| (it.generation == asked, it.generation, !it.is_open)).copied()
}

/// Of what there is of a block, what may be told of when its writer is gone: the newest first, and at one generation
/// what is open first.
pub(crate) fn to_recover(held: Vec<Held>, below: Generation) -> Vec<Held> {
    sources(held, below, 1)
}

#[cfg(test)]
#[path = "open_blocks_test.rs"]
mod tests;
