//! `admin balance`: moves blocks from full datanodes to empty ones.

use std::fmt;
use std::time::Duration;

use doldam_client::{BalanceReport, Client};
use serde::Serialize;

use crate::args::{parse_bytes, parse_duration};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{counted, human_bytes, human_seconds};
use crate::session::Session;

/// Between two looks at a balancing that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A percent in millionths.
const PERCENT_PPM: f64 = 10_000.0;

/// Move blocks until all datanodes are about equally full.
///
/// It goes on in the cluster, also without this command, while nothing waits for repair; it ends by itself, or with the
/// namenode's process.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin balance                       within 10 % of the mean
  doldam admin balance --threshold 2 --bandwidth 200MiB --wait
  doldam admin balance --status
  doldam admin balance --stop")]
pub(crate) struct BalanceArgs {
    /// How far the used share of a datanode may be from that of all together, in percent.
    #[arg(long, short, default_value = "10", value_name = "PERCENT", value_parser = parse_percent)]
    threshold: u32,

    /// Bytes per second of all moves together [default: as the namenode is set].
    #[arg(long, short, value_name = "SIZE", value_parser = parse_bytes)]
    bandwidth: Option<u64>,

    /// Begin no more moves.
    #[arg(long, conflicts_with_all = ["status", "wait", "bandwidth"])]
    stop: bool,

    /// Only show how far it is.
    #[arg(long, conflicts_with_all = ["wait", "bandwidth"])]
    status: bool,

    /// Wait until it ends.
    #[arg(long, short)]
    wait: bool,

    /// Longest wait with -w [default: without end].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    wait_max: Option<Duration>,
}

/// How far it is; with `--json` with the fields of [`BalanceReport`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct BalanceRecord(pub(crate) BalanceReport);

impl fmt::Display for BalanceRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let balance = &self.0;
        if balance.threshold_ppm == 0 {
            return formatter.write_str("not balancing");
        }
        if balance.running {
            formatter.write_str("balancing")?;
        } else {
            write!(formatter, "balancing ended: {}", balance.ended)?;
        }
        write!(
            formatter,
            "; farthest from the mean {}, threshold {}; {} left; {} moving, {} ({}) moved in {}",
            percent(balance.farthest_ppm),
            percent(balance.threshold_ppm),
            human_bytes(balance.left_bytes),
            balance.moves_running,
            counted(balance.moved_blocks, "block", "blocks"),
            human_bytes(balance.moved_bytes),
            human_seconds(balance.elapsed_ms as f64 / 1000.0),
        )
    }
}

/// Does it.
///
/// # Errors
/// If the cluster does not answer, or the balancing does not end as wanted in time.
pub(crate) async fn run(session: &mut Session, args: BalanceArgs) -> CommandResult {
    let client = session.connect().await?;
    let answer = if args.stop {
        client.stop_balance().await
    } else if args.status {
        client.balance().await
    } else {
        client.start_balance(args.threshold, args.bandwidth).await
    };
    let mut report = answer.map_err(CommandError::cluster("balance", session.cluster_name()))?;
    if args.wait {
        report = wait(session, &client, report, args.wait_max).await?;
    }
    let is_reached = !args.wait || report.farthest_ppm <= report.threshold_ppm;
    session.output.record(&BalanceRecord(report))?;
    Ok(if is_reached { ExitCode::Done } else { ExitCode::AnswerIsNo })
}

async fn wait(
    session: &Session,
    client: &Client,
    mut report: BalanceReport,
    wait_max: Option<Duration>,
) -> Result<BalanceReport, CommandError> {
    let started = session.now();
    let mut told_at = started;
    while report.running {
        let waited = session.now().saturating_sub(started);
        if wait_max.is_some_and(|max| waited >= max) {
            return Err(CommandError::Unmet {
                what: format!(
                    "not balanced after {}: {}",
                    human_seconds(waited.as_secs_f64()),
                    BalanceRecord(report)
                ),
                next_step: "it goes on without you; see `doldam admin balance --status`".to_owned(),
            });
        }
        if session.now().saturating_sub(told_at) >= TELL_EVERY {
            told_at = session.now();
            session.messages.note(&BalanceRecord(report).to_string());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = client.balance().await;
        report = looked.map_err(CommandError::cluster("balance", session.cluster_name()))?;
    }
    Ok(report)
}

fn percent(ppm: u32) -> String {
    let percent = f64::from(ppm) / PERCENT_PPM;
    if percent < 1.0 { format!("{percent:.4} %") } else { format!("{percent:.1} %") }
}

/// A share from 0.0001 to less than 100 percent, in millionths.
#[expect(clippy::cast_sign_loss, reason = "what is cast is at least 1")]
fn parse_percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent: f64 = number.parse().map_err(|_| format!("`{text}` is no number of percent"))?;
    let ppm = (percent * PERCENT_PPM).round();
    if (1.0..100.0 * PERCENT_PPM).contains(&ppm) {
        Ok(ppm as u32)
    } else {
        Err(format!("{percent} % is not from 0.0001 % to less than 100 %"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_share_in_percent() {
        for (text, ppm) in [("10", 100_000), ("2.5%", 25_000), ("0.0001", 1), ("99.9999", 999_999)]
        {
            assert_eq!(parse_percent(text), Ok(ppm));
        }
        for bad in ["0", "100", "-1", "many", "", "NaN", "0.00001", "inf"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_never_begun_is_not_said_to_have_ended() {
        assert_eq!(BalanceRecord(BalanceReport::default()).to_string(), "not balancing");
        let running = BalanceReport {
            running: true,
            threshold_ppm: 100_000,
            farthest_ppm: 250_000,
            left_bytes: 1024,
            moved_blocks: 1,
            ..BalanceReport::default()
        };
        let text = BalanceRecord(running).to_string();
        assert!(text.starts_with("balancing; farthest from the mean 25.0 %"), "{text}");
        assert!(text.contains("1.0 KiB left; 0 moving, 1 block (0 B) moved"), "{text}");
    }
}
