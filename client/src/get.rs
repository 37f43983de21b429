//! `get_file`: fetches a file of the cluster into a local one.

use std::fmt;

use doldam_proto::file::FileStatus;

use crate::Progress;
use crate::reader::Verification;

/// How a file is fetched.
#[derive(Clone)]
pub struct GetOptions {
    /// Blocks fetched at the same time. Default 2.
    pub parallel: usize,
    /// Replace the local file if it exists. Default no.
    pub overwrite: bool,
    /// Put the local file on stable storage before it is given its name. Default no, as with `cp`.
    pub sync: bool,
    /// Told of every byte that was verified and written.
    pub progress: Option<Progress>,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self { parallel: 2, overwrite: false, sync: false, progress: None }
    }
}

impl fmt::Debug for GetOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GetOptions")
            .field("parallel", &self.parallel)
            .field("overwrite", &self.overwrite)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// What was fetched.
#[derive(Debug, Clone)]
pub struct ReadReport {
    /// The file as it was when it was opened.
    pub status: FileStatus,
    /// What was verified, and what went wrong on the way.
    pub verification: Verification,
}
