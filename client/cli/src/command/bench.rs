//! `bench`: how fast this cluster is, seen from here, and what failures cost in one of its own.

pub(crate) mod faults;
pub(crate) mod io;
pub(crate) mod meta;

use clap::Subcommand;
use doldam_client::{Client, FsPath};
use doldam_proto::path::PathError;

use crate::command::CommandResult;
use crate::error::CommandError;
use crate::session::Session;

/// Measure throughput, operations per second, and what failures cost.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Io(io::IoArgs),
    Meta(meta::MetaArgs),
    Faults(faults::FaultsArgs),
}

/// Does it.
///
/// # Errors
/// As the subcommand.
pub(crate) async fn run(session: &mut Session, command: BenchCommand) -> CommandResult {
    match command {
        BenchCommand::Io(args) => io::run(session, args).await,
        BenchCommand::Meta(args) => meta::run(session, args).await,
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
