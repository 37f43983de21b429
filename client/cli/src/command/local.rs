//! `local`: a whole cluster in one process, in a folder that survives restarts.

pub(crate) mod cluster;
pub(crate) mod folder;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use doldam_client::{Client, NodeState};
use doldam_runtime::tasks::BackgroundTasks;
use serde::Serialize;

use crate::args::{parse_address, parse_duration};
use crate::command::CommandResult;
use crate::config::NAMENODE_DEFAULT;
use crate::error::CommandError;
use crate::server::{self, ServerArgs};
use crate::session::Session;
use crate::signals::Signals;
use cluster::Cluster;
use folder::Folder;

/// Datanodes of a new folder if nobody says.
const DATANODES_DEFAULT: usize = 3;
/// How long all datanodes may take to become live.
const LIVE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Run a whole cluster on this machine: a namenode and datanodes, real sockets, real disks.
///
/// Prints how to reach it and serves until Ctrl-C or SIGTERM. Files stay in --dir: the next start
/// with the same folder has them, at the same addresses.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam local --dir ~/doldam-data
  doldam local --dir data --datanodes 5 --listen 127.0.0.1:0
  address=$(doldam local --quiet --dir data | head -n 1)     for scripts, in the background")]
pub(crate) struct LocalArgs {
    /// Where everything is kept; created if missing.
    #[arg(long, env = "DOLDAM_LOCAL_DIR", value_name = "DIR")]
    dir: PathBuf,

    /// How many datanodes [default: as last time in this folder, else 3].
    #[arg(long, env = "DOLDAM_LOCAL_DATANODES", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    datanodes: Option<u16>,

    /// Where the namenode listens; port 0 takes any free one [default: as last time in this
    /// folder, else 127.0.0.1:8020].
    #[arg(long, env = "DOLDAM_LOCAL_LISTEN", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    listen: Option<String>,

    /// Metrics and a health page of the namenode; off without it.
    #[arg(long, env = "DOLDAM_LOCAL_HTTP", value_name = "HOST:PORT")]
    #[arg(value_parser = parse_address)]
    http: Option<String>,

    /// Silence after which what a datanode held is rebuilt elsewhere.
    #[arg(long, env = "DOLDAM_DEAD_AFTER", value_name = "DURATION")]
    #[arg(value_parser = parse_duration)]
    dead_after: Option<Duration>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// A cluster that serves.
#[derive(Debug, Serialize)]
struct ClusterRecord {
    /// `HOST:PORT` of the namenode.
    namenode: String,
    /// `HOST:PORT` of each datanode.
    datanodes: Vec<String>,
    /// `HOST:PORT` of the pages for people and monitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Where everything is kept.
    dir: String,
    #[serde(skip)]
    address_only: bool,
}

impl fmt::Display for ClusterRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address_only {
            return formatter.write_str(&self.namenode);
        }
        let option = if self.namenode == NAMENODE_DEFAULT {
            String::new()
        } else {
            format!("--namenode {} ", self.namenode)
        };
        writeln!(formatter, "Doldam is running.")?;
        writeln!(formatter, "  namenode   {}", self.namenode)?;
        writeln!(formatter, "  datanodes  {}", self.datanodes.join(" "))?;
        if let Some(http) = &self.http {
            writeln!(formatter, "  metrics    http://{http}/")?;
        }
        writeln!(formatter, "  files in   {}", self.dir)?;
        writeln!(formatter, "Try in another terminal:")?;
        writeln!(formatter, "  doldam {option}put FILE /")?;
        writeln!(formatter, "  doldam {option}ls -l /")?;
        writeln!(formatter, "  doldam {option}get /FILE copy")?;
        write!(formatter, "Ctrl-C stops it; the files stay.")
    }
}

/// Does it, until a signal.
///
/// # Errors
/// If any part cannot start or had to stop.
pub(crate) async fn run(session: &mut Session, args: LocalArgs) -> CommandResult {
    let mut signals = Signals::listen()?;
    let tasks = BackgroundTasks::default();
    let started = tokio::select! {
        started = start(session, &args, &tasks) => started,
        _ = signals.next() => {
            server::stop(&tasks, &mut signals).await?;
            return Ok(crate::exit_code::ExitCode::Interrupted);
        }
    };
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => {
            server::stop(&tasks, &mut signals).await?;
            return Err(error);
        }
    };
    session.output.record(&ClusterRecord {
        namenode: cluster.namenode.clone(),
        datanodes: cluster.datanodes.clone(),
        http: cluster.http.clone(),
        dir: args.dir.display().to_string(),
        address_only: session.global.quiet,
    })?;
    session.output.flush()?;
    server::serve(session, "local", &tasks, &mut signals).await
}

/// Starts all parts and waits until every datanode takes blocks.
async fn start(
    session: &Session,
    args: &LocalArgs,
    tasks: &BackgroundTasks,
) -> Result<Cluster, CommandError> {
    let folder = Folder::open(&args.dir, &session.seams)?;
    let known = folder.addresses()?;
    let listen = match (&args.listen, &known.namenode) {
        (Some(typed), _) => typed.clone(),
        (None, Some(last)) => last.clone(),
        (None, None) => NAMENODE_DEFAULT.to_owned(),
    };
    let datanodes = args.datanodes.map_or(known.datanodes.len(), usize::from);
    let datanodes = if datanodes == 0 { DATANODES_DEFAULT } else { datanodes };
    if datanodes < known.datanodes.len() {
        session.messages.warn(&format!(
            "this folder has {} datanodes, and only {datanodes} are started: files may have all \
             their replicas on the others",
            known.datanodes.len()
        ));
    }
    let mut namenode = session.file.namenode.clone();
    namenode.listen = listen;
    namenode.http = args.http.clone().or(namenode.http);
    if let Some(dead_after) = args.dead_after {
        namenode.dead_after = doldam_runtime::config::HumanDuration(dead_after);
    }
    let cluster = Cluster::start(session, folder, known, namenode, datanodes, tasks).await?;
    wait_until_live(session, &cluster).await?;
    Ok(cluster)
}

async fn wait_until_live(session: &Session, cluster: &Cluster) -> Result<(), CommandError> {
    let error = || CommandError::cluster("reach", format!("the namenode at {}", cluster.namenode));
    let client = Client::connect(&cluster.namenode).await.map_err(error())?;
    let deadline = session.now() + LIVE_WITHIN;
    loop {
        let report = client.report().await.map_err(error())?;
        let live = report.datanodes.iter().filter(|node| {
            node.node.state == NodeState::Live && cluster.datanodes.contains(&node.node.address)
        });
        let live = live.count();
        if live == cluster.datanodes.len() {
            return Ok(());
        }
        if session.now() >= deadline {
            return Err(CommandError::Unmet {
                what: format!("only {live} of {} datanodes are live", cluster.datanodes.len()),
                next_step: "start it with -v and see the log".to_owned(),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
