//! `admin`: what administrators ask and do.

pub(crate) mod balance;
pub(crate) mod decommission;
pub(crate) mod health;
pub(crate) mod leaving;
pub(crate) mod maintenance;
pub(crate) mod recommission;
pub(crate) mod repair;
pub(crate) mod report;

use clap::Subcommand;

use crate::command::CommandResult;
use crate::session::Session;

/// Look after the cluster: its state, repair, datanodes that leave or join.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    Report(report::ReportArgs),
    Repair(repair::RepairArgs),
    Decommission(decommission::DecommissionArgs),
    Recommission(recommission::RecommissionArgs),
    Maintenance(maintenance::MaintenanceArgs),
    Balance(balance::BalanceArgs),
    Health(health::HealthArgs),
}

/// Does it.
///
/// # Errors
/// As the subcommand.
pub(crate) async fn run(session: &mut Session, command: AdminCommand) -> CommandResult {
    match command {
        AdminCommand::Report(args) => report::run(session, args).await,
        AdminCommand::Repair(args) => repair::run(session, args).await,
        AdminCommand::Decommission(args) => decommission::run(session, args).await,
        AdminCommand::Recommission(args) => recommission::run(session, args).await,
        AdminCommand::Maintenance(args) => maintenance::run(session, args).await,
        AdminCommand::Balance(args) => balance::run(session, args).await,
        AdminCommand::Health(args) => health::run(session, args).await,
    }
}
