//! `admin report`: the cluster at one moment.

use std::fmt;

use doldam_client::{ClusterReport, NodeMode, NodeState};
use serde::Serialize;

use crate::command::CommandResult;
use crate::command::admin::leaving::progress;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{grouped, human_bytes, human_seconds, percent};
use crate::output::table::table;
use crate::output::time::human_age;
use crate::session::Session;

/// Show the state of the cluster: datanodes, room, what is being repaired.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin report
  doldam admin report --json | jq '.datanodes[] | select(.state != \"live\").address'")]
pub(crate) struct ReportArgs {}

/// The report; with `--json` with the fields of [`ClusterReport`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ReportRecord(ClusterReport);

/// Does it.
///
/// # Errors
/// If the cluster does not answer or standard output fails.
pub(crate) async fn run(session: &mut Session, _args: ReportArgs) -> CommandResult {
    let client = session.connect().await?;
    let report = client.report().await;
    let report = report.map_err(CommandError::cluster("ask", session.cluster_name()))?;
    session.output.record(&ReportRecord(report))?;
    Ok(ExitCode::Done)
}

impl fmt::Display for ReportRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.0;
        let uptime = human_seconds(report.uptime_ms as f64 / 1000.0);
        writeln!(formatter, "cluster      {}", report.cluster_id)?;
        writeln!(formatter, "namenode     version {}, up {uptime}", report.version)?;
        writeln!(
            formatter,
            "contents     {} files, {} directories, {} blocks",
            grouped(report.files),
            grouped(report.directories),
            grouped(report.blocks)
        )?;
        writeln!(
            formatter,
            "room         {} used, {} available of {}",
            human_bytes(report.used),
            human_bytes(report.available),
            human_bytes(report.capacity)
        )?;
        writeln!(
            formatter,
            "health       {} under-replicated, {} corrupt, {} missing",
            grouped(report.under_replicated),
            grouped(report.corrupt),
            grouped(report.missing)
        )?;
        let paused = if report.repair_paused {
            ", PAUSED: too many datanodes are gone; see `doldam admin repair`"
        } else {
            ""
        };
        writeln!(
            formatter,
            "repair       {} running, {} waiting{paused}",
            grouped(report.repairs_running),
            grouped(report.repairs_waiting)
        )?;
        let live = report.datanodes.iter().filter(|node| node.node.state == NodeState::Live);
        let leaving = report.datanodes.iter().filter(|node| node.mode != NodeMode::InService);
        let leaving = match leaving.count() {
            0 => String::new(),
            count => format!(", {count} draining or in maintenance"),
        };
        let all = report.datanodes.len();
        writeln!(formatter, "datanodes    {} live of {all}{leaving}", live.count())?;
        if report.datanodes.is_empty() {
            return write!(formatter, "(none has registered)");
        }
        write!(formatter, "\n{}", datanodes(report))
    }
}

/// One line per datanode.
fn datanodes(report: &ClusterReport) -> String {
    let header = [
        "id",
        "address",
        "rack",
        "state",
        "silent",
        "used",
        "available",
        "use",
        "replicas",
        "streams",
        "verified",
        "version",
    ];
    let rows = report.datanodes.iter().map(|node| {
        let state = match node.node.state {
            NodeState::Live => "live",
            NodeState::Suspect => "suspect",
            NodeState::Dead => "DEAD",
        };
        let mode = match node.mode {
            NodeMode::InService => String::new(),
            NodeMode::Draining | NodeMode::Maintenance => format!(", {}", progress(node)),
        };
        let failed = match node.failed_volumes.len() {
            0 => String::new(),
            count => format!(" ({count} folders failed)"),
        };
        [
            node.node.id.to_string(),
            node.node.address.clone(),
            node.node.rack.clone(),
            format!("{state}{failed}{mode}"),
            human_seconds(node.silent_ms as f64 / 1000.0),
            human_bytes(node.used),
            human_bytes(node.available),
            percent(node.used, node.used.saturating_add(node.available)),
            grouped(node.replicas),
            node.active_streams.to_string(),
            verified(node.scrub_passes, node.scrub_oldest_secs),
            node.version.clone(),
        ]
    });
    table(header, rows.collect(), &[0, 4, 5, 6, 7, 8, 9])
}

/// Within what time all replicas of a datanode were verified by its scrubber.
fn verified(passes: u64, oldest_secs: u64) -> String {
    if passes == 0 { "not yet".to_owned() } else { format!("in {}", human_age(oldest_secs)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_verified_as_a_whole_is_told_apart() {
        assert_eq!(verified(0, 0), "not yet");
        assert_eq!(verified(0, 50), "not yet");
        assert_eq!(verified(1, 0), "in 0 s");
        assert_eq!(verified(9, 7_300), "in 2 h");
    }
}
