//! `bench load`: a mix of operations at a given rate, whatever the cluster makes of it.
//!
//! Open loop: operations begin when their time has come, not when earlier ones have ended, and how long one took counts
//! from then. So what a stall delays is counted as delayed, all of it, and not only the one operation that met it
//! (coordinated omission; Gil Tene, "How NOT to Measure Latency").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, WriteOptions};
use doldam_runtime::clock::{Clock, Uptime};
use doldam_runtime::random::Random;
use doldam_runtime::tasks::spawn_detached;
use futures::TryStreamExt;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};

use super::small::{put_small, read_small};
use super::workers::{Latencies, LatencySummary, stopped, whole_rate};
use super::{Workplace, pattern};
use crate::args::{WriteArgs, parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::command::put::write_options;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{grouped, human_bytes};
use crate::output::table::table;
use crate::session::Session;

/// A timer is late by up to this; that is this program's doing and not the cluster's.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Digits in which chance is drawn.
const CHANCE: u64 = 1 << 32;

/// Measure a running mix of operations at a given rate.
///
/// Operations begin at random times, so many a second on average, also while earlier ones are
/// still under way, and their latencies count from when they were due. Everything is deleted
/// afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench load
  doldam bench load --rate 2000 --seconds 60
  doldam bench load --mix read=70,write=10,stat=20 --size 64KiB --json")]
pub(crate) struct LoadArgs {
    /// Operations a second.
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// How long.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,

    /// How much there is of which operation: stat, list, read, write.
    #[arg(long, default_value = "stat=40,list=10,read=40,write=10", value_name = "MIX")]
    mix: Mix,

    /// Bytes of the files that are read and written.
    #[arg(long, default_value = "64KiB", value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Files to stat and to read.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    files: u64,

    /// Operations under way at the most; more that are due wait, and that counts.
    #[arg(long, default_value_t = 1024, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,

    /// Directory in the cluster to work in.
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,

    #[command(flatten)]
    write: WriteArgs,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Stat,
    List,
    Read,
    Write,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Stat, Self::List, Self::Read, Self::Write];

    fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How much there is of each operation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mix(BTreeMap<Operation, u32>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mix = BTreeMap::new();
        for part in text.split(',') {
            let (name, share) =
                part.split_once('=').ok_or(format!("{part:?} is not NAME=SHARE"))?;
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            let operation = operation
                .ok_or(format!("{name:?} is no operation; there are stat, list, read, write"))?;
            let share: u16 = share.parse().map_err(|_| format!("{share:?} is not a share"))?;
            if mix.insert(operation, u32::from(share)).is_some() {
                return Err(format!("{name} stands there twice"));
            }
        }
        if mix.values().all(|share| *share == 0) {
            return Err("there must be some of an operation".to_owned());
        }
        Ok(Self(mix))
    }
}

impl Mix {
    fn draw(&self, chance: &dyn Random) -> Operation {
        let mut left = chance.below(u64::from(self.0.values().sum::<u32>()));
        for (operation, share) in &self.0 {
            match left.checked_sub(u64::from(*share)) {
                Some(rest) => left = rest,
                None => return *operation,
            }
        }
        unreachable!("less than all shares was drawn")
    }
}

/// All operations.
#[derive(Debug, Serialize)]
struct LoadRecord {
    /// Operations a second, as wanted.
    rate: u32,
    /// For how long they were begun.
    seconds: u32,
    /// Until the last one ended.
    took_seconds: f64,
    /// Bytes of the files.
    bytes: u64,
    /// By operation.
    operations: Vec<Measured>,
}

/// One operation.
#[derive(Debug, Serialize)]
struct Measured {
    /// Its name.
    operation: &'static str,
    /// How often it was called.
    calls: u64,
    /// How many calls failed.
    failures: u64,
    /// From when a call was due to its end.
    #[serde(flatten)]
    latencies: LatencySummary,
}

impl fmt::Display for LoadRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} operations a second for {} s, files of {}; latencies in ms, from when each was due:",
            whole_rate(f64::from(self.rate)),
            self.seconds,
            human_bytes(self.bytes)
        )?;
        let rows = self.operations.iter().map(|measured| {
            let [p50, p99, p999, max] = measured.latencies.columns();
            let (calls, failures) = (grouped(measured.calls), grouped(measured.failures));
            [measured.operation.to_owned(), calls, failures, p50, p99, p999, max]
        });
        let [p50, p99, p999, max] = LatencySummary::HEADER;
        let header = ["operation", "calls", "failed", p50, p99, p999, max];
        formatter.write_str(&table(header, rows.collect(), &[1, 2, 3, 4, 5, 6]))
    }
}

/// Does it.
///
/// # Errors
/// If the files cannot be prepared, or an operation failed: the first failure, after all are counted.
pub(crate) async fn run(session: &mut Session, args: LoadArgs) -> CommandResult {
    let settings = session.settings.clone().with_write(&args.write);
    let client = session.connect().await?;
    let workplace = Workplace::make(session, &client, &args.path).await?;
    let target = prepare(session, &client, &workplace, &args, write_options(&settings)).await;
    let outcome = match target {
        Ok(target) => load(session, &Arc::new(target), &args).await,
        Err(error) => Err(error),
    };
    let removed = workplace.remove(&client).await;
    let (record, failure) = outcome?;
    session.output.record(&record)?;
    removed?;
    failure.map_or(Ok(ExitCode::Done), Err)
}

/// What the operations are done to.
struct Target {
    client: Client,
    base: String,
    content: Vec<u8>,
    options: WriteOptions,
}

async fn prepare(
    session: &Session,
    client: &Client,
    workplace: &Workplace,
    args: &LoadArgs,
    options: WriteOptions,
) -> Result<Target, CommandError> {
    let mut content = pattern(session);
    content.truncate(args.size as usize);
    let (client, base) = (client.clone(), workplace.path.to_string());
    let target = Target { client, base, content, options };
    for number in 0..args.files {
        put_small(&target.client, &target.read(number), target.options.clone(), &target.content)
            .await?;
    }
    Ok(target)
}

impl Target {
    /// A file that is read.
    fn read(&self, number: u64) -> String {
        format!("{}/r{number}", self.base)
    }

    /// The call `number` of all, done to `file` if it is no write: each of those makes a file of its own.
    async fn call(&self, operation: Operation, file: u64, number: u64) -> Result<(), CommandError> {
        let path = self.read(file);
        match operation {
            Operation::Stat => {
                let found = self.client.stat(&path).await;
                found.map(drop).map_err(CommandError::cluster("stat", path))
            }
            Operation::List => {
                let listed = self.client.list(&self.base).try_for_each(async |_| Ok(())).await;
                listed.map_err(CommandError::cluster("list", &self.base))
            }
            Operation::Read => read_small(&self.client, &path, self.content.len()).await,
            Operation::Write => {
                let path = format!("{}/w{number}", self.base);
                put_small(&self.client, &path, self.options.clone(), &self.content).await
            }
        }
    }
}

/// A call that ended.
type Ended = (Operation, Duration, Result<(), CommandError>);

/// Begins all operations at their times and gathers what became of them.
async fn load(
    session: &Session,
    target: &Arc<Target>,
    args: &LoadArgs,
) -> Result<(LoadRecord, Option<CommandError>), CommandError> {
    let (ended, results) = mpsc::unbounded_channel();
    let start = session.now();
    let gathering = spawn_detached("bench", gather(results));
    begin_all(session, target, args, start, ended).await;
    let (operations, failure) = gathering.await.map_err(|_panicked| stopped("load"))?;
    let record = LoadRecord {
        rate: args.rate,
        seconds: args.seconds,
        took_seconds: session.seconds_since(start),
        bytes: args.size,
        operations,
    };
    Ok((record, failure))
}

async fn begin_all(
    session: &Session,
    target: &Arc<Target>,
    args: &LoadArgs,
    start: Uptime,
    ended: mpsc::UnboundedSender<Ended>,
) {
    let (clock, random) = (&session.seams.clock, &session.seams.random);
    let in_flight = Arc::new(Semaphore::new(args.in_flight as usize));
    let (mut due, mut number) = (Duration::ZERO, 0);
    while due < Duration::from_secs(u64::from(args.seconds)) {
        let waiting = (start + due).saturating_sub(clock.now());
        tokio::time::sleep(waiting).await;
        let permit = Arc::clone(&in_flight).acquire_owned().await;
        let begun = counts_from(start + due, clock.now());
        let (operation, file) = (args.mix.draw(&**random), random.below(args.files));
        let (target, clock, ended) = (Arc::clone(target), Arc::clone(clock), ended.clone());
        spawn_detached("bench", async move {
            let result = target.call(operation, file, number).await;
            drop(permit);
            // Nobody listens only if gathering panicked, which is told.
            _ = ended.send((operation, took(&*clock, begun), result));
        });
        number += 1;
        due += gap(&**random, args.rate);
    }
}

/// From when a call counts that was due at `due` and begins now.
fn counts_from(due: Uptime, now: Uptime) -> Uptime {
    if now.saturating_sub(due) <= TIMER_SLACK { now } else { due }
}

fn took(clock: &dyn Clock, begun: Uptime) -> Duration {
    clock.now().saturating_sub(begun)
}

/// Time to the next operation, as chance has it that has no memory (exponential).
fn gap(random: &dyn Random, rate: u32) -> Duration {
    let chance = (random.below(CHANCE) + 1) as f64 / CHANCE as f64;
    Duration::from_secs_f64(-chance.ln() / f64::from(rate))
}

async fn gather(
    mut results: mpsc::UnboundedReceiver<Ended>,
) -> (Vec<Measured>, Option<CommandError>) {
    let mut found: BTreeMap<Operation, (u64, u64, Latencies)> = BTreeMap::new();
    let mut failure = None;
    while let Some((operation, took, result)) = results.recv().await {
        let (calls, failures, latencies) =
            found.entry(operation).or_insert_with(|| (0, 0, Latencies::new()));
        *calls += 1;
        match result {
            Ok(()) => latencies.record(took),
            Err(error) => {
                *failures += 1;
                failure = failure.or(Some(error));
            }
        }
    }
    let measured = found.into_iter().map(|(operation, (calls, failures, latencies))| Measured {
        operation: operation.name(),
        calls,
        failures,
        latencies: latencies.summary(),
    });
    (measured.collect(), failure)
}

#[cfg(test)]
mod tests {
    use doldam_runtime::random::SeededRandom;

    use super::*;

    #[test]
    fn a_mix_is_drawn_as_it_says() {
        let mix: Mix = "read=3,stat=1,list=0".parse().unwrap();
        let chance = SeededRandom::new(1);
        let drawn: Vec<Operation> = (0..4000).map(|_| mix.draw(&chance)).collect();
        let count = |wanted| drawn.iter().filter(|operation| **operation == wanted).count();
        assert!((2800..3200).contains(&count(Operation::Read)), "{}", count(Operation::Read));
        assert_eq!(count(Operation::Read) + count(Operation::Stat), 4000);
    }

    #[test]
    fn a_mix_that_makes_no_sense_says_why() {
        for text in ["", "read", "read=x", "fly=1", "read=0,stat=0", "read=1,read=2"] {
            let refused = text.parse::<Mix>().unwrap_err();
            assert!(!refused.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn gaps_make_the_rate() {
        let chance = SeededRandom::new(2);
        let all: Duration = (0..10_000).map(|_| gap(&chance, 100)).sum();
        assert!((95.0..105.0).contains(&all.as_secs_f64()), "{all:?}");
    }

    #[test]
    fn what_a_stall_delays_counts_from_when_it_was_due() {
        let at = |millis| Uptime::ZERO + Duration::from_millis(millis);
        assert_eq!(counts_from(at(10), at(11)), at(11));
        assert_eq!(counts_from(at(10), at(500)), at(10));
    }
}
