//! The data server of Doldam: stores blocks as immutable files with a checksum tree, serves and
//! forwards block streams, verifies what it holds, and obeys the namenode's orders.
//!
//! [`run`] starts one over its data folders and leaves it to the given tasks:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use doldam_datanode::{DatanodeConfig, run};
//! use doldam_runtime::Seams;
//! use doldam_runtime::tasks::BackgroundTasks;
//!
//! let tasks = BackgroundTasks::default();
//! let config = DatanodeConfig { dirs: vec!["/var/lib/doldam".into()], ..Default::default() };
//! let datanode = run(config, Seams::system(), &tasks).await?;
//! println!("listening at {}", datanode.local_addr());
//! tasks.stopping().cancelled().await;
//! # Ok(())
//! # }
//! ```
//!
//! * `engine`: what it decides, apart from what it does.
//! * `blocks`: replicas on disk; every name and byte of them.
//! * `stream`: the block stream server and the streams it opens to others.
//! * `namenode_link`, `driver`: registration, heartbeats, and the orders that come back.
//! * `scrubber`, `late_syncer`, `folder_watch`: what goes on in the background.

mod blocks;
mod config;
mod driver;
mod engine;
mod folder_watch;
pub mod inspect;
mod late_syncer;
mod metrics;
mod namenode_link;
mod news;
mod node;
mod pages;
mod scrubber;
mod start;
mod stream;

#[cfg(test)]
mod testing;

pub use blocks::version_file::VersionFileError;
pub use blocks::volume::FolderError;
pub use config::{BadSetting, DatanodeConfig, LISTEN_DEFAULT};
pub use namenode_link::LinkError;
pub use start::{DatanodeError, DatanodeHandle, run};
