//! What to verify next, and how fast.
//!
//! The scrubber of a data folder walks over its replicas in the order of their ids, over and over. A pass begins no
//! sooner than the configured interval after the one before it, and reads no faster than the configured rate, or a
//! share of it while blocks are written, read or copied.

use std::time::Duration;

use super::replica::ReplicaKey;

/// While the node serves others the scrubber reads at the configured rate divided by this: it yields, and still ends.
pub(crate) const BUSY_DIVISOR: u32 = 4;

/// How often and how fast to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScrubLimits {
    /// From the start of a pass to the start of the next.
    pub(crate) interval: Duration,
    /// Bytes per second of a node that serves nobody; not 0.
    pub(crate) bytes_per_sec: u64,
}

/// Where the scrubber is: kept on disk, so that a restart does not begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScrubPosition {
    /// The replica that was verified last in this pass; `None` at its start, and between passes.
    pub(crate) last: Option<ReplicaKey>,
    /// Passes that were completed.
    pub(crate) passes: u64,
    /// When this pass began, or the last one if none is under way: wall clock, in milliseconds. A
    /// clock that was set makes a pass come early or late, and nothing worse.
    pub(crate) started_ms: u64,
    /// Whether a pass is under way.
    pub(crate) under_way: bool,
    /// Bytes verified in this pass, or in the last one if none is under way.
    pub(crate) pass_bytes: u64,
    /// When the last pass that was completed began, as `started_ms`; 0 if none was.
    pub(crate) completed_ms: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Verify this replica.
    Verify(ReplicaKey),
    /// The pass is complete: save the position.
    PassDone,
    /// Nothing to do for so long.
    Wait(Duration),
}

impl ScrubPosition {
    /// Decides the next step; `next_after` finds the replica that follows in order.
    pub(crate) fn next_step(
        &mut self,
        now_ms: u64,
        limits: &ScrubLimits,
        next_after: impl FnOnce(Option<ReplicaKey>) -> Option<ReplicaKey>,
    ) -> Step {
        if !self.under_way {
            let interval_ms = limits.interval.as_millis() as u64;
            // A start that lies ahead comes from a clock that was set back: begin rather than wait
            // for it.
            let elapsed_ms = now_ms.checked_sub(self.started_ms);
            match elapsed_ms {
                Some(elapsed_ms) if self.passes > 0 && elapsed_ms < interval_ms => {
                    return Step::Wait(Duration::from_millis(interval_ms - elapsed_ms));
                }
                _ => {
                    let fresh = Self { last: None, pass_bytes: 0, under_way: true, ..*self };
                    *self = Self { started_ms: now_ms, ..fresh };
                }
            }
        }
        if let Some(key) = next_after(self.last) {
            return Step::Verify(key);
        }
        let passes = self.passes + 1;
        let completed_ms = self.started_ms;
        *self = Self { last: None, passes, under_way: false, completed_ms, ..*self };
        Step::PassDone
    }

    /// A replica was verified, whatever came out; so many bytes of it were read.
    pub(crate) fn verified(&mut self, key: ReplicaKey, bytes: u64) {
        self.last = Some(key);
        self.pass_bytes += bytes;
    }

    /// For how long a replica may not have been verified, at the most, in milliseconds: since the last complete pass
    /// began, or the first one if none was completed.
    pub(crate) fn oldest_ms(&self, now_ms: u64) -> u64 {
        let since = if self.completed_ms == 0 { self.started_ms } else { self.completed_ms };
        if since == 0 { 0 } else { now_ms.saturating_sub(since) }
    }
}

impl ScrubLimits {
    /// How long to pause after `bytes` were read in `took`.
    ///
    /// What reading took is paid already. If it took longer, nothing is carried over: a disk that was slow for an hour
    /// is not read in a burst after it.
    pub(crate) fn pause_after(&self, bytes: u64, took: Duration, busy: bool) -> Duration {
        let at_full_rate = Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec.max(1) as f64);
        let divisor = if busy { BUSY_DIVISOR } else { 1 };
        (at_full_rate * divisor).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const LIMITS: ScrubLimits =
        ScrubLimits { interval: Duration::from_hours(1), bytes_per_sec: 1000 };

    fn walk(position: &mut ScrubPosition, now_ms: u64, held: &BTreeSet<ReplicaKey>) -> Step {
        let step = position.next_step(now_ms, &LIMITS, |after| {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            held.range((start, Bound::Unbounded)).next().copied()
        });
        if let Step::Verify(key) = step {
            position.verified(key, 10);
        }
        step
    }

    #[test]
    fn a_pass_meets_every_replica_once_and_the_next_waits_for_its_time() {
        let held: BTreeSet<_> = [3, 1, 2].map(|block| ReplicaKey::new(block, 1)).into();
        let mut position = ScrubPosition::default();
        for block in [1, 2, 3] {
            assert_eq!(walk(&mut position, 5000, &held), Step::Verify(ReplicaKey::new(block, 1)));
        }
        assert_eq!(walk(&mut position, 6000, &held), Step::PassDone);
        let left = Duration::from_millis(HOUR_MS - 2000);
        assert_eq!(walk(&mut position, 7000, &held), Step::Wait(left));
        assert_eq!((position.pass_bytes, position.oldest_ms(7000)), (30, 2000));
        let due = walk(&mut position, 5000 + HOUR_MS, &held);
        assert_eq!((position.pass_bytes, position.oldest_ms(6000 + HOUR_MS)), (10, HOUR_MS + 1000));
        assert_eq!((due, position.passes), (Step::Verify(ReplicaKey::new(1, 1)), 1));
    }

    #[test]
    fn a_replica_removed_under_the_position_does_not_stop_the_walk() {
        let mut held: BTreeSet<_> = [1, 2, 3].map(|block| ReplicaKey::new(block, 1)).into();
        let mut position = ScrubPosition::default();
        walk(&mut position, 0, &held);
        walk(&mut position, 0, &held);
        held.remove(&ReplicaKey::new(2, 1));
        assert_eq!(walk(&mut position, 0, &held), Step::Verify(ReplicaKey::new(3, 1)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_scrubber() {
        let mut position = ScrubPosition { passes: 4, started_ms: HOUR_MS, ..Default::default() };
        let held = BTreeSet::from([ReplicaKey::new(1, 1)]);
        assert_eq!(walk(&mut position, 0, &held), Step::Verify(ReplicaKey::new(1, 1)));
    }

    #[test]
    fn before_the_first_pass_is_complete_everything_is_as_old_as_its_start() {
        let mut position = ScrubPosition::default();
        assert_eq!(position.oldest_ms(9999), 0);
        walk(&mut position, 5000, &BTreeSet::from([ReplicaKey::new(1, 1)]));
        assert_eq!(position.oldest_ms(9000), 4000);
    }

    /// Virtual time: the sum of reading and pausing is what the rate asks for, whatever each step took.
    #[test]
    fn the_rate_is_kept_and_a_busy_node_is_read_at_a_share_of_it() {
        for (busy, factor) in [(false, 1), (true, u64::from(BUSY_DIVISOR))] {
            let mut passed = Duration::ZERO;
            for step in 0..100_u64 {
                let took = Duration::from_millis(step % 50);
                passed += took + LIMITS.pause_after(50, took, busy);
            }
            assert_eq!(passed, Duration::from_millis(50 * 100 * factor), "busy: {busy}");
        }
    }

    #[test]
    fn a_slow_disk_earns_no_burst() {
        assert_eq!(LIMITS.pause_after(10, Duration::from_hours(1), false), Duration::ZERO);
        let pause = LIMITS.pause_after(10, Duration::ZERO, false);
        assert_eq!(pause, Duration::from_millis(10));
    }
}
