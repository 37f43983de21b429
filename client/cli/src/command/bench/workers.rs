//! Workers that do one thing over and over, and how long each time took.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_client::ClientError;
use doldam_runtime::Seams;
use doldam_runtime::tasks::spawn_detached;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::CommandError;
use crate::output::size::grouped;

/// Longest latency told apart, in microseconds.
const LATENCY_MAX_MICROS: u64 = 120_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// How long each of many calls took.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        // Fails only for bounds or digits out of range; these are constants.
        let made = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, LATENCY_DIGITS);
        Self(made.unwrap_or_else(|_| unreachable!("the bounds and digits are valid")))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Fails only for values out of bounds, and both have the same.
        if let Err(error) = self.0.add(&other.0) {
            tracing::debug!(%error, "latencies of one worker are left out");
        }
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let quantile = |part| millis(self.0.value_at_quantile(part));
        LatencySummary {
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: millis(self.0.max()),
        }
    }
}

/// What latencies come to, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit is part of each name in the record")]
pub(super) struct LatencySummary {
    /// Half of the calls were faster.
    p50_ms: f64,
    /// 99 of 100 calls were faster.
    p99_ms: f64,
    /// 999 of 1000 calls were faster.
    p999_ms: f64,
    /// The slowest.
    max_ms: f64,
}

impl LatencySummary {
    /// What stands above [`columns`](Self::columns).
    pub(super) const HEADER: [&'static str; 4] = ["p50", "p99", "p99.9", "max"];

    /// For a table.
    pub(super) fn columns(&self) -> [String; 4] {
        [self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms].map(|millis| format!("{millis:.2}"))
    }
}

/// A rate, which is never negative, without its fraction.
#[expect(clippy::cast_sign_loss, reason = "rates are positive")]
pub(super) fn whole_rate(per_second: f64) -> String {
    grouped(per_second.round() as u64)
}

/// Calls made by several workers at once.
#[derive(Debug)]
pub(super) struct Worked {
    /// From the first call's beginning to the last one's end.
    pub(super) seconds: f64,
    pub(super) latencies: Latencies,
}

impl Worked {
    /// How many of `calls` there were in a second.
    pub(super) fn per_second(&self, calls: u64) -> f64 {
        calls as f64 / self.seconds.max(1e-9)
    }
}

/// Makes `calls` calls with the numbers from 0 on, by `workers` tasks of which each takes the next number when it has
/// done one: `call` gets the worker and the number.
///
/// # Errors
/// The first failure; the other workers stop after the call they are at.
pub(super) async fn work<F>(
    seams: &Seams,
    workers: u64,
    calls: u64,
    what: &'static str,
    call: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> Result<Worked, CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let start = seams.clock.now();
    let one = |worker| {
        let (clock, next, call) = (Arc::clone(&seams.clock), Arc::clone(&next), call.clone());
        async move {
            let mut latencies = Latencies::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return Ok(latencies);
                }
                let begun = clock.now();
                if let Err(error) = call(worker, number).await {
                    next.store(calls, Ordering::Relaxed);
                    return Err(error);
                }
                latencies.record(clock.now().saturating_sub(begun));
            }
        }
    };
    let tasks: Vec<_> = (0..workers).map(|worker| spawn_detached("bench", one(worker))).collect();
    let mut latencies = Latencies::new();
    let mut failure = None;
    for task in tasks {
        match task.await.unwrap_or_else(|_panicked| Err(stopped(what))) {
            Ok(of_one) => latencies.add(&of_one),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let seconds = seams.clock.now().saturating_sub(start).as_secs_f64();
    failure.map_or(Ok(Worked { seconds, latencies }), Err)
}

/// A task of the benchmark panicked, which is logged.
pub(super) fn stopped(what: &'static str) -> CommandError {
    CommandError::cluster("measure", what)(ClientError::Stopped { operation: what })
}
