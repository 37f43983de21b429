//! What can go wrong for a user of the library, sorted by what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::digest::FileDigest;
use doldam_proto::error::ErrorKind;
use doldam_proto::id::BlockId;
use doldam_proto::node::NodeAddress;
use doldam_proto::path::PathError;

/// A try to reach a namenode that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamenodeFailure {
    /// `HOST:PORT` as configured, or as another namenode named it.
    pub address: String,
    /// The last cause, for people.
    pub cause: String,
}

/// A try to read or write a block at a datanode that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFailure {
    /// The datanode; `None` if no datanode could be chosen at all.
    pub node: Option<NodeAddress>,
    /// The cause, for people.
    pub cause: String,
    /// Whether what it sent was wrong or it called its own replica bad, rather than it not answering.
    pub bad_data: bool,
}

/// Why an operation did not succeed. The cause, where there is one, follows as
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The namenode refused.
    #[error(transparent)]
    Refused(#[from] FsError),
    /// The path breaks a rule; nothing was sent.
    #[error("{path:?} is not a path in the cluster")]
    InvalidPath {
        /// As given.
        path: String,
        /// Which rule.
        source: PathError,
    },
    /// An option or setting is out of range; nothing was sent.
    #[error("{option}: {why}")]
    InvalidOption {
        /// Its name.
        option: &'static str,
        /// The rule, with both numbers.
        why: String,
    },
    /// No namenode answered in time. A change that was asked for may or may not have been made.
    #[error("{operation}: no namenode answered within {}: {}", Seconds(*waited), ListNamenodes(tried))]
    Unreachable {
        /// What was asked for.
        operation: &'static str,
        /// Every address that was tried, with its last cause.
        tried: Vec<NamenodeFailure>,
        /// How long.
        waited: Duration,
    },
    /// A peer answered with something the protocol does not allow.
    #[error("{peer} does not keep to the protocol: {what}")]
    BadAnswer {
        /// Who.
        peer: String,
        /// Which rule.
        what: String,
    },
    /// No replica of a block could be read.
    #[error("{path}: block {block} (bytes {offset} and on) cannot be read: {}", ListNodes(tried))]
    BlockUnreadable {
        /// The file.
        path: String,
        /// The block.
        block: BlockId,
        /// The first byte of the file that is missing.
        offset: u64,
        /// Every replica with what happened there; empty if no datanode holds a good one.
        tried: Vec<NodeFailure>,
    },
    /// No pipeline took a block.
    #[error("{path}: block {index} cannot be written: {}", ListNodes(tried))]
    BlockUnwritable {
        /// The file.
        path: String,
        /// Position of the block in the file.
        index: u32,
        /// Every pipeline that was tried, with what happened there.
        tried: Vec<NodeFailure>,
    },
    /// The cluster's digest is not that of the bytes handed in or out. The file is not to be trusted.
    #[error("{path}: the cluster holds digest {cluster}, the bytes have {local}")]
    DigestMismatch {
        /// The file.
        path: String,
        /// As the namenode has it.
        cluster: FileDigest,
        /// Of the bytes that went through this client.
        local: FileDigest,
    },
    /// A local file was changed while it was stored; nothing is visible in the cluster.
    #[error("{}: changed while it was read: {what}", path.display())]
    SourceChanged {
        /// The local file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// A local file is there already.
    #[error("{}: already exists", path.display())]
    LocalExists {
        /// The local file.
        path: PathBuf,
    },
    /// A local file or folder cannot be used.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// "read", "create", ...
        action: &'static str,
        /// The local file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The writer failed before; this is why.
    #[error(transparent)]
    Earlier(Arc<ClientError>),
    /// The background task of an operation ended without a result: it panicked, or the runtime is going down.
    #[error("{operation} was stopped before it ended")]
    Stopped {
        /// What was under way.
        operation: &'static str,
    },
}

impl ClientError {
    /// What the caller does next: [`ErrorKind::Request`] says that the request is at fault and that a retry is
    /// useless, the others that the cluster is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::InvalidPath { .. }
            | Self::InvalidOption { .. }
            | Self::LocalExists { .. }
            | Self::Local { .. } => ErrorKind::Request,
            Self::SourceChanged { .. } => ErrorKind::Stale,
            Self::Unreachable { .. } | Self::BlockUnwritable { .. } | Self::Stopped { .. } => {
                ErrorKind::Unavailable
            }
            Self::BlockUnreadable { tried, .. } => {
                let all_bad = !tried.is_empty() && tried.iter().all(|failure| failure.bad_data);
                if all_bad { ErrorKind::Damaged } else { ErrorKind::Unavailable }
            }
            Self::BadAnswer { .. } => ErrorKind::Mismatch,
            Self::DigestMismatch { .. } => ErrorKind::Damaged,
            Self::Earlier(cause) => cause.kind(),
        }
    }

    /// What may mend it, as one line for a person at a terminal.
    pub fn next_step(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal_next_step(refusal),
            Self::Unreachable { tried, .. } => {
                let addresses: Vec<&str> =
                    tried.iter().map(|failure| failure.address.as_str()).collect();
                Some(format!(
                    "check that a namenode runs at {} (`doldam namenode`, or `doldam local` for a whole \
                     cluster), or name another with --namenode or DOLDAM_NAMENODE",
                    addresses.join(" or ")
                ))
            }
            Self::BadAnswer { .. } => {
                Some("use the same release of Doldam on both sides".to_owned())
            }
            Self::BlockUnreadable { path, .. } => Some(format!(
                "see `doldam fsck {path}` and start the datanodes that hold its replicas"
            )),
            Self::BlockUnwritable { .. } => Some(
                "see `doldam admin report` for dead or full datanodes, then try again".to_owned(),
            ),
            Self::DigestMismatch { path, .. } => {
                Some(format!("keep the original, see `doldam fsck {path}`, and report a bug"))
            }
            Self::SourceChanged { .. } => {
                Some("try again when nothing writes to it any more".to_owned())
            }
            Self::LocalExists { .. } => Some("choose another name or allow overwriting".to_owned()),
            Self::Local { .. } => {
                Some("check that the file exists and that you may use it".to_owned())
            }
            Self::Earlier(cause) => cause.next_step(),
            Self::InvalidPath { .. } | Self::InvalidOption { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The namenode's refusal, if that is what this is.
    pub fn refusal(&self) -> Option<&FsError> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Earlier(cause) => cause.refusal(),
            _ => None,
        }
    }

    /// Whether nothing is at the path.
    pub fn is_not_found(&self) -> bool {
        matches!(self.refusal(), Some(FsError::NotFound { .. }))
    }
}

impl From<ClientError> for io::Error {
    /// For the `AsyncRead` and `AsyncWrite` traits. The [`ClientError`] is the inner error.
    fn from(error: ClientError) -> Self {
        let kind = match error.refusal() {
            Some(FsError::NotFound { .. }) => io::ErrorKind::NotFound,
            Some(FsError::AlreadyExists { .. }) => io::ErrorKind::AlreadyExists,
            _ => match error.kind() {
                ErrorKind::Request => io::ErrorKind::InvalidInput,
                ErrorKind::Damaged => io::ErrorKind::InvalidData,
                ErrorKind::Unavailable | ErrorKind::Stale | ErrorKind::Mismatch => {
                    io::ErrorKind::Other
                }
            },
        };
        Self::new(kind, error)
    }
}

fn refusal_next_step(refusal: &FsError) -> Option<String> {
    let step = match refusal {
        FsError::NotFound { path } => {
            format!("see what is there with `doldam ls`, or create missing parents of {path}")
        }
        FsError::AlreadyExists { .. } => "choose another name or allow overwriting".to_owned(),
        FsError::DirectoryNotEmpty { .. } => {
            "empty it first, or ask for the whole tree (recursive)".to_owned()
        }
        FsError::LeaseHeld { ends_in_secs, .. } => {
            format!("wait for the other writer, at most {ends_in_secs} s if it is gone")
        }
        FsError::LeaseLost { .. } | FsError::FileChanged { .. } => "start over".to_owned(),
        FsError::NoDatanodes { .. } => {
            "see `doldam admin report`, and start or free datanodes".to_owned()
        }
        FsError::NotLeader { .. } | FsError::Unavailable { .. } => "try again shortly".to_owned(),
        FsError::WrongCluster { .. } => "check which namenode is meant".to_owned(),
        FsError::WrongVersion { .. } => "use the same release of Doldam on both sides".to_owned(),
        FsError::Internal { .. } => "see the namenode's log, and report a bug".to_owned(),
        FsError::NotADirectory { .. }
        | FsError::IsADirectory { .. }
        | FsError::NotAllowed { .. }
        | FsError::InvalidPath { .. }
        | FsError::InvalidArgument { .. }
        | FsError::BlockMismatch { .. }
        | FsError::NotRegistered { .. } => return None,
    };
    Some(step)
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1} s", self.0.as_secs_f64())
    }
}

struct ListNamenodes<'a>(&'a [NamenodeFailure]);

impl fmt::Display for ListNamenodes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{} ({})", failure.address, failure.cause)?;
        }
        Ok(())
    }
}

struct ListNodes<'a>(&'a [NodeFailure]);

impl fmt::Display for ListNodes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("no datanode is known to hold a good replica");
        }
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            match &failure.node {
                Some(node) => write!(formatter, "{separator}{node}: {}", failure.cause)?,
                None => write!(formatter, "{separator}{}", failure.cause)?,
            }
        }
        Ok(())
    }
}
