//! What becomes of the replicas of a data folder that failed.
//!
//! They are withdrawn: the node no longer vouches for them, so the namenode, which sees them leave the inventory, has
//! them copied from other nodes. Nothing of them is touched, and whoever asks for one still gets it if the disk
//! gives it. If a folder cannot be written but can be read, it may hold the last copy of a block, which nobody else can
//! know of. So what the namenode does not let go (by the order to drop what was withdrawn, which it
//! gives only if there is a live good replica elsewhere) is verified, and vouched for again if it is whole: then it
//! can be copied from here.

use std::sync::Arc;

use super::StoreError;
use super::store::BlockStore;
use crate::engine::replica::{Replica, ReplicaKey, VolumeIndex};

/// Replicas withdrawn under one lock.
const SLICE: usize = 1000;

impl BlockStore {
    /// Withdraws every replica of a folder; returns how many.
    pub(crate) fn take_out(&self, volume: VolumeIndex) -> u64 {
        let (mut after, mut count) = (None, 0);
        loop {
            let mut state = self.state();
            let slice = state.inventory.slice_after(after, SLICE);
            let Some((last, _)) = slice.last() else { return count };
            after = Some(*last);
            for (key, replica) in slice {
                if replica.volume == volume && state.inventory.withdraw(key) {
                    count += 1;
                }
            }
        }
    }

    /// The withdrawn replica of a folder that follows `after`.
    pub(crate) fn next_withdrawn(
        &self,
        volume: VolumeIndex,
        mut after: Option<ReplicaKey>,
    ) -> Option<ReplicaKey> {
        loop {
            let state = self.state();
            let slice = state.inventory.slice_after(after, SLICE);
            let is_one = |(key, replica): &&(ReplicaKey, Replica)| {
                replica.volume == volume && state.inventory.is_withdrawn(*key)
            };
            if let Some((key, _)) = slice.iter().find(is_one) {
                return Some(*key);
            }
            after = Some(slice.last()?.0);
        }
    }

    /// Vouches again for a withdrawn replica if every byte of it can be read and is right. Blocks on the disk for
    /// as long as that takes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is bad, others if that cannot be told.
    pub(crate) fn vouch_again(self: &Arc<Self>, key: ReplicaKey) -> Result<(), StoreError> {
        self.verify(key, None)?;
        self.state().inventory.vouch_again(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outbox::ReplicaEvent;
    use crate::testing::cluster::key;
    use crate::testing::{FaultyDisk, bytes, open_store, store_block};

    fn listed(store: &BlockStore) -> Vec<u64> {
        let buckets: Vec<u32> = (0..1024).collect();
        let listed = store.state().inventory.list_buckets(&buckets);
        listed.into_values().flatten().map(|replica| replica.block.0).collect()
    }

    struct Fixture {
        dir: tempfile::TempDir,
        store: Arc<BlockStore>,
    }

    fn taken_out() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(FaultyDisk::default().handle(), &[dir.path()]);
        for block in 1..=3 {
            store_block(&store, key(block), &bytes(100), true);
        }
        assert_eq!(store.take_out(VolumeIndex(0)), 3);
        assert_eq!(store.take_out(VolumeIndex(0)), 0);
        assert_eq!(store.take_out(VolumeIndex(1)), 0);
        Fixture { dir, store }
    }

    #[test]
    fn what_lies_on_a_failed_folder_is_not_listed_but_still_read() {
        let Fixture { store, dir: _dir } = taken_out();
        assert_eq!(listed(&store), [0_u64; 0]);
        assert!(store.state().inventory.root().is_empty());
        assert!(store.open(key(2)).is_ok());
        assert_eq!(store.state().inventory.quarantined_count(), 0);
    }

    #[test]
    fn what_was_not_let_go_is_vouched_for_again_if_it_is_whole() {
        let Fixture { store, dir } = taken_out();
        assert!(store.drop_bad_replica(key(1)).unwrap());
        let data = dir.path().join("blocks/03/0000000000000003_1_100.data");
        std::fs::write(data, [0; 100]).unwrap();
        let mut after = None;
        while let Some(next) = store.next_withdrawn(VolumeIndex(0), after) {
            _ = store.vouch_again(next);
            after = Some(next);
        }
        assert_eq!(listed(&store), [2]);
        let events = store.news().take(std::time::Duration::ZERO, 10).events;
        let bad = |event: &ReplicaEvent| matches!(event, ReplicaEvent::Bad { .. });
        assert_eq!(events[0], (key(1), ReplicaEvent::Dropped));
        assert!(events[1].0 == key(3) && bad(&events[1].1), "{events:?}");
    }

    #[test]
    fn what_is_let_go_keeps_its_files_and_counts_again_after_a_start() {
        let Fixture { store, dir } = taken_out();
        assert!(store.drop_bad_replica(key(1)).unwrap());
        assert!(store.open(key(1)).is_err());
        drop(store);
        let store = open_store(FaultyDisk::default().handle(), &[dir.path()]);
        assert_eq!(listed(&store), [1, 2, 3]);
    }

    #[test]
    fn a_new_copy_may_take_the_place_of_one_that_was_withdrawn() {
        let Fixture { store, dir: _dir } = taken_out();
        store_block(&store, key(2), &bytes(100), true);
        assert_eq!(listed(&store), [2]);
        assert!(store.verify(key(2), None).is_ok());
        assert_eq!(store.state().inventory.withdrawn_count(), 2);
    }
}
