//! `admin maintenance`: lets datanodes be away for a while.

use std::time::Duration;

use crate::args::parse_duration;
use crate::command::CommandResult;
use crate::command::admin::leaving::{NodesArgs, WaitArgs, change_all};
use crate::error::CommandError;
use crate::session::Session;

/// Let datanodes be away for a while without copying what they hold.
///
/// Each of their blocks needs a live replica elsewhere (the setting `maintenance_live_replicas`); what
/// lacks it is copied first, and with --wait the command ends when the datanodes may be stopped. If
/// one is still away at the end of its time it counts as dead. `admin recommission` ends it early;
/// doing it again sets a new end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin maintenance --for 30m 10.0.0.11:8030
  doldam admin maintenance --for 2h --wait 3 && ssh host3 reboot")]
pub(crate) struct MaintenanceArgs {
    #[command(flatten)]
    nodes: NodesArgs,

    /// How long, from now on.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Duration,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: MaintenanceArgs) -> CommandResult {
    let client = session.connect().await?;
    let (nodes, duration) = (args.nodes.nodes, args.duration);
    change_all(session, &client, &nodes, Some(&args.wait), |client, node| async move {
        let done = client.maintain(&node, duration).await;
        done.map_err(CommandError::cluster("maintain", node))
    })
    .await
}
