//! Many files, some at a time: `put`, `get` and `cp` of trees.
//!
//! A source of jobs is read as fast as they are done, never ahead; small files share the slots, a
//! large one takes half of them, since it has several blocks in flight by itself.

use std::future::Future;

use futures::stream::{FuturesUnordered, Stream, StreamExt};

use crate::error::CommandError;
use crate::exit_code::{ExitCode, Tally};
use crate::messages::Messages;

/// Small files in flight if nobody says.
pub(crate) const SLOTS_DEFAULT: usize = 16;
/// From this size on a file counts as large.
const LARGE_BYTES_MIN: u64 = 8 << 20;
/// After so many failures of the cluster in a row the rest is not even tried.
const FAILURES_IN_A_ROW_MAX: u64 = 32;

/// One file to transfer.
pub(crate) trait Job {
    /// How large it is, if known.
    fn bytes(&self) -> Option<u64>;
}

/// Runs `start` on every job of `jobs`, several at a time, and hands each result to `report`.
///
/// A job or the source of jobs may fail without stopping the rest; only a failure of `report`
/// (nobody takes the output any more) does, and a cluster that fails everything. Jobs must be a
/// stream whose `next` may be dropped and asked again, as all streams here are.
///
/// # Errors
/// As `report`.
pub(crate) async fn run_all<J, T, F>(
    messages: &Messages,
    slots: usize,
    jobs: impl Stream<Item = Result<J, CommandError>>,
    start: impl Fn(J) -> F,
    mut report: impl FnMut(T) -> Result<(), CommandError>,
) -> Result<Tally, CommandError>
where
    J: Job,
    F: Future<Output = Result<T, CommandError>>,
{
    let mut jobs = std::pin::pin!(jobs.fuse());
    let mut running = FuturesUnordered::new();
    let mut failures = Failures::new(messages);
    let mut free = slots;
    let mut waiting: Option<(J, usize)> = None;
    while !failures.are_hopeless() {
        let wants_job = waiting.is_none() && !jobs.is_done();
        tokio::select! {
            job = jobs.next(), if wants_job => match job {
                Some(Ok(job)) => {
                    let weight = weight(job.bytes(), slots);
                    waiting = Some((job, weight));
                }
                Some(Err(error)) => failures.add(&error),
                None => {}
            },
            Some((result, weight)) = running.next(), if !running.is_empty() => {
                free += weight;
                match result {
                    Ok(done) => {
                        failures.add_done();
                        report(done)?;
                    }
                    Err(error @ CommandError::Output(_)) => return Err(error),
                    Err(error) => failures.add(&error),
                }
            }
            else => break,
        }
        if let Some((job, weight)) = waiting.take_if(|(_, weight)| *weight <= free) {
            free -= weight;
            let transfer = start(job);
            running.push(async move { (transfer.await, weight) });
        }
    }
    Ok(failures.tally)
}

/// What went wrong so far.
struct Failures<'a> {
    messages: &'a Messages,
    tally: Tally,
    of_cluster_in_a_row: u64,
}

impl<'a> Failures<'a> {
    fn new(messages: &'a Messages) -> Self {
        Self { messages, tally: Tally::default(), of_cluster_in_a_row: 0 }
    }

    fn add_done(&mut self) {
        self.tally.add_done();
        self.of_cluster_in_a_row = 0;
    }

    fn add(&mut self, error: &CommandError) {
        let cluster_is_at_fault = error.exit_code() == ExitCode::ClusterFailed;
        self.of_cluster_in_a_row =
            if cluster_is_at_fault { self.of_cluster_in_a_row + 1 } else { 0 };
        self.tally.add_failure(error.exit_code());
        self.messages.one_of_many(error, self.tally.failed());
        if self.are_hopeless() {
            self.messages.warn("gave up: nothing but failures of the cluster for a while");
        }
    }

    fn are_hopeless(&self) -> bool {
        self.of_cluster_in_a_row >= FAILURES_IN_A_ROW_MAX
    }
}

/// How many of `slots` a file of `bytes` takes.
fn weight(bytes: Option<u64>, slots: usize) -> usize {
    let large = bytes.is_none_or(|bytes| bytes >= LARGE_BYTES_MIN);
    if large { (slots / 2).max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;

    use super::*;
    use crate::messages::testing::silent;

    struct Bytes(u64);

    impl Job for Bytes {
        fn bytes(&self) -> Option<u64> {
            Some(self.0)
        }
    }

    fn unmet() -> CommandError {
        CommandError::Unmet { what: "down".into(), next_step: String::new() }
    }

    async fn most_at_once(sizes: Vec<u64>, slots: usize) -> usize {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs = stream::iter(sizes.into_iter().map(|bytes| Ok(Bytes(bytes))));
        let start = async |_: Bytes| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        let tally = run_all(&silent(), slots, jobs, start, |()| Ok(())).await.unwrap();
        assert_eq!(tally.exit_code(), ExitCode::Done);
        most.into_inner()
    }

    #[tokio::test]
    async fn small_files_fill_the_slots_and_large_ones_take_half_of_them() {
        assert_eq!(most_at_once(vec![1; 100], 16).await, 16);
        assert_eq!(most_at_once(vec![LARGE_BYTES_MIN; 10], 16).await, 2);
        assert_eq!(most_at_once(vec![LARGE_BYTES_MIN; 3], 1).await, 1);
        assert_eq!(most_at_once(vec![LARGE_BYTES_MIN - 1; 3], 4).await, 3);
    }

    #[tokio::test]
    async fn one_failure_neither_stops_the_rest_nor_goes_unnoticed() {
        let jobs = stream::iter([Ok(Bytes(1)), Err(unmet()), Ok(Bytes(2)), Ok(Bytes(3))]);
        let start = async |job: Bytes| if job.0 == 2 { Err(unmet()) } else { Ok(job.0) };
        let mut done = Vec::new();
        let report = |bytes| {
            done.push(bytes);
            Ok(())
        };
        let tally = run_all(&silent(), 1, jobs, start, report).await.unwrap();
        assert_eq!(done, [1, 3]);
        assert_eq!(tally.failed(), 2);
        assert_eq!(tally.exit_code(), ExitCode::Partial);
    }

    #[tokio::test]
    async fn a_cluster_that_fails_everything_is_not_asked_for_ever() {
        let asked = AtomicUsize::new(0);
        let jobs = stream::iter((0..10_000).map(|_| Ok(Bytes(1))));
        let start = async |_: Bytes| {
            asked.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(unmet())
        };
        let tally = run_all(&silent(), 4, jobs, start, |()| Ok(())).await.unwrap();
        assert_eq!(tally.exit_code(), ExitCode::ClusterFailed);
        assert!(asked.into_inner() < 50);
    }
}
