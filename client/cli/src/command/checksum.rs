//! `checksum`: the digests that the cluster keeps, as `b3sum` prints them.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use doldam_client::Client;
use doldam_proto::digest::FileDigest;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::raw_stdin;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};

/// Largest list of checksums.
const LIST_BYTES_MAX: u64 = 256 << 20;

/// Print the BLAKE3 digests of files, exactly as `b3sum` does.
///
/// The cluster knows them: no data is read, and every read is verified against the same values.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam checksum /backups/backup.tar
  doldam checksum -r /archive > archive.b3
  doldam checksum --check archive.b3     compare with what was kept; exit code 1 if any differs")]
pub(crate) struct ChecksumArgs {
    /// Files or patterns in the cluster.
    #[arg(required_unless_present = "check", value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Every file below a directory.
    #[arg(long, short = 'r', visible_short_alias = 'R')]
    recursive: bool,

    /// Compare the cluster's files with the lines of FILE (`-` for standard input).
    #[arg(long, short = 'c', value_name = "FILE", conflicts_with = "paths")]
    check: Option<PathBuf>,
}

/// A file's digest.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct ChecksumRecord {
    /// 64 hexadecimal digits.
    digest: String,
    /// Which file.
    path: String,
}

impl fmt::Display for ChecksumRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As b3sum: a name with a backslash is escaped, and the line says so with its first byte.
        if self.path.contains('\\') {
            write!(formatter, "\\{}  {}", self.digest, self.path.replace('\\', "\\\\"))
        } else {
            write!(formatter, "{}  {}", self.digest, self.path)
        }
    }
}

/// What a comparison found.
#[derive(Debug, Serialize)]
struct CheckRecord {
    /// Which file.
    path: String,
    /// Whether the digests are the same.
    ok: bool,
    /// As listed.
    expected: String,
    /// As the cluster has it; absent if there is no such file.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
}

impl fmt::Display for CheckRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.ok, &self.found) {
            (true, _) => "OK",
            (false, Some(_)) => "FAILED",
            (false, None) => "FAILED (no such file)",
        };
        write!(formatter, "{}: {verdict}", self.path)
    }
}

/// Does it.
///
/// # Errors
/// If the list cannot be used, the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: ChecksumArgs) -> CommandResult {
    if let Some(list) = &args.check {
        let wanted = read_list(list)?;
        return check(session, &wanted).await;
    }
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for entry in outcomes.expand(session, &client, "checksum", &args.paths).await {
        let printed = if args.recursive {
            print_tree(session, &client, entry).await
        } else {
            record(&entry).and_then(|record| session.output.record(&record))
        };
        outcomes.take(session, printed)?;
    }
    Ok(outcomes.exit_code())
}

async fn print_tree(
    session: &mut Session,
    client: &Client,
    root: RemoteEntry,
) -> Result<(), CommandError> {
    let mut walk = RemoteWalk::new(client, root);
    while let Some(found) = walk.next().await {
        let (entry, _) = found?;
        if !entry.status.is_dir() {
            session.output.record(&record(&entry)?)?;
        }
    }
    Ok(())
}

fn record(entry: &RemoteEntry) -> Result<ChecksumRecord, CommandError> {
    must_be_file("checksum", entry)?;
    let path = entry.path.to_string();
    match entry.status.digest {
        Some(digest) => Ok(ChecksumRecord { digest: digest.to_string(), path }),
        None => Err(CommandError::Unmet {
            what: format!("the cluster sent no digest of {path}"),
            next_step: "use the same release on both sides".to_owned(),
        }),
    }
}

async fn check(session: &mut Session, wanted: &[(FileDigest, String)]) -> CommandResult {
    let client = session.connect().await?;
    let paths: Vec<&str> = wanted.iter().map(|(_, path)| path.as_str()).collect();
    let found = client.stat_many(&paths).await;
    let found = found.map_err(CommandError::cluster("ask", session.cluster_name()))?;
    let mut failed = 0_u64;
    for ((expected, path), status) in wanted.iter().zip(found) {
        let digest = status.and_then(|status| status.digest);
        let ok = digest == Some(*expected);
        failed += u64::from(!ok);
        session.output.record(&CheckRecord {
            path: path.clone(),
            ok,
            expected: expected.to_string(),
            found: digest.map(|digest| digest.to_string()),
        })?;
    }
    if failed > 0 {
        session.messages.warn(&format!("{failed} of {} checksums did NOT match", wanted.len()));
    }
    Ok(if failed == 0 { ExitCode::Done } else { ExitCode::AnswerIsNo })
}

fn read_list(path: &Path) -> Result<Vec<(FileDigest, String)>, CommandError> {
    let opened = if path.as_os_str() == "-" { raw_stdin() } else { std::fs::File::open(path) };
    let mut text = String::new();
    let read = opened.and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text));
    read.map_err(CommandError::local("read", path))?;
    let mut wanted = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let Some((digest, name)) = parse_line(line) else {
            return Err(CommandError::request(
                format!("{}:{}: no line of b3sum: {line:?}", path.display(), index + 1),
                "give a file as `doldam checksum` prints it: DIGEST, two spaces, PATH",
            ));
        };
        wanted.push((digest, remote_path(&name)?.to_string()));
    }
    Ok(wanted)
}

/// Reads what [`ChecksumRecord`] prints.
fn parse_line(line: &str) -> Option<(FileDigest, String)> {
    let (line, escaped) = match line.strip_prefix('\\') {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (digest, name) = line.split_once("  ")?;
    let name = if escaped { name.replace("\\\\", "\\") } else { name.to_owned() };
    Some((FileDigest::from_hex(digest)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_printed_and_printed_as_b3sum_does() {
        let digest = FileDigest::empty().to_string();
        for (path, line) in [
            ("/a b", format!("{digest}  /a b")),
            ("/a\\b", format!("\\{digest}  /a\\\\b")),
            ("/two  spaces", format!("{digest}  /two  spaces")),
        ] {
            let record = ChecksumRecord { digest: digest.clone(), path: path.to_owned() };
            assert_eq!(record.to_string(), line);
            assert_eq!(parse_line(&line), Some((FileDigest::empty(), path.to_owned())));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        let digest = FileDigest::empty().to_string();
        for line in ["", "abc  /a", &digest, &format!("{digest} /a"), &format!("x{digest}  /a")] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
