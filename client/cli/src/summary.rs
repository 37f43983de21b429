//! The last line of a transfer: how much, how fast, and what is still owed.

use std::fmt;

use doldam_client::Verification;
use serde::Serialize;

use crate::output::size::{counted, grouped, human_bytes, human_rate, human_seconds};

/// Below this average it is the number of files that takes the time.
const SMALL_FILE_BYTES_MAX: u64 = 256 << 10;

/// What `put`, `get` and `cp` did, for people.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// `stored`, `fetched`, `copied`.
    pub(crate) verb: &'static str,
    /// Files that are done.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// How long all of it took.
    pub(crate) seconds: f64,
    /// Files that failed.
    pub(crate) failed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}, {} in {} ({})",
            self.verb,
            counted(self.files, "file", "files"),
            human_bytes(self.bytes),
            human_seconds(self.seconds),
            self.rate()
        )?;
        if self.failed > 0 {
            write!(formatter, ", {} failed", counted(self.failed, "file", "files"))?;
        }
        Ok(())
    }
}

impl Summary {
    /// What was the limit: bytes of large files, or the number of small ones.
    fn rate(&self) -> String {
        if self.files > 1 && self.bytes / self.files < SMALL_FILE_BYTES_MAX && self.seconds > 0.0 {
            #[expect(clippy::cast_sign_loss, reason = "a rate is positive")]
            let per_second = (self.files as f64 / self.seconds).round() as u64;
            format!("{} files/s", grouped(per_second))
        } else {
            human_rate(self.bytes, self.seconds)
        }
    }
}

/// What a read verified and met on its way.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct VerificationRecord {
    /// Bytes checked against the namenode's values: all that were read.
    pub(crate) bytes_verified: u64,
    /// How often the read went on from another replica.
    pub(crate) failovers: u64,
    /// How often a second replica was asked because the first one was late.
    pub(crate) hedges: u64,
    /// How often that one was faster.
    pub(crate) hedges_won: u64,
    /// Replicas that were found bad and reported.
    pub(crate) bad_replicas: Vec<BadReplicaRecord>,
}

/// A replica that was found bad.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BadReplicaRecord {
    /// The block.
    pub(crate) block: u64,
    /// `HOST:PORT` of the datanode that holds it.
    pub(crate) node: String,
    /// What was wrong with it.
    pub(crate) what: String,
}

impl From<&Verification> for VerificationRecord {
    fn from(verification: &Verification) -> Self {
        let bad = verification.bad_replicas.iter().map(|bad| BadReplicaRecord {
            block: bad.block.0,
            node: bad.node.address.clone(),
            what: bad.what.clone(),
        });
        Self {
            bytes_verified: verification.bytes_verified,
            failovers: verification.failovers,
            hedges: verification.hedges,
            hedges_won: verification.hedges_won,
            bad_replicas: bad.collect(),
        }
    }
}

impl VerificationRecord {
    /// What was not as it should be and went well all the same, for people; empty if nothing was.
    pub(crate) fn detours(&self) -> String {
        let mut text = String::new();
        if self.failovers > 0 {
            let times = counted(self.failovers, "time", "times");
            text = format!(", went on from another replica {times}");
        }
        if self.hedges > 0 {
            let hedges = counted(self.hedges, "hedged read", "hedged reads");
            text += &format!(", {hedges} ({} won)", grouped(self.hedges_won));
        }
        text
    }

    /// One warning per bad replica of the file at `path`.
    pub(crate) fn warnings(&self, path: &str) -> Vec<String> {
        let warn = |bad: &BadReplicaRecord| {
            format!(
                "{path}: datanode {} holds a bad replica of block {} ({}); it was reported, and the \
                 bytes were read from another one",
                bad.node, bad.block, bad.what
            )
        };
        self.bad_replicas.iter().map(warn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_are_told_only_if_there_were_any() {
        let mut record = VerificationRecord::default();
        assert_eq!(record.detours(), "");
        (record.failovers, record.hedges, record.hedges_won) = (1, 2, 1);
        let told = ", went on from another replica 1 time, 2 hedged reads (1 won)";
        assert_eq!(record.detours(), told);
    }

    #[test]
    fn failures_are_part_of_the_summary() {
        let mut summary =
            Summary { verb: "stored", files: 2, bytes: 2_000_000, seconds: 0.5, failed: 0 };
        assert_eq!(summary.to_string(), "stored 2 files, 1.9 MiB in 0.5 s (4.0 MB/s)");
        summary.files = 1000;
        assert_eq!(summary.to_string(), "stored 1,000 files, 1.9 MiB in 0.5 s (2,000 files/s)");
        (summary.files, summary.failed) = (2, 1);
        assert!(summary.to_string().ends_with("(4.0 MB/s), 1 file failed"));
    }
}
