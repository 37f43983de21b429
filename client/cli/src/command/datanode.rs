//! `datanode`: runs a server that keeps blocks.

use std::path::PathBuf;

use doldam_datanode::DatanodeConfig;
use doldam_runtime::tasks::BackgroundTasks;

use crate::args::parse_address;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::server::ready::ReadyRecord;
use crate::server::{self, ServerArgs};
use crate::session::Session;
use crate::signals::Signals;

/// Run a datanode in the foreground.
///
/// Prints one line when it serves; Ctrl-C or SIGTERM stops it cleanly. Everything else it can be
/// told stands in the section `[datanode]` of the configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam datanode --dir /disk1 --dir /disk2 --listen 10.0.0.7:8030 --namenode 10.0.0.1:8020
  doldam datanode --dir dn1 --listen 127.0.0.1:0 --namenode 127.0.0.1:8020 --rack /r1")]
pub(crate) struct DatanodeArgs {
    /// Data folder, best one per disk; may be given several times.
    #[arg(long = "dir", env = "DOLDAM_DATANODE_DIRS", value_name = "DIR", value_delimiter = ',')]
    dirs: Vec<PathBuf>,

    /// Where it serves blocks; port 0 takes any free one [default: 127.0.0.1:8030].
    #[arg(long, env = "DOLDAM_DATANODE_LISTEN", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    listen: Option<String>,

    /// The address by which others reach it, if not that of --listen.
    #[arg(long, env = "DOLDAM_DATANODE_ADVERTISE", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    advertise: Option<String>,

    /// Place in the network, such as /r1; replicas are spread over racks.
    #[arg(long, env = "DOLDAM_RACK", value_name = "RACK")]
    rack: Option<String>,

    /// Metrics and a health page; off without it.
    #[arg(long, env = "DOLDAM_DATANODE_HTTP", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    http: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Does it, until a signal.
///
/// # Errors
/// If it cannot start or had to stop.
pub(crate) async fn run(session: &mut Session, args: DatanodeArgs) -> CommandResult {
    let mut signals = Signals::listen()?;
    let config = configured(session, &args)?;
    let tasks = BackgroundTasks::default();
    let started = doldam_datanode::run(config, session.seams.clone(), &tasks).await;
    let datanode = match started {
        Ok(datanode) => datanode,
        Err(error) => {
            server::stop(&tasks, &mut signals).await?;
            return Err(server::not_started("the datanode", error));
        }
    };
    session.output.record(&ReadyRecord {
        ready: "datanode",
        address: datanode.local_addr().to_owned(),
        http: datanode.http_addr().map(ToOwned::to_owned),
    })?;
    session.output.flush()?;
    server::serve(session, "datanode", &tasks, &mut signals).await
}

fn configured(session: &Session, args: &DatanodeArgs) -> Result<DatanodeConfig, CommandError> {
    let mut config = session.file.datanode.clone();
    // What was typed for this command or all of them wins over the section of the file.
    let typed_or_set = !session.global.namenode.is_empty();
    if typed_or_set || config.namenodes == DatanodeConfig::default().namenodes {
        config.namenodes.clone_from(&session.settings.namenodes);
    }
    if !args.dirs.is_empty() {
        config.dirs.clone_from(&args.dirs);
    }
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    if let Some(rack) = &args.rack {
        config.rack.clone_from(rack);
    }
    config.advertise = args.advertise.clone().or(config.advertise);
    config.http = args.http.clone().or(config.http);
    match config.check() {
        Ok(()) => Ok(config),
        Err(bad) if bad.setting == "dirs" => Err(CommandError::request(
            format!("a datanode needs data folders: {}", bad.why),
            "name each with --dir",
        )),
        Err(bad) => Err(CommandError::request(
            bad.to_string(),
            "correct the flag, or the section [datanode] of the configuration file",
        )),
    }
}
