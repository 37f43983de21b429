//! Starts, watches and stops the tasks and threads of a server, in one place.
//!
//! What the server cannot do without is *critical*: when it ends, whether it returned, failed or panicked, the
//! whole server stops. A datanode that no longer scrubs must not look healthy.

mod data_runtimes;
pub mod inline;
mod signal;

#[cfg(test)]
#[path = "tasks/tasks_test.rs"]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error, error_span};

pub use data_runtimes::DataRuntimes;
pub use inline::run_blocking;
pub use signal::Signal;

/// Name of a task, for logs.
pub type TaskName = Cow<'static, str>;

/// The tasks and threads of one server. Cheap to clone; clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct BackgroundTasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    stopping: CancellationToken,
    /// The grace period is over: threads that own a runtime leave their tasks behind.
    abandoned: CancellationToken,
    running: Mutex<Running>,
    first_failure: Mutex<Option<TaskFailure>>,
}

/// Who runs, by the order of their start.
#[derive(Debug, Default)]
struct Running {
    names: BTreeMap<u64, TaskName>,
    started: u64,
}

/// A critical task or thread ended before it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {cause}")]
pub struct TaskFailure {
    /// Which.
    pub name: String,
    /// What it said, for people.
    pub cause: String,
}

/// Tasks outlived the grace period of a shutdown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running after {grace:?}: {}", names.join(", "))]
pub struct StillRunning {
    /// Who, in the order of their start; several of one name are counted.
    pub names: Vec<String>,
    /// How long they were waited for.
    pub grace: Duration,
}

impl BackgroundTasks {
    /// Cancelled when the server is to stop, by [`stop`](Self::stop), [`shutdown`](Self::shutdown) or a critical
    /// task that ended.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stopping.clone()
    }

    /// Asks everything to stop, and does not wait.
    pub fn stop(&self) {
        self.shared.stopping.cancel();
    }

    /// Runs `task` until it ends, and with it the server.
    pub fn spawn_critical<F, E>(&self, name: impl Into<TaskName>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send,
    {
        let name = name.into();
        let span = error_span!("task", %name);
        let watch = self.watch(name, true);
        let watched = async move {
            watch.report(&task.await);
        };
        self.track(watched.instrument(span));
    }

    /// Runs `task`, which the server can do without, such as one connection. A panic in it is logged.
    pub fn spawn<F>(&self, name: impl Into<TaskName>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watch = self.watch(name.into(), false);
        self.track(async move {
            task.await;
            watch.end();
        });
    }

    fn track<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        if inline::is_entered() {
            // All processes share the simulator's runtime, so a task that a killed one leaves ends by this.
            let abandoned = self.shared.abandoned.clone();
            let task = async move { _ = abandoned.run_until_cancelled(task).await };
            self.shared.tracker.spawn(task.instrument(Span::current()));
        } else {
            self.shared.tracker.spawn(task);
        }
    }

    /// Runs `work` in a thread of its own until it ends, and with it the server.
    ///
    /// # Errors
    /// If the system gives no thread; the server is stopping then.
    pub fn spawn_critical_thread<F, E>(&self, name: impl Into<TaskName>, work: F) -> io::Result<()>
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Display + Send + 'static,
    {
        let name = name.into();
        if inline::is_entered() {
            self.spawn_critical(name, async move { work() });
            return Ok(());
        }
        let (builder, tracked) = (thread_builder(&name), self.shared.tracker.token());
        let watch = self.watch(name, true);
        builder.spawn(move || {
            let _tracked = tracked;
            let span = error_span!("thread", name = %watch.name);
            span.in_scope(|| watch.report(&work()));
        })?;
        Ok(())
    }

    /// Runs a loop that may block in a thread of its own until it ends, and with it the server. It waits only by
    /// [`Signal`] and channels, so that a simulator can run it as a task.
    ///
    /// # Errors
    /// If the system gives no thread; the server is stopping then.
    pub fn spawn_critical_loop<F, E>(&self, name: impl Into<TaskName>, work: F) -> io::Result<()>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        if inline::is_entered() {
            self.spawn_critical(name, work);
            return Ok(());
        }
        self.spawn_critical_thread(name, move || inline::block_on(work))
    }

    /// Runs `work`, which the server can do without, in a thread of its own. A panic in it is logged.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn_thread<F>(&self, name: impl Into<TaskName>, work: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let name = name.into();
        if inline::is_entered() {
            self.spawn(name, async move { work() });
            return Ok(());
        }
        let (builder, tracked) = (thread_builder(&name), self.shared.tracker.token());
        let watch = self.watch(name, false);
        builder.spawn(move || {
            let _tracked = tracked;
            work();
            watch.end();
        })?;
        Ok(())
    }

    /// Asks everything to stop and waits for it, `grace` at the most.
    ///
    /// # Errors
    /// If something still runs then. Tasks of [`DataRuntimes`] are dropped, others go on until their runtime or
    /// the process ends.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), StillRunning> {
        self.stop();
        self.shared.tracker.close();
        let ended = tokio::time::timeout(grace, self.shared.tracker.wait()).await;
        ended.map_err(|_elapsed| {
            let names = self.running();
            self.shared.abandoned.cancel();
            StillRunning { names, grace }
        })
    }

    /// Drops every task where it stands, as the end of a process does. Only for a simulator, whose tasks these are.
    #[cfg(feature = "simulation")]
    pub fn kill(&self) {
        self.shared.abandoned.cancel();
    }

    /// What stopped the server, if a critical task did.
    pub fn first_failure(&self) -> Option<TaskFailure> {
        self.shared.first_failure.lock().clone()
    }

    /// Who runs at present, in the order of their start; several of one name are counted.
    pub fn running(&self) -> Vec<String> {
        let running = self.shared.running.lock();
        let mut counted: Vec<(&TaskName, usize)> = Vec::new();
        for name in running.names.values() {
            match counted.iter_mut().find(|(seen, _)| *seen == name) {
                Some((_, count)) => *count += 1,
                None => counted.push((name, 1)),
            }
        }
        let print = |(name, count): (&TaskName, usize)| {
            if count == 1 { name.to_string() } else { format!("{name} ({count})") }
        };
        counted.into_iter().map(print).collect()
    }

    fn watch(&self, name: TaskName, critical: bool) -> Watch {
        let mut running = self.shared.running.lock();
        let id = running.started;
        running.started += 1;
        running.names.insert(id, name.clone());
        Watch { name, id, shared: Arc::clone(&self.shared), critical, ended: false }
    }
}

/// Lives as long as its task; dropped without an end, the task panicked or was dropped with its runtime.
struct Watch {
    name: TaskName,
    id: u64,
    shared: Arc<Shared>,
    critical: bool,
    ended: bool,
}

impl Watch {
    /// The end of a critical task.
    fn report<E: Display>(self, result: &Result<(), E>) {
        match result {
            Ok(()) if self.shared.stopping.is_cancelled() => debug!("ended"),
            Ok(()) => self.fail("ended although the server was not stopping"),
            Err(cause) => self.fail(&cause.to_string()),
        }
        self.end();
    }

    fn end(mut self) {
        self.ended = true;
    }

    fn fail(&self, cause: &str) {
        error!(task = %self.name, cause, "failed");
        if self.critical {
            let failure = TaskFailure { name: self.name.to_string(), cause: cause.to_owned() };
            self.shared.first_failure.lock().get_or_insert(failure);
        }
    }
}

/// What failed and all its causes, in one line: for a critical task, of whose end nothing else is told.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries paste their cause into their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended && thread::panicking() {
            self.fail("panicked");
        }
        self.shared.running.lock().names.remove(&self.id);
        if self.critical {
            self.shared.stopping.cancel();
        }
    }
}

fn thread_builder(name: &TaskName) -> thread::Builder {
    thread::Builder::new().name(name.clone().into_owned())
}

/// Runs `task` in the current runtime for a library that has no server around it. Who starts it joins or aborts
/// it by the handle; a panic is logged in any case.
pub fn spawn_detached<F>(name: impl Into<TaskName>, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let panic_log = PanicLog { name: name.into(), ended: false };
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    tokio::spawn(async move {
        let output = task.await;
        panic_log.end();
        output
    })
}

struct PanicLog {
    name: TaskName,
    ended: bool,
}

impl PanicLog {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for PanicLog {
    fn drop(&mut self) {
        if !self.ended && thread::panicking() {
            error!(task = %self.name, "panicked");
        }
    }
}
