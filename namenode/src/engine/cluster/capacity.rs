//! Space that is promised to blocks being written and not yet counted by the datanode's own figures.
//!
//! A block reserves its full size on each target from allocation until it is committed, replaced or given up.
//! A reservation also ends by itself, so that nothing that is forgotten blocks a disk for ever; it is in memory
//! only, for after a restart the datanodes' own figures soon tell the truth.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::{BlockId, InodeId, NodeId};

use super::Uptime;

/// A reservation nobody ended is dropped after this time.
pub const RESERVATION_MAX: Duration = Duration::from_mins(10);

/// All reservations.
#[derive(Debug, Default)]
pub struct Reservations {
    blocks: BTreeMap<(InodeId, BlockId), Reservation>,
    sums: Reserved,
}

/// What is reserved on each node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved(BTreeMap<NodeId, u64>);

impl Reserved {
    /// Bytes reserved on a node.
    pub fn on(&self, node: NodeId) -> u64 {
        self.0.get(&node).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Reservation {
    nodes: Vec<NodeId>,
    bytes: u64,
    until: Uptime,
}

impl Reservations {
    /// Reserves `bytes` on each of `nodes` for a block of the write `inode`.
    pub fn reserve(
        &mut self,
        now: Uptime,
        (inode, block): (InodeId, BlockId),
        nodes: &[NodeId],
        bytes: u64,
    ) {
        self.release_block(inode, block);
        for node in nodes {
            let sum = self.sums.0.entry(*node).or_default();
            *sum = sum.saturating_add(bytes);
        }
        let reservation =
            Reservation { nodes: nodes.to_vec(), bytes, until: now + RESERVATION_MAX };
        self.blocks.insert((inode, block), reservation);
    }

    /// The block was committed, or its attempt replaced.
    pub fn release_block(&mut self, inode: InodeId, block: BlockId) {
        if let Some(reservation) = self.blocks.remove(&(inode, block)) {
            self.give_back(&reservation);
        }
    }

    /// The write was completed or given up.
    pub fn release_write(&mut self, inode: InodeId) {
        let blocks = (inode, BlockId(0))..=(inode, BlockId(u64::MAX));
        let blocks: Vec<_> = self.blocks.range(blocks).map(|(key, _)| key.1).collect();
        for block in blocks {
            self.release_block(inode, block);
        }
    }

    /// Drops what nobody ended in time.
    pub fn expire(&mut self, now: Uptime) {
        let due = self.blocks.iter().filter(|(_, reservation)| reservation.until <= now);
        let due: Vec<_> = due.map(|(key, _)| *key).collect();
        for (inode, block) in due {
            self.release_block(inode, block);
        }
    }

    /// What is reserved on each node now.
    pub fn sums(&self) -> &Reserved {
        &self.sums
    }

    fn give_back(&mut self, reservation: &Reservation) {
        for node in &reservation.nodes {
            let Some(sum) = self.sums.0.get_mut(node) else { continue };
            *sum = sum.saturating_sub(reservation.bytes);
            if *sum == 0 {
                self.sums.0.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(5);
    const NODES: [NodeId; 2] = [NodeId(1), NodeId(2)];

    fn two_blocks() -> Reservations {
        let mut reservations = Reservations::default();
        reservations.reserve(Duration::ZERO, (FILE, BlockId(1)), &NODES, 100);
        reservations.reserve(Duration::from_secs(1), (FILE, BlockId(2)), &NODES[..1], 10);
        reservations
    }

    #[test]
    fn a_block_reserves_on_each_target_until_it_is_released() {
        let mut reservations = two_blocks();
        assert_eq!(
            (reservations.sums().on(NODES[0]), reservations.sums().on(NODES[1])),
            (110, 100)
        );
        reservations.release_block(FILE, BlockId(1));
        reservations.release_block(FILE, BlockId(1));
        assert_eq!((reservations.sums().on(NODES[0]), reservations.sums().on(NODES[1])), (10, 0));
    }

    #[test]
    fn a_new_reservation_of_a_block_replaces_its_old_one() {
        let mut reservations = two_blocks();
        reservations.reserve(Duration::ZERO, (FILE, BlockId(1)), &NODES[1..], 7);
        assert_eq!((reservations.sums().on(NODES[0]), reservations.sums().on(NODES[1])), (10, 7));
    }

    #[test]
    fn the_end_of_a_write_releases_all_its_blocks_and_no_others() {
        let mut reservations = two_blocks();
        reservations.reserve(Duration::ZERO, (InodeId(6), BlockId(3)), &NODES, 1);
        reservations.release_write(FILE);
        assert_eq!((reservations.sums().on(NODES[0]), reservations.sums().on(NODES[1])), (1, 1));
    }

    #[test]
    fn a_forgotten_reservation_ends_at_its_time_and_not_before() {
        let mut reservations = two_blocks();
        reservations.expire(RESERVATION_MAX.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(reservations.sums().on(NODES[0]), 110);
        reservations.expire(RESERVATION_MAX);
        assert_eq!((reservations.sums().on(NODES[0]), reservations.sums().on(NODES[1])), (10, 0));
    }
}
