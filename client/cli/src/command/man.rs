//! `man`: the manual, generated from the same words as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::args::Cli;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::session::Session;

/// Print the manual page, or write the pages of all commands into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam man | man -l -
  doldam man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write doldam.1, doldam-put.1 and so on into this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// If standard output or the directory does not take the pages.
pub(crate) fn run(session: &mut Session, args: ManArgs) -> CommandResult {
    let mut command = Cli::command();
    command.build();
    match args.dir {
        None => session.output.bytes(&page(&command).map_err(CommandError::Output)?)?,
        Some(folder) => write_pages(&command, &folder)?,
    }
    Ok(ExitCode::Done)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

fn write_pages(command: &clap::Command, folder: &Path) -> Result<(), CommandError> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = folder.join(format!("{name}.1"));
    let page = page(&command.clone().name(name)).and_then(|page| fs::write(&path, page));
    page.map_err(CommandError::local("write", &path))?;
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        write_pages(subcommand, folder)?;
    }
    Ok(())
}
