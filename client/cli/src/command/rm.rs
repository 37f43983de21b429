//! `rm`: deletes files and directories.

use std::fmt;

use doldam_client::Client;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::remote_tree::{RemoteEntry, expand};
use crate::session::Session;
use crate::sources::Outcomes;

/// Delete files, and with -r directories with all below.
///
/// What is deleted is gone from the namespace at once and cannot be brought back; its blocks are
/// collected in the background.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam rm /logs/old.log
  doldam rm -r /scratch
  doldam rm -f '/tmp/*.part'            no error if nothing is there")]
pub(crate) struct RmArgs {
    /// Files, directories or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Directories with all that is below them.
    #[arg(long, short = 'r', visible_short_alias = 'R')]
    recursive: bool,

    /// Nothing at a path is no error.
    #[arg(long, short = 'f')]
    force: bool,
}

/// Something that is gone.
#[derive(Debug, Serialize)]
struct DeletedRecord {
    /// Where it was.
    path: String,
}

impl fmt::Display for DeletedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "deleted {}", self.path)
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: RmArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for typed in &args.paths {
        let entries = match expand(&client, "delete", typed).await {
            Ok(entries) => entries,
            Err(error) if args.force && means_nothing(&error, typed) => continue,
            Err(error) => {
                outcomes.fail(session, &error);
                continue;
            }
        };
        for entry in entries {
            let deleted = delete(&client, &entry, &args).await;
            if let Some(record) = outcomes.take(session, deleted)? {
                session.changed(&record)?;
            }
        }
    }
    Ok(outcomes.exit_code())
}

/// Whether nothing is there: no such path, or a pattern without a match.
fn means_nothing(error: &CommandError, typed: &str) -> bool {
    match error {
        CommandError::Cluster { source, .. } => source.is_not_found(),
        CommandError::Request { .. } => {
            crate::glob::is_pattern(typed) && doldam_client::FsPath::parse(typed).is_ok()
        }
        CommandError::Local { .. }
        | CommandError::Server { .. }
        | CommandError::Unmet { .. }
        | CommandError::Output(_) => false,
    }
}

async fn delete(
    client: &Client,
    entry: &RemoteEntry,
    args: &RmArgs,
) -> Result<DeletedRecord, CommandError> {
    let path = &entry.path;
    if path.is_root() {
        return Err(CommandError::request(
            "cannot delete /: it is the root of the cluster",
            "to delete everything in it: doldam rm -r '/*'",
        ));
    }
    if entry.status.is_dir() && !args.recursive {
        return Err(CommandError::request(
            format!("cannot delete {path}: it is a directory"),
            "add -r to delete it with all that is below it",
        ));
    }
    match client.delete(path, args.recursive).await {
        Err(error) if args.force && error.is_not_found() => {}
        deleted => deleted.map_err(CommandError::cluster("delete", path))?,
    }
    Ok(DeletedRecord { path: path.to_string() })
}
