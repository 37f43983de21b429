//! The data server of Doldam: stores blocks as immutable files with a checksum tree, serves and forwards block streams,
//! verifies what it holds, and obeys the namenode's orders.

mod blocks;
mod config;
mod engine;
mod metrics;
mod news;
mod node;
mod stream;

#[cfg(test)]
mod testing;

pub use blocks::version_file::VersionFileError;
pub use blocks::volume::FolderError;
pub use config::{BadSetting, DatanodeConfig, LISTEN_DEFAULT};
