//! A whole cluster with its clients in one process, on one thread, under one seed.
//!
//! Every server and client is the code that runs in production, with simulated doors to time, chance, disk and
//! network ([`Seams`](doldam_runtime::Seams)). Time stands still while anything can happen and then jumps to the next
//! moment at which something does, so that minutes pass in a fraction of a second. All chance comes from the seed: the
//! same seed has the same trace, byte for byte.
//!
//! * [`world`]: the machines and the processes on them; [`process`], [`disk`], [`net`], [`clock`]: what they stand on.
//! * [`schedule`]: which trouble comes when. [`workload`], `streaming`: what clients do meanwhile.
//! * [`scenario`]: one run from the start to the verdict; [`convergence`]: what must be true after all healed.
//! * [`oracle`], [`invariant`](crate::invariant): what must hold for clients, and inside.
//! * [`trace`], [`log`]: what happened.

pub mod clock;
pub mod convergence;
pub mod disk;
pub mod log;
pub mod net;
pub mod oracle;
mod pace;
pub mod process;
pub mod scenario;
pub mod schedule;
mod streaming;
pub mod trace;
pub mod workload;
pub mod world;

use std::rc::Rc;

use doldam_runtime::planted::{Bug, plant};
use doldam_runtime::tasks::inline;
use tokio::runtime::Builder;

use self::log::Panics;
use self::trace::Trace;

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Keeps every line of the trace, with the logs of all processes.
    pub whole_trace: bool,
    /// A bug to plant.
    pub bug: Option<Bug>,
}

impl Options {
    /// Of `seed`, keeping the end of the trace only.
    pub fn new(seed: u64) -> Self {
        Self { seed, whole_trace: false, bug: None }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which, by the name of the invariant or the check.
    pub promise: &'static str,
    /// How it shows.
    pub what: String,
}

impl Violation {
    /// Of `promise`.
    pub fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What was done, or what was broken.
    pub result: Result<Summary, Violation>,
    /// Of the whole trace.
    pub hash: String,
    /// The trace, or its end.
    pub trace: String,
}

/// What a run without a violation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Operations of clients.
    pub operations: u64,
    /// Of them with an outcome that the client knows.
    pub known: u64,
    /// Troubles.
    pub faults: u64,
    /// Files at the end.
    pub files: u64,
    /// Simulated seconds in all.
    pub secs: u64,
    /// Simulated seconds from the end of the troubles to full health.
    pub healing_secs: u64,
}

/// Runs one seed from the start to the verdict.
///
/// # Panics
/// If no runtime can be made.
pub fn run(options: Options) -> Run {
    let trace = Trace::new(options.whole_trace);
    let panics = Panics::watch();
    pace::reset();
    let _logging = log::to_trace(&trace);
    plant(options.bug);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let entered = inline::enter(Rc::new(pace::DiskPace));
    let result = runtime.block_on(async {
        trace.start();
        let result = scenario::run(options.seed, &trace).await;
        let result = match panics.first() {
            Some(panic) => Err(Violation::new("nothing panics", panic)),
            None => result,
        };
        trace.line("end", format_args!("{result:?}"));
        result
    });
    let (hash, text) = (trace.hash(), trace.text());
    drop(runtime);
    drop(entered);
    plant(None);
    Run { seed: options.seed, result, hash, trace: text }
}
