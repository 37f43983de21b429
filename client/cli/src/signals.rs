//! Ctrl-C and SIGTERM.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::CommandError;

/// Waits for the first signal that asks the process to end, and names it. Listens from now on.
///
/// # Errors
/// If the system takes no handler.
pub(crate) fn interrupted() -> Result<impl Future<Output = &'static str>, CommandError> {
    let listen = |kind| {
        signal(kind).map_err(|source| CommandError::Server {
            what: "cannot listen for signals".to_owned(),
            next_step: "check the limits of this process".to_owned(),
            source: Some(Box::new(source)),
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
        }
    })
}
