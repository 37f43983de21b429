//! `stat`: everything about files and directories, and with `--blocks` where their bytes are.

use std::fmt;

use doldam_client::{Client, FileKind, FsckBlock};
use futures::StreamExt;
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::entry::EntryRecord;
use crate::output::size::{grouped, human_bytes};
use crate::output::time::utc;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::Outcomes;

/// Show everything about files and directories.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam stat /backups/backup.tar
  doldam stat --blocks /backups/backup.tar      with every block and its replicas
  doldam stat --json / | jq .modified_ms")]
pub(crate) struct StatArgs {
    /// Files, directories or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Each block with its replicas.
    #[arg(long, short = 'b')]
    blocks: bool,
}

/// An entry with its blocks.
#[derive(Debug, Serialize)]
struct StatRecord {
    #[serde(flatten)]
    entry: EntryRecord,
    /// With `--blocks`, of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<FsckBlock>>,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: StatArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let entries = outcomes.expand(session, &client, "stat", &args.paths).await;
    for (index, entry) in entries.iter().enumerate() {
        let looked_at = look_at(&client, entry, args.blocks).await;
        if let Some(record) = outcomes.take(session, looked_at)? {
            if index > 0 && !session.output.is_json() {
                session.output.text("")?;
            }
            session.output.record(&record)?;
        }
    }
    Ok(outcomes.exit_code())
}

async fn look_at(
    client: &Client,
    entry: &RemoteEntry,
    with_blocks: bool,
) -> Result<StatRecord, CommandError> {
    let mut blocks = None;
    if with_blocks && !entry.status.is_dir() {
        let mut found = Vec::new();
        let mut files = client.fsck(&entry.path, false);
        while let Some(file) = files.next().await {
            found.extend(file.map_err(CommandError::cluster("stat", &entry.path))?.blocks);
        }
        blocks = Some(found);
    }
    Ok(StatRecord { entry: EntryRecord::from(entry), blocks })
}

impl fmt::Display for StatRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = &self.entry;
        let kind = match entry.kind {
            FileKind::Directory => "directory",
            FileKind::File => "file",
        };
        write!(formatter, "{}\n  kind         {kind}", entry.path)?;
        if entry.kind == FileKind::File {
            let human = human_bytes(entry.bytes);
            write!(formatter, "\n  size         {} bytes ({human})", grouped(entry.bytes))?;
            if entry.being_written {
                formatter
                    .write_str("\n  state        being written, length and digest may change")?;
            }
            write!(formatter, "\n  replication  {}", entry.replication)?;
            write!(formatter, "\n  block size   {}", human_bytes(entry.block_bytes))?;
        }
        if let Some(durability) = entry.durability {
            write!(formatter, "\n  durability   {durability}")?;
        }
        if let Some(digest) = &entry.digest {
            write!(formatter, "\n  blake3       {digest}")?;
        }
        write!(formatter, "\n  modified     {}", utc(entry.modified_ms))?;
        write!(formatter, "\n  created      {}", utc(entry.created_ms))?;
        write!(formatter, "\n  inode        {}", entry.inode)?;
        for block in self.blocks.iter().flatten() {
            write!(formatter, "\n  {}", BlockLine(block))?;
        }
        Ok(())
    }
}

/// A block with its replicas, in one line.
pub(crate) struct BlockLine<'a>(pub(crate) &'a FsckBlock);

impl fmt::Display for BlockLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FsckBlock { id, generation, index, replicas, bad_replicas, .. } = self.0;
        write!(formatter, "block {index} (id {id}, generation {generation}): ")?;
        if replicas.is_empty() && bad_replicas.is_empty() {
            return formatter.write_str("no replica");
        }
        let good = replicas.iter().map(|node| match node.state {
            doldam_client::NodeState::Live => node.address.clone(),
            doldam_client::NodeState::Suspect => format!("{} (suspect)", node.address),
            doldam_client::NodeState::Dead => format!("{} (dead)", node.address),
        });
        let bad = bad_replicas.iter().map(|node| format!("{} (bad)", node.address));
        formatter.write_str(&good.chain(bad).collect::<Vec<_>>().join(", "))
    }
}
