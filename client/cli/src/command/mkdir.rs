//! `mkdir`: makes directories.

use std::fmt;

use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::session::Session;
use crate::sources::Outcomes;

/// Create directories.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam mkdir /logs
  doldam mkdir -p /archive/2026/03")]
pub(crate) struct MkdirArgs {
    /// Directories to create.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Create missing parents too; a directory that exists is no error.
    #[arg(long, short = 'p')]
    parents: bool,
}

/// A directory that is there now.
#[derive(Debug, Serialize)]
struct MadeRecord {
    /// Which.
    path: String,
    /// Whether it was not there before.
    created: bool,
}

impl fmt::Display for MadeRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.created { "created" } else { "already there:" };
        write!(formatter, "{verb} {}", self.path)
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: MkdirArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for typed in &args.paths {
        let made = async {
            let path = remote_path(typed)?;
            let made = client.mkdir(&path, args.parents).await;
            let created = made.map_err(CommandError::cluster("create the directory", &path))?;
            Ok(MadeRecord { path: path.to_string(), created })
        };
        if let Some(record) = outcomes.take(session, made.await)? {
            session.changed(&record)?;
        }
    }
    Ok(outcomes.exit_code())
}
