//! The client library of Doldam.
//!
//! What it guarantees:
//!
//! * **Nothing half-written is ever visible.** A file appears under its path whole, when
//!   [`FileWriter::close`] succeeds, or not at all; the same holds when it replaces an older one, and for what is
//!   appended to one. Only [`FileWriter::flush`] shows a part, up to exactly where it was called.
//! * **Acknowledged is kept.** When `close` returns, the file is as durable as its [`Durability`] promises,
//!   and the cluster's digest of it equals the one computed here from the bytes that were handed in.
//! * **No byte is handed out unverified.** What a datanode sends is checked against the value of the block
//!   that the *namenode* gave, for a whole file as for one byte of it. A replica that fails is reported and the
//!   read goes on from another, without the caller noticing; [`Verification`] tells afterwards.
//! * **A replica that is late does not hold up a read.** Another one is asked beside it, and who delivers first is read
//!   on; see [`ClientConfig::hedged_reads`].
//! * **Every wait has a deadline**, every buffer a bound: see [`ClientConfig`].
//!
//! ```no_run
//! use doldam_client::{Client, ClientError, Durability};
//! use tokio::io::AsyncWriteExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:8020").await?;
//!
//! let mut file =
//!     client.create("/logs/app.log").parents(true).durability(Durability::All).open().await?;
//! file.write_all(b"hello\n").await?;
//! let report = file.close().await?; // from here on it is visible, and durable
//! println!("{}", report.status.digest.expect("a file has a digest")); // as b3sum prints it
//!
//! let mut reader = client.open("/logs/app.log").await?;
//! assert_eq!(&reader.read_at(0, 5).await?[..], b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! Calls may be made from any task of a tokio runtime; [`Client`] is cheap to clone and all clones share
//! connections. Each method says whether dropping its future half-way is safe.

pub mod admin;
mod append;
mod block_reader;
mod block_stream;
mod client;
mod config;
mod create;
mod empty;
mod engine;
mod error;
mod feed;
mod get;
mod listing;
mod metadata;
mod open_file;
mod put;
mod reader;
mod replica_choice;
mod session;
mod source;
mod writer;

pub use admin::{
    AtRisk, BalanceReport, BlockHealth, ClusterReport, CopyReason, DatanodeReport, FsckBlock,
    FsckFile, FsckStream, NodeMode, NodeReason, RepairReport, RunningCopy, StuckFile, WaitingBlock,
};
pub use append::AppendOptions;
pub use client::{Client, ClientBuilder};
pub use config::ClientConfig;
pub use create::{CreateOptions, WriteOptions};
pub use doldam_proto::FsError;
pub use doldam_proto::digest::FileDigest;
pub use doldam_proto::error::ErrorKind;
pub use doldam_proto::file::{Durability, FileKind, FileStatus};
pub use doldam_proto::id::{BlockId, ClusterId, Generation, InodeId, NodeId};
pub use doldam_proto::node::{NodeAddress, NodeState};
pub use doldam_proto::path::{FsPath, PathError};
pub use error::{ClientError, NamenodeFailure, NodeFailure};
pub use get::{GetOptions, ReadReport};
pub use listing::ListStream;
pub use put::PutOptions;
pub use reader::{BadReplica, FileReader, Verification};
pub use writer::{FileWriter, WriteReport};

/// Told how many more bytes of a transfer are done, from any thread; must return quickly.
///
/// Bytes count when they are acknowledged (put) or verified and written (get); a block that has to be written
/// again counts once.
pub type Progress = std::sync::Arc<dyn Fn(u64) + Send + Sync>;
