//! `put_file`: stores a local file.

use std::fmt;

use crate::Progress;
use crate::writer::WriteOptions;

/// How a local file is stored.
#[derive(Clone)]
pub struct PutOptions {
    /// What the file in the cluster is like.
    pub create: WriteOptions,
    /// Blocks sent at the same time; the next one starts in any case while the last one is synced. Default 1.
    pub parallel: usize,
    /// Told of every acknowledged byte.
    pub progress: Option<Progress>,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { create: WriteOptions::default(), parallel: 1, progress: None }
    }
}

impl fmt::Debug for PutOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PutOptions")
            .field("create", &self.create)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}
