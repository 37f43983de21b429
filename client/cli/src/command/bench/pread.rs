//! `bench pread`: verified reads at random places of a file that is open already.

use std::fmt;
use std::sync::Arc;

use doldam_client::{Client, FileReader, WriteOptions};
use doldam_runtime::random::{Random, SeededRandom};
use serde::Serialize;

use super::workers::{LatencySummary, whole_rate, work};
use super::{Workplace, pattern, write_file};
use crate::args::{WriteArgs, parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::command::put::write_options;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::human_bytes;
use crate::output::table::table;
use crate::session::Session;

/// Measure verified reads at random places.
///
/// Stores a file, opens it once for each reader, and reads it at random places, after some reads
/// that do not count. Every byte is verified. The file is deleted afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench pread
  doldam bench pread --readers 8 --bytes 64KiB --ops 100000
  doldam bench pread --size 4GiB --json")]
pub(crate) struct PreadArgs {
    /// Bytes of the file.
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Bytes of a read; may be given several times.
    #[arg(long = "bytes", value_name = "SIZE", value_parser = parse_bytes)]
    #[arg(default_values = ["4KiB", "64KiB"])]
    read_bytes: Vec<u64>,

    /// Reads of each size.
    #[arg(long, default_value_t = 20_000, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    ops: u64,

    /// Readers at once, each with the file open for itself.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    readers: u16,

    /// Directory in the cluster to work in.
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,

    #[command(flatten)]
    write: WriteArgs,
}

/// All sizes.
#[derive(Debug, Serialize)]
struct PreadRecord {
    /// Bytes of the file.
    bytes: u64,
    /// Readers at once.
    readers: u16,
    /// What was measured, in this order.
    sizes: Vec<Measured>,
}

/// One size.
#[derive(Debug, Serialize)]
struct Measured {
    /// Bytes of a read.
    read_bytes: u64,
    /// How many reads were made.
    reads: u64,
    /// Reads a second, all readers together.
    per_second: f64,
    /// How long a read took.
    #[serde(flatten)]
    latencies: LatencySummary,
}

impl fmt::Display for PreadRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} readers of a file of {}; latencies in ms:",
            self.readers,
            human_bytes(self.bytes)
        )?;
        let rows = self.sizes.iter().map(|measured| {
            let [p50, p99, p999, max] = measured.latencies.columns();
            let rate = whole_rate(measured.per_second);
            [human_bytes(measured.read_bytes), rate, p50, p99, p999, max]
        });
        let [p50, p99, p999, max] = LatencySummary::HEADER;
        let header = ["read", "per second", p50, p99, p999, max];
        formatter.write_str(&table(header, rows.collect(), &[0, 1, 2, 3, 4, 5]))
    }
}

/// Does it.
///
/// # Errors
/// If the file cannot be stored, or any read fails.
pub(crate) async fn run(session: &mut Session, args: PreadArgs) -> CommandResult {
    let settings = session.settings.clone().with_write(&args.write);
    let client = session.connect().await?;
    let workplace = Workplace::make(session, &client, &args.path).await?;
    let measured = measure(session, &client, &workplace, &args, write_options(&settings)).await;
    let removed = workplace.remove(&client).await;
    let sizes = measured?;
    session.output.record(&PreadRecord { bytes: args.size, readers: args.readers, sizes })?;
    removed?;
    Ok(ExitCode::Done)
}

async fn measure(
    session: &Session,
    client: &Client,
    workplace: &Workplace,
    args: &PreadArgs,
    options: WriteOptions,
) -> Result<Vec<Measured>, CommandError> {
    let path = workplace.child("file");
    write_file(client, &path, options, &pattern(session), args.size, &|_| {}).await?;
    let mut readers: Vec<FileReader> = Vec::new();
    for _ in 0..args.readers {
        let reader = client.open(&path).await;
        readers.push(reader.map_err(CommandError::cluster("open", &path))?);
    }
    let readers = Arc::new(readers);
    let mut sizes = Vec::new();
    for read_bytes in &args.read_bytes {
        sizes.push(measure_size(session, &readers, args, *read_bytes).await?);
    }
    Ok(sizes)
}

async fn measure_size(
    session: &Session,
    readers: &Arc<Vec<FileReader>>,
    args: &PreadArgs,
    read_bytes: u64,
) -> Result<Measured, CommandError> {
    let places = (args.size / read_bytes.max(1)).max(1);
    let seed = session.seams.random.next_u64();
    let readers = Arc::clone(readers);
    let call = move |worker: u64, number: u64| {
        let readers = Arc::clone(&readers);
        async move {
            // Of its own, so that readers share nothing but the cluster.
            let place = SeededRandom::new(seed ^ number).below(places);
            let reader = &readers[worker as usize];
            let read = reader.read_at(place * read_bytes, read_bytes as usize).await;
            read.map(drop).map_err(CommandError::cluster("read", reader.status().path.as_str()))
        }
    };
    let workers = u64::from(args.readers);
    let warm = (args.ops / 10).clamp(1, 1_000);
    work(&session.seams, workers, warm, "read", call.clone()).await?;
    let worked = work(&session.seams, workers, args.ops, "read", call).await?;
    Ok(Measured {
        read_bytes,
        reads: args.ops,
        per_second: worked.per_second(args.ops),
        latencies: worked.latencies.summary(),
    })
}
