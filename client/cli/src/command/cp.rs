//! `cp`: copies within the cluster, through this machine.

pub(crate) mod tree;

use std::fmt;

use doldam_client::{Client, WriteOptions};
use doldam_proto::limits::BLOCK_BYTES_DEFAULT;
use serde::Serialize;

use crate::args::{ParallelArgs, WriteArgs, parse_remote};
use crate::command::CommandResult;
use crate::command::put::{existing, write_options};
use crate::destination::{place, remote_path};
use crate::error::CommandError;
use crate::output::size::human_bytes;
use crate::progress::Progress;
use crate::session::Session;
use crate::sources::Outcomes;
use crate::streaming::{self, StreamFailure};
use crate::summary::Summary;
use crate::transfer::{self, SLOTS_DEFAULT};
use tree::{CopyJob, Tree};

/// Copy files, and with -r directories, within the cluster.
///
/// A copy keeps the replication and block size (up to 128 MiB) of its source unless told otherwise,
/// and appears whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam cp /a.csv /b.csv
  doldam cp -r /project /backups/
  doldam cp --replication 2 '/logs/*.gz' /cold/")]
pub(crate) struct CpArgs {
    /// Files, directories or patterns in the cluster.
    #[arg(required = true, num_args = 1.., value_name = "SOURCE", value_parser = parse_remote)]
    sources: Vec<String>,

    /// The path of the copy, or the directory to copy into.
    #[arg(value_name = "TARGET", value_parser = parse_remote)]
    target: String,

    /// Directories with all that is below them.
    #[arg(long, short = 'r', visible_short_alias = 'R')]
    recursive: bool,

    /// Replace existing files.
    #[arg(long, short = 'f')]
    overwrite: bool,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    parallel: ParallelArgs,
}

/// A copied file.
#[derive(Debug, Serialize)]
pub(crate) struct CopiedRecord {
    /// What was copied.
    from: String,
    /// The copy.
    to: String,
    /// Its length.
    bytes: u64,
    /// What `b3sum` prints for it.
    digest: Option<String>,
}

impl fmt::Display for CopiedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "copied {} to {} ({})", self.from, self.to, human_bytes(self.bytes))
    }
}

/// Does it.
///
/// # Errors
/// If nothing could even be tried; what fails of several sources is counted instead.
pub(crate) async fn run(session: &mut Session, args: CpArgs) -> CommandResult {
    let start = session.now();
    let target = remote_path(&args.target)?;
    let settings = session.settings.clone().with_write(&args.write).with_parallel(&args.parallel);
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let mut sources = Vec::new();
    for entry in outcomes.expand(session, &client, "copy", &args.sources).await {
        match check(&entry, &target, args.recursive) {
            Ok(()) => sources.push(entry),
            Err(error) => outcomes.fail(session, &error),
        }
    }
    if sources.is_empty() {
        return Ok(outcomes.exit_code());
    }
    let count = args.sources.len().max(sources.len());
    let existing = existing(&client, &target).await?;
    let typed = if sources[0].status.is_dir() { target.as_str() } else { &args.target };
    let placement = place(typed, existing, count)?;

    session.progress.start("copy");
    let jobs = Tree::new(&client, sources, target, placement).into_jobs(session.progress.clone());
    let copy = Copy {
        client,
        options: WriteOptions { overwrite: args.overwrite, ..write_options(&settings) },
        progress: session.progress.clone(),
    };
    let slots = settings.parallel.unwrap_or(SLOTS_DEFAULT);
    let (messages, verbose) = (session.messages.clone(), session.global.verbose > 0);
    let (mut files, mut bytes) = (0, 0);
    let output = &mut session.output;
    let tally = transfer::run_all(
        &messages,
        slots,
        jobs,
        |job| copy.copy(job),
        |record| {
            files += 1;
            bytes += record.bytes;
            if output.is_json() || verbose { output.record(&record) } else { Ok(()) }
        },
    )
    .await?;
    outcomes.add(tally);
    session.progress.finish();
    if !session.output.is_json() && !session.global.quiet {
        let (failed, seconds) = (outcomes.tally().failed(), session.seconds_since(start));
        session.output.text(&Summary { verb: "copied", files, bytes, seconds, failed })?;
    }
    Ok(outcomes.exit_code())
}

fn check(
    source: &crate::remote_tree::RemoteEntry,
    target: &doldam_client::FsPath,
    recursive: bool,
) -> Result<(), CommandError> {
    let path = &source.path;
    if source.status.is_dir() && !recursive {
        return Err(CommandError::request(
            format!("cannot copy {path}: it is a directory"),
            "add -r to copy it with all that is below it",
        ));
    }
    if source.status.is_dir() && target.starts_with(path) {
        return Err(CommandError::request(
            format!("cannot copy {path} into itself ({target})"),
            "choose a target outside of it",
        ));
    }
    Ok(())
}

/// Copies one file after another.
struct Copy {
    client: Client,
    options: WriteOptions,
    progress: Progress,
}

impl Copy {
    async fn copy(&self, job: CopyJob) -> Result<CopiedRecord, CommandError> {
        let CopyJob { source, target } = job;
        if source.path == target {
            return Err(CommandError::request(
                format!("{target} cannot be copied to itself"),
                "choose another target",
            ));
        }
        let bytes = source.status.length;
        let progress = self.progress.start_file(target.as_str(), Some(bytes));
        let read = self.client.open(&source.path).await;
        let reader = read.map_err(CommandError::cluster("read", &source.path))?;
        let options = WriteOptions {
            replication: self.options.replication.or(Some(source.status.replication)),
            // A block is kept in memory until it is acknowledged: the copy of one with huge blocks
            // has smaller ones.
            block_bytes: self
                .options
                .block_bytes
                .or(Some(source.status.block_bytes.min(BLOCK_BYTES_DEFAULT))),
            ..self.options.clone()
        };
        let created = self.client.create(&target).options(options).open().await;
        let writer = created.map_err(CommandError::cluster("store", &target))?;
        let copied = streaming::copy(reader, writer, &progress.advance()).await;
        let report = copied.map_err(|failure| match failure {
            StreamFailure::Cluster(error) => {
                CommandError::cluster("copy", format!("{} to {target}", source.path))(error)
            }
            StreamFailure::Local(error) => CommandError::local("copy", target.as_str())(error),
        })?;
        progress.done();
        Ok(CopiedRecord {
            from: source.path.to_string(),
            to: target.to_string(),
            bytes: report.bytes,
            digest: report.status.digest.map(|digest| digest.to_string()),
        })
    }
}
