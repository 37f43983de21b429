//! `setrep`: how many replicas files are to have, and the wait until they have them.

use std::fmt;
use std::time::Duration;

use doldam_client::Client;
use doldam_proto::limits::REPLICATION_MAX;
use futures::StreamExt;
use serde::Serialize;

use crate::args::{parse_duration, parse_remote};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::size::human_seconds;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};

/// Between two looks at a file that does not have its replicas yet.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Set the number of replicas of files.
///
/// The cluster copies or trims in the background; -w waits until it is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam setrep 2 /cold/archive.tar
  doldam setrep -w 5 '/config/*'
  doldam setrep -R 2 /cold              every file below")]
pub(crate) struct SetrepArgs {
    /// Replicas wanted.
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICATION_MAX)))]
    replication: u32,

    /// Files or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Every file below a directory.
    #[arg(long, short = 'R', visible_short_alias = 'r')]
    recursive: bool,

    /// Wait until every block has exactly that many live replicas.
    #[arg(long, short = 'w')]
    wait: bool,

    /// Longest wait with -w.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = parse_duration)]
    wait_max: Duration,
}

/// A file with its new number.
#[derive(Debug, Serialize)]
struct SetrepRecord {
    /// Which file.
    path: String,
    /// Replicas wanted before.
    previous: u32,
    /// Replicas wanted now.
    replication: u32,
}

impl fmt::Display for SetrepRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: replication {} (was {})", self.path, self.replication, self.previous)
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: SetrepArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let mut changed = Vec::new();
    for entry in outcomes.expand(session, &client, "change", &args.paths).await {
        let mut walk = RemoteWalk::new(&client, entry);
        while let Some(found) = walk.next().await {
            let set = async {
                let (entry, level) = found?;
                if entry.status.is_dir() && args.recursive {
                    return Ok(None);
                }
                must_be_file("change the replication of", &entry)?;
                debug_assert!(level == 0 || args.recursive);
                set(&client, &entry, args.replication).await.map(Some)
            };
            match set.await {
                Ok(Some(record)) => {
                    session.changed(&record)?;
                    changed.push(record.path);
                }
                Ok(None) => {}
                // Of a directory without -R what is below is not meant either.
                Err(error) => {
                    outcomes.fail(session, &error);
                    break;
                }
            }
        }
    }
    let deadline = session.now() + args.wait_max;
    for path in changed {
        let waited = async {
            if args.wait { wait(session, &client, &path, &args, deadline).await } else { Ok(()) }
        };
        outcomes.take(session, waited.await)?;
    }
    Ok(outcomes.exit_code())
}

async fn set(
    client: &Client,
    entry: &RemoteEntry,
    replication: u32,
) -> Result<SetrepRecord, CommandError> {
    let path = &entry.path;
    let previous = client.set_replication(path, replication).await;
    let previous = previous.map_err(CommandError::cluster("change the replication of", path))?;
    Ok(SetrepRecord { path: path.to_string(), previous, replication })
}

/// Waits until every block of the file at `path` has what is wanted.
async fn wait(
    session: &Session,
    client: &Client,
    path: &str,
    args: &SetrepArgs,
    deadline: Duration,
) -> Result<(), CommandError> {
    loop {
        let (mut blocks, mut ready) = (0, 0);
        let mut files = client.fsck(path, false);
        while let Some(file) = files.next().await {
            let file = file.map_err(CommandError::cluster("look at", path))?;
            blocks += file.blocks.len();
            ready += file.blocks.iter().filter(|block| block.live == args.replication).count();
        }
        if ready == blocks {
            return Ok(());
        }
        if session.now() >= deadline {
            return Err(CommandError::Unmet {
                what: format!(
                    "{path}: {ready} of {blocks} blocks have exactly {} live replicas after {}",
                    args.replication,
                    human_seconds(args.wait_max.as_secs_f64())
                ),
                next_step: "see `doldam admin report`: are there enough live datanodes with room?"
                    .to_owned(),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
