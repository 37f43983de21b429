//! What `decommission`, `recommission` and `maintenance` have in common: the datanode as it is then, and the wait.

use std::fmt;
use std::time::Duration;

use doldam_client::{Client, DatanodeReport, NodeId, NodeMode};
use serde::Serialize;

use crate::args::parse_duration;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{counted, human_seconds};
use crate::output::time::utc;
use crate::session::Session;
use crate::sources::Outcomes;

/// Between two looks at a datanode that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Which datanodes.
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// Datanodes by id, HOST:PORT, or host if one alone runs on it; `doldam admin report` lists them.
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// Whether to wait.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the datanodes may be stopped.
    #[arg(long, short = 'w')]
    pub(crate) wait: bool,

    /// Longest wait with -w [default: without end].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub(crate) wait_max: Option<Duration>,
}

/// A datanode; with `--json` with the fields of [`DatanodeReport`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct NodeRecord(pub(crate) DatanodeReport);

impl fmt::Display for NodeRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.node, progress(&self.0))?;
        if self.0.mode == NodeMode::Maintenance {
            let left = human_seconds(self.0.maintenance_left_ms as f64 / 1000.0);
            write!(formatter, "; ends in {left}, {}", utc(self.0.maintenance_until_ms))?;
        }
        Ok(())
    }
}

/// How far the datanode is with what was decided about it.
pub(crate) fn progress(node: &DatanodeReport) -> String {
    let open = match node.open_blocks_left {
        0 => String::new(),
        count => format!(", {} being written", counted(count, "block", "blocks")),
    };
    let left = counted(node.blocks_left, "block", "blocks");
    match (node.mode, node.safe_to_stop) {
        (NodeMode::InService, _) => "in service".to_owned(),
        (NodeMode::Draining, true) => "decommissioned, may be stopped".to_owned(),
        (NodeMode::Draining, false) => format!("draining, {left} left{open}"),
        (NodeMode::Maintenance, true) => "in maintenance, may be stopped".to_owned(),
        (NodeMode::Maintenance, false) => {
            format!("in maintenance, {left} not yet live elsewhere{open}")
        }
    }
}

/// Does `change` to each of `nodes`, one failure not stopping the rest, and waits if that is asked for.
pub(crate) async fn change_all<F>(
    session: &mut Session,
    client: &Client,
    nodes: &[String],
    wait: Option<&WaitArgs>,
    change: impl Fn(Client, String) -> F,
) -> Result<ExitCode, CommandError>
where
    F: Future<Output = Result<DatanodeReport, CommandError>>,
{
    let mut outcomes = Outcomes::default();
    let mut changed = Vec::new();
    for node in nodes {
        match change(client.clone(), node.clone()).await {
            Ok(report) => changed.push(report),
            Err(error) => outcomes.fail(session, &error),
        }
    }
    let wait = wait.filter(|wait| wait.wait);
    let deadline = wait.and_then(|wait| wait.wait_max).map(|max| session.now() + max);
    for report in changed {
        let waited = match wait {
            Some(_) => wait_for(session, client, report, deadline).await,
            None => Ok(report),
        };
        if let Some(report) = outcomes.take(session, waited)? {
            session.output.record(&NodeRecord(report))?;
        }
    }
    Ok(outcomes.exit_code())
}

/// Waits until the datanode may be stopped.
async fn wait_for(
    session: &Session,
    client: &Client,
    mut report: DatanodeReport,
    deadline: Option<Duration>,
) -> Result<DatanodeReport, CommandError> {
    let (id, mode, started) = (report.node.id, report.mode, session.now());
    let mut told_at = started;
    while !report.safe_to_stop {
        let name = report.node.to_string();
        if report.mode != mode {
            return Err(CommandError::Unmet {
                what: format!("{name}: {} meanwhile", progress(&report)),
                next_step: "someone else decided otherwise, or its time was over; see `doldam admin report`".to_owned(),
            });
        }
        if deadline.is_some_and(|deadline| session.now() >= deadline) {
            let waited = human_seconds((session.now().saturating_sub(started)).as_secs_f64());
            return Err(CommandError::Unmet {
                what: format!("{name}: {} after {waited}", progress(&report)),
                next_step:
                    "it goes on without you; see `doldam admin repair` for what it waits for"
                        .to_owned(),
            });
        }
        if session.now().saturating_sub(told_at) >= TELL_EVERY {
            told_at = session.now();
            session.messages.note(&format!("{name}: {}", progress(&report)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        report = look(session, client, id).await?;
    }
    Ok(report)
}

async fn look(
    session: &Session,
    client: &Client,
    id: NodeId,
) -> Result<DatanodeReport, CommandError> {
    let report = client.report().await;
    let report = report.map_err(CommandError::cluster("ask", session.cluster_name()))?;
    report.datanodes.into_iter().find(|node| node.node.id == id).ok_or_else(|| {
        CommandError::Unmet {
            what: format!("the cluster does not know datanode {id} any more"),
            next_step: "is it the same namenode? see `doldam admin report`".to_owned(),
        }
    })
}
