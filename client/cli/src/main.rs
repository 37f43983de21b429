//! `doldam`: every client command and the servers in one binary.
//!
//! Parses, runs one [`command`], prints what it says and leaves with its [`exit_code`]. Results go
//! to standard output ([`output`]), everything else to standard error ([`messages`], [`progress`]).

mod args;
mod command;
mod config;
mod destination;
mod error;
mod exit_code;
mod glob;
mod hedge;
mod local_tree;
mod messages;
mod output;
mod progress;
mod remote_tree;
mod server;
mod session;
mod signals;
mod sources;
mod streaming;
mod summary;
mod transfer;

use args::{Cli, GlobalArgs};
use command::{Command, CommandResult};
use error::CommandError;
use exit_code::ExitCode;
use messages::Messages;
use progress::Progress;
use session::Session;
use signals::Signals;

/// Threads that a client command uses at most: more would not fill a network any faster.
const CLIENT_THREADS_MAX: usize = 4;

fn main() -> std::process::ExitCode {
    let Cli { global, command } = Cli::from_command_line();
    let draw = !global.quiet
        && !global.json
        && !command.is_server()
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let progress = Progress::new(draw);
    let messages = Messages::new(command.name(), &global, progress.clone());
    let result = server::init_logging(&global, &command).and_then(|()| {
        let runtime = runtime(&command, &global)?;
        let result = runtime.block_on(run(command, &global, &progress));
        // What blocks for ever, such as a read of standard input, is left behind.
        runtime.shutdown_background();
        result
    });
    progress.finish();
    exit(&messages, result).into()
}

/// Says what is to be said about a failure.
fn exit(messages: &Messages, result: CommandResult) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::Done,
        Err(error) => {
            messages.error(&error);
            error.exit_code()
        }
    }
}

async fn run(command: Command, global: &GlobalArgs, progress: &Progress) -> CommandResult {
    let mut session = Session::open(command.name(), global, progress)?;
    if command.is_server() {
        return command.run(&mut session).await;
    }
    let mut signals = Signals::listen()?;
    signals::leave_when_stuck()?;
    let messages = session.messages.clone();
    let result = tokio::select! {
        result = command.run(&mut session) => Some(result),
        signal = signals.next() => {
            progress.finish();
            let done = progress.what_is_done().unwrap_or_else(|| "nothing is half done".to_owned());
            messages.warn(&format!("{signal}: {done}"));
            None
        }
    };
    let Some(result) = result else {
        // Leaving the command has dropped it, and with it what it was writing.
        session.settle().await;
        return Ok(ExitCode::Interrupted);
    };
    let flushed = session.output.flush();
    let code = result?;
    flushed?;
    Ok(code)
}

/// The executor for `command`.
fn runtime(
    command: &Command,
    global: &GlobalArgs,
) -> Result<tokio::runtime::Runtime, CommandError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = global.threads.map_or(cores.min(CLIENT_THREADS_MAX), usize::from);
    let mut builder = if command.is_server() {
        tokio::runtime::Builder::new_multi_thread()
    } else if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder.enable_all().build().map_err(|source| CommandError::Server {
        what: "cannot start threads".to_owned(),
        next_step: "raise the limit of processes (`ulimit -u`)".to_owned(),
        source: Some(Box::new(source)),
    })
}
