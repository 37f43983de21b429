//! `admin decommission`: empties datanodes before they are taken away.

use crate::command::CommandResult;
use crate::command::admin::leaving::{NodesArgs, WaitArgs, change_all};
use crate::error::CommandError;
use crate::session::Session;

/// Empty datanodes before they are taken away.
///
/// A draining datanode is read as before but gets no new blocks; each of its blocks is copied elsewhere, then dropped.
/// It is decommissioned when nothing is left on it, blocks being written included: only then stop it. Doing it twice
/// changes nothing; `admin recommission` undoes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin decommission 10.0.0.11:8030
  doldam admin decommission --wait 3 && ssh host3 systemctl stop doldam
  doldam admin decommission --force 2        accept fewer replicas than wanted")]
pub(crate) struct DecommissionArgs {
    #[command(flatten)]
    nodes: NodesArgs,

    #[command(flatten)]
    wait: WaitArgs,

    /// Drain even if too few datanodes are left for all replicas that files want.
    #[arg(long, short)]
    force: bool,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: DecommissionArgs) -> CommandResult {
    let client = session.connect().await?;
    let (nodes, force) = (args.nodes.nodes, args.force);
    change_all(session, &client, &nodes, Some(&args.wait), |client, node| async move {
        let done = client.decommission(&node, force).await;
        done.map_err(CommandError::cluster("decommission", node))
    })
    .await
}
