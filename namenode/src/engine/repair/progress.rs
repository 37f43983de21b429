//! How fast copies are confirmed: their bytes and number within the last minute, and what that means for what is left.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::cluster::Uptime;

/// What is looked back at.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts confirmed copies by the second.
#[derive(Debug, Default)]
pub struct Progress {
    seconds: VecDeque<(u64, Copied)>,
    total: Copied,
}

/// An amount of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Replicas.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Copied {
    fn add(&mut self, other: Self) {
        self.copies = self.copies.saturating_add(other.copies);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Progress {
    /// A copy of `bytes` was confirmed.
    pub fn confirmed(&mut self, now: Uptime, bytes: u64) {
        let one = Copied { copies: 1, bytes };
        self.total.add(one);
        let second = now.as_secs();
        match self.seconds.back_mut() {
            Some((last, copied)) if *last == second => copied.add(one),
            Some(_) | None => self.seconds.push_back((second, one)),
        }
        let oldest = second.saturating_sub(WINDOW.as_secs());
        while self.seconds.front().is_some_and(|(second, _)| *second < oldest) {
            self.seconds.pop_front();
        }
    }

    /// All since the start.
    pub fn total(&self) -> Copied {
        self.total
    }

    /// Within the last minute.
    pub fn last_minute(&self, now: Uptime) -> Copied {
        let mut sum = Copied::default();
        for (second, copied) in &self.seconds {
            if second + WINDOW.as_secs() > now.as_secs() {
                sum.add(*copied);
            }
        }
        sum
    }

    /// How long `bytes` take at the rate since the first copy of the last minute; `None` if there was none.
    pub fn estimate(&self, now: Uptime, bytes: u64) -> Option<Duration> {
        let within = |second: u64| second + WINDOW.as_secs() > now.as_secs();
        let first =
            self.seconds.iter().map(|(second, _)| *second).find(|second| within(*second))?;
        let taken = now.as_secs().saturating_sub(first).max(1);
        let copied = self.last_minute(now).bytes;
        let secs = u128::from(bytes) * u128::from(taken) / u128::from(copied.max(1));
        Some(Duration::from_secs(u64::try_from(secs).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Uptime {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let mut progress = Progress::default();
        progress.confirmed(at(10), 100);
        progress.confirmed(at(10), 100);
        progress.confirmed(at(40), 50);
        assert_eq!(progress.last_minute(at(69)), Copied { copies: 3, bytes: 250 });
        assert_eq!(progress.last_minute(at(70)), Copied { copies: 1, bytes: 50 });
        assert_eq!(progress.last_minute(at(100)), Copied::default());
        assert_eq!(progress.total(), Copied { copies: 3, bytes: 250 });
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let mut progress = Progress::default();
        assert_eq!(progress.estimate(at(10), 100), None);
        progress.confirmed(at(10), 100);
        progress.confirmed(at(19), 100);
        assert_eq!(progress.estimate(at(20), 400), Some(at(20)));
        assert_eq!(progress.estimate(at(20), 0), Some(at(0)));
        assert_eq!(progress.estimate(at(200), 400), None, "nothing was copied lately");
    }
}
