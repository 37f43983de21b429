//! `admin recommission`: takes datanodes back into service.

use crate::command::CommandResult;
use crate::command::admin::leaving::{NodesArgs, change_all};
use crate::error::CommandError;
use crate::session::Session;

/// Take datanodes that are draining or in maintenance back into service.
///
/// What they still have counts again; surplus replicas are dropped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin recommission 3
  doldam admin recommission 10.0.0.11:8030 10.0.0.12:8030")]
pub(crate) struct RecommissionArgs {
    #[command(flatten)]
    nodes: NodesArgs,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: RecommissionArgs) -> CommandResult {
    let client = session.connect().await?;
    change_all(session, &client, &args.nodes.nodes, None, |client, node| async move {
        let done = client.recommission(&node).await;
        done.map_err(CommandError::cluster("recommission", node))
    })
    .await
}
