//! When to try again, and when no longer: backoff with jitter, and a budget. Pure.

use std::time::Duration;

use crate::random::Random;

/// Growing pauses between attempts, spread by chance so that many who failed together do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with pauses of about `first` and doubles them up to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first.min(max) }
    }

    /// The pause before the next attempt: between half of the present bound and all of it.
    pub fn next_pause(&mut self, random: &dyn Random) -> Duration {
        let bound = self.next;
        self.next = bound.saturating_mul(2).min(self.max);
        let half_nanos = (bound.as_nanos() / 2) as u64;
        bound.saturating_sub(Duration::from_nanos(random.below(half_nanos + 1)))
    }

    /// To be called after a success.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.max);
    }
}

/// Bounds retries to a share of the requests, so that a struggling server gets less work and not more.
///
/// A request earns a part of a retry, a retry spends a whole one; what is saved up is bounded.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    /// In hundredths of a retry.
    saved: u32,
    saved_max: u32,
    earned_percent: u32,
}

impl RetryBudget {
    /// Allows `saved_max` retries at once, and in the long run `earned_percent` of them per hundred requests.
    pub fn new(saved_max: u32, earned_percent: u32) -> Self {
        let saved = saved_max.saturating_mul(100);
        Self { saved, saved_max: saved, earned_percent }
    }

    /// To be called for each request, not for its retries.
    pub fn on_request(&mut self) {
        self.saved = self.saved.saturating_add(self.earned_percent).min(self.saved_max);
    }

    /// Whether one more retry is within the budget; if so, it is spent.
    pub fn try_spend(&mut self) -> bool {
        let left = self.saved.checked_sub(100);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

impl Default for RetryBudget {
    /// Ten retries at once, and one per five requests.
    fn default() -> Self {
        Self::new(10, 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_bound_and_never_fall_below_half_of_it() {
        let random = SeededRandom::new(3);
        let mut backoff = Backoff::new(FIRST, MAX);
        for bound_ms in [100, 200, 400, 800, 1000, 1000] {
            let bound = Duration::from_millis(bound_ms);
            let pause = backoff.next_pause(&random);
            assert!(bound / 2 <= pause && pause <= bound, "{pause:?} of {bound:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause(&random) <= FIRST);
    }

    #[test]
    fn pauses_differ_by_chance_and_repeat_by_seed() {
        let pauses = |seed| {
            let (random, mut backoff) = (SeededRandom::new(seed), Backoff::new(MAX, MAX));
            (0..4).map(|_| backoff.next_pause(&random)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn a_spent_budget_is_earned_back_by_requests_and_not_beyond_its_bound() {
        let mut budget = RetryBudget::new(2, 50);
        assert_eq!([(); 3].map(|()| budget.try_spend()), [true, true, false]);
        budget.on_request();
        assert!(!budget.try_spend(), "half a retry is none");
        budget.on_request();
        assert!(budget.try_spend());
        (0..100).for_each(|_| budget.on_request());
        assert_eq!([(); 3].map(|()| budget.try_spend()), [true, true, false]);
    }
}
