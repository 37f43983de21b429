//! Simulated time that disk work takes: owed by the disk, waited for by who asked for the work.

use std::cell::Cell;
use std::time::Duration;

use doldam_runtime::tasks::inline::Pace;

thread_local! {
    static OWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Adds to what the present work takes.
pub(super) fn owe(time: Duration) {
    OWED.set(OWED.get() + time);
}

/// Owes nothing, at the beginning of a run.
pub(super) fn reset() {
    OWED.set(Duration::ZERO);
}

/// See the module.
#[derive(Debug)]
pub(super) struct DiskPace;

impl Pace for DiskPace {
    fn take_owed(&self) -> Duration {
        // Half now and half at the next pause: what was done waits for its end, and what comes for its beginning.
        let owed = OWED.get() / 2;
        OWED.set(owed);
        owed
    }
}
