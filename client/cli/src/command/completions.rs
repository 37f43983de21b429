//! `completions`: what a shell needs to complete command lines.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::command::CommandResult;
use crate::exit_code::ExitCode;
use crate::session::Session;

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam completions bash > ~/.local/share/bash-completion/completions/doldam
  doldam completions zsh > ~/.zfunc/_doldam
  doldam completions fish > ~/.config/fish/completions/doldam.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Does it.
///
/// # Errors
/// If standard output fails.
pub(crate) fn run(session: &mut Session, args: CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "doldam", &mut script);
    session.output.bytes(&script)?;
    Ok(ExitCode::Done)
}
