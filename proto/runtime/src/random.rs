//! Chance: the only door to randomness, so that a simulator can replay it from a seed.

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Source of random bytes. Ids of clusters, nodes and clients come from here and must not collide.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number between 0 and `u64::MAX`, each as likely as any other.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Sixteen bytes: an id that nobody else has.
    fn next_id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// A number below `bound`, which must not be 0; as good as uniform (off by less than `bound` / 2^64).
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// The system's randomness, through a generator per thread fit for cryptography.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// The same sequence for the same seed.
#[derive(Debug)]
pub struct SeededRandom {
    generator: Mutex<ChaCha12Rng>,
}

impl SeededRandom {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { generator: Mutex::new(ChaCha12Rng::seed_from_u64(seed)) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_names_one_sequence() {
        let take = |seed| {
            let random = SeededRandom::new(seed);
            (0..4).map(|_| random.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn below_reaches_every_value_and_none_beyond() {
        let random = SeededRandom::new(1);
        let seen: BTreeSet<u64> = (0..200).map(|_| random.below(5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn ids_of_the_system_differ() {
        assert_ne!(SystemRandom.next_id(), SystemRandom.next_id());
    }
}
