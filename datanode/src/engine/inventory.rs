//! All replicas of the node, in memory, with the fingerprints that are reported to the namenode.
//!
//! About 60 bytes a replica. Quarantined replicas stay in here until the namenode has ordered them
//! dropped, but no fingerprint or list has them: those are what the node vouches for. That they are
//! bad is told as news, and again whenever the node registers.
//!
//! The replicas of a data folder that failed are *withdrawn*: not vouched for either, though nothing bad is known of
//! them. They are read as long as the disk lets them, and count again when the folder does.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Good replicas that are not vouched for.
    withdrawn: BTreeSet<ReplicaKey>,
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
            withdrawn: BTreeSet::new(),
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
        self.withdrawn.remove(&key);
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
        if !after.is_good() {
            self.withdrawn.remove(&key);
        }
        self.vouch(key, &after);
        self.quarantined -= u64::from(!before.is_good());
        self.quarantined += u64::from(!after.is_good());
        self.replicas.insert(key, after);
        true
    }

    /// Vouches no longer for a good replica; says whether it did before.
    pub(crate) fn withdraw(&mut self, key: ReplicaKey) -> bool {
        let Some(replica) = self.get(key).filter(Replica::is_good) else { return false };
        self.take_back(key, &replica);
        self.withdrawn.insert(key)
    }

    /// Vouches again for a replica that was withdrawn; says whether it was.
    pub(crate) fn vouch_again(&mut self, key: ReplicaKey) -> bool {
        let was_withdrawn = self.withdrawn.remove(&key);
        if let Some(replica) = self.get(key).filter(|_| was_withdrawn) {
            self.vouch(key, &replica);
        }
        was_withdrawn
    }

    /// Whether the replica is good but not vouched for.
    pub(crate) fn is_withdrawn(&self, key: ReplicaKey) -> bool {
        self.withdrawn.contains(&key)
    }

    /// How many good replicas are not vouched for.
    pub(crate) fn withdrawn_count(&self) -> u64 {
        self.withdrawn.len() as u64
    }

    /// Whether the namenode may count on the replica.
    fn is_vouched_for(&self, key: ReplicaKey, replica: &Replica) -> bool {
        replica.is_good() && !self.withdrawn.contains(&key)
    }

    /// Takes a replica into the fingerprints, if it is vouched for.
    fn vouch(&mut self, key: ReplicaKey, replica: &Replica) {
        if self.is_vouched_for(key, replica) {
            self.buckets[bucket_of(key.block) as usize].add(&replica.id(key));
            self.root.add(&replica.id(key));
        }
    }

    /// Takes it out of them again.
    fn take_back(&mut self, key: ReplicaKey, replica: &Replica) {
        if self.is_vouched_for(key, replica) {
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

    /// At most `count` replicas that follow `after` in order.
    pub(crate) fn slice_after(
        &self,
        after: Option<ReplicaKey>,
        count: usize,
    ) -> Vec<(ReplicaKey, Replica)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let following = self.replicas.range((start, Bound::Unbounded)).take(count);
        following.map(|(key, replica)| (*key, *replica)).collect()
    }

    /// Fingerprint of every replica that is vouched for.
    pub(crate) fn root(&self) -> Fingerprint {
        self.root
    }

    /// Fingerprints of the buckets that are not empty, in order.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u32, Fingerprint)> + '_ {
        (0..).zip(self.buckets.iter().copied()).filter(|(_, hash)| !hash.is_empty())
    }

    /// The replicas that are vouched for in each of `buckets`, in order; buckets that do not exist are passed over.
    pub(crate) fn list_buckets(&self, buckets: &[u32]) -> BTreeMap<u32, Vec<ReplicaId>> {
        let asked = buckets.iter().copied().filter(|bucket| *bucket < REPORT_BUCKETS);
        let mut listed: BTreeMap<u32, Vec<ReplicaId>> =
            asked.map(|bucket| (bucket, Vec::new())).collect();
        let vouched = self.replicas.iter().filter(|(key, held)| self.is_vouched_for(**key, held));
        for (key, replica) in vouched {
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
        Withdraw(u64, u64),
        VouchAgain(u64, u64),
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
            (block.clone(), generation.clone())
                .prop_map(|(block, generation)| Change::Quarantine(block, generation)),
            (block.clone(), generation.clone())
                .prop_map(|(block, generation)| Change::Withdraw(block, generation)),
            (block, generation)
                .prop_map(|(block, generation)| Change::VouchAgain(block, generation)),
        ]
    }

    proptest! {
        #[test]
        fn fingerprints_and_sums_equal_those_of_the_set(
            changes in prop::collection::vec(change(), 0..60),
        ) {
            let mut inventory = Inventory::new();
            let mut model: BTreeMap<ReplicaKey, Replica> = BTreeMap::new();
            let mut withdrawn: BTreeSet<ReplicaKey> = BTreeSet::new();
            for change in changes {
                match change {
                    Change::Insert(block, generation, length, good) => {
                        let key = ReplicaKey::new(block, generation);
                        let state =
                            if good { ReplicaState::Final } else { ReplicaState::Quarantined };
                        let replaced = inventory.insert(key, replica(length, state));
                        prop_assert_eq!(replaced, model.insert(key, replica(length, state)));
                        withdrawn.remove(&key);
                    }
                    Change::Remove(block, generation) => {
                        let key = ReplicaKey::new(block, generation);
                        prop_assert_eq!(inventory.remove(key), model.remove(&key));
                        withdrawn.remove(&key);
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
                        withdrawn.remove(&key);
                    }
                    Change::Withdraw(block, generation) => {
                        let key = ReplicaKey::new(block, generation);
                        let may = model.get(&key).is_some_and(Replica::is_good);
                        prop_assert_eq!(inventory.withdraw(key), may && withdrawn.insert(key));
                    }
                    Change::VouchAgain(block, generation) => {
                        let key = ReplicaKey::new(block, generation);
                        prop_assert_eq!(inventory.vouch_again(key), withdrawn.remove(&key));
                    }
                }
            }
            prop_assert_eq!(inventory.withdrawn_count(), withdrawn.len() as u64);
            let good =
                model.iter().filter(|(key, held)| held.is_good() && !withdrawn.contains(key));
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
