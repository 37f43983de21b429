//! `du`: how much is in each directory.

use std::fmt;

use doldam_client::Client;
use doldam_proto::path::FsPath;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::size::human_bytes;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::session::Session;
use crate::sources::Outcomes;

/// Sum up the sizes of files in directories.
///
/// Prints the bytes of the files, the bytes with all wanted replicas, and the path.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  doldam du -h /
  doldam du -s '/projects/*'
  doldam du -d 1 / --json"
)]
pub(crate) struct DuArgs {
    /// Directories, files or patterns in the cluster.
    #[arg(default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// One line per PATH only.
    #[arg(long, short = 's', conflicts_with = "max_depth")]
    summarize: bool,

    /// Lines for directories down to this many levels below PATH; all are summed.
    #[arg(long, short = 'd', value_name = "LEVELS")]
    max_depth: Option<usize>,

    /// Sizes with units.
    #[arg(long = "human-readable", short = 'h')]
    human: bool,

    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What a directory, or a single file, comes to.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct UsageRecord {
    /// Which.
    path: String,
    /// Bytes of the files.
    bytes: u64,
    /// Bytes times wanted replicas.
    replicated_bytes: u64,
    /// Number of files.
    files: u64,
    /// Number of directories, itself included.
    directories: u64,
    #[serde(skip)]
    human: bool,
}

impl fmt::Display for UsageRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, replicated) = (self.bytes, self.replicated_bytes);
        if self.human {
            let (bytes, replicated) = (human_bytes(bytes), human_bytes(replicated));
            write!(formatter, "{bytes:>10}  {replicated:>10}  {}", self.path)
        } else {
            write!(formatter, "{bytes:>14}  {replicated:>14}  {}", self.path)
        }
    }
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: DuArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let levels = if args.summarize { 0 } else { args.max_depth.unwrap_or(usize::MAX) };
    for entry in outcomes.expand(session, &client, "sum up", &args.paths).await {
        let summed = sum_up(session, &client, entry, levels, args.human).await;
        outcomes.take(session, summed)?;
    }
    Ok(outcomes.exit_code())
}

async fn sum_up(
    session: &mut Session,
    client: &Client,
    entry: RemoteEntry,
    levels: usize,
    human: bool,
) -> Result<(), CommandError> {
    let mut sums = Sums { open: Vec::new(), levels, human };
    let mut walk = RemoteWalk::new(client, entry);
    while let Some(found) = walk.next().await {
        let (entry, level) = found?;
        for record in sums.close(level) {
            session.output.record(&record)?;
        }
        let status = &entry.status;
        let replicated = status.length.saturating_mul(u64::from(status.replication));
        sums.add(&entry.path, status.is_dir(), status.length, replicated);
    }
    for record in sums.close(0) {
        session.output.record(&record)?;
    }
    Ok(())
}

/// Sums of the directories on the way down to where the walk is.
struct Sums {
    open: Vec<UsageRecord>,
    levels: usize,
    human: bool,
}

impl Sums {
    /// Adds an entry one level below the last open one; it is open from now on.
    fn add(&mut self, path: &FsPath, is_dir: bool, bytes: u64, replicated_bytes: u64) {
        self.open.push(UsageRecord {
            path: path.to_string(),
            bytes,
            replicated_bytes,
            files: u64::from(!is_dir),
            directories: u64::from(is_dir),
            human: self.human,
        });
    }

    /// Closes everything from `level` on, deepest first; returns what is to be printed.
    fn close(&mut self, level: usize) -> Vec<UsageRecord> {
        let mut printed = Vec::new();
        while self.open.len() > level {
            let Some(closed) = self.open.pop() else { break };
            let depth = self.open.len();
            if let Some(parent) = self.open.last_mut() {
                parent.bytes = parent.bytes.saturating_add(closed.bytes);
                parent.replicated_bytes =
                    parent.replicated_bytes.saturating_add(closed.replicated_bytes);
                parent.files += closed.files;
                parent.directories += closed.directories;
            }
            let is_directory_or_asked_for = closed.directories > 0 || depth == 0;
            if depth <= self.levels && is_directory_or_asked_for {
                printed.push(closed);
            }
        }
        printed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(levels: usize) -> Vec<(String, u64, u64)> {
        let mut sums = Sums { open: Vec::new(), levels, human: false };
        let mut all = Vec::new();
        for (level, path, is_dir, bytes) in [
            (0, "/a", true, 0),
            (1, "/a/b", true, 0),
            (2, "/a/b/f", false, 5),
            (2, "/a/b/g", false, 6),
            (1, "/a/c", false, 7),
            (1, "/a/d", true, 0),
        ] {
            all.extend(sums.close(level));
            sums.add(&FsPath::parse(path).unwrap(), is_dir, bytes, bytes * 3);
        }
        all.extend(sums.close(0));
        all.into_iter().map(|r| (r.path, r.bytes, r.files)).collect()
    }

    #[test]
    fn directories_are_summed_from_below() {
        let all = [("/a/b", 11, 2), ("/a/d", 0, 0), ("/a", 18, 3)];
        let expected: Vec<_> =
            all.map(|(path, bytes, files)| (path.to_owned(), bytes, files)).into();
        assert_eq!(printed(usize::MAX), expected);
        assert_eq!(printed(0), expected[2..]);
    }

    #[test]
    fn a_file_that_was_asked_for_is_printed() {
        let mut sums = Sums { open: Vec::new(), levels: 0, human: false };
        sums.add(&FsPath::parse("/f").unwrap(), false, 5, 10);
        let records = sums.close(0);
        assert_eq!(records[0].to_string(), "             5              10  /f");
    }
}
