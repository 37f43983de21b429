//! How long the namenode has to let go the replicas of a folder that failed.
//!
//! It compares inventories with every heartbeat, and orders dropped what left one if a live good replica is elsewhere.
//! What it has not let go after a while of unbroken hearing may be the last copy there is.

use std::time::Duration;

use doldam_runtime::clock::Uptime;

/// Unbroken time in which the namenode could see that the replicas are withdrawn.
pub(crate) const LET_GO_TIME: Duration = Duration::from_mins(1);

/// The wait of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LetGo {
    heard_since: Option<Uptime>,
}

impl LetGo {
    /// Looks at the wait now; says whether it is over. A stream that broke begins it anew, for orders may be lost.
    pub(crate) fn is_over(&mut self, now: Uptime, connected: bool) -> bool {
        if !connected {
            self.heard_since = None;
            return false;
        }
        let since = *self.heard_since.get_or_insert(now);
        now.saturating_sub(since) >= LET_GO_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Uptime = Duration::from_secs(100);

    #[test]
    fn only_time_with_an_unbroken_stream_counts() {
        let mut wait = LetGo::default();
        let almost = LET_GO_TIME.saturating_sub(Duration::from_millis(1));
        assert!(!wait.is_over(START, false));
        assert!(!wait.is_over(START + LET_GO_TIME, true));
        assert!(!wait.is_over(START + LET_GO_TIME + almost, true));
        assert!(!wait.is_over(START + LET_GO_TIME * 2, false));
        assert!(!wait.is_over(START + LET_GO_TIME * 3, true));
        assert!(!wait.is_over(START + LET_GO_TIME * 3 + almost, true));
        assert!(wait.is_over(START + LET_GO_TIME * 4, true));
    }
}
