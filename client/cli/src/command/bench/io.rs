//! `bench io`: put and get of one large file, from and to memory, from and to a local file.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_client::{Client, GetOptions, PutOptions, WriteOptions};
use serde::Serialize;

use super::{Workplace, median, pattern, write_file};
use crate::args::{ParallelArgs, WriteArgs, parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::command::put::write_options;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::{human_bytes, megabytes_per_second};
use crate::output::table::table;
use crate::progress::Advance;
use crate::session::Session;

/// Measure put and get of one large file.
///
/// Each run stores a file from memory and one from the local disk, then reads it to nowhere and to
/// the local disk. Prints MB/s (10⁶ bytes) of each run and the median. Everything is deleted
/// afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench io
  doldam bench io --size 4GiB --runs 5 --parallel 4
  doldam bench io --replication 1 --durability memory --json")]
pub(crate) struct IoArgs {
    /// Bytes of the file.
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// How often to measure.
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Directory in the cluster to work in.
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,

    /// Local folder for the files that are stored and fetched [default: that for temporary files].
    #[arg(long, value_name = "DIR")]
    tmp: Option<PathBuf>,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    parallel: ParallelArgs,
}

/// All runs.
#[derive(Debug, Serialize)]
struct IoRecord {
    /// Bytes of the file.
    bytes: u64,
    /// Wanted replicas.
    replication: u32,
    /// Block size.
    block_bytes: u64,
    /// When a put counted as done.
    durability: String,
    /// Blocks in flight if said.
    parallel: Option<usize>,
    /// What was measured, in this order.
    results: Vec<Measured>,
}

/// One kind of transfer.
#[derive(Debug, Serialize)]
struct Measured {
    /// `put from memory`, `put from file`, `get to nowhere`, `get to file`.
    what: &'static str,
    /// MB/s of each run.
    megabytes_per_second: Vec<f64>,
    /// The middle one.
    median: f64,
}

impl fmt::Display for IoRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}, replication {}, blocks of {}, durability {}; MB/s:",
            human_bytes(self.bytes),
            self.replication,
            human_bytes(self.block_bytes),
            self.durability
        )?;
        let rows = self.results.iter().map(|measured| {
            let runs = measured.megabytes_per_second.iter().map(|rate| format!("{rate:.0}"));
            let runs = runs.collect::<Vec<_>>().join("  ");
            [measured.what.to_owned(), format!("{:.0}", measured.median), runs]
        });
        formatter.write_str(&table(["", "median", "runs"], rows.collect(), &[1]))
    }
}

/// Does it.
///
/// # Errors
/// If any transfer fails.
pub(crate) async fn run(session: &mut Session, args: IoArgs) -> CommandResult {
    let settings = session.settings.clone().with_write(&args.write).with_parallel(&args.parallel);
    let folder = local_folder(&args)?;
    let client = session.connect().await?;
    let workplace = Workplace::make(session, &client, &args.path).await?;
    session.progress.start("bench");
    let bench = Bench {
        session,
        client: &client,
        options: WriteOptions { overwrite: true, ..write_options(&settings) },
        parallel: settings.parallel,
        remote: workplace.child("file"),
        local: folder.path(),
        bytes: args.size,
    };
    let measured = bench.measure(args.runs).await;
    session.progress.finish();
    let removed = workplace.remove(&client).await;
    let record = measured?;
    session.output.record(&record)?;
    removed?;
    Ok(ExitCode::Done)
}

fn local_folder(args: &IoArgs) -> Result<tempfile::TempDir, CommandError> {
    let parent = args.tmp.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("doldam-bench-").tempdir_in(&parent);
    folder.map_err(CommandError::local("create a folder in", parent))
}

struct Bench<'a> {
    session: &'a Session,
    client: &'a Client,
    options: WriteOptions,
    parallel: Option<usize>,
    remote: String,
    local: &'a Path,
    bytes: u64,
}

impl Bench<'_> {
    async fn measure(&self, runs: u32) -> Result<IoRecord, CommandError> {
        let pattern = Arc::new(pattern(self.session));
        let source = self.local.join("source");
        self.write_source(&source, Arc::clone(&pattern)).await?;
        let kinds = ["put from memory", "put from file", "get to nowhere", "get to file"];
        let mut rates: [Vec<f64>; 4] = Default::default();
        for _ in 0..runs {
            for (kind, rates) in kinds.iter().zip(&mut rates) {
                self.session.progress.expect_file(self.bytes);
                let progress = self.session.progress.start_file(kind, Some(self.bytes));
                let advance = progress.advance();
                let start = self.session.now();
                match *kind {
                    "put from memory" => {
                        let (path, options) = (&self.remote, self.options.clone());
                        write_file(self.client, path, options, &pattern, self.bytes, &*advance)
                            .await?;
                    }
                    "put from file" => self.put_file(&source, advance).await?,
                    "get to nowhere" => self.get_nowhere(&advance).await?,
                    _ => self.get_file(advance).await?,
                }
                rates.push(megabytes_per_second(self.bytes, self.session.seconds_since(start)));
                progress.done();
            }
        }
        let status = self.client.stat(&self.remote).await;
        let status = status.map_err(CommandError::cluster("stat", &self.remote))?;
        let results = kinds.into_iter().zip(rates).map(|(what, rates)| Measured {
            what,
            median: median(&rates),
            megabytes_per_second: rates,
        });
        Ok(IoRecord {
            bytes: self.bytes,
            replication: status.replication,
            block_bytes: status.block_bytes,
            durability: self.options.durability.to_string(),
            parallel: self.parallel,
            results: results.collect(),
        })
    }

    async fn write_source(&self, path: &Path, pattern: Arc<Vec<u8>>) -> Result<(), CommandError> {
        let (target, bytes) = (path.to_owned(), self.bytes);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::create(target)?;
            let mut left = bytes;
            while left > 0 {
                let count = left.min(pattern.len() as u64);
                file.write_all(&pattern[..count as usize])?;
                left -= count;
            }
            // Else the first run would pay for writing this back.
            file.sync_all()
        })
        .await;
        let written = written.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        written.map_err(CommandError::local("write", path))
    }

    async fn put_file(&self, source: &Path, advance: Advance) -> Result<(), CommandError> {
        let mut options = PutOptions::default();
        options.create = self.options.clone();
        options.progress = Some(advance);
        options.parallel = self.parallel.unwrap_or(options.parallel);
        let put = self.client.put_file(source, &self.remote, options).await;
        put.map(drop).map_err(CommandError::cluster("store", &self.remote))
    }

    async fn get_nowhere(&self, advance: &Advance) -> Result<(), CommandError> {
        let error = || CommandError::cluster("read", &self.remote);
        let mut reader = self.client.open(&self.remote).await.map_err(error())?;
        while let Some(chunk) = reader.read_chunk().await.map_err(error())? {
            advance(chunk.len() as u64);
        }
        Ok(())
    }

    async fn get_file(&self, advance: Advance) -> Result<(), CommandError> {
        let mut options = GetOptions::default();
        options.overwrite = true;
        options.progress = Some(advance);
        options.parallel = self.parallel.unwrap_or(options.parallel);
        let got = self.client.get_file(&self.remote, &self.local.join("copy"), options).await;
        got.map(drop).map_err(CommandError::cluster("get", &self.remote))
    }
}
