//! Directory listings as a stream of entries.

use std::pin::Pin;
use std::task::{Context, Poll};

use doldam_proto::file::FileStatus;
use futures::Stream;
use futures::stream::BoxStream;

use crate::error::ClientError;

/// The entries of a directory in byte order of their names; each entry's `path` is its name only.
///
/// Pages are fetched as the stream is read, the next one while the current one is consumed; memory is bounded by
/// two pages. The listing is not one moment's picture: entries that come or go while it is read may or may
/// not be in it, all others are, once.
pub struct ListStream(BoxStream<'static, Result<FileStatus, ClientError>>);

impl ListStream {
    pub(crate) fn new(entries: BoxStream<'static, Result<FileStatus, ClientError>>) -> Self {
        Self(entries)
    }
}

impl Stream for ListStream {
    type Item = Result<FileStatus, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
