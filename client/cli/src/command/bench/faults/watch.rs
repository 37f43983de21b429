//! How long something stood still.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doldam_runtime::clock::{Clock, Uptime};
use tokio::sync::Notify;

use crate::progress::Advance;

/// Watches a transfer, and tells when it has come far enough to be disturbed.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    disturb_at: u64,
    seen: Mutex<Seen>,
    reached: Notify,
}

struct Seen {
    bytes: u64,
    last: Uptime,
    longest: Duration,
}

impl Watch {
    /// To be disturbed once `disturb_at` bytes are through.
    pub(super) fn start(clock: &Arc<dyn Clock>, disturb_at: u64) -> Arc<Self> {
        let seen = Seen { bytes: 0, last: clock.now(), longest: Duration::ZERO };
        Arc::new(Self {
            clock: Arc::clone(clock),
            disturb_at,
            seen: Mutex::new(seen),
            reached: Notify::new(),
        })
    }

    /// To be called with all bytes that are through.
    pub(super) fn advance(self: &Arc<Self>) -> Advance {
        let watch = Arc::clone(self);
        Arc::new(move |bytes| watch.moved(bytes))
    }

    /// Waits until it has come far enough; stalls count from here on.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// The longest time without any byte, from the disturbance to the end, which is now.
    pub(super) fn longest_stall(&self) -> Duration {
        self.moved(0);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).longest
    }

    fn moved(&self, bytes: u64) {
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.bytes;
        seen.bytes += bytes;
        if before >= self.disturb_at {
            seen.longest = seen.longest.max(now.saturating_sub(seen.last));
        } else if seen.bytes >= self.disturb_at {
            self.reached.notify_one();
        }
        seen.last = now;
    }
}

#[cfg(test)]
mod tests {
    use doldam_runtime::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn what_stands_still_before_it_is_disturbed_does_not_count() {
        let manual = Arc::new(ManualClock::default());
        let clock: Arc<dyn Clock> = manual.clone();
        let watch = Watch::start(&clock, 10);
        let advance = watch.advance();
        manual.advance(Duration::from_secs(9));
        advance(10);
        watch.reached().await;
        for secs in [1, 3, 2] {
            manual.advance(Duration::from_secs(secs));
            advance(1);
        }
        assert_eq!(watch.longest_stall(), Duration::from_secs(3));
        manual.advance(Duration::from_secs(4));
        assert_eq!(watch.longest_stall(), Duration::from_secs(4), "the end counts");
    }
}
