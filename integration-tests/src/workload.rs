//! Clients that write, overwrite, rename, delete and read, tell the oracle, and never stop of themselves.
//!
//! Each writer has a directory of its own and does one thing after another there; readers read whatever is there of
//! anybody. What they do follows from a seed; when, from the machine.

mod reader;
pub mod verdict;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use doldam_client::{Client, ClientError, Durability};
use doldam_runtime::random::SeededRandom;
use doldam_runtime::tasks::spawn_detached;
use tokio::task::JoinHandle;

use crate::oracle::{Content, History, Ticket, Violation};

/// How much is going on.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients that change things.
    pub writers: u64,
    /// Clients that only read.
    pub readers: u64,
    /// Longest file, in bytes.
    pub bytes_max: u64,
    /// What files are written with, each as often as the others.
    pub durability: &'static [Durability],
}

impl Default for Load {
    fn default() -> Self {
        // The death of a process loses nothing at any level.
        let durability = &[Durability::All, Durability::One, Durability::Memory];
        Self { writers: 5, readers: 3, bytes_max: 700_000, durability }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    actors: Vec<JoinHandle<()>>,
}

/// What all clients of a workload share.
#[derive(Debug, Default)]
struct Shared {
    history: Mutex<History>,
    violations: Mutex<Vec<Violation>>,
    stopping: AtomicBool,
    changes: AtomicU64,
    reads: AtomicU64,
    failures: AtomicU64,
}

impl Workload {
    /// Sets clients to work, each with a connection that `client` makes.
    pub async fn start(seed: u64, load: Load, client: impl AsyncFn() -> Client) -> Self {
        let shared = Arc::new(Shared::default());
        let mut actors = Vec::new();
        for index in 0..load.writers {
            let random = SeededRandom::new(seed ^ (index + 1) << 32);
            let writer = writer::Writer::new(index, client().await, random, load);
            actors.push(spawn_detached("writer", writer.run(Arc::clone(&shared))));
        }
        for index in 0..load.readers {
            let random = SeededRandom::new(seed ^ (index + 1001) << 32);
            let reader = reader::run(client().await, random, Arc::clone(&shared));
            actors.push(spawn_detached("reader", reader));
        }
        Self { shared, actors }
    }

    /// How many changes were acknowledged so far.
    pub fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// How many files were read whole so far.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// How often a client was told that something is not possible right now.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Panics with all promises that were seen not to hold so far.
    pub fn assert_no_violation(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{}", list(&violations));
    }

    /// Lets every client end what it is doing, and returns what they were told.
    pub async fn stop(mut self) -> History {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for actor in std::mem::take(&mut self.actors) {
            actor.await.unwrap();
        }
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{}", list(&violations));
        drop(violations);
        std::mem::take(&mut *self.shared.history.lock().unwrap())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Keeps a violation; everybody stops, so that the end of the logs is about it.
    fn check(&self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict {
            self.violations.lock().unwrap().push(violation);
            self.stopping.store(true, Ordering::Relaxed);
        }
    }

    fn violation(&self, path: &str, what: String) {
        self.check(Err(Violation { path: path.to_owned(), what }));
    }

    fn done(&self, ticket: Ticket) {
        self.history().acknowledged(ticket);
        count(&self.changes);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads what is at `path`, whole.
///
/// # Errors
/// If it cannot be read; that nothing is there is no error.
pub async fn read(client: &Client, path: &str) -> Result<Content, ClientError> {
    let reader = match client.open(path).await {
        Ok(reader) => reader,
        Err(error) if error.is_not_found() => return Ok(Content::Absent),
        Err(error) => return Err(error),
    };
    let length = reader.status().length as usize;
    // One byte more than there is: the end is the end.
    Ok(Content::of(&reader.read_at(0, length + 1).await?))
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|it| format!("\n  {it}")).collect()
}
