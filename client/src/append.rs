//! Writing on behind the end of a file, and cutting one.

mod tail;

use std::sync::Arc;

use doldam_proto::path::FsPath;

use crate::client::{Client, Inner, parse};
use crate::error::ClientError;
use crate::metadata::Appended;
use crate::session::OpenWrite;
use crate::writer::{FileWriter, WriteReport};
pub(crate) use tail::Tail;
use tail::read_tail;

/// A file about to be written on: see [`Client::append`].
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct AppendOptions {
    client: Client,
    path: String,
}

impl AppendOptions {
    pub(crate) fn new(client: Client, path: String) -> Self {
        Self { client, path }
    }

    /// Opens the file to be written on. Readers see it as it was until [`FileWriter::flush`] or
    /// [`FileWriter::close`]; if the writer is dropped before either, it stays as it was.
    ///
    /// Costs one read of at most 64 KiB. Nothing that is there is copied.
    ///
    /// # Errors
    /// If nothing or a directory is there, another client writes the file
    /// ([`FsError::LeaseHeld`](crate::FsError::LeaseHeld) says for how long at most), or no replica of its last block
    /// can be read.
    pub async fn open(self) -> Result<FileWriter, ClientError> {
        open(self.client.inner(), parse(&self.path)?, None).await.map(|(writer, _)| writer)
    }
}

async fn open(
    inner: &Arc<Inner>,
    path: FsPath,
    truncate_to: Option<u64>,
) -> Result<(FileWriter, Appended), ClientError> {
    let (write, appended) = OpenWrite::append(inner, path, truncate_to).await?;
    let tail = match &appended.tail {
        Some((open, before)) => {
            Some(read_tail(&write, &appended.status, open.clone(), before.clone()).await?)
        }
        None => None,
    };
    let bound = inner.config.retained_bytes_max;
    Ok((FileWriter::append(write, appended.length, tail, bound), appended))
}

/// Cuts a file.
pub(crate) async fn truncate(
    inner: &Arc<Inner>,
    path: FsPath,
    length: u64,
) -> Result<WriteReport, ClientError> {
    let (mut writer, appended) = open(inner, path, Some(length)).await?;
    if length < appended.status.length {
        writer.cut();
    }
    writer.close().await
}
