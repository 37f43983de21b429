//! Runtimes for block streams: one thread each, and a connection stays on its own.
//!
//! One thread carries a packet from socket to next hop to hash to file; handing it to another thread costs as
//! much as hashing it. These threads are apart from the runtime that answers gRPC, so that heartbeats do not wait
//! behind hashing.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

use super::{BackgroundTasks, TaskName, inline};

/// Single-threaded runtimes, each on its own critical thread. Dropping this stops nothing: the threads end with
/// the [`BackgroundTasks`] they were started under, when their own tasks have.
#[derive(Debug)]
pub struct DataRuntimes {
    tasks: BackgroundTasks,
    runtimes: Vec<Lane>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    tracker: TaskTracker,
}

impl DataRuntimes {
    /// Starts `threads` runtimes, at least one, each with at most `blocking_threads` further threads for what
    /// blocks (a sync at the end of a block).
    ///
    /// # Errors
    /// If the system gives no thread or reactor.
    pub fn start(
        tasks: &BackgroundTasks,
        name: &'static str,
        threads: usize,
        blocking_threads: usize,
    ) -> io::Result<Self> {
        let runtimes: io::Result<_> = (0..threads.max(1))
            .map(|index| Lane::start(tasks, format!("{name}-{index}"), blocking_threads.max(1)))
            .collect();
        Ok(Self { tasks: tasks.clone(), runtimes: runtimes?, next: AtomicUsize::new(0) })
    }

    /// Runs the task that `make` makes on the runtime with the fewest tasks; among equals they take turns.
    ///
    /// `make` runs over there too, and may bind a connection to that runtime's reactor.
    pub fn spawn_on_next<M, F>(&self, name: impl Into<TaskName>, make: M)
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let watch = self.tasks.watch(name.into(), false);
        if inline::is_entered() {
            // One thread has it all; the tasks of a killed process must end, wherever they run.
            self.tasks.track(async move {
                make().await;
                watch.end();
            });
            return;
        }
        let lane = self.least_busy();
        let task = async move {
            make().await;
            watch.end();
        };
        lane.tracker.spawn_on(task, &lane.handle);
    }

    /// Number of runtimes.
    pub fn threads(&self) -> usize {
        self.runtimes.len()
    }

    /// Tasks on all runtimes at present.
    pub fn tasks_running(&self) -> usize {
        self.runtimes.iter().map(|lane| lane.tracker.len()).sum()
    }

    fn least_busy(&self) -> &Lane {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.runtimes.len();
        let (before, after) = self.runtimes.split_at(turn);
        let mut best = &self.runtimes[turn];
        for lane in after.iter().chain(before) {
            if lane.tracker.len() < best.tracker.len() {
                best = lane;
            }
        }
        best
    }
}

impl Lane {
    fn start(tasks: &BackgroundTasks, name: String, blocking_threads: usize) -> io::Result<Self> {
        if inline::is_entered() {
            return Ok(Self { handle: Handle::current(), tracker: TaskTracker::new() });
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(blocking_threads)
            .thread_name(format!("{name}-io"))
            .build()?;
        let lane = Self { handle: runtime.handle().clone(), tracker: TaskTracker::new() };
        let (tracker, stopping) = (lane.tracker.clone(), tasks.stopping());
        let abandoned = tasks.shared.abandoned.clone();
        tasks.spawn_critical_thread(name, move || {
            runtime.block_on(async {
                stopping.cancelled().await;
                tracker.close();
                tokio::select! {
                    biased;
                    () = tracker.wait() => {}
                    () = abandoned.cancelled() => {}
                }
            });
            // Drops what is left; a blocked helper thread is not waited for.
            runtime.shutdown_background();
            Ok::<(), io::Error>(())
        })?;
        Ok(lane)
    }
}
