//! All replicas of the node, in memory, with the fingerprints that are reported to the namenode.
//!
//! About 60 bytes a replica. Quarantined replicas stay in here until the namenode has ordered them
//! dropped, but no fingerprint or list has them: those are what the node vouches for. That they are
//! bad is told as news, and again whenever the node registers.

use std::collections::BTreeMap;
use std::ops::Bound;

use doldam_proto::fingerprint::{Fingerprint, ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::limits::REPORT_BUCKETS;

use super::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};

/// The replicas of a node.
#[derive(Debug)]
pub(crate) struct Inventory {
    replicas: BTreeMap<ReplicaKey, Replica>,
    buckets: Vec<Fingerprint>,
    root: Fingerprint,
    stored_bytes: BTreeMap<VolumeIndex, u64>,
    quarantined: u64,
}

impl Inventory {
    /// Of a node that holds nothing.
    pub(crate) fn new() -> Self {
        Self {
            replicas: BTreeMap::new(),
            buckets: vec![Fingerprint::default(); REPORT_BUCKETS as usize],
            root: Fingerprint::default(),
            stored_bytes: BTreeMap::new(),
            quarantined: 0,
        }
    }

    /// Takes a replica in; returns the one it replaces.
    pub(crate) fn insert(&mut self, key: ReplicaKey, replica: Replica) -> Option<Replica> {
        let replaced = self.remove(key);
        self.vouch(key, &replica);
        *self.stored_bytes.entry(replica.volume).or_default() += replica.length;
        self.quarantined += u64::from(!replica.is_good());
        self.replicas.insert(key, replica);
        replaced
    }

    /// Takes a replica out, if it is there.
    pub(crate) fn remove(&mut self, key: ReplicaKey) -> Option<Replica> {
        let replica = self.replicas.remove(&key)?;
        self.take_back(key, &replica);
        if let Some(bytes) = self.stored_bytes.get_mut(&replica.volume) {
            *bytes -= replica.length;
        }
        self.quarantined -= u64::from(!replica.is_good());
        Some(replica)
    }

    /// Changes what may be done with a replica; `false` if it is not there.
    pub(crate) fn set_state(&mut self, key: ReplicaKey, state: ReplicaState) -> bool {
        let Some(before) = self.get(key) else { return false };
        let after = Replica { state, ..before };
        self.take_back(key, &before);
        self.vouch(key, &after);
        self.quarantined -= u64::from(!before.is_good());
        self.quarantined += u64::from(!after.is_good());
        self.replicas.insert(key, after);
        true
    }

    /// Takes a replica into the fingerprints, if it is good.
    fn vouch(&mut self, key: ReplicaKey, replica: &Replica) {
        if replica.is_good() {
            self.buckets[bucket_of(key.block) as usize].add(&replica.id(key));
            self.root.add(&replica.id(key));
        }
    }

    /// Takes it out of them again.
    fn take_back(&mut self, key: ReplicaKey, replica: &Replica) {
        if replica.is_good() {
            self.buckets[bucket_of(key.block) as usize].remove(&replica.id(key));
            self.root.remove(&replica.id(key));
        }
    }

    /// The replica of a block under a generation.
    pub(crate) fn get(&self, key: ReplicaKey) -> Option<Replica> {
        self.replicas.get(&key).copied()
    }

    /// All replicas of a block, the oldest generation first.
    pub(crate) fn of_block(
        &self,
        block: BlockId,
    ) -> impl DoubleEndedIterator<Item = (ReplicaKey, Replica)> + '_ {
        let all = ReplicaKey { block, generation: Generation(0) }..=ReplicaKey {
            block,
            generation: Generation(u64::MAX),
        };
        self.replicas.range(all).map(|(key, replica)| (*key, *replica))
    }

    /// The newest generation of a block that is held here.
    pub(crate) fn newest(&self, block: BlockId) -> Option<Generation> {
        self.of_block(block).next_back().map(|(key, _)| key.generation)
    }

    /// The replica that follows `after` in order, or the first.
    pub(crate) fn next_after(&self, after: Option<ReplicaKey>) -> Option<(ReplicaKey, Replica)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (key, replica) = self.replicas.range((start, Bound::Unbounded)).next()?;
        Some((*key, *replica))
    }

    /// Fingerprint of every good replica.
    pub(crate) fn root(&self) -> Fingerprint {
        self.root
    }

    /// Fingerprints of the buckets that are not empty, in order.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u32, Fingerprint)> + '_ {
        (0..).zip(self.buckets.iter().copied()).filter(|(_, hash)| !hash.is_empty())
    }

    /// The good replicas in each of `buckets`, in order; buckets that do not exist are passed over.
    pub(crate) fn list_buckets(&self, buckets: &[u32]) -> BTreeMap<u32, Vec<ReplicaId>> {
        let asked = buckets.iter().copied().filter(|bucket| *bucket < REPORT_BUCKETS);
        let mut listed: BTreeMap<u32, Vec<ReplicaId>> =
            asked.map(|bucket| (bucket, Vec::new())).collect();
        for (key, replica) in self.replicas.iter().filter(|(_, replica)| replica.is_good()) {
            if let Some(entries) = listed.get_mut(&bucket_of(key.block)) {
                entries.push(replica.id(*key));
            }
        }
        listed
    }

    /// Replicas known to be bad, in order.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = (ReplicaKey, Replica)> + '_ {
        self.replicas.iter().filter(|(_, held)| !held.is_good()).map(|(key, held)| (*key, *held))
    }

    /// How many replicas are known to be bad.
    pub(crate) fn quarantined_count(&self) -> u64 {
        self.quarantined
    }

    /// How many replicas there are, bad ones too.
    pub(crate) fn len(&self) -> u64 {
        self.replicas.len() as u64
    }

    /// Bytes of the blocks on one data folder.
    pub(crate) fn stored_bytes(&self, volume: VolumeIndex) -> u64 {
        self.stored_bytes.get(&volume).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn replica(length: u64, state: ReplicaState) -> Replica {
        Replica { length, volume: VolumeIndex((length % 2) as u16), state }
    }

    fn sum<'a>(replicas: impl Iterator<Item = &'a ReplicaId>) -> Fingerprint {
        let mut sum = Fingerprint::default();
        replicas.for_each(|replica| sum.add(replica));
        sum
    }

    #[test]
    fn the_newest_generation_of_a_block_is_found_among_its_neighbours() {
        let mut inventory = Inventory::new();
        for (block, generation) in [(4, 9), (5, 1), (5, 3), (6, 7)] {
            inventory.insert(ReplicaKey::new(block, generation), replica(1, ReplicaState::Final));
        }
        assert_eq!(inventory.newest(BlockId(5)), Some(Generation(3)));
        assert_eq!(inventory.newest(BlockId(7)), None);
        let next = inventory.next_after(Some(ReplicaKey::new(5, 3))).map(|(key, _)| key);
        assert_eq!(next, Some(ReplicaKey::new(6, 7)));
        assert_eq!(inventory.next_after(Some(ReplicaKey::new(6, 7))), None);
    }

    #[test]
    fn buckets_that_do_not_exist_are_not_listed_and_empty_ones_are() {
        let listed = Inventory::new().list_buckets(&[REPORT_BUCKETS, 3, u32::MAX]);
        assert_eq!(listed.into_iter().collect::<Vec<_>>(), vec![(3, vec![])]);
    }

    #[derive(Debug, Clone)]
    enum Change {
        Insert(u64, u64, u64, bool),
        Remove(u64, u64),
        Quarantine(u64, u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        // Blocks 0 and 1024 share a bucket.
        let block = prop_oneof![0..4_u64, 1024..1026_u64];
        let generation = 1..3_u64;
        prop_oneof![
            (block.clone(), generation.clone(), 1..4_u64, any::<bool>()).prop_map(
                |(block, generation, length, good)| {
                    Change::Insert(block, generation, length, good)
                }
            ),
            (block.clone(), generation.clone())
                .prop_map(|(block, generation)| Change::Remove(block, generation)),
            (block, generation)
                .prop_map(|(block, generation)| Change::Quarantine(block, generation)),
        ]
    }

    proptest! {
        #[test]
        fn fingerprints_and_sums_equal_those_of_the_set(
            changes in prop::collection::vec(change(), 0..60),
        ) {
            let mut inventory = Inventory::new();
            let mut model: BTreeMap<ReplicaKey, Replica> = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Insert(block, generation, length, good) => {
                        let key = ReplicaKey::new(block, generation);
                        let state =
                            if good { ReplicaState::Final } else { ReplicaState::Quarantined };
                        let replaced = inventory.insert(key, replica(length, state));
                        prop_assert_eq!(replaced, model.insert(key, replica(length, state)));
                    }
                    Change::Remove(block, generation) => {
                        let key = ReplicaKey::new(block, generation);
                        prop_assert_eq!(inventory.remove(key), model.remove(&key));
                    }
                    Change::Quarantine(block, generation) => {
                        let key = ReplicaKey::new(block, generation);
                        let held = model.get_mut(&key);
                        prop_assert_eq!(
                            inventory.set_state(key, ReplicaState::Quarantined),
                            held.is_some()
                        );
                        if let Some(held) = held {
                            held.state = ReplicaState::Quarantined;
                        }
                    }
                }
            }
            let good = model.iter().filter(|(_, held)| held.is_good());
            let ids: BTreeSet<ReplicaId> = good.map(|(key, held)| held.id(*key)).collect();
            prop_assert_eq!(inventory.root(), sum(ids.iter()));
            prop_assert_eq!(inventory.len(), model.len() as u64);
            prop_assert_eq!(
                inventory.quarantined_count(),
                model.values().filter(|held| !held.is_good()).count() as u64
            );
            for volume in [VolumeIndex(0), VolumeIndex(1)] {
                let bytes: u64 =
                    model.values().filter(|it| it.volume == volume).map(|it| it.length).sum();
                prop_assert_eq!(inventory.stored_bytes(volume), bytes);
            }
            let asked: Vec<u32> = (0..REPORT_BUCKETS).collect();
            let listed = inventory.list_buckets(&asked);
            let hashes: BTreeMap<u32, Fingerprint> = inventory.buckets().collect();
            for (bucket, entries) in listed {
                let expected: Vec<ReplicaId> =
                    ids.iter().filter(|id| bucket_of(id.block) == bucket).copied().collect();
                prop_assert_eq!(&entries, &expected);
                let hash = hashes.get(&bucket).copied().unwrap_or_default();
                prop_assert_eq!(hash, sum(entries.iter()));
            }
        }
    }
}
