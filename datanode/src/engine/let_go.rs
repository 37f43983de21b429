//! How long the namenode has to let go the replicas of a folder that failed.
//!
//! It compares inventories with every heartbeat, and orders dropped what left one if a live good replica is elsewhere:
//! some at a time, so a large folder takes a while. When for a minute of unbroken hearing it has let nothing more go,
//! what is left may be the last copies there are.

use std::time::Duration;

use doldam_runtime::clock::Uptime;

/// Unbroken time in which the namenode could see what is withdrawn, and let nothing go.
pub(crate) const LET_GO_TIME: Duration = Duration::from_mins(1);

/// The wait of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LetGo {
    /// Since when nothing happened, and how many replicas were left then.
    quiet: Option<(Uptime, u64)>,
}

impl LetGo {
    /// Looks at the wait now, with so many replicas left; says whether it is over. A stream that broke begins it anew,
    /// for orders may be lost.
    pub(crate) fn is_over(&mut self, now: Uptime, connected: bool, left: u64) -> bool {
        if !connected {
            self.quiet = None;
            return false;
        }
        match self.quiet {
            Some((since, before)) if left >= before => now.saturating_sub(since) >= LET_GO_TIME,
            Some(_) | None => {
                self.quiet = Some((now, left));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Uptime = Duration::from_secs(100);
    const ALMOST: Duration = Duration::from_secs(59);

    #[test]
    fn only_time_with_an_unbroken_stream_counts() {
        let mut wait = LetGo::default();
        assert!(!wait.is_over(START, false, 5));
        assert!(!wait.is_over(START + LET_GO_TIME, true, 5));
        assert!(!wait.is_over(START + LET_GO_TIME + ALMOST, true, 5));
        assert!(!wait.is_over(START + LET_GO_TIME * 2, false, 5));
        assert!(!wait.is_over(START + LET_GO_TIME * 3, true, 5));
        assert!(!wait.is_over(START + LET_GO_TIME * 3 + ALMOST, true, 5));
        assert!(wait.is_over(START + LET_GO_TIME * 4, true, 5));
    }

    #[test]
    fn a_namenode_that_is_still_letting_go_is_given_more_time() {
        let mut wait = LetGo::default();
        for round in 0..10_u32 {
            let now = START + ALMOST * round;
            assert!(!wait.is_over(now, true, 100 - u64::from(round)), "{round}");
        }
        let last = START + ALMOST * 9;
        assert!(!wait.is_over(last + ALMOST, true, 91));
        assert!(wait.is_over(last + LET_GO_TIME, true, 91));
    }
}
