//! A limit in bytes per second for all copies of the cluster together.

use std::time::Duration;

use crate::engine::cluster::Uptime;

/// What was not used within this time is lost, so that a pause is not made up for by a burst.
const BURST: Duration = Duration::from_secs(1);

/// Says when the next copy may start.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    bytes_per_sec: u64,
    next_at: Uptime,
}

impl Pace {
    /// At most `bytes_per_sec`; 0 is no limit.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self { bytes_per_sec, next_at: Duration::ZERO }
    }

    /// The limit; 0 is none.
    pub fn bytes_per_sec(&self) -> u64 {
        self.bytes_per_sec
    }

    /// Whether a copy may start at `now`, whatever its size.
    pub fn may_start(&self, now: Uptime) -> bool {
        self.next_at <= now
    }

    /// A copy of `bytes` starts at `now`.
    pub fn take(&mut self, now: Uptime, bytes: u64) {
        if self.bytes_per_sec == 0 {
            return;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_sec);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.next_at = self.next_at.max(now.saturating_sub(BURST)).saturating_add(lasts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Uptime = Duration::from_secs(100);

    #[test]
    fn the_next_copy_waits_until_those_before_are_paid_for() {
        let mut pace = Pace::new(1000);
        pace.take(START, 3000);
        let paid = START + Duration::from_secs(2); // one second had been saved
        assert!(!pace.may_start(paid.saturating_sub(Duration::from_nanos(1))));
        assert!(pace.may_start(paid));
    }

    #[test]
    fn small_copies_start_together_as_far_as_a_second_goes() {
        let mut pace = Pace::new(1000);
        let mut started = 0;
        while pace.may_start(START) {
            pace.take(START, 100);
            started += 1;
        }
        assert_eq!(started, 11);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(0);
        pace.take(START, u64::MAX);
        assert!(pace.may_start(Duration::ZERO));
    }
}
