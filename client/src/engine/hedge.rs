//! When a second replica is asked for what the first one owes, and how often that may happen.
//!
//! A replica is *late* once it has been silent for three times as long as nineteen of twenty pieces took lately, but
//! never before the shortest delay nor after the longest one that was set. First pieces, which bring connecting and
//! seeking with them, and pieces in the middle of a stream are told apart.
//!
//! Each hedge spends what twenty pieces that came in time have earned, and little can be saved up. So hedges are at
//! most a twentieth of the load, and where everything is slow alike, and hedging helps nobody, they end.

use std::time::Duration;

/// Pieces that have to come in time for one hedge: its share of the load is one in so many.
const PIECES_PER_HEDGE: u32 = 20;
/// Hedges that can be saved up: as many as a get of a tree has blocks in flight when a node dies.
const SAVED_HEDGES_MAX: u32 = 32;
/// How many times the wait that nineteen of twenty stay below.
const LATE_FACTOR: u32 = 3;

/// From when to when a hedge may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HedgeLimits {
    /// Not before.
    pub(crate) min: Duration,
    /// Not after.
    pub(crate) max: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The first one of a request: nothing has come yet.
    First,
    /// One in the middle of a stream.
    Next,
}

/// Decides about all hedges of a client.
#[derive(Debug)]
pub(crate) struct Hedging {
    limits: Option<HedgeLimits>,
    first: RecentWaits,
    next: RecentWaits,
    /// In pieces.
    saved: u32,
}

impl Hedging {
    /// Within `limits`, or never.
    pub(crate) fn new(limits: Option<HedgeLimits>) -> Self {
        let saved = SAVED_HEDGES_MAX * PIECES_PER_HEDGE;
        Self { limits, first: RecentWaits::default(), next: RecentWaits::default(), saved }
    }

    /// After how long a replica that owes such a piece is late; `None`: it never is.
    pub(crate) fn delay(&self, piece: Piece) -> Option<Duration> {
        let HedgeLimits { min, max } = self.limits?;
        let waits = match piece {
            Piece::First => &self.first,
            Piece::Next => &self.next,
        };
        let delay = waits.usual().map_or(max, |usual| usual.saturating_mul(LATE_FACTOR));
        Some(delay.clamp(min, max))
    }

    /// A piece has come, `took` after it was first asked for.
    pub(crate) fn delivered(&mut self, piece: Piece, took: Duration) {
        if self.delay(piece).is_some_and(|late| took <= late) {
            self.saved = (self.saved + 1).min(SAVED_HEDGES_MAX * PIECES_PER_HEDGE);
        }
        match piece {
            Piece::First => self.first.add(took),
            Piece::Next => self.next.add(took),
        }
    }

    /// Spends a hedge, if there is one to spend.
    pub(crate) fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(PIECES_PER_HEDGE);
        self.saved = left.unwrap_or(self.saved);
        self.limits.is_some() && left.is_some()
    }
}

/// The last waits, and what nineteen of twenty of them stay below.
#[derive(Debug, Default)]
struct RecentWaits {
    waits: Vec<Duration>,
    /// Where the next one goes, once there are enough.
    oldest: usize,
    usual: Option<Duration>,
}

impl RecentWaits {
    const KEPT: usize = 64;
    /// Fewer tell nothing.
    const ENOUGH: usize = 16;

    fn add(&mut self, wait: Duration) {
        if self.waits.len() < Self::KEPT {
            self.waits.push(wait);
        } else {
            self.waits[self.oldest] = wait;
        }
        self.oldest = (self.oldest + 1) % Self::KEPT;
        // Sorting costs more than it tells after every single one.
        if self.waits.len() >= Self::ENOUGH && self.oldest.is_multiple_of(8) {
            let mut sorted = self.waits.clone();
            sorted.sort_unstable();
            self.usual = sorted.get(sorted.len() * 19 / 20).copied();
        }
    }

    fn usual(&self) -> Option<Duration> {
        self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn hedging(min: u64, max: u64) -> Hedging {
        Hedging::new(Some(HedgeLimits { min: ms(min), max: ms(max) }))
    }

    #[test]
    fn a_replica_is_late_at_three_times_the_usual_and_within_the_limits() {
        let mut hedging = hedging(50, 400);
        assert_eq!(hedging.delay(Piece::First), Some(ms(400)), "nothing is known");
        for _ in 0..15 {
            hedging.delivered(Piece::First, ms(40));
        }
        assert_eq!(hedging.delay(Piece::First), Some(ms(400)), "too little is known");
        hedging.delivered(Piece::First, ms(40));
        assert_eq!(hedging.delay(Piece::First), Some(ms(120)));
        assert_eq!(hedging.delay(Piece::Next), Some(ms(400)), "of these nothing is known");
        for _ in 0..64 {
            hedging.delivered(Piece::First, ms(1));
            hedging.delivered(Piece::Next, ms(1000));
        }
        assert_eq!(hedging.delay(Piece::First), Some(ms(50)));
        assert_eq!(hedging.delay(Piece::Next), Some(ms(400)));
    }

    #[test]
    fn one_slow_piece_in_twenty_does_not_move_the_delay_and_two_do() {
        let mut hedging = hedging(1, 10_000);
        for turn in 0..64 {
            hedging.delivered(Piece::Next, if turn % 22 == 21 { ms(900) } else { ms(10) });
        }
        assert_eq!(hedging.delay(Piece::Next), Some(ms(30)));
        for turn in 0..64 {
            hedging.delivered(Piece::Next, if turn % 10 == 9 { ms(900) } else { ms(10) });
        }
        assert_eq!(hedging.delay(Piece::Next), Some(ms(2700)));
    }

    #[test]
    fn hedges_are_earned_by_pieces_in_time_one_by_twenty_and_only_so_many_are_saved() {
        let mut hedging = hedging(50, 400);
        let take_all = |hedging: &mut Hedging| (0..1000).take_while(|_| hedging.take()).count();
        assert_eq!(take_all(&mut hedging), 32);
        for _ in 0..19 {
            hedging.delivered(Piece::Next, ms(400));
        }
        assert!(!hedging.take());
        hedging.delivered(Piece::First, ms(401));
        assert!(!hedging.take(), "a piece that came late earns nothing");
        hedging.delivered(Piece::First, ms(400));
        assert!(hedging.take());
        assert!(!hedging.take());
        for _ in 0..100_000 {
            hedging.delivered(Piece::Next, ms(1));
        }
        assert_eq!(take_all(&mut hedging), 32);
    }

    #[test]
    fn where_all_is_slow_alike_nothing_is_earned() {
        let mut hedging = hedging(50, 400);
        assert_eq!((0..100).filter(|_| hedging.take()).count(), 32);
        for _ in 0..10_000 {
            hedging.delivered(Piece::Next, ms(401));
        }
        assert!(!hedging.take());
    }

    #[test]
    fn without_limits_nothing_is_ever_late() {
        let mut hedging = Hedging::new(None);
        hedging.delivered(Piece::First, ms(1));
        assert_eq!(hedging.delay(Piece::First), None);
        assert!(!hedging.take());
    }
}
