//! What to verify next, and how fast.
//!
//! The scrubber walks over all replicas in the order of their ids, over and over. A pass begins no
//! sooner than the configured interval after the one before it, and reads no faster than the
//! configured rate.

use std::time::Duration;

use super::replica::ReplicaKey;

/// How often and how fast to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScrubLimits {
    /// From the start of a pass to the start of the next.
    pub(crate) interval: Duration,
    /// Bytes per second; not 0.
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
                _ => *self = Self { last: None, started_ms: now_ms, under_way: true, ..*self },
            }
        }
        if let Some(key) = next_after(self.last) {
            return Step::Verify(key);
        }
        *self = Self { last: None, passes: self.passes + 1, under_way: false, ..*self };
        Step::PassDone
    }

    /// A replica was verified, whatever came out.
    pub(crate) fn verified(&mut self, key: ReplicaKey) {
        self.last = Some(key);
    }
}

impl ScrubLimits {
    /// How long reading `bytes` must take at the least.
    pub(crate) fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec.max(1) as f64)
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
            position.verified(key);
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
        let due = walk(&mut position, 5000 + HOUR_MS, &held);
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
    fn the_rate_is_kept_by_time() {
        assert_eq!(LIMITS.time_for(500), Duration::from_millis(500));
    }
}
