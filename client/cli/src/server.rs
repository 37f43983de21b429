//! What all server commands share: logging, readiness, and stopping on a signal.

pub(crate) mod ready;

use std::error::Error;
use std::io;
use std::time::Duration;

use clap::ValueEnum;
use doldam_runtime::tasks::BackgroundTasks;
use doldam_runtime::telemetry::{LOG_VARIABLE, LogFormat, LogOptions, init_logging as init};

use crate::args::GlobalArgs;
use crate::command::{Command, CommandResult};
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::session::Session;
use crate::signals::Signals;

/// How long a server may take to finish what is in flight and to write down what it knows.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Options of every server command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// How the log on standard error looks.
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "DOLDAM_LOG_FORMAT")]
    pub(crate) log_format: LogFormatChoice,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormatChoice {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log: warnings for client commands, what happens for servers; -v says more.
///
/// # Errors
/// If `DOLDAM_LOG` is no filter.
pub(crate) fn init_logging(global: &GlobalArgs, command: &Command) -> Result<(), CommandError> {
    let mut options = match (command.is_server(), command.is_cluster() || global.quiet) {
        (true, false) => LogOptions::server(),
        // A whole cluster in one process would talk over what it prints.
        (true, true) | (false, _) => LogOptions::quiet(),
    };
    match global.verbose {
        0 => {}
        1 => options.filter = LogOptions::server().filter,
        _ => {
            options.filter = String::from(
                "info,doldam=debug,doldam_namenode=debug,doldam_datanode=debug,\
                 doldam_client=debug,doldam_runtime=debug",
            );
        }
    }
    if let Some(LogFormatChoice::Json) = command.log_format() {
        options.format = LogFormat::Json;
    }
    let overriding = std::env::var(LOG_VARIABLE).ok();
    init(&options, overriding.as_deref()).map_err(|error| {
        CommandError::request(
            format!("{LOG_VARIABLE}: {error}"),
            "write a level, or MODULE=LEVEL separated by commas, such as info,doldam_client=debug",
        )
    })
}

/// Serves until a signal or a failure, then stops `tasks`.
///
/// # Errors
/// If a part failed that the server cannot do without, or did not end in time.
pub(crate) async fn serve(
    session: &Session,
    name: &str,
    tasks: &BackgroundTasks,
    signals: &mut Signals,
) -> CommandResult {
    let stopping = tasks.stopping();
    let signalled = tokio::select! {
        signal = signals.next() => Some(signal),
        () = stopping.cancelled() => None,
    };
    if signalled.is_some() {
        session.messages.note(&format!("{name}: stopping"));
    }
    stop(tasks, signals).await?;
    match tasks.first_failure() {
        None => Ok(ExitCode::Done),
        Some(failure) => Err(CommandError::Server {
            what: format!("the {} failed: {}", failure.name, failure.cause),
            next_step: "mend the cause, then start it again; what was acknowledged is kept"
                .to_owned(),
            source: None,
        }),
    }
}

/// Stops everything; a second signal does not wait for it.
///
/// # Errors
/// If something did not end in time.
pub(crate) async fn stop(
    tasks: &BackgroundTasks,
    signals: &mut Signals,
) -> Result<(), CommandError> {
    let stopped = tokio::select! {
        stopped = tasks.shutdown(STOP_GRACE) => stopped,
        _ = signals.next() => return Err(CommandError::Server {
            what: "stopped at once by a second signal".to_owned(),
            next_step: "start it again; it recovers as after a crash".to_owned(),
            source: None,
        }),
    };
    stopped.map_err(|error| CommandError::Server {
        what: "not everything ended in time".to_owned(),
        next_step: "start it again; it recovers as after a crash".to_owned(),
        source: Some(Box::new(error)),
    })
}

/// Why the server `name` did not start.
pub(crate) fn not_started<E: Error + Send + Sync + 'static>(name: &str, error: E) -> CommandError {
    let next_step = match io_kind(&error) {
        Some(io::ErrorKind::AddrInUse) => {
            "stop what listens there, or choose another port with --listen"
        }
        Some(io::ErrorKind::PermissionDenied) => "check who owns the folder, and the port",
        Some(io::ErrorKind::WouldBlock) => "stop the other process, or choose another --dir",
        Some(io::ErrorKind::StorageFull) => "free some space on the disk of the folder",
        _ => "see the cause; `--help` shows the options, -v a longer log",
    };
    CommandError::Server {
        what: format!("cannot start {name}"),
        next_step: next_step.to_owned(),
        source: Some(Box::new(error)),
    }
}

/// The kind of the system's error somewhere among the causes.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen at 127.0.0.1:1")]
    struct CannotListen {
        source: io::Error,
    }

    #[test]
    fn the_systems_reason_leads_to_the_next_step() {
        let error = CannotListen { source: io::ErrorKind::AddrInUse.into() };
        assert_eq!(io_kind(&error), Some(io::ErrorKind::AddrInUse));
        let error = not_started("the namenode", error);
        assert_eq!(
            error.one_line(),
            "cannot start the namenode: cannot listen at 127.0.0.1:1: address in use"
        );
        assert!(error.next_step().contains("--listen"));
        assert_eq!(error.exit_code(), ExitCode::ClusterFailed);
    }
}
