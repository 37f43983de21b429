//! `fsck`: the health of files, by the replicas that the namenode knows of.

use std::fmt;

use doldam_client::{BlockHealth, Client, FsckFile};
use futures::StreamExt;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::command::stat::BlockLine;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::size::counted;
use crate::session::Session;

/// Check that every block of every file has its replicas.
///
/// Prints each file with a finding: under-replicated (the cluster is already making copies),
/// corrupt (a replica is bad, good ones are left) or missing (no good replica is on a live
/// datanode). Exit code 1 if there are findings.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam fsck
  doldam fsck /projects --all
  doldam fsck --json | jq -r 'select(.health == \"missing\").path'")]
pub(crate) struct FsckArgs {
    /// File or directory to start at.
    #[arg(default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,

    /// Healthy files too, with all their blocks.
    #[arg(long, short = 'a')]
    all: bool,
}

/// A file as checked; with `--json` with the fields of [`FsckFile`].
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct FileRecord(FsckFile);

impl fmt::Display for FileRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FsckFile { path, replication, health, block_count, blocks, .. } = &self.0;
        let blocks_word = counted(u64::from(*block_count), "block", "blocks");
        write!(formatter, "{path}: {} ({blocks_word}, replication {replication})", word(*health))?;
        for block in blocks {
            let finding = match block.health {
                BlockHealth::Healthy => String::new(),
                health => format!("{}, {} of {replication} live; ", word(health), block.live),
            };
            write!(formatter, "\n  {finding}{}", BlockLine(block))?;
        }
        Ok(())
    }
}

/// How many files are how healthy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    healthy: u64,
    under_replicated: u64,
    corrupt: u64,
    missing: u64,
}

impl Findings {
    fn add(&mut self, health: BlockHealth) {
        match health {
            BlockHealth::Healthy => self.healthy += 1,
            BlockHealth::UnderReplicated => self.under_replicated += 1,
            BlockHealth::Corrupt => self.corrupt += 1,
            BlockHealth::Missing => self.missing += 1,
        }
    }

    fn any(&self) -> bool {
        self.under_replicated + self.corrupt + self.missing > 0
    }

    fn in_words(&self, path: &str) -> String {
        if !self.any() {
            return format!("{path} is healthy: every block has its replicas");
        }
        let kinds = [
            (self.missing, "missing"),
            (self.corrupt, "corrupt"),
            (self.under_replicated, "under-replicated"),
        ];
        let found = kinds.iter().filter(|(count, _)| *count > 0);
        let found: Vec<String> = found.map(|(count, word)| format!("{count} {word}")).collect();
        let files = counted(self.under_replicated + self.corrupt + self.missing, "file", "files");
        format!("{path}: findings in {files}: {}", found.join(", "))
    }
}

/// Does it.
///
/// # Errors
/// If nothing is at the path, the cluster does not answer or standard output fails.
pub(crate) async fn run(session: &mut Session, args: FsckArgs) -> CommandResult {
    let path = remote_path(&args.path)?;
    let client = session.connect().await?;
    // The walk of nothing would be healthy, too.
    client.stat(&path).await.map_err(CommandError::cluster("check", &path))?;
    let findings = check(session, &client, path.as_str(), args.all).await?;
    if !session.output.is_json() && !session.global.quiet {
        session.output.text(&findings.in_words(path.as_str()))?;
    }
    Ok(if findings.any() { ExitCode::AnswerIsNo } else { ExitCode::Done })
}

async fn check(
    session: &mut Session,
    client: &Client,
    path: &str,
    all: bool,
) -> Result<Findings, CommandError> {
    let mut findings = Findings::default();
    let mut files = client.fsck(path, !all);
    while let Some(file) = files.next().await {
        let file = file.map_err(CommandError::cluster("check", path))?;
        findings.add(file.health);
        if all || file.health != BlockHealth::Healthy {
            session.output.record(&FileRecord(file))?;
        }
    }
    Ok(findings)
}

fn word(health: BlockHealth) -> &'static str {
    match health {
        BlockHealth::Healthy => "healthy",
        BlockHealth::UnderReplicated => "under-replicated",
        BlockHealth::Corrupt => "corrupt",
        BlockHealth::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_healthy_is_a_finding() {
        let mut findings = Findings::default();
        findings.add(BlockHealth::Healthy);
        assert!(!findings.any());
        assert_eq!(findings.in_words("/"), "/ is healthy: every block has its replicas");
        findings.add(BlockHealth::UnderReplicated);
        findings.add(BlockHealth::Missing);
        assert_eq!(
            findings.in_words("/a"),
            "/a: findings in 2 files: 1 missing, 1 under-replicated"
        );
    }
}
