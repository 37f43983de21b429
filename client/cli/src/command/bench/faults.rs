//! `bench faults`: how long failures are felt, in a cluster of its own that is killed and stopped on purpose.

mod cluster;
mod measure;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::median;
use crate::args::{parse_block_bytes, parse_bytes, parse_duration};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::human_bytes;
use crate::output::table::table;
use crate::session::Session;
use measure::Measurements;

/// Enough for three replicas on others when one is gone.
const DATANODES: usize = 4;

/// Measure what failures cost.
///
/// Starts a namenode and four datanodes as processes of its own in a temporary folder, kills (kill -9)
/// and stops (kill -STOP) them in the middle of transfers, and measures how long that is felt: by
/// running transfers, by small reads and writes, and until every block has its replicas again. No
/// other cluster is touched. Everything is deleted afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench faults
  doldam bench faults --size 2GiB --runs 5 --tmp /srv/scratch
  doldam bench faults --files 1000000 --runs 1 --json")]
pub(crate) struct FaultsArgs {
    /// Bytes of each file that is transferred, and of what is repaired.
    #[arg(long, default_value = "512MiB", value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Bytes of a block.
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = parse_block_bytes)]
    block_size: u64,

    /// Files that the namenode knows when it is killed and started again.
    #[arg(long, default_value_t = 100_000, value_name = "COUNT")]
    files: u64,

    /// Silence after which what a datanode held is rebuilt elsewhere.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    dead_after: Duration,

    /// How often to measure.
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Local folder to work in; needs about eight times --size [default: that for temporary files].
    #[arg(long, value_name = "DIR")]
    tmp: Option<PathBuf>,
}

/// All runs.
#[derive(Debug, Serialize)]
struct FaultsRecord {
    /// Bytes of each file.
    bytes: u64,
    /// Block size.
    block_bytes: u64,
    /// Files that the namenode knew.
    files: u64,
    /// When a datanode counted as dead, in seconds.
    dead_after_secs: f64,
    /// What was measured, in this order.
    results: Vec<Measured>,
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
struct Measured {
    /// What.
    what: String,
    /// `s`, `MB/s` or `%`.
    unit: &'static str,
    /// The middle one.
    median: f64,
    /// Of each run.
    values: Vec<f64>,
}

impl fmt::Display for FaultsRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{DATANODES} datanodes, 3 replicas; {} in blocks of {}; {} files at the namenode; dead after {:.0} s",
            human_bytes(self.bytes),
            human_bytes(self.block_bytes),
            self.files,
            self.dead_after_secs
        )?;
        let rows = self.results.iter().map(|measured| {
            let values = measured.values.iter().map(|value| format!("{value:.2}"));
            let values = values.collect::<Vec<_>>().join("  ");
            let median = format!("{:.2}", measured.median);
            [measured.what.clone(), median, measured.unit.to_owned(), values]
        });
        formatter.write_str(&table(["", "median", "", "runs"], rows.collect(), &[1]))
    }
}

/// Does it.
///
/// # Errors
/// If the cluster does not start, or does not come back from what is done to it.
pub(crate) async fn run(session: &mut Session, args: FaultsArgs) -> CommandResult {
    let parent = args.tmp.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("doldam-bench-").tempdir_in(&parent);
    let folder = folder.map_err(CommandError::local("create a folder in", parent))?;
    let settings = format!("[namenode]\ndead_after = \"{}ms\"\n", args.dead_after.as_millis());
    session.progress.start("bench");
    let measured = measure_all(session, &args, folder.path(), &settings).await;
    session.progress.finish();
    let results = measured?.into_iter().map(|(what, unit, values)| Measured {
        what,
        unit,
        median: median(&values),
        values,
    });
    let record = FaultsRecord {
        bytes: args.size,
        block_bytes: args.block_size,
        files: args.files,
        dead_after_secs: args.dead_after.as_secs_f64(),
        results: results.collect(),
    };
    session.output.record(&record)?;
    Ok(ExitCode::Done)
}

async fn measure_all(
    session: &Session,
    args: &FaultsArgs,
    folder: &std::path::Path,
    settings: &str,
) -> Result<Vec<measure::Series>, CommandError> {
    let cluster = cluster::Cluster::start(session, folder, DATANODES, settings).await?;
    let mut measurements =
        Measurements::prepare(session, cluster, folder, args.size, args.block_size).await?;
    for _ in 0..args.runs {
        measurements.transfers().await?;
        measurements.small_operations().await?;
        measurements.repair().await?;
    }
    measurements.make_files(args.files).await?;
    for _ in 0..args.runs {
        measurements.restart().await?;
    }
    Ok(measurements.into_series())
}
