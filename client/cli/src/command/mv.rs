//! `mv`: renames files and directories, each in one step.

use std::fmt;

use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::command::put::existing;
use crate::destination::{below, place, remote_path};
use crate::error::CommandError;
use crate::session::Session;
use crate::sources::Outcomes;

/// Rename files and directories.
///
/// Each rename is one atomic step: everyone sees the old name or the new one. An existing directory
/// takes the sources under their own names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam mv /logs/app.log /logs/app.old
  doldam mv '/incoming/*.csv' /processed/
  doldam mv --replace /site.new /site.html")]
pub(crate) struct MvArgs {
    /// Files, directories or patterns in the cluster.
    #[arg(required = true, num_args = 1.., value_name = "SOURCE", value_parser = parse_remote)]
    sources: Vec<String>,

    /// The new path, or the directory to move into.
    #[arg(value_name = "TARGET", value_parser = parse_remote)]
    target: String,

    /// Replace an existing file, or an empty directory.
    #[arg(long, short = 'f')]
    replace: bool,
}

/// Something under its new name.
#[derive(Debug, Serialize)]
struct MovedRecord {
    /// The old path.
    from: String,
    /// The new path.
    to: String,
}

impl fmt::Display for MovedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "moved {} to {}", self.from, self.to)
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached, the target cannot take the sources, or standard output fails.
pub(crate) async fn run(session: &mut Session, args: MvArgs) -> CommandResult {
    let target = remote_path(&args.target)?;
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let sources = outcomes.expand(session, &client, "move", &args.sources).await;
    if sources.is_empty() {
        return Ok(outcomes.exit_code());
    }
    let count = args.sources.len().max(sources.len());
    let existing = existing(&client, &target).await?;
    // A directory may get a new name that ends with a slash.
    let typed = if sources[0].status.is_dir() { target.as_str() } else { &args.target };
    let placement = place(typed, existing, count)?;
    for source in sources {
        let moved = async {
            let from = source.path;
            let to = below(&target, &placement, from.name()).map_err(|error| {
                CommandError::request(
                    format!("cannot move {from}: {error}"),
                    "choose a shorter path",
                )
            })?;
            let renamed = client.rename(&from, &to, args.replace).await;
            renamed.map_err(CommandError::cluster("move", format!("{from} to {to}")))?;
            Ok(MovedRecord { from: from.to_string(), to: to.to_string() })
        };
        if let Some(record) = outcomes.take(session, moved.await)? {
            session.changed(&record)?;
        }
    }
    Ok(outcomes.exit_code())
}
