//! `head`: the first lines or bytes of files.

use bytes::Bytes;
use doldam_client::Client;

use crate::args::{parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::sink::Sink;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};

/// Bytes fetched at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Print the first lines of files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam head /logs/app.log
  doldam head -n 3 '/logs/*.log'
  doldam head -c 512 /images/disk.img | xxd")]
pub(crate) struct HeadArgs {
    /// Files or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Lines to print.
    #[arg(long, short = 'n', default_value_t = 10, value_name = "COUNT")]
    lines: u64,

    /// Bytes to print instead of lines, such as 512 or 64KiB.
    #[arg(long, short = 'c', value_name = "SIZE", value_parser = parse_bytes)]
    #[arg(conflicts_with = "lines")]
    bytes: Option<u64>,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: HeadArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let entries = outcomes.expand(session, &client, "read", &args.paths).await;
    let mut sink = Sink::standard()?;
    for (index, entry) in entries.iter().enumerate() {
        let titled = (entries.len() > 1).then(|| title(entry, index));
        let mut wanted = args.bytes.map_or(Wanted::Lines(args.lines), Wanted::Bytes);
        let printed = print(&client, entry, titled, &mut wanted, &mut sink).await;
        if outcomes.take(session, printed)? == Some(false) {
            break;
        }
    }
    sink.finish().await?;
    Ok(outcomes.exit_code())
}

/// What stands above each of several files.
pub(crate) fn title(entry: &RemoteEntry, index: usize) -> Bytes {
    let gap = if index == 0 { "" } else { "\n" };
    Bytes::from(format!("{gap}==> {} <==\n", entry.path))
}

/// What is still to be printed.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Lines(u64),
    Bytes(u64),
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Lines(0) | Self::Bytes(0))
    }

    /// The part of `chunk` that is wanted; less is wanted afterwards.
    fn take(&mut self, mut chunk: Bytes) -> Bytes {
        match self {
            Self::Bytes(left) => {
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            Self::Lines(left) => {
                for (index, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                    *left -= 1;
                    if *left == 0 {
                        chunk.truncate(index + 1);
                        break;
                    }
                }
            }
        }
        chunk
    }
}

/// Returns whether anyone still reads.
async fn print(
    client: &Client,
    entry: &RemoteEntry,
    title: Option<Bytes>,
    wanted: &mut Wanted,
    sink: &mut Sink,
) -> Result<bool, CommandError> {
    must_be_file("read", entry)?;
    let error = || CommandError::cluster("read", &entry.path);
    let reader = client.open(&entry.path).await.map_err(error())?;
    if let Some(title) = title
        && !sink.write(title).await
    {
        return Ok(false);
    }
    let mut offset = 0;
    while !wanted.is_nothing() && offset < entry.status.length {
        let chunk = reader.read_at(offset, CHUNK_BYTES).await.map_err(error())?;
        if chunk.is_empty() {
            break;
        }
        offset += chunk.len() as u64;
        if !sink.write(wanted.take(chunk)).await {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mut wanted: Wanted, chunks: &[&'static str]) -> String {
        let mut text = String::new();
        for chunk in chunks {
            if !wanted.is_nothing() {
                text.push_str(std::str::from_utf8(&wanted.take(Bytes::from(*chunk))).unwrap());
            }
        }
        text
    }

    #[test]
    fn lines_and_bytes_are_counted_across_chunks() {
        assert_eq!(taken(Wanted::Lines(2), &["a", "b\nc", "d\ne\nf"]), "ab\ncd\n");
        assert_eq!(taken(Wanted::Lines(9), &["a\nb"]), "a\nb");
        assert_eq!(taken(Wanted::Lines(0), &["a\n"]), "");
        assert_eq!(taken(Wanted::Bytes(3), &["ab", "cd"]), "abc");
        assert_eq!(taken(Wanted::Bytes(9), &["ab"]), "ab");
    }
}
