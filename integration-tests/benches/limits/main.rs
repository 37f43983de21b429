//! What this machine allows: the work of the file system without the file system.
//!
//! ```text
//! cargo bench -p doldam-integration-tests --no-default-features --bench limits -- [--dir DIR] [--json FILE]
//! ```
//! Each line is one kind of work: its median over the rounds, and CPU seconds of the whole process for each GiB or
//! thousand calls. All kinds are done in turn, round by round, so that a drift of the machine meets all alike; the
//! first round is a warm-up. Divide a figure of the file system by the line of the same work in the same run.
//!
//! Files are written anew, and the one before is deleted once the next is there, as blocks come and go: on a virtual
//! machine memory that was freed a moment ago is cheap to touch, and other memory is not.

#![expect(clippy::print_stdout, reason = "its output")]

mod append;
mod disk;
mod grpc;
mod stream;

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Parser;
use doldam_runtime::Seams;
use serde::Serialize;

/// Whatever goes wrong here ends the benchmark.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const GIB: f64 = (1_u64 << 30) as f64;

/// Measure what this machine allows.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder for files [default: that for temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// MiB that each kind of work moves.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Calls and appends of each kind.
    #[arg(long, default_value_t = 50_000)]
    calls: u64,
    /// Rounds that count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is to be done in each round, and where.
struct Bench {
    seams: Seams,
    dir: tempfile::TempDir,
    bytes: u64,
    calls: u64,
}

/// All rounds of one kind of work.
#[derive(Debug, Serialize)]
struct Row {
    /// What was done.
    what: &'static str,
    /// `MB/s`, `calls/s` or `appends/s`.
    unit: &'static str,
    /// Of each round.
    rates: Vec<f64>,
    /// CPU seconds for each GiB, or each thousand calls, of each round.
    cpu: Vec<f64>,
}

/// A kind of work.
type Work = fn(&Bench) -> Outcome<()>;

/// All kinds, in the order in which they are done.
const KINDS: &[(&str, &str, Work)] = &[
    ("copy of a file in the page cache", "MB/s", disk::copy),
    ("write of a file, 1 MiB at a time", "MB/s", disk::write),
    ("write of a file, synced at its end", "MB/s", disk::write_synced),
    ("loopback stream", "MB/s", stream::one_hop),
    ("three hops, forwarded", "MB/s", stream::three_hops),
    ("three hops, forwarded and hashed", "MB/s", stream::three_hops_hashed),
    ("three hops, forwarded, hashed and written", "MB/s", stream::three_hops_written),
    ("three hops, the same, synced at the end of each block", "MB/s", stream::three_hops_synced),
    ("one hop, hashed and written", "MB/s", stream::one_hop_written),
    ("a cached file, sent and hashed", "MB/s", stream::read_hashed),
    ("a cached file, sent, hashed and written", "MB/s", stream::read_written),
    ("gRPC, 1 call in flight", "calls/s", grpc::one),
    ("gRPC, 32 calls in flight, 1 connection", "calls/s", grpc::many),
    ("gRPC, 32 calls in flight, 2 connections", "calls/s", grpc::many_on_two),
    ("appends, synced, 1 producer", "appends/s", append::one),
    ("appends, synced together, 32 producers", "appends/s", append::many),
];

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("limits-").tempdir_in(parent)?;
    let bytes = arguments.mib << 20;
    let bench = Bench { seams: Seams::system(), dir, bytes, calls: arguments.calls };
    let rows = KINDS.iter().map(|(what, unit, _)| Row { what, unit, rates: vec![], cpu: vec![] });
    let mut rows: Vec<Row> = rows.collect();
    for round in 0..=arguments.rounds {
        for ((_, unit, work), row) in KINDS.iter().zip(&mut rows) {
            let (rate, cpu) = bench.measure(unit, *work)?;
            if round > 0 {
                row.rates.push(rate);
                row.cpu.push(cpu);
            }
        }
    }
    for row in &rows {
        println!(
            "{:<56} {:>9.0} {:<9} {:>6.2} CPU s",
            row.what,
            median(&row.rates),
            row.unit,
            median(&row.cpu)
        );
    }
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    Ok(())
}

impl Bench {
    /// The rate, and CPU seconds for each GiB or thousand calls.
    fn measure(&self, unit: &str, work: Work) -> Outcome<(f64, f64)> {
        let (began, cpu) = (self.seams.clock.now(), cpu_secs()?);
        work(self)?;
        let secs = self.seams.clock.now().saturating_sub(began).as_secs_f64();
        let cpu = cpu_secs()? - cpu;
        Ok(if unit == "MB/s" {
            let bytes = self.bytes as f64;
            (bytes / 1e6 / secs, cpu * GIB / bytes)
        } else {
            let calls = self.calls as f64;
            (calls / secs, cpu * 1000.0 / calls)
        })
    }
}

/// CPU time of this process, to the hundredth of a second.
fn cpu_secs() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything but ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
