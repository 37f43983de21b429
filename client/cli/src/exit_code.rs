//! What the exit code says; the table in `--help` is made of the same words.

/// How a command ended, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ExitCode {
    /// All that was asked for is done.
    Done = 0,
    /// The answer is no: `test` is false, `fsck` or `checksum --check` has findings.
    AnswerIsNo = 1,
    /// The request is wrong, or a local file is: a retry gives the same answer.
    BadRequest = 2,
    /// The cluster could not, or could not be reached: a later retry may succeed.
    ClusterFailed = 3,
    /// Some of several files are done; each of the others has its line on standard error.
    Partial = 4,
    /// Ctrl-C or SIGTERM, as shells report it.
    Interrupted = 130,
}

/// Printed below `doldam --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0    done
  1    the answer is no (test), or there are findings (fsck, checksum --check)
  2    the request is wrong: arguments, paths, local files
  3    the cluster could not, or could not be reached
  4    done in part; what failed is on standard error
  130  interrupted; what was not complete is invisible in the cluster

Examples:
  doldam local --dir ~/doldam-data         a whole cluster on this machine
  doldam put backup.tar /backups/          store a file
  doldam get /backups/backup.tar .         fetch it, every byte verified
  doldam checksum /backups/backup.tar      what b3sum prints, without reading the data";

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Counts what became of several files, so that one failure neither stops the rest nor goes
/// unnoticed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    done: u64,
    failed: u64,
    worst: Option<ExitCode>,
}

impl Tally {
    /// One more is done.
    pub(crate) fn add_done(&mut self) {
        self.done += 1;
    }

    /// One more failed, with the code it would have had on its own.
    pub(crate) fn add_failure(&mut self, code: ExitCode) {
        self.failed += 1;
        self.worst = self.worst.max(Some(code));
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            failed: self.failed + other.failed,
            worst: self.worst.max(other.worst),
        }
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// The code of the whole.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match (self.done, self.worst) {
            (_, None) => ExitCode::Done,
            (0, Some(worst)) => worst,
            (_, Some(_)) => ExitCode::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_needs_something_done_and_something_failed() {
        let mut tally = Tally::default();
        assert_eq!(tally.exit_code(), ExitCode::Done);
        tally.add_failure(ExitCode::ClusterFailed);
        tally.add_failure(ExitCode::BadRequest);
        assert_eq!(tally.exit_code(), ExitCode::ClusterFailed, "the worst, if nothing is done");
        tally.add_done();
        assert_eq!(tally.exit_code(), ExitCode::Partial);
        assert_eq!((tally.done, tally.failed), (1, 2));
    }
}
