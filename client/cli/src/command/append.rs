//! `append`: adds local files and standard input to the end of a file in the cluster.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use doldam_client::{Client, FileWriter, WriteReport};
use doldam_proto::path::FsPath;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::local_tree::{self, LocalKind};
use crate::output::raw_stdin;
use crate::output::size::{human_bytes, human_rate, human_seconds};
use crate::progress::Advance;
use crate::session::Session;
use crate::streaming::{self, StreamFailure};

/// Add local files to the end of a file in the cluster.
///
/// All of them or none: readers see the file as it was until everything is stored. What is there already is
/// neither read nor sent again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam append today.log /logs/app.log
  doldam append jan.csv feb.csv /2026.csv       one behind the other
  dmesg | doldam append - /logs/kernel.log      standard input")]
pub(crate) struct AppendArgs {
    /// Files on this machine, in order; `-` is standard input.
    #[arg(required = true, num_args = 1.., value_name = "LOCAL")]
    sources: Vec<PathBuf>,

    /// The file in the cluster; it must be there.
    #[arg(value_name = "REMOTE", value_parser = parse_remote)]
    target: String,
}

/// A file that was added to.
#[derive(Debug, Serialize)]
struct AppendedRecord {
    /// Which file.
    path: String,
    /// Bytes that were added.
    appended_bytes: u64,
    /// Its length now.
    bytes: u64,
    /// What `b3sum` prints for it now.
    digest: Option<String>,
    /// Blocks with fewer replicas than wanted, healed later.
    under_replicated_blocks: u32,
    /// How long it took.
    seconds: f64,
}

impl fmt::Display for AppendedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "appended to {}: {} in {} ({}), now {}",
            self.path,
            human_bytes(self.appended_bytes),
            human_seconds(self.seconds),
            human_rate(self.appended_bytes, self.seconds),
            human_bytes(self.bytes),
        )?;
        if let Some(digest) = &self.digest {
            write!(formatter, ", blake3 {digest}")?;
        }
        Ok(())
    }
}

/// Does it.
///
/// # Errors
/// If anything fails: nothing is added then.
pub(crate) async fn run(session: &mut Session, args: AppendArgs) -> CommandResult {
    let start = session.now();
    let target = remote_path(&args.target)?;
    let bytes = check_sources(&args.sources)?;
    let client = session.connect().await?;
    session.progress.start("append");
    let progress = session.progress.start_file(target.as_str(), bytes);
    let report = append(&client, &args.sources, &target, &progress.advance()).await?;
    progress.done();
    session.progress.finish();
    let record = AppendedRecord {
        path: target.to_string(),
        appended_bytes: report.bytes,
        bytes: report.status.length,
        digest: report.status.digest.map(|digest| digest.to_string()),
        under_replicated_blocks: report.under_replicated_blocks,
        seconds: session.seconds_since(start),
    };
    if record.under_replicated_blocks > 0 {
        session.messages.warn(&format!(
            "{target}: stored, but {} blocks have fewer replicas than wanted, since too few datanodes took part; \
             the cluster adds the missing ones as soon as it can",
            record.under_replicated_blocks
        ));
    }
    if session.output.is_json() || !session.global.quiet {
        session.output.record(&record)?;
    }
    Ok(ExitCode::Done)
}

/// Looks at every source before anything is opened in the cluster; returns their length, if it is known.
fn check_sources(sources: &[PathBuf]) -> Result<Option<u64>, CommandError> {
    if sources.iter().filter(|source| is_stdin(source)).count() > 1 {
        return Err(CommandError::request(
            "standard input (`-`) can be read only once",
            "name it once, or write `./-` for a file of that name",
        ));
    }
    let mut bytes = Some(0);
    for source in sources {
        if is_stdin(source) {
            bytes = None;
            continue;
        }
        match local_tree::kind(source)? {
            LocalKind::File(length) => bytes = bytes.map(|bytes| bytes + length),
            LocalKind::Directory => {
                return Err(CommandError::request(
                    format!("cannot append {}: it is a directory", source.display()),
                    "name its files, in the order that is wanted",
                ));
            }
            LocalKind::Stream => bytes = None,
        }
    }
    Ok(bytes)
}

fn is_stdin(source: &Path) -> bool {
    source.as_os_str() == "-"
}

async fn append(
    client: &Client,
    sources: &[PathBuf],
    target: &FsPath,
    advance: &Advance,
) -> Result<WriteReport, CommandError> {
    let opened = client.append(target).open().await;
    let mut writer = opened.map_err(CommandError::cluster("append to", target))?;
    for source in sources {
        if let Err(error) = append_one(&mut writer, source, target, advance).await {
            // If the namenode cannot be told, the lease runs out with the same end; the cause matters more.
            drop(writer.abandon().await);
            return Err(error);
        }
    }
    writer.close().await.map_err(CommandError::cluster("append to", target))
}

async fn append_one(
    writer: &mut FileWriter,
    source: &Path,
    target: &FsPath,
    advance: &Advance,
) -> Result<(), CommandError> {
    let opened = if is_stdin(source) { raw_stdin() } else { open(source).await };
    let file = opened.map_err(CommandError::local("read", source))?;
    streaming::feed(file, writer, advance).await.map_err(|failure| match failure {
        StreamFailure::Local(error) => CommandError::local("read", source)(error),
        StreamFailure::Cluster(error) => CommandError::cluster("append to", target)(error),
    })
}

/// Opens a file; if it is a pipe that waits for its other end, so not on this thread.
async fn open(path: &Path) -> std::io::Result<File> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || File::open(path)).await;
    opened.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))
}
