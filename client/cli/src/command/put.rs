//! `put`: stores local files, directories and standard input.

pub(crate) mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use doldam_client::{Client, Durability, PutOptions, WriteOptions, WriteReport};
use doldam_proto::path::FsPath;
use serde::Serialize;

use crate::args::{ParallelArgs, WriteArgs, parse_remote};
use crate::command::CommandResult;
use crate::config::Settings;
use crate::destination::{Existing, place, remote_path};
use crate::error::CommandError;
use crate::local_tree::{self, LocalKind};
use crate::output::raw_stdin;
use crate::output::size::{human_bytes, human_rate, human_seconds};
use crate::progress::Progress;
use crate::session::Session;
use crate::sources::Outcomes;
use crate::streaming::{self, StreamFailure};
use crate::summary::Summary;
use crate::transfer::{self, SLOTS_DEFAULT};
use tree::{PutJob, Tree};

/// Store local files and directories in the cluster.
///
/// A file appears at its path whole or not at all, also when it replaces another one. As with `cp`,
/// an existing directory takes the sources under their own names. Symbolic links are followed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam put backup.tar /backups/              into a directory, under its own name
  doldam put -p photos /archive/2026/photos    a whole tree, missing parents too
  doldam put 'logs/*.gz' /logs/                a pattern the shell leaves alone
  tar c data | doldam put -f - /data.tar       from standard input, replacing what is there
  doldam put --durability one --replication 2 x /scratch/x")]
pub(crate) struct PutArgs {
    /// Files, directories or patterns on this machine; `-` is standard input.
    #[arg(required = true, num_args = 1.., value_name = "LOCAL")]
    sources: Vec<PathBuf>,

    /// Where to: an existing directory, or the path of the new file or directory.
    #[arg(value_name = "REMOTE", value_parser = parse_remote)]
    target: String,

    /// Replace existing files.
    #[arg(long, short = 'f')]
    overwrite: bool,

    /// Create missing parent directories of REMOTE.
    #[arg(long, short = 'p')]
    parents: bool,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    parallel: ParallelArgs,
}

/// A stored file.
#[derive(Debug, Serialize)]
pub(crate) struct StoredRecord {
    /// The local file, `-` for standard input.
    source: String,
    /// Where it is now.
    path: String,
    /// Its length.
    bytes: u64,
    /// What `b3sum` prints for it.
    digest: Option<String>,
    /// Wanted replicas.
    replication: u32,
    /// Block size.
    block_bytes: u64,
    /// What it was acknowledged with.
    durability: Option<Durability>,
    /// Blocks with fewer replicas than wanted, healed later.
    under_replicated_blocks: u32,
    /// Blocks that had to be sent again from their start because no datanode was left that had a part of them.
    rewritten_blocks: u32,
    /// Blocks that other datanodes went on with because one failed or was too slow.
    recovered_blocks: u32,
    /// How long it took.
    seconds: f64,
}

impl fmt::Display for StoredRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "stored {}: {} in {} ({}), replication {}",
            self.path,
            human_bytes(self.bytes),
            human_seconds(self.seconds),
            human_rate(self.bytes, self.seconds),
            self.replication,
        )?;
        if let Some(durability) = self.durability {
            write!(formatter, ", durability {durability}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, ", blake3 {digest}")?;
        }
        Ok(())
    }
}

/// Does it.
///
/// # Errors
/// If nothing could even be tried; what fails of several sources is counted instead.
pub(crate) async fn run(session: &mut Session, args: PutArgs) -> CommandResult {
    let start = session.now();
    let target = remote_path(&args.target)?;
    let mut outcomes = Outcomes::default();
    let sources = expand_sources(session, &args.sources, &mut outcomes)?;
    if sources.is_empty() {
        return Ok(outcomes.exit_code());
    }
    let settings = session.settings.clone().with_write(&args.write).with_parallel(&args.parallel);
    let store = Store {
        client: session.connect().await?,
        options: put_options(&settings, &args),
        progress: session.progress.clone(),
        clock: session.seams.clone(),
    };
    let existing = existing(&store.client, &target).await?;
    let count = args.sources.len().max(sources.len());
    let placement = place(&args.target, existing, count)?;
    if sources.iter().any(|source| is_stdin(source)) && existing == Existing::Directory {
        return Err(CommandError::request(
            format!("{target} is a directory, and standard input has no name"),
            "name the file to create",
        ));
    }

    session.progress.start("put");
    let tree = Tree::new(&store.client, sources, &target, placement, args.parents);
    let jobs = tree.into_jobs(session.progress.clone());
    let slots = settings.parallel.unwrap_or(SLOTS_DEFAULT);
    let several = count > 1 || !is_one_file(&args.sources[0]);
    let verbose = session.global.verbose > 0;
    let mut totals = Totals::default();
    let messages = session.messages.clone();
    let (output, quiet) = (&mut session.output, session.global.quiet);
    let tally = transfer::run_all(
        &messages,
        slots,
        jobs,
        |job| store.store(job),
        |record| {
            totals.add(&record);
            if output.is_json() || (!quiet && (verbose || !several)) {
                output.record(&record)?;
            }
            Ok(())
        },
    )
    .await?;
    outcomes.add(tally);
    session.progress.finish();
    totals.warn(session);
    if several && !session.output.is_json() && !session.global.quiet {
        let failed = outcomes.tally().failed();
        let seconds = session.seconds_since(start);
        let Totals { files, bytes, .. } = totals;
        session.output.text(&Summary { verb: "stored", files, bytes, seconds, failed })?;
    }
    Ok(outcomes.exit_code())
}

/// The local paths that are meant; says which are not there.
fn expand_sources(
    session: &Session,
    typed: &[PathBuf],
    outcomes: &mut Outcomes,
) -> Result<Vec<PathBuf>, CommandError> {
    if typed.len() > 1 && typed.iter().any(|source| is_stdin(source)) {
        return Err(CommandError::request(
            "standard input (`-`) cannot be one of several sources",
            "store it on its own, or write `./-` for a file of that name",
        ));
    }
    let mut sources = Vec::new();
    for typed in typed {
        if is_stdin(typed) {
            sources.push(typed.clone());
            continue;
        }
        match local_tree::expand(typed) {
            Ok(found) => sources.extend(found),
            Err(error) => outcomes.fail(session, &error),
        }
    }
    Ok(sources)
}

fn is_stdin(source: &Path) -> bool {
    source.as_os_str() == "-"
}

/// Whether the whole of the work is the one file at `source`.
fn is_one_file(source: &Path) -> bool {
    is_stdin(source) || matches!(local_tree::kind(source), Ok(kind) if kind != LocalKind::Directory)
}

/// What is at `target` now.
///
/// # Errors
/// If the cluster does not answer.
pub(crate) async fn existing(client: &Client, target: &FsPath) -> Result<Existing, CommandError> {
    let status = client.try_stat(target).await.map_err(CommandError::cluster("stat", target))?;
    Ok(match status {
        None => Existing::Nothing,
        Some(status) if status.is_dir() => Existing::Directory,
        Some(_) => Existing::File,
    })
}

/// How new files are written, as `settings` say.
pub(crate) fn write_options(settings: &Settings) -> WriteOptions {
    WriteOptions {
        replication: settings.replication,
        block_bytes: settings.block_bytes,
        durability: settings.durability,
        ..WriteOptions::default()
    }
}

fn put_options(settings: &Settings, args: &PutArgs) -> PutOptions {
    let create = WriteOptions {
        overwrite: args.overwrite,
        parents: args.parents,
        ..write_options(settings)
    };
    let options = PutOptions { create, ..PutOptions::default() };
    match settings.parallel {
        Some(parallel) => PutOptions { parallel, ..options },
        None => options,
    }
}

/// Stores one file after another.
struct Store {
    client: Client,
    options: PutOptions,
    progress: Progress,
    clock: doldam_runtime::Seams,
}

impl Store {
    async fn store(&self, job: PutJob) -> Result<StoredRecord, CommandError> {
        let start = self.clock.clock.now();
        let progress = self.progress.start_file(job.target.as_str(), job.known_bytes());
        let mut options = self.options.clone();
        options.progress = Some(progress.advance());
        let report = if let LocalKind::File(_) = job.kind {
            let stored = self.client.put_file(&job.source, &job.target, options).await;
            stored.map_err(CommandError::cluster("store", &job.target))?
        } else {
            self.stream(&job, &options).await?
        };
        progress.done();
        let seconds = self.clock.clock.now().saturating_sub(start).as_secs_f64();
        Ok(record(&job, &report, seconds))
    }

    /// Stores what can only be read from its beginning to its end.
    async fn stream(
        &self,
        job: &PutJob,
        options: &PutOptions,
    ) -> Result<WriteReport, CommandError> {
        let source = if is_stdin(&job.source) { raw_stdin() } else { open_pipe(&job.source).await };
        let source = source.map_err(CommandError::local("read", &job.source))?;
        let writer = self.client.create(&job.target).options(options.create.clone()).open().await;
        let writer = writer.map_err(CommandError::cluster("store", &job.target))?;
        let nobody: crate::progress::Advance = std::sync::Arc::new(|_| ());
        let advance = options.progress.as_ref().unwrap_or(&nobody);
        streaming::store(source, writer, advance).await.map_err(|failure| match failure {
            StreamFailure::Local(error) => CommandError::local("read", &job.source)(error),
            StreamFailure::Cluster(error) => CommandError::cluster("store", &job.target)(error),
        })
    }
}

/// Opens a pipe; that waits for its other end, so not on this thread.
async fn open_pipe(path: &Path) -> std::io::Result<std::fs::File> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path)).await;
    opened.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))
}

fn record(job: &PutJob, report: &WriteReport, seconds: f64) -> StoredRecord {
    StoredRecord {
        source: job.source.display().to_string(),
        path: job.target.to_string(),
        bytes: report.bytes,
        digest: report.status.digest.map(|digest| digest.to_string()),
        replication: report.status.replication,
        block_bytes: report.status.block_bytes,
        durability: report.status.durability,
        under_replicated_blocks: report.under_replicated_blocks,
        rewritten_blocks: report.rewritten_blocks,
        recovered_blocks: report.recovered_blocks,
        seconds,
    }
}

/// What all files came to.
#[derive(Default)]
struct Totals {
    files: u64,
    bytes: u64,
    in_debt: u64,
    example: Option<String>,
}

impl Totals {
    fn add(&mut self, record: &StoredRecord) {
        self.files += 1;
        self.bytes += record.bytes;
        if record.under_replicated_blocks > 0 {
            self.in_debt += 1;
            self.example.get_or_insert_with(|| {
                let blocks = record.under_replicated_blocks;
                format!("{} (blocks: {blocks})", record.path)
            });
        }
    }

    /// Says once what the cluster still owes.
    fn warn(&self, session: &Session) {
        if let Some(example) = &self.example {
            let files = if self.in_debt == 1 {
                example.clone()
            } else {
                format!("{example} and {} more files", self.in_debt - 1)
            };
            session.messages.warn(&format!(
                "{files}: stored, but with fewer replicas than wanted, since too few datanodes \
                 took part; the cluster adds the missing ones as soon as it can"
            ));
        }
    }
}
