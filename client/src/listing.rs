//! Directory listings as a stream of entries.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use doldam_proto::FsError;
use doldam_proto::file::FileStatus;
use doldam_proto::id::InodeId;
use doldam_proto::path::FsPath;
use doldam_runtime::tasks::spawn_detached;
use doldam_runtime::telemetry::TraceId;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_util::task::AbortOnDropHandle;

use crate::error::ClientError;
use crate::metadata::{Metadata, Page};

/// The entries of a directory in byte order of their names; each entry's `path` is its name only.
///
/// Pages are fetched as the stream is read, the next one while the current one is consumed; memory is bounded by
/// two pages. The listing is not one moment's picture: entries that come or go while it is read may or may
/// not be in it, all others are, once.
pub struct ListStream(BoxStream<'static, Result<FileStatus, ClientError>>);

impl ListStream {
    /// The entries of the directory at `path`.
    pub(crate) fn new(metadata: Arc<Metadata>, path: FsPath) -> Self {
        let trace = metadata.new_trace();
        let lister = Arc::new(Lister { metadata, path, trace });
        let pages = stream::try_unfold(Next::First(lister), Next::page);
        Self(pages.map_ok(|entries| stream::iter(entries).map(Ok)).try_flatten().boxed())
    }

    /// No entries, but the reason.
    pub(crate) fn failed(error: ClientError) -> Self {
        Self(stream::iter([Err(error)]).boxed())
    }
}

struct Lister {
    metadata: Arc<Metadata>,
    path: FsPath,
    trace: TraceId,
}

impl Lister {
    async fn fetch(&self, start_after: String) -> Result<Page, ClientError> {
        self.metadata.list(&self.path, start_after, &self.trace).await
    }
}

/// The page to come.
enum Next {
    First(Arc<Lister>),
    /// On its way already, and of this directory.
    Fetching(Arc<Lister>, InodeId, AbortOnDropHandle<Result<Page, ClientError>>),
    None,
}

impl Next {
    async fn page(self) -> Result<Option<(Vec<FileStatus>, Self)>, ClientError> {
        let (lister, page) = match self {
            Self::First(lister) => {
                let page = lister.fetch(String::new()).await?;
                (lister, page)
            }
            Self::Fetching(lister, directory, page) => {
                let page = page.await.map_err(|_| ClientError::Stopped { operation: "list" })??;
                if page.directory != directory {
                    return Err(FsError::FileChanged { path: lister.path.to_string() }.into());
                }
                (lister, page)
            }
            Self::None => return Ok(None),
        };
        let next = match page.entries.last() {
            Some(last) if page.more => {
                let (lister, fetcher) = (Arc::clone(&lister), Arc::clone(&lister));
                let start_after = last.path.clone();
                let fetch = async move { fetcher.fetch(start_after).await };
                let fetch = AbortOnDropHandle::new(spawn_detached("list", fetch));
                Self::Fetching(lister, page.directory, fetch)
            }
            _ => Self::None,
        };
        Ok(Some((page.entries, next)))
    }
}

impl fmt::Debug for ListStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ListStream").finish_non_exhaustive()
    }
}

impl Stream for ListStream {
    type Item = Result<FileStatus, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
