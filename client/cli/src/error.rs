//! Why a command did not do as asked: what failed with its path, the cause, the next step.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use doldam_client::{ClientError, ErrorKind, FsError};
use serde::Serialize;

use crate::exit_code::ExitCode;

/// A failure as a person or a script gets to see it. The cause is its [`source`](Error::source).
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Something in the cluster, or the way to it.
    #[error("cannot {action} {path}")]
    Cluster {
        /// What was tried, as in "cannot ... PATH".
        action: &'static str,
        /// In the cluster, or its address.
        path: String,
        /// Why not.
        source: Box<ClientError>,
    },
    /// Something on this machine.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// What was tried, as in "cannot ... PATH".
        action: &'static str,
        /// On this machine.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Asked for what cannot be; found out before anything was done.
    #[error("{what}")]
    Request {
        /// What is wrong, with the path or the argument.
        what: String,
        /// What to do instead.
        next_step: String,
    },
    /// A server cannot start or had to stop.
    #[error("{what}")]
    Server {
        /// Which server, and what it could not.
        what: String,
        /// What to do about it.
        next_step: String,
        /// Why not.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The cluster did not come to the state that was waited for.
    #[error("{what}")]
    Unmet {
        /// What was waited for, and what was seen.
        what: String,
        /// What to do about it.
        next_step: String,
    },
    /// Standard output does not take the result.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl CommandError {
    /// A failure of the cluster at `path`.
    pub(crate) fn cluster(
        action: &'static str,
        path: impl ToString,
    ) -> impl FnOnce(ClientError) -> Self {
        let path = path.to_string();
        move |source| Self::Cluster { action, path, source: Box::new(source) }
    }

    /// A failure of this machine at `path`.
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { action, path, source }
    }

    /// A wrong request.
    pub(crate) fn request(what: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::Request { what: what.into(), next_step: next_step.into() }
    }

    /// The exit code if nothing else happened.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Cluster { source, .. } => match source.kind() {
                ErrorKind::Request => ExitCode::BadRequest,
                ErrorKind::Unavailable
                | ErrorKind::Stale
                | ErrorKind::Mismatch
                | ErrorKind::Damaged => ExitCode::ClusterFailed,
            },
            Self::Local { .. } | Self::Request { .. } | Self::Output(_) => ExitCode::BadRequest,
            Self::Server { .. } | Self::Unmet { .. } => ExitCode::ClusterFailed,
        }
    }

    /// Whether the reader of a pipe went away: nothing to complain about.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What the user can do about it.
    pub(crate) fn next_step(&self) -> String {
        match self {
            Self::Cluster { action, source, .. } => match option_step(action, source.refusal()) {
                Some(step) => step.to_owned(),
                None => {
                    source.next_step().unwrap_or_else(|| default_step(source.kind()).to_owned())
                }
            },
            Self::Local { source, .. } => local_step(source.kind()).to_owned(),
            Self::Request { next_step, .. }
            | Self::Server { next_step, .. }
            | Self::Unmet { next_step, .. } => next_step.clone(),
            Self::Output(_) => "check the disk or program that takes the output".to_owned(),
        }
    }

    /// The causes, outermost first, without repeating what has been said already.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut said = self.to_string();
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            next = cause.source();
            let text = one_line(&cause.to_string());
            let text = text.strip_prefix(self.path_prefix().as_str()).unwrap_or(&text).to_owned();
            // Some libraries paste their cause into their own text.
            if !text.is_empty() && !said.ends_with(&text) {
                said.clone_from(&text);
                causes.push(text);
            }
        }
        causes
    }

    /// How a cause would start that repeats the path: `/a: `.
    fn path_prefix(&self) -> String {
        match self {
            Self::Cluster { path, .. } => format!("{path}: "),
            Self::Local { path, .. } => format!("{}: ", path.display()),
            Self::Request { .. } | Self::Server { .. } | Self::Unmet { .. } | Self::Output(_) => {
                String::from(": ")
            }
        }
    }

    /// What failed and all causes, in one line.
    pub(crate) fn one_line(&self) -> String {
        let mut parts = vec![one_line(&self.to_string())];
        parts.extend(self.causes());
        parts.join(": ")
    }
}

/// The error as `--json` prints it on standard error, one object on one line.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorRecord {
    /// The subcommand.
    pub(crate) command: &'static str,
    /// What failed, with its path.
    pub(crate) error: String,
    /// Why, outermost cause first.
    pub(crate) causes: Vec<String>,
    /// What to do about it.
    pub(crate) next_step: String,
    /// The exit code this alone would lead to.
    pub(crate) exit_code: u8,
}

impl ErrorRecord {
    /// The record of `error`, met by `command`.
    pub(crate) fn new(command: &'static str, error: &CommandError) -> Self {
        Self {
            command,
            error: error.to_string(),
            causes: error.causes(),
            next_step: error.next_step(),
            exit_code: error.exit_code() as u8,
        }
    }
}

impl ErrorRecord {
    /// The line for a command line that cannot be understood; `text` is what people would read.
    pub(crate) fn of_arguments(text: &str) -> String {
        let text = text.trim().strip_prefix("error: ").unwrap_or(text);
        let (error, rest) = text.split_once("\n\n").unwrap_or((text, ""));
        let record = Self {
            command: "doldam",
            error: one_line(error),
            causes: Vec::new(),
            next_step: one_line(rest),
            exit_code: ExitCode::BadRequest as u8,
        };
        serde_json::to_string(&record).unwrap_or(record.error)
    }
}

/// What the library cannot know: which option of which command helps.
fn option_step(action: &str, refusal: Option<&FsError>) -> Option<&'static str> {
    match (action, refusal?) {
        ("store", FsError::NotFound { .. }) => {
            Some("create its directory first (`doldam mkdir -p`), or add -p to have it created")
        }
        ("append to", FsError::NotFound { .. }) => {
            Some("create it first with `doldam put` or `doldam touch`")
        }
        ("truncate", FsError::InvalidArgument { .. }) => Some(
            "give at most the length that `doldam stat` shows; `doldam append` makes a file longer",
        ),
        ("create the directory", FsError::NotFound { .. }) => {
            Some("create its parents first, or add -p to have them created")
        }
        ("store" | "copy", FsError::AlreadyExists { .. }) => {
            Some("choose another name, or add -f to replace what is there")
        }
        ("move", FsError::AlreadyExists { .. }) => {
            Some("choose another name, or add --replace to replace what is there")
        }
        ("decommission" | "recommission" | "maintain", FsError::InvalidArgument { field, .. })
            if field == "node" =>
        {
            Some("name a datanode by its id, HOST:PORT or host; `doldam admin report` lists them")
        }
        ("decommission", FsError::NotAllowed { .. }) => Some(
            "add datanodes or lower the replication (`doldam setrep`), or add --force to accept fewer replicas",
        ),
        _ => None,
    }
}

fn default_step(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Request => "check the path and the options; `doldam ls` shows what is there",
        ErrorKind::Unavailable => {
            "see `doldam admin report` for the state of the cluster, then run it again"
        }
        ErrorKind::Stale => "someone else changed the file meanwhile; run it again",
        ErrorKind::Mismatch => "use the same release and the same cluster on both sides",
        ErrorKind::Damaged => "run `doldam fsck` on the path and see the servers' logs",
    }
}

fn local_step(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "check that the path exists",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
        io::ErrorKind::AlreadyExists => "choose another name, or pass --overwrite to replace it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on this machine, then run it again"
        }
        _ => "check the file and the disk it is on",
    }
}

/// An error's text on one line: other programs' messages may hold line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Cause {
        text: &'static str,
        source: Option<Box<Cause>>,
    }

    fn server(causes: &[&'static str]) -> CommandError {
        let mut source = None;
        for text in causes.iter().rev() {
            source = Some(Box::new(Cause { text, source }));
        }
        CommandError::Server {
            what: "cannot start".into(),
            next_step: "try".into(),
            source: source.map(|cause| cause as Box<dyn Error + Send + Sync>),
        }
    }

    #[test]
    fn a_cause_is_said_once_and_on_one_line() {
        assert_eq!(server(&["a: b", "b"]).one_line(), "cannot start: a: b");
        assert_eq!(server(&["a\n b", "c"]).one_line(), "cannot start: a b: c");
        assert_eq!(server(&[]).one_line(), "cannot start");
    }

    #[test]
    fn a_local_failure_names_its_path_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "x/y: gone");
        let error = CommandError::local("read", "x/y")(source);
        assert_eq!(error.one_line(), "cannot read x/y: gone");
        assert_eq!(error.exit_code(), ExitCode::BadRequest);
        assert_eq!(error.next_step(), "check that the path exists");
    }

    #[test]
    fn the_option_that_helps_is_named() {
        let missing = || ClientError::from(FsError::NotFound { path: "/a/b".into() });
        let error = CommandError::cluster("store", "/a/b")(missing());
        assert_eq!(error.one_line(), "cannot store /a/b: no such file or directory");
        assert!(error.next_step().contains("add -p"), "{}", error.next_step());
        assert_eq!(error.exit_code(), ExitCode::BadRequest);
        let error = CommandError::cluster("list", "/a/b")(missing());
        assert!(!error.next_step().contains("-p"), "{}", error.next_step());
    }

    #[test]
    fn a_bad_command_line_is_one_json_object() {
        let line = ErrorRecord::of_arguments("error: no `x`\n  [y]\n\nUsage: z\n\nFor more\n");
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["error"], "no `x` [y]");
        assert_eq!(record["next_step"], "Usage: z For more");
        assert_eq!(record["exit_code"], 2);
    }

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        let closed = CommandError::Output(io::ErrorKind::BrokenPipe.into());
        assert!(closed.is_closed_pipe());
        assert!(!CommandError::Output(io::ErrorKind::StorageFull.into()).is_closed_pipe());
    }
}
