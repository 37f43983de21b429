//! Which nodes have too much and which could take it, so that all are about equally full.
//!
//! As HDFS does: a node whose used share is more than the threshold above the share of all nodes together gives, one
//! that is as far below takes. If there are only givers or only takers (a new, empty node is far below, the others are
//! a little above), everybody on the other side of the mean takes part. A block moves only if neither end of the move
//! passes the mean by it, so moves come to an end.

use std::cmp::Reverse;

use doldam_proto::id::NodeId;

/// A million: shares are parts of it.
pub const WHOLE_PPM: u64 = 1_000_000;

/// How full a node is, moves under way counted as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Which.
    pub node: NodeId,
    /// Bytes of replicas.
    pub used: u64,
    /// Bytes of replicas it could hold: what it has and what it would still take.
    pub room: u64,
}

impl Fill {
    /// Bytes it would have at this share.
    fn at(&self, ppm: u64) -> u64 {
        let bytes = u128::from(self.room) * u128::from(ppm) / u128::from(WHOLE_PPM);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Its used share.
    pub fn ppm(&self) -> u64 {
        share_ppm(self.used, self.room)
    }
}

/// Bytes a node is to give or to take until it is at the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Which.
    pub node: NodeId,
    /// How much.
    pub bytes: u64,
}

/// What balancing comes to right now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// Used share of all nodes together.
    pub mean_ppm: u64,
    /// The largest distance of a node from it.
    pub farthest_ppm: u64,
    /// Bytes beyond the threshold on one side or the other.
    pub left_bytes: u64,
    /// Who gives, the one with most first.
    pub givers: Vec<Side>,
    /// Who takes, the one with most room first.
    pub takers: Vec<Side>,
}

impl Balance {
    /// Whether no node is farther from the mean than the threshold.
    pub fn is_reached(&self) -> bool {
        self.givers.is_empty() && self.takers.is_empty()
    }
}

/// Compares the nodes.
pub fn weigh(fills: &[Fill], threshold_ppm: u64) -> Balance {
    let mean_ppm = share_ppm(sum_of(fills, |fill| fill.used), sum_of(fills, |fill| fill.room));
    let (high, low) = (mean_ppm + threshold_ppm, mean_ppm.saturating_sub(threshold_ppm));
    let farthest_ppm = fills.iter().map(|fill| fill.ppm().abs_diff(mean_ppm)).max().unwrap_or(0);
    let over = sum_of(fills, |fill| fill.used.saturating_sub(fill.at(high)));
    let under = sum_of(fills, |fill| fill.at(low).saturating_sub(fill.used));
    let mut balance =
        Balance { mean_ppm, farthest_ppm, left_bytes: over.max(under), ..Balance::default() };
    if farthest_ppm <= threshold_ppm {
        balance.left_bytes = 0;
        return balance;
    }
    let givers = |floor| fills.iter().filter(move |fill| fill.ppm() > floor);
    let takers = |ceiling| fills.iter().filter(move |fill| fill.ppm() < ceiling);
    let floor = if givers(high).next().is_some() { high } else { mean_ppm };
    let ceiling = if takers(low).next().is_some() { low } else { mean_ppm };
    // The mean is rounded down: what is above it by less than a millionth is at it.
    balance.givers = givers(floor)
        .map(|fill| Side { node: fill.node, bytes: fill.used.saturating_sub(fill.at(mean_ppm)) })
        .collect();
    balance.takers = takers(ceiling)
        .map(|fill| Side {
            node: fill.node,
            bytes: fill.at(mean_ppm + 1).saturating_sub(fill.used),
        })
        .collect();
    for side in [&mut balance.givers, &mut balance.takers] {
        side.sort_by_key(|side| (Reverse(side.bytes), side.node));
    }
    balance
}

fn sum_of(fills: &[Fill], of: impl Fn(&Fill) -> u64) -> u64 {
    fills.iter().map(of).fold(0, u64::saturating_add)
}

fn share_ppm(used: u64, room: u64) -> u64 {
    let share = u128::from(used) * u128::from(WHOLE_PPM) / u128::from(room.max(1));
    u64::try_from(share).unwrap_or(WHOLE_PPM)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: u64 = WHOLE_PPM / 100;

    fn fills(used: &[u64]) -> Vec<Fill> {
        let fill = |(node, used): (NodeId, &u64)| Fill { node, used: *used, room: 1000 };
        (1..).map(NodeId).zip(used).map(fill).collect()
    }

    fn nodes(sides: &[Side]) -> Vec<u32> {
        sides.iter().map(|side| side.node.0).collect()
    }

    #[test]
    fn nodes_within_the_threshold_are_left_alone() {
        for used in [&[500, 500, 500][..], &[450, 500, 550], &[0, 0], &[7], &[]] {
            let balance = weigh(&fills(used), 5 * PERCENT);
            assert!(balance.is_reached() && balance.left_bytes == 0, "{used:?}: {balance:?}");
        }
        assert!(!weigh(&fills(&[449, 500, 551]), 5 * PERCENT).is_reached());
    }

    #[test]
    fn the_fullest_gives_first_and_the_emptiest_takes_first() {
        let balance = weigh(&fills(&[900, 100, 700, 300]), 10 * PERCENT);
        assert_eq!((nodes(&balance.givers), nodes(&balance.takers)), (vec![1, 3], vec![2, 4]));
        assert_eq!((balance.mean_ppm, balance.farthest_ppm), (50 * PERCENT, 40 * PERCENT));
        assert_eq!(balance.givers[0].bytes, 400);
        assert_eq!(balance.left_bytes, 300 + 100);
    }

    #[test]
    fn a_new_empty_node_takes_from_everybody_above_the_mean() {
        let balance = weigh(&fills(&[400, 400, 400, 0]), 15 * PERCENT);
        assert_eq!(nodes(&balance.takers), [4]);
        assert_eq!(nodes(&balance.givers), [1, 2, 3]);
        let balance = weigh(&fills(&[900, 400, 400, 400]), 15 * PERCENT);
        assert_eq!((nodes(&balance.givers), nodes(&balance.takers)), (vec![1], vec![2, 3, 4]));
    }

    #[test]
    fn moves_within_what_is_given_and_taken_always_bring_nodes_nearer() {
        let mut fills = fills(&[1000, 0, 300]);
        for _ in 0..2000 {
            let balance = weigh(&fills, PERCENT);
            if balance.is_reached() {
                return;
            }
            let (from, to) = (balance.givers[0], balance.takers[0]);
            let bytes = 7.min(from.bytes).min(to.bytes);
            assert!(bytes > 0, "{balance:?}");
            fills[from.node.0 as usize - 1].used -= bytes;
            fills[to.node.0 as usize - 1].used += bytes;
        }
        panic!("no end: {fills:?}");
    }

    #[test]
    fn sizes_at_the_end_of_their_range_are_no_overflow() {
        let full = Fill { node: NodeId(1), used: u64::MAX, room: u64::MAX };
        let empty = Fill { node: NodeId(2), used: 0, room: u64::MAX };
        assert!(!weigh(&[full, empty], PERCENT).is_reached());
        assert!(weigh(&[Fill { room: 0, ..full }], WHOLE_PPM).left_bytes < u64::MAX);
    }
}
