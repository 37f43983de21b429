//! The paths of a command line, each on its own: one that is wrong does not stop the others.

use doldam_client::Client;

use crate::error::CommandError;
use crate::exit_code::{ExitCode, Tally};
use crate::remote_tree::{RemoteEntry, expand};
use crate::session::Session;

/// What became of several paths; prints failures as they come.
#[derive(Default)]
pub(crate) struct Outcomes {
    tally: Tally,
}

impl Outcomes {
    /// Counts `result`; a failure is said on standard error. Returns the value, if there is one.
    ///
    /// # Errors
    /// If standard output failed, since then nothing else makes sense.
    pub(crate) fn take<T>(
        &mut self,
        session: &Session,
        result: Result<T, CommandError>,
    ) -> Result<Option<T>, CommandError> {
        match result {
            Ok(value) => {
                self.tally.add_done();
                Ok(Some(value))
            }
            Err(error @ CommandError::Output(_)) => Err(error),
            Err(error) => {
                self.fail(session, &error);
                Ok(None)
            }
        }
    }

    /// Says and counts a failure.
    pub(crate) fn fail(&mut self, session: &Session, error: &CommandError) {
        self.tally.add_failure(error.exit_code());
        session.messages.one_of_many(error, self.tally.failed());
    }

    /// Finds what `typed` means in the cluster; says what is not there.
    pub(crate) async fn expand(
        &mut self,
        session: &Session,
        client: &Client,
        action: &'static str,
        typed: &[String],
    ) -> Vec<RemoteEntry> {
        let mut entries = Vec::new();
        for typed in typed {
            match expand(client, action, typed).await {
                Ok(found) => entries.extend(found),
                Err(error) => self.fail(session, &error),
            }
        }
        entries
    }

    /// Adds what a transfer counted.
    pub(crate) fn add(&mut self, tally: Tally) {
        self.tally = self.tally.plus(tally);
    }

    /// So far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The code of the whole.
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.tally.exit_code()
    }
}

/// A file where a file is needed.
///
/// # Errors
/// If it is a directory.
pub(crate) fn must_be_file(action: &str, entry: &RemoteEntry) -> Result<(), CommandError> {
    if entry.status.is_dir() {
        return Err(CommandError::request(
            format!("cannot {action} {}: it is a directory", entry.path),
            "name a file, or a pattern such as DIRECTORY/*",
        ));
    }
    Ok(())
}
