//! `admin`: what administrators ask.

pub(crate) mod health;
pub(crate) mod report;

use clap::Subcommand;

use crate::command::CommandResult;
use crate::session::Session;

/// Questions of an administrator.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    Report(report::ReportArgs),
    Health(health::HealthArgs),
}

/// Does it.
///
/// # Errors
/// As the subcommand.
pub(crate) async fn run(session: &mut Session, command: AdminCommand) -> CommandResult {
    match command {
        AdminCommand::Report(args) => report::run(session, args).await,
        AdminCommand::Health(args) => health::run(session, args).await,
    }
}
