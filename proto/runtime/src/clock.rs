//! Time: the only door to the system's clocks.
//!
//! What decides (leases, liveness, deadlines) takes an [`Uptime`] as an argument and nothing else; the wall
//! clock is for what people read, such as modification times, and never for safety.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Time since the process started, on a monotonic clock. Not comparable between processes.
pub type Uptime = Duration;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since this clock was made.
    fn now(&self) -> Uptime;

    /// Milliseconds since 1970 in UTC, as far as this machine knows; may jump either way.
    fn wall_ms(&self) -> u64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Uptime {
        self.started.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn wall_ms(&self) -> u64 {
        // Before 1970 reads as 1970: a machine without a set clock must still start.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Uptime>,
}

impl ManualClock {
    /// Wall time at uptime zero: an arbitrary moment in 2023.
    pub const WALL_START_MS: u64 = 1_700_000_000_000;

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Uptime {
        *self.now.lock()
    }

    fn wall_ms(&self) -> u64 {
        Self::WALL_START_MS + self.now().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let clock = SystemClock::default();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        assert!(clock.wall_ms() > ManualClock::WALL_START_MS);
    }

    #[test]
    fn a_manual_clock_moves_both_its_times_and_only_when_told() {
        let clock = ManualClock::default();
        assert_eq!((clock.now(), clock.now()), (Duration::ZERO, Duration::ZERO));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Duration::from_millis(1500));
        assert_eq!(clock.wall_ms(), ManualClock::WALL_START_MS + 1500);
    }
}
