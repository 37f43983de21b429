//! How much of a node repair may take while others are served.
//!
//! A copy is sent, and received, frame after frame. While blocks of clients are written or read on a node, it pauses
//! there after each frame, so that all copies that the node sends, and all that it receives, are busy for a share of
//! the time only. That yields whatever is scarce, network, disk or
//! processor, without having to know which or how much there is of it. Alone, copies go at full speed. And however busy
//! the node is, a copy keeps a least rate, so that it ends before the namenode gives up on it: repair that never
//! ends is worse than a slow read.

use std::time::Duration;

/// What repair is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepairShare {
    /// Share of the time in which copies are sent, and received, while others are served, in percent, 1 to 100.
    pub(crate) percent: u32,
    /// Bytes per second that each copy may move in any case; not 0.
    pub(crate) bytes_per_sec_min: u64,
}

impl RepairShare {
    /// How long a copy pauses after it moved `bytes` in `took`, while `others` blocks are written or read and `copies`
    /// (this one too) go the same way.
    pub(crate) fn pause_after(
        &self,
        bytes: u64,
        took: Duration,
        others: usize,
        copies: usize,
    ) -> Duration {
        if others == 0 {
            return Duration::ZERO;
        }
        // Each of the copies gets its part of the share: busy for `took` of every `took * copies * 100 / percent`.
        let copies = u32::try_from(copies.max(1)).unwrap_or(u32::MAX);
        let period = took.saturating_mul(copies).saturating_mul(100) / self.percent.clamp(1, 100);
        let longest = Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec_min.max(1) as f64);
        period.min(longest).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SHARE: RepairShare = RepairShare { percent: 25, bytes_per_sec_min: 4 * MIB };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn repair_alone_never_pauses() {
        assert_eq!(SHARE.pause_after(MIB, ms(10), 0, 1), Duration::ZERO);
        assert_eq!(SHARE.pause_after(MIB, ms(10), 0, 9), Duration::ZERO);
    }

    #[test]
    fn beside_others_it_takes_its_share_of_the_time_and_several_copies_divide_it() {
        assert_eq!(SHARE.pause_after(MIB, ms(10), 1, 1), ms(30));
        assert_eq!(SHARE.pause_after(MIB, ms(10), 50, 1), ms(30));
        assert_eq!(SHARE.pause_after(MIB, ms(10), 1, 2), ms(70));
    }

    #[test]
    fn a_slow_node_still_gets_its_copies_done() {
        assert_eq!(SHARE.pause_after(MIB, ms(100), 1, 4), ms(150));
        assert_eq!(SHARE.pause_after(MIB, ms(900), 1, 4), Duration::ZERO);
    }

    #[test]
    fn the_whole_share_is_no_limit() {
        let whole = RepairShare { percent: 100, ..SHARE };
        assert_eq!(whole.pause_after(MIB, ms(10), 3, 1), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_copy_falls_below_the_least_rate_because_of_its_pauses(
            took_ms in 0..10_000_u64, others in 0..100_usize, copies in 0..100_usize, percent: u32,
        ) {
            let share = RepairShare { percent, ..SHARE };
            let pause = share.pause_after(MIB, ms(took_ms), others, copies);
            prop_assert!(ms(took_ms) + pause <= ms(took_ms).max(ms(250)));
        }
    }
}
