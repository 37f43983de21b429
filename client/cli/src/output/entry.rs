//! A file or directory as `ls`, `find`, `stat` and `touch` print it.

use std::fmt;

use doldam_client::{Durability, FileKind, FileStatus};
use serde::Serialize;

use crate::output::size::human_bytes;
use crate::output::time::utc;
use crate::remote_tree::RemoteEntry;

/// The stable form with `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EntryRecord {
    /// Whole path.
    pub(crate) path: String,
    /// `file` or `directory`.
    pub(crate) kind: FileKind,
    /// Length in bytes; 0 for a directory.
    pub(crate) bytes: u64,
    /// Wanted replicas; 0 for a directory.
    pub(crate) replication: u32,
    /// Block size; 0 for a directory.
    pub(crate) block_bytes: u64,
    /// Last change, milliseconds since the Unix epoch.
    pub(crate) modified_ms: u64,
    /// Creation, milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// Names this very file, whatever happens to its path.
    pub(crate) inode: u64,
    /// What `b3sum` prints; absent for a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// `all`, `one` or `memory`; absent for a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<Durability>,
    /// Whether somebody writes it, so that length and digest may change; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) being_written: bool,
    /// How it is printed for people.
    #[serde(skip)]
    pub(crate) style: EntryStyle,
}

/// How an entry is printed for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct EntryStyle {
    /// The name to print, if not the whole path.
    pub(crate) name: Option<String>,
    /// Everything about it, not only its name.
    pub(crate) long: bool,
    /// Sizes with units.
    pub(crate) human: bool,
    /// Directories in colour.
    pub(crate) color: bool,
}

impl EntryRecord {
    /// The record of what is at `path`.
    pub(crate) fn new(path: impl ToString, status: &FileStatus) -> Self {
        Self {
            path: path.to_string(),
            kind: status.kind,
            bytes: status.length,
            replication: status.replication,
            block_bytes: status.block_bytes,
            modified_ms: status.modified_ms,
            created_ms: status.created_ms,
            inode: status.inode.0,
            digest: status.digest.map(|digest| digest.to_string()),
            durability: status.durability,
            being_written: status.being_written,
            style: EntryStyle::default(),
        }
    }

    /// The same, printed in another style.
    pub(crate) fn styled(mut self, style: EntryStyle) -> Self {
        self.style = style;
        self
    }

    fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl From<&RemoteEntry> for EntryRecord {
    fn from(entry: &RemoteEntry) -> Self {
        Self::new(&entry.path, &entry.status)
    }
}

impl fmt::Display for EntryRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.style.long {
            let (letter, replication, size) = if self.is_dir() {
                ('d', "-".to_owned(), "-".to_owned())
            } else if self.style.human {
                ('-', self.replication.to_string(), human_bytes(self.bytes))
            } else {
                ('-', self.replication.to_string(), self.bytes.to_string())
            };
            let width = if self.style.human { 10 } else { 14 };
            let modified = utc(self.modified_ms);
            write!(formatter, "{letter} {replication:>2} {size:>width$}  {modified}  ")?;
        }
        let name = self.style.name.as_deref().unwrap_or(&self.path);
        let slash = if self.is_dir() && !name.ends_with('/') { "/" } else { "" };
        if self.style.color && self.is_dir() {
            write!(formatter, "\u{1b}[1;34m{name}\u{1b}[0m{slash}")?;
        } else {
            write!(formatter, "{name}{slash}")?;
        }
        if self.style.long && self.being_written {
            formatter.write_str("  (being written)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: FileKind) -> EntryRecord {
        EntryRecord {
            path: "/a/b".into(),
            kind,
            bytes: 1536,
            replication: 3,
            block_bytes: 1 << 20,
            modified_ms: 0,
            created_ms: 0,
            inode: 7,
            digest: None,
            durability: None,
            being_written: false,
            style: EntryStyle::default(),
        }
    }

    #[test]
    fn long_lines_align_whatever_they_describe() {
        let long = EntryStyle { long: true, ..EntryStyle::default() };
        let file = record(FileKind::File).styled(long.clone()).to_string();
        let directory = record(FileKind::Directory).styled(long).to_string();
        assert_eq!(file, "-  3           1536  1970-01-01 00:00:00Z  /a/b");
        assert_eq!(directory, "d  -              -  1970-01-01 00:00:00Z  /a/b/");
    }

    #[test]
    fn a_file_that_is_being_written_is_told_from_others() {
        let written = EntryRecord { being_written: true, ..record(FileKind::File) };
        let json = serde_json::to_string(&written).unwrap();
        assert!(json.ends_with("\"inode\":7,\"being_written\":true}"), "{json}");
        assert_eq!(written.to_string(), "/a/b", "a name is only a name");
        let long = EntryStyle { long: true, ..EntryStyle::default() };
        let line = written.styled(long).to_string();
        assert_eq!(line, "-  3           1536  1970-01-01 00:00:00Z  /a/b  (being written)");
    }

    #[test]
    fn json_keeps_its_fields() {
        let json = serde_json::to_string(&record(FileKind::File)).unwrap();
        assert_eq!(
            json,
            "{\"path\":\"/a/b\",\"kind\":\"file\",\"bytes\":1536,\"replication\":3,\
             \"block_bytes\":1048576,\"modified_ms\":0,\"created_ms\":0,\"inode\":7}"
        );
    }
}
