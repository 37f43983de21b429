//! `df`: how much room there is.

use std::fmt;

use doldam_client::{ClusterReport, DatanodeReport};
use serde::Serialize;

use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::size::{human_bytes, percent};
use crate::session::Session;

/// Show how much room there is in the cluster and on each datanode.
///
/// Sizes are bytes on disk: a file takes its length times its replication.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  doldam df
  doldam df --bytes
  doldam df --json | jq 'select(.name == \"cluster\").available'"
)]
pub(crate) struct DfArgs {
    /// Sizes in bytes.
    #[arg(long, short = 'B', conflicts_with = "human")]
    bytes: bool,

    /// Sizes with units (the default).
    #[arg(long = "human-readable", short = 'h')]
    human: bool,

    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Room in one place.
#[derive(Debug, Serialize)]
struct RoomRecord {
    /// `cluster`, or the address of a datanode.
    name: String,
    /// Bytes of its data folders.
    capacity: u64,
    /// Bytes of replicas.
    used: u64,
    /// Bytes that new replicas may take.
    available: u64,
    #[serde(skip)]
    exact: bool,
}

impl fmt::Display for RoomRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| if self.exact { bytes.to_string() } else { human_bytes(bytes) };
        let width = if self.exact { 16 } else { 10 };
        write!(
            formatter,
            "{:<24}  {:>width$}  {:>width$}  {:>width$}  {:>5}",
            self.name,
            size(self.capacity),
            size(self.used),
            size(self.available),
            percent(self.used, self.used.saturating_add(self.available)),
        )
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: DfArgs) -> CommandResult {
    let client = session.connect().await?;
    let report = client.report().await;
    let report = report.map_err(CommandError::cluster("ask", session.cluster_name()))?;
    if !session.output.is_json() {
        let width = if args.bytes { 16 } else { 10 };
        session.output.text(&format!(
            "{:<24}  {:>width$}  {:>width$}  {:>width$}  {:>5}",
            "name", "capacity", "used", "available", "use"
        ))?;
    }
    for record in rooms(&report, args.bytes) {
        session.output.record(&record)?;
    }
    Ok(crate::exit_code::ExitCode::Done)
}

fn rooms(report: &ClusterReport, exact: bool) -> Vec<RoomRecord> {
    let &ClusterReport { capacity, used, available, .. } = report;
    let mut rooms =
        vec![RoomRecord { name: "cluster".to_owned(), capacity, used, available, exact }];
    rooms.extend(report.datanodes.iter().map(|node| {
        let &DatanodeReport { capacity, used, available, .. } = node;
        RoomRecord { name: node.node.address.clone(), capacity, used, available, exact }
    }));
    rooms
}
