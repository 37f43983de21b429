//! `truncate`: cuts files in the cluster.

use std::fmt;

use doldam_client::Client;
use serde::Serialize;

use crate::args::{parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::size::human_bytes;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};

/// Cut files to their first LENGTH bytes.
///
/// Readers see a file as it was until it is cut. Only a part of one block is copied, however long the file is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam truncate 0 /logs/app.log               empty it, and keep its settings
  doldam truncate 128MiB /data/table            sizes with units
  doldam truncate 1000 '/parts/*'               whatever a pattern means")]
pub(crate) struct TruncateArgs {
    /// Bytes to keep, such as 1000 or 64KiB; no more than each file has.
    #[arg(value_name = "LENGTH", value_parser = parse_bytes)]
    length: u64,

    /// Files or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,
}

/// A file that was cut.
#[derive(Debug, Serialize)]
struct TruncatedRecord {
    /// Which file.
    path: String,
    /// Its length before.
    previous_bytes: u64,
    /// Its length now.
    bytes: u64,
    /// What `b3sum` prints for it now.
    digest: Option<String>,
}

impl fmt::Display for TruncatedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, previous) = (human_bytes(self.bytes), human_bytes(self.previous_bytes));
        write!(formatter, "truncated {}: {bytes} (was {previous})", self.path)?;
        if let Some(digest) = &self.digest {
            write!(formatter, ", blake3 {digest}")?;
        }
        Ok(())
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: TruncateArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for entry in outcomes.expand(session, &client, "truncate", &args.paths).await {
        let truncated = truncate(&client, &entry, args.length).await;
        if let Some(record) = outcomes.take(session, truncated)? {
            session.changed(&record)?;
        }
    }
    Ok(outcomes.exit_code())
}

async fn truncate(
    client: &Client,
    entry: &RemoteEntry,
    length: u64,
) -> Result<TruncatedRecord, CommandError> {
    must_be_file("truncate", entry)?;
    let path = &entry.path;
    let report = client.truncate(path, length).await;
    let report = report.map_err(CommandError::cluster("truncate", path))?;
    Ok(TruncatedRecord {
        path: path.to_string(),
        previous_bytes: entry.status.length,
        bytes: report.status.length,
        digest: report.status.digest.map(|digest| digest.to_string()),
    })
}
