//! `tail`: the last lines or bytes of files, without reading what is before them.

use bytes::Bytes;
use doldam_client::{Client, FileReader};

use crate::args::{parse_bytes, parse_remote};
use crate::command::CommandResult;
use crate::command::head::title;
use crate::error::CommandError;
use crate::output::sink::Sink;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};

/// Bytes looked at in one step backwards, and fetched in one step forwards.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Print the last lines of files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam tail /logs/app.log
  doldam tail -n 100 /logs/app.log | grep error
  doldam tail -c 22 /archive.zip | xxd")]
pub(crate) struct TailArgs {
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
pub(crate) async fn run(session: &mut Session, args: TailArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let entries = outcomes.expand(session, &client, "read", &args.paths).await;
    let mut sink = Sink::standard()?;
    for (index, entry) in entries.iter().enumerate() {
        let titled = (entries.len() > 1).then(|| title(entry, index));
        let printed = print(&client, entry, titled, &args, &mut sink).await;
        if outcomes.take(session, printed)? == Some(false) {
            break;
        }
    }
    sink.finish().await?;
    Ok(outcomes.exit_code())
}

/// Returns whether anyone still reads.
async fn print(
    client: &Client,
    entry: &RemoteEntry,
    title: Option<Bytes>,
    args: &TailArgs,
    sink: &mut Sink,
) -> Result<bool, CommandError> {
    must_be_file("read", entry)?;
    let error = || CommandError::cluster("read", &entry.path);
    let reader = client.open(&entry.path).await.map_err(error())?;
    let length = reader.status().length;
    let mut offset = match args.bytes {
        Some(bytes) => length.saturating_sub(bytes),
        None => start_of_last_lines(&reader, length, args.lines).await.map_err(error())?,
    };
    if let Some(title) = title
        && !sink.write(title).await
    {
        return Ok(false);
    }
    while offset < length {
        let bytes = CHUNK_BYTES.min(length - offset) as usize;
        let chunk = reader.read_at(offset, bytes).await.map_err(error())?;
        if chunk.is_empty() {
            break;
        }
        offset += chunk.len() as u64;
        if !sink.write(chunk).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the last `lines` lines of the file begin.
async fn start_of_last_lines(
    reader: &FileReader,
    length: u64,
    lines: u64,
) -> Result<u64, doldam_client::ClientError> {
    let mut search = Search::new(length, lines);
    while let Some((offset, bytes)) = search.next_chunk() {
        let chunk = reader.read_at(offset, bytes).await?;
        search.look_at(&chunk);
    }
    Ok(search.start())
}

/// Counts line ends from the back.
struct Search {
    length: u64,
    /// Everything from here on has been looked at.
    looked_from: u64,
    lines_left: u64,
    found: Option<u64>,
}

impl Search {
    fn new(length: u64, lines: u64) -> Self {
        let found = (lines == 0).then_some(length);
        Self { length, looked_from: length, lines_left: lines, found }
    }

    /// The next chunk to look at; `None` when the answer is known.
    fn next_chunk(&self) -> Option<(u64, usize)> {
        if self.found.is_some() || self.looked_from == 0 {
            return None;
        }
        let offset = self.looked_from.saturating_sub(CHUNK_BYTES);
        Some((offset, (self.looked_from - offset) as usize))
    }

    fn look_at(&mut self, chunk: &[u8]) {
        let base = self.looked_from.saturating_sub(CHUNK_BYTES);
        self.looked_from = base;
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = base + index as u64 + 1;
            // The end of the last line ends no line before it.
            if after == self.length {
                continue;
            }
            self.lines_left -= 1;
            if self.lines_left == 0 {
                self.found = Some(after);
                return;
            }
        }
    }

    fn start(&self) -> u64 {
        self.found.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn last_lines(content: &[u8], lines: u64) -> &[u8] {
        let mut search = Search::new(content.len() as u64, lines);
        while let Some((offset, bytes)) = search.next_chunk() {
            search.look_at(&content[offset as usize..][..bytes]);
        }
        &content[search.start() as usize..]
    }

    #[test]
    fn the_last_line_counts_with_and_without_its_end() {
        for (content, lines, expected) in [
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\n\n", 1, "\n"),
            ("\n", 1, "\n"),
            ("", 3, ""),
            ("abc", 0, ""),
            ("a\nb", 9, "a\nb"),
        ] {
            assert_eq!(last_lines(content.as_bytes(), lines), expected.as_bytes(), "{content:?}");
        }
    }

    #[test]
    fn lines_longer_than_a_chunk_are_found() {
        let mut content = vec![b'x'; 3 * CHUNK_BYTES as usize];
        content[10] = b'\n';
        assert_eq!(last_lines(&content, 1).len(), content.len() - 11);
    }

    proptest! {
        #[test]
        fn as_many_lines_as_a_simple_count_finds(text in "[a\n]{0,40}", lines in 1..5_u64) {
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let expected = all[all.len().saturating_sub(lines as usize)..].concat();
            prop_assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes());
        }
    }
}
