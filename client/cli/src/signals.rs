//! Ctrl-C and SIGTERM.

use std::time::Duration;

use doldam_runtime::tasks::spawn_detached;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;
use crate::exit_code::ExitCode;

/// How long a client command may take to end in good order after a signal.
const PATIENCE: Duration = Duration::from_secs(5);

/// Signals that ask the process to end. Each listener gets every one of them.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on; the process no longer ends by itself.
    ///
    /// # Errors
    /// If the system takes no handler.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind).map_err(|source| CommandError::Server {
                what: "cannot listen for signals".to_owned(),
                next_step: "check the limits of this process".to_owned(),
                source: Some(Box::new(source)),
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one, and names it. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
        }
    }
}

/// Ends the process on a second signal, or some time after the first, even if the command is stuck
/// in a write that nobody takes.
///
/// # Errors
/// If the system takes no handler.
pub(crate) fn leave_when_stuck() -> Result<(), CommandError> {
    let mut signals = Signals::listen()?;
    drop(spawn_detached("signals", async move {
        signals.next().await;
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => {}
            _ = signals.next() => {}
        }
        std::process::exit(ExitCode::Interrupted as i32);
    }));
    Ok(())
}
