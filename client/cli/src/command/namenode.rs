//! `namenode`: runs the metadata server.

use std::path::PathBuf;
use std::time::Duration;

use doldam_namenode::NamenodeConfig;
use doldam_runtime::config::HumanDuration;
use doldam_runtime::tasks::BackgroundTasks;

use crate::args::{parse_address, parse_duration};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::server::ready::ReadyRecord;
use crate::server::{self, ServerArgs};
use crate::session::Session;
use crate::signals::Signals;

/// Run a namenode in the foreground.
///
/// Prints one line when it serves; Ctrl-C or SIGTERM stops it cleanly. Everything else it can be
/// told stands in the section `[namenode]` of the configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam namenode --dir /srv/doldam/namenode --listen 0.0.0.0:8020
  doldam namenode --dir nn --listen 127.0.0.1:8020 --http 127.0.0.1:8021")]
pub(crate) struct NamenodeArgs {
    /// Where the namespace is kept: journal and checkpoints.
    #[arg(long, env = "DOLDAM_NAMENODE_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where clients and datanodes reach it; port 0 takes any free one [default: 127.0.0.1:8020].
    #[arg(long, env = "DOLDAM_NAMENODE_LISTEN", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    listen: Option<String>,

    /// Metrics and a health page; off without it.
    #[arg(long, env = "DOLDAM_NAMENODE_HTTP", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    http: Option<String>,

    /// Silence after which a datanode gets no new blocks.
    #[arg(long, env = "DOLDAM_SUSPECT_AFTER", value_name = "DURATION")]
    #[arg(value_parser = parse_duration)]
    suspect_after: Option<Duration>,

    /// Silence after which what a datanode held is rebuilt elsewhere.
    #[arg(long, env = "DOLDAM_DEAD_AFTER", value_name = "DURATION")]
    #[arg(value_parser = parse_duration)]
    dead_after: Option<Duration>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Does it, until a signal.
///
/// # Errors
/// If it cannot start or had to stop.
pub(crate) async fn run(session: &mut Session, args: NamenodeArgs) -> CommandResult {
    let mut signals = Signals::listen()?;
    let config = configured(session.file.namenode.clone(), &args)?;
    let tasks = BackgroundTasks::default();
    let started = doldam_namenode::run(config, session.seams.clone(), &tasks).await;
    let namenode = match started {
        Ok(namenode) => namenode,
        Err(error) => {
            server::stop(&tasks, &mut signals).await?;
            return Err(server::not_started("the namenode", error));
        }
    };
    session.output.record(&ReadyRecord {
        ready: "namenode",
        address: namenode.local_addr().to_owned(),
        http: namenode.http_addr().map(ToOwned::to_owned),
    })?;
    session.output.flush()?;
    server::serve(session, "namenode", &tasks, &mut signals).await
}

fn configured(
    mut config: NamenodeConfig,
    args: &NamenodeArgs,
) -> Result<NamenodeConfig, CommandError> {
    if let Some(dir) = &args.dir {
        config.dir.clone_from(dir);
    } else if config.dir == NamenodeConfig::default().dir {
        // The server's default depends on where it is started: not to be taken without a word.
        return Err(CommandError::request(
            "a namenode needs a folder to keep the namespace in",
            "name it with --dir",
        ));
    }
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    config.http = args.http.clone().or(config.http);
    if let Some(suspect_after) = args.suspect_after {
        config.suspect_after = HumanDuration(suspect_after);
    }
    if let Some(dead_after) = args.dead_after {
        config.dead_after = HumanDuration(dead_after);
    }
    Ok(config)
}
