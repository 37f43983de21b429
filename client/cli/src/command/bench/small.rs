//! `bench small`: many small files in and out.

use std::fmt;
use std::sync::Arc;

use doldam_client::{Client, WriteOptions};
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::workers::{LatencySummary, whole_rate, work};
use super::{Workplace, pattern};
use crate::args::{WriteArgs, parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::command::put::write_options;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::human_bytes;
use crate::output::table::table;
use crate::session::Session;

/// Largest file that is called small here.
const SIZE_MAX: u64 = 16 << 20;

/// Measure many small files in and out.
///
/// Each of the clients stores one file after another, then reads one after another, whole and
/// verified. Everything is deleted afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench small
  doldam bench small --clients 1 --files 1000
  doldam bench small --size 100KiB --durability memory --json")]
pub(crate) struct SmallArgs {
    /// Files.
    #[arg(long, default_value_t = 5_000, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    files: u64,

    /// Bytes of a file, at most 16MiB.
    #[arg(long, default_value = "4KiB", value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Files in flight at once.
    #[arg(long, default_value_t = 16, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,

    /// Directory in the cluster to work in.
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,

    #[command(flatten)]
    write: WriteArgs,
}

/// In and out.
#[derive(Debug, Serialize)]
struct SmallRecord {
    /// How many files.
    files: u64,
    /// Bytes of each.
    bytes: u64,
    /// In flight at once.
    clients: u16,
    /// When a file counted as stored.
    durability: String,
    /// What was measured, in this order.
    results: Vec<Measured>,
}

/// One direction.
#[derive(Debug, Serialize)]
struct Measured {
    /// `put` or `get`.
    what: &'static str,
    /// Files a second, all clients together.
    per_second: f64,
    /// How long a file took.
    #[serde(flatten)]
    latencies: LatencySummary,
}

impl fmt::Display for SmallRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} files of {}, {} at once, durability {}; latencies in ms:",
            self.files,
            human_bytes(self.bytes),
            self.clients,
            self.durability
        )?;
        let rows = self.results.iter().map(|measured| {
            let [p50, p99, p999, max] = measured.latencies.columns();
            [measured.what.to_owned(), whole_rate(measured.per_second), p50, p99, p999, max]
        });
        let [p50, p99, p999, max] = LatencySummary::HEADER;
        let header = ["", "per second", p50, p99, p999, max];
        formatter.write_str(&table(header, rows.collect(), &[1, 2, 3, 4, 5]))
    }
}

/// Does it.
///
/// # Errors
/// If any file cannot be stored or read.
pub(crate) async fn run(session: &mut Session, args: SmallArgs) -> CommandResult {
    if args.size > SIZE_MAX {
        let why = format!("--size {} is more than {}", args.size, human_bytes(SIZE_MAX));
        return Err(CommandError::request(why, "measure large files with `doldam bench io`"));
    }
    let settings = session.settings.clone().with_write(&args.write);
    let client = session.connect().await?;
    let workplace = Workplace::make(session, &client, &args.path).await?;
    let options = write_options(&settings);
    let durability = options.durability.to_string();
    let measured = measure(session, &client, &workplace, &args, options).await;
    let removed = workplace.remove(&client).await;
    let SmallArgs { files, size: bytes, clients, .. } = args;
    session.output.record(&SmallRecord {
        files,
        bytes,
        clients,
        durability,
        results: measured?,
    })?;
    removed?;
    Ok(ExitCode::Done)
}

async fn measure(
    session: &Session,
    client: &Client,
    workplace: &Workplace,
    args: &SmallArgs,
    options: WriteOptions,
) -> Result<Vec<Measured>, CommandError> {
    let base: Arc<str> = workplace.path.as_str().into();
    let mut content = pattern(session);
    content.truncate(args.size as usize);
    let content = Arc::new(content);
    let (seams, clients, files) = (&session.seams, u64::from(args.clients), args.files);

    let put = {
        let (client, base) = (client.clone(), Arc::clone(&base));
        move |_worker, number: u64| {
            let (client, path) = (client.clone(), format!("{base}/f{number}"));
            let (options, content) = (options.clone(), Arc::clone(&content));
            async move { put_small(&client, &path, options, &content).await }
        }
    };
    let stored = work(seams, clients, files, "put", put).await?;
    let (client, bytes) = (client.clone(), args.size as usize);
    let get = move |_worker, number: u64| {
        let (client, path) = (client.clone(), format!("{base}/f{number}"));
        async move { read_small(&client, &path, bytes).await }
    };
    let read = work(seams, clients, files, "get", get).await?;
    let measured = [("put", stored), ("get", read)].map(|(what, worked)| Measured {
        what,
        per_second: worked.per_second(files),
        latencies: worked.latencies.summary(),
    });
    Ok(measured.into())
}

/// Stores a file of a few bytes.
pub(super) async fn put_small(
    client: &Client,
    path: &str,
    options: WriteOptions,
    content: &[u8],
) -> Result<(), CommandError> {
    let error = || CommandError::cluster("store", path);
    let mut writer = client.create(path).options(options).open().await.map_err(error())?;
    let written = writer.write_all(content).await;
    written.map_err(CommandError::local("write", path))?;
    writer.close().await.map(drop).map_err(error())
}

/// Reads a file of a few bytes.
pub(super) async fn read_small(
    client: &Client,
    path: &str,
    bytes: usize,
) -> Result<(), CommandError> {
    let error = || CommandError::cluster("read", path);
    let reader = client.open(path).await.map_err(error())?;
    reader.read_at(0, bytes).await.map(drop).map_err(error())
}
