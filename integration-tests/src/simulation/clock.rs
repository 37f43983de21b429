//! Simulated time, as one process tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use doldam_runtime::clock::{Clock, Uptime};
use tokio::time::Instant;

/// Wall time at the beginning: an arbitrary moment in 2023.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// See the module. Monotonic time is the simulator's; the wall clock of a machine may jump.
#[derive(Debug, Clone)]
pub struct SimClock {
    began: Instant,
    started: Instant,
    jumped_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// Of a process that starts now, on a machine whose wall clock is off by `jumped_ms`.
    pub fn new(began: Instant, jumped_ms: Arc<AtomicI64>) -> Self {
        Self { began, started: Instant::now(), jumped_ms }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Uptime {
        self.started.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX / 2);
        let wall = WALL_START_MS + since + self.jumped_ms.load(Ordering::Relaxed);
        wall.unsigned_abs() // It never jumps as far as 1970.
    }
}
