//! `admin repair`: what is at risk, what is done about it, and why the rest waits.

use std::fmt;
use std::time::Duration;

use doldam_client::{CopyReason, RepairReport, RunningCopy, WaitingBlock};
use serde::Serialize;

use crate::args::parse_duration;
use crate::command::CommandResult;
use crate::command::admin::balance::BalanceRecord;
use crate::command::admin::leaving::NodeRecord;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{counted, grouped, human_bytes, human_rate, human_seconds};
use crate::output::table::table;
use crate::session::Session;

/// The rate is that of the last minute.
const RATE_SECONDS: f64 = 60.0;
/// Reasons shown for one block; `--json` has all.
const REASONS_SHOWN_MAX: usize = 10;

/// Show what repair does: blocks at risk, copies under way, time to finish, and why blocks wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin repair
  doldam admin repair --watch
  doldam admin repair --json --blocks 1000 | jq '.blocks[] | select(.live == 0).path'")]
pub(crate) struct RepairArgs {
    /// Waiting blocks to explain one by one.
    #[arg(long, default_value = "10", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    blocks: u32,

    /// Running copies to show one by one.
    #[arg(long, default_value = "20", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    copies: u32,

    /// Show it again and again until interrupted.
    #[arg(long, short = 'W')]
    watch: bool,

    /// Time between two looks with --watch.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = parse_duration)]
    every: Duration,
}

/// The report; with `--json` with the fields of [`RepairReport`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct RepairRecord(RepairReport);

/// Does it.
///
/// # Errors
/// If the cluster does not answer or standard output fails.
pub(crate) async fn run(session: &mut Session, args: RepairArgs) -> CommandResult {
    let client = session.connect().await?;
    loop {
        let report = client.repair(args.blocks, args.copies).await;
        let report = report.map_err(CommandError::cluster("ask", session.cluster_name()))?;
        session.output.record(&RepairRecord(report))?;
        if !args.watch {
            return Ok(ExitCode::Done);
        }
        if !session.output.is_json() {
            session.output.text("")?;
        }
        session.output.flush()?;
        tokio::time::sleep(args.every).await;
    }
}

impl fmt::Display for RepairRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.0;
        if report.paused {
            writeln!(formatter, "PAUSED       {}", report.alarm)?;
        }
        let risk = |risk: &doldam_client::AtRisk| {
            format!("{} with {} live", counted(risk.blocks, "block", "blocks"), risk.live)
        };
        let risks: Vec<String> = report.at_risk.iter().map(risk).collect();
        let risks = if risks.is_empty() { "nothing".to_owned() } else { risks.join(", ") };
        writeln!(formatter, "at risk      {risks}")?;
        let estimate = match report.estimate_ms {
            Some(time) if report.todo_bytes > 0 => {
                format!(", about {} to go", human_seconds(time as f64 / 1000.0))
            }
            Some(_) | None => String::new(),
        };
        writeln!(
            formatter,
            "repair       {} running, {} waiting, {} to copy{estimate}",
            grouped(report.running),
            grouped(report.waiting),
            human_bytes(report.todo_bytes)
        )?;
        let limit = match report.bytes_per_sec {
            0 => String::new(),
            limit => format!(", limit {}", human_rate(limit, 1.0)),
        };
        writeln!(
            formatter,
            "last minute  {} confirmed, {}{limit}",
            counted(report.minute_copies, "copy", "copies"),
            human_rate(report.minute_bytes, RATE_SECONDS)
        )?;
        write!(formatter, "balance      {}", BalanceRecord(report.balance.clone()))?;
        if report.stuck > 0 {
            let files = counted(report.stuck, "file", "files");
            write!(formatter, "\nstuck        {files} left by their writers, and not closed")?;
        }
        for node in &report.leaving {
            write!(formatter, "\nleaving      {}", NodeRecord(node.clone()))?;
        }
        if !report.copies.is_empty() {
            write!(formatter, "\n\n{}", copies(&report.copies))?;
        }
        for file in &report.stuck_files {
            let why = if file.missing.is_empty() {
                "not even what was synced of it is there; delete it, or bring a disk back"
                    .to_owned()
            } else {
                format!("waits for {}", file.missing.join(", "))
            };
            write!(formatter, "\n\nfile {}: {why}", file.path)?;
        }
        for block in &report.blocks {
            waiting(formatter, block)?;
        }
        Ok(())
    }
}

/// One line per copy.
fn copies(copies: &[RunningCopy]) -> String {
    let header = ["block", "from", "to", "size", "age", "for"];
    let rows = copies.iter().map(|copy| {
        let reason = match copy.reason {
            CopyReason::Repair => "repair",
            CopyReason::Drain => "drain",
            CopyReason::Maintenance => "maintenance",
            CopyReason::Spread => "spread over racks",
            CopyReason::Balance => "balance",
        };
        [
            copy.block.to_string(),
            copy.source.address.clone(),
            copy.target.address.clone(),
            human_bytes(copy.bytes),
            human_seconds(copy.age_ms as f64 / 1000.0),
            reason.to_owned(),
        ]
    });
    table(header, rows.collect(), &[0, 3, 4])
}

/// A block that waits, with what stands against each datanode.
fn waiting(formatter: &mut fmt::Formatter<'_>, block: &WaitingBlock) -> fmt::Result {
    let path = if block.path.is_empty() { "(no name)" } else { &block.path };
    write!(
        formatter,
        "\n\nblock {} of {path}: {} of {} live: {}",
        block.block, block.live, block.wanted, block.why
    )?;
    if let Some(retry) = block.retry_ms {
        write!(formatter, "; again in {}", human_seconds(retry as f64 / 1000.0))?;
    }
    for node in block.nodes.iter().take(REASONS_SHOWN_MAX) {
        write!(formatter, "\n  {}: {}", node.node, node.reason)?;
    }
    match block.nodes.len().saturating_sub(REASONS_SHOWN_MAX) {
        0 => Ok(()),
        more => write!(formatter, "\n  and {more} more"),
    }
}
