//! `get`: fetches files, trees of them, or their content to standard output.

pub(crate) mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use doldam_client::{Client, GetOptions, ReadReport};
use doldam_runtime::Seams;
use serde::Serialize;

use crate::args::{ParallelArgs, parse_remote};
use crate::command::{CommandResult, cat};
use crate::destination::{Existing, place};
use crate::error::CommandError;
use crate::output::size::{human_bytes, human_rate, human_seconds};
use crate::progress::Progress;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::Outcomes;
use crate::summary::{Summary, VerificationRecord};
use crate::transfer::{self, SLOTS_DEFAULT};
use tree::{GetJob, Tree};

/// Fetch files and directories from the cluster.
///
/// Every byte is verified against the namenode's checksums before it is written; a local file
/// appears whole or not at all. As with `cp`, an existing local directory takes the sources under
/// their own names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam get /backups/backup.tar .             into the current directory
  doldam get /archive/2026/photos photos       a whole tree
  doldam get '/logs/2026-*/*.gz' logs/         what matches a pattern
  doldam get /data.tar - | tar x               to standard output")]
pub(crate) struct GetArgs {
    /// Files, directories or patterns in the cluster.
    #[arg(required = true, num_args = 1.., value_name = "REMOTE", value_parser = parse_remote)]
    sources: Vec<String>,

    /// Where to: an existing directory, the path of the new file or directory, or `-` for standard
    /// output.
    #[arg(value_name = "LOCAL")]
    target: PathBuf,

    /// Replace existing local files.
    #[arg(long, short = 'f')]
    overwrite: bool,

    /// Put each local file on stable storage before it gets its name.
    #[arg(long)]
    sync: bool,

    #[command(flatten)]
    parallel: ParallelArgs,
}

/// A fetched file.
#[derive(Debug, Serialize)]
pub(crate) struct FetchedRecord {
    /// In the cluster.
    path: String,
    /// The local file.
    target: String,
    /// Its length.
    bytes: u64,
    /// What `b3sum` prints for it.
    digest: Option<String>,
    /// What was verified, and met on the way.
    #[serde(flatten)]
    verification: VerificationRecord,
    /// How long it took.
    seconds: f64,
}

impl fmt::Display for FetchedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "fetched {}: {} in {} ({}), verified{}",
            self.path,
            human_bytes(self.bytes),
            human_seconds(self.seconds),
            human_rate(self.bytes, self.seconds),
            self.verification.detours(),
        )?;
        match &self.digest {
            Some(digest) => write!(formatter, ", blake3 {digest}"),
            None => Ok(()),
        }
    }
}

/// Does it.
///
/// # Errors
/// If nothing could even be tried; what fails of several sources is counted instead.
pub(crate) async fn run(session: &mut Session, args: GetArgs) -> CommandResult {
    if args.target.as_os_str() == "-" {
        return cat::pour(session, &args.sources).await;
    }
    let start = session.now();
    let settings = session.settings.clone().with_parallel(&args.parallel);
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let sources = outcomes.expand(session, &client, "get", &args.sources).await;
    if sources.is_empty() {
        return Ok(outcomes.exit_code());
    }
    let count = args.sources.len().max(sources.len());
    let placement = place(&args.target.to_string_lossy(), existing(&args.target), count)?;
    let several = count > 1 || sources[0].status.is_dir();

    session.progress.start("get");
    let tree = Tree::new(&client, sources, args.target.clone(), placement);
    let jobs = tree.into_jobs(session.progress.clone());
    let slots = settings.parallel.unwrap_or(SLOTS_DEFAULT);
    let fetch = Fetch {
        client,
        options: get_options(settings.parallel, &args),
        progress: session.progress.clone(),
        seams: session.seams.clone(),
    };
    let (quiet, verbose) = (session.global.quiet, session.global.verbose > 0);
    let messages = session.messages.clone();
    let (mut files, mut bytes) = (0, 0);
    let output = &mut session.output;
    let tally = transfer::run_all(
        &messages,
        slots,
        jobs,
        |job| fetch.fetch(job),
        |record| {
            files += 1;
            bytes += record.bytes;
            record.verification.warnings(&record.path).iter().for_each(|text| messages.warn(text));
            if output.is_json() || (!quiet && (verbose || !several)) {
                output.record(&record)?;
            }
            Ok(())
        },
    )
    .await?;
    outcomes.add(tally);
    session.progress.finish();
    if several && !session.output.is_json() && !quiet {
        let (failed, seconds) = (outcomes.tally().failed(), session.seconds_since(start));
        session.output.text(&Summary { verb: "fetched", files, bytes, seconds, failed })?;
    }
    Ok(outcomes.exit_code())
}

fn existing(target: &Path) -> Existing {
    match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => Existing::Directory,
        Ok(_) => Existing::File,
        Err(_) => Existing::Nothing,
    }
}

fn get_options(parallel: Option<usize>, args: &GetArgs) -> GetOptions {
    let options =
        GetOptions { overwrite: args.overwrite, sync: args.sync, ..GetOptions::default() };
    match parallel {
        Some(parallel) => GetOptions { parallel, ..options },
        None => options,
    }
}

/// Fetches one file after another.
struct Fetch {
    client: Client,
    options: GetOptions,
    progress: Progress,
    seams: Seams,
}

impl Fetch {
    async fn fetch(&self, job: GetJob) -> Result<FetchedRecord, CommandError> {
        let start = self.seams.clock.now();
        let GetJob { entry: RemoteEntry { path, status }, target } = job;
        let progress = self.progress.start_file(path.as_str(), Some(status.length));
        let mut options = self.options.clone();
        options.progress = Some(progress.advance());
        let fetched = self.client.get_file(&path, &target, options).await;
        let ReadReport { status, verification } =
            fetched.map_err(CommandError::cluster("get", &path))?;
        progress.done();
        Ok(FetchedRecord {
            path: path.to_string(),
            target: target.display().to_string(),
            bytes: status.length,
            digest: status.digest.map(|digest| digest.to_string()),
            verification: VerificationRecord::from(&verification),
            seconds: self.seams.clock.now().saturating_sub(start).as_secs_f64(),
        })
    }
}
