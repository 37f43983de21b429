//! `test`: one question, answered by the exit code.

use std::fmt;

use doldam_client::{FileStatus, FsError};
use serde::Serialize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::session::Session;

/// Ask whether something is there; the answer is the exit code: 0 yes, 1 no.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam test -e /jobs/done && echo done
  doldam test -s /logs/app.log || echo 'no log yet'")]
pub(crate) struct TestArgs {
    #[command(flatten)]
    question: Question,

    /// A path in the cluster.
    #[arg(value_name = "PATH", value_parser = parse_remote)]
    path: String,
}

/// What to ask.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "flags of which exactly one is given")]
struct Question {
    /// Is anything there?
    #[arg(long, short = 'e')]
    exists: bool,

    /// Is it a file?
    #[arg(long, short = 'f')]
    file: bool,

    /// Is it a directory?
    #[arg(long, short = 'd')]
    directory: bool,

    /// Is it a file that is not empty?
    #[arg(long, short = 's')]
    size: bool,

    /// Is it an empty file?
    #[arg(long, short = 'z')]
    zero: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
struct AnswerRecord {
    /// What was asked about.
    path: String,
    /// The answer.
    answer: bool,
}

impl fmt::Display for AnswerRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, if self.answer { "yes" } else { "no" })
    }
}

/// Does it.
///
/// # Errors
/// If the path is wrong or the cluster does not answer.
pub(crate) async fn run(session: &mut Session, args: TestArgs) -> CommandResult {
    let path = remote_path(&args.path)?;
    let client = session.connect().await?;
    let found = match client.try_stat(&path).await {
        // A file stands in the way, so nothing can be at the path.
        Err(error) if matches!(error.refusal(), Some(FsError::NotADirectory { .. })) => None,
        found => found.map_err(CommandError::cluster("test", &path))?,
    };
    let answer = args.question.answer(found.as_ref());
    session.changed(&AnswerRecord { path: path.to_string(), answer })?;
    Ok(if answer { ExitCode::Done } else { ExitCode::AnswerIsNo })
}

impl Question {
    fn answer(&self, found: Option<&FileStatus>) -> bool {
        let Some(status) = found else { return false };
        let is_file = !status.is_dir();
        self.exists
            || (self.file && is_file)
            || (self.directory && status.is_dir())
            || (self.size && is_file && status.length > 0)
            || (self.zero && is_file && status.length == 0)
    }
}
