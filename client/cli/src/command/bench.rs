//! `bench`: how fast this cluster is, seen from here, and what failures cost in one of its own.

pub(crate) mod faults;
pub(crate) mod io;
pub(crate) mod load;
pub(crate) mod meta;
pub(crate) mod pread;
pub(crate) mod small;
mod workers;

use clap::Subcommand;
use doldam_client::{Client, FsPath, WriteOptions};
use doldam_proto::path::PathError;
use tokio::io::AsyncWriteExt;

use crate::command::CommandResult;
use crate::error::CommandError;
use crate::session::Session;

/// Random bytes that are written again and again; more than a disk might fold.
const PATTERN_BYTES: usize = 16 << 20;
/// Bytes handed to a writer at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Measure throughput, operations per second, and what failures cost.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Io(io::IoArgs),
    Pread(pread::PreadArgs),
    Meta(meta::MetaArgs),
    Small(small::SmallArgs),
    Load(load::LoadArgs),
    Faults(faults::FaultsArgs),
}

/// Does it.
///
/// # Errors
/// As the subcommand.
pub(crate) async fn run(session: &mut Session, command: BenchCommand) -> CommandResult {
    match command {
        BenchCommand::Io(args) => io::run(session, args).await,
        BenchCommand::Pread(args) => pread::run(session, args).await,
        BenchCommand::Meta(args) => meta::run(session, args).await,
        BenchCommand::Small(args) => small::run(session, args).await,
        BenchCommand::Load(args) => load::run(session, args).await,
        BenchCommand::Faults(args) => faults::run(session, args).await,
    }
}

/// A directory of its own for one benchmark.
struct Workplace {
    path: FsPath,
}

impl Workplace {
    /// Makes it below `parent`.
    async fn make(session: &Session, client: &Client, parent: &str) -> Result<Self, CommandError> {
        let name = format!("doldam-bench-{:016x}", session.seams.random.next_u64());
        let path = crate::destination::remote_path(parent)?;
        let path = path.join(&name).map_err(|error| bad_parent(parent, &error))?;
        let made = client.mkdir(&path, true).await;
        made.map_err(CommandError::cluster("create the directory", &path))?;
        Ok(Self { path })
    }

    /// A path in it.
    fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Deletes it with all that is in it.
    async fn remove(&self, client: &Client) -> Result<(), CommandError> {
        let removed = client.delete(&self.path, true).await;
        removed.map_err(CommandError::cluster("delete", &self.path))
    }
}

fn bad_parent(parent: &str, error: &PathError) -> CommandError {
    CommandError::request(format!("{parent}: {error}"), "choose another --path")
}

/// Bytes to write, the same again and again.
fn pattern(session: &Session) -> Vec<u8> {
    let mut pattern = vec![0; PATTERN_BYTES];
    session.seams.random.fill(&mut pattern);
    pattern
}

/// Stores a file of `bytes` from memory.
async fn write_file(
    client: &Client,
    path: &str,
    options: WriteOptions,
    pattern: &[u8],
    bytes: u64,
    advance: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), CommandError> {
    let error = || CommandError::cluster("store", path);
    let created = client.create(path).options(options).open().await;
    let mut writer = created.map_err(error())?;
    let mut left = bytes;
    for chunk in pattern.chunks(CHUNK_BYTES).cycle() {
        if left == 0 {
            break;
        }
        let count = left.min(chunk.len() as u64);
        let written = writer.write_all(&chunk[..count as usize]).await;
        written.map_err(CommandError::local("write", path))?;
        advance(count);
        left -= count;
    }
    writer.close().await.map(drop).map_err(error())
}

/// The middle of `values`, or between the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }
}
