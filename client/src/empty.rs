//! `create_empty`: stores a file without content, without asking for a block.

use std::sync::Arc;

use doldam_runtime::net::BoxFuture;

use crate::client::{Client, parse};
use crate::create::{WriteOptions, check_options};
use crate::engine::write_pipeline::{WriteEvent, WriteStart};
use crate::error::ClientError;
use crate::session::{OpenWrite, Session, Supply};
use crate::source::BlockSource;
use crate::writer::WriteReport;

impl Client {
    /// Stores a file without content at `path`, in two round trips and without any datanode.
    ///
    /// # Errors
    /// If the namenode refuses (the path exists, its parent does not, another client writes there) or an option is
    /// out of range.
    pub async fn create_empty(
        &self,
        path: impl AsRef<str>,
        options: WriteOptions,
    ) -> Result<WriteReport, ClientError> {
        let path = parse(path.as_ref())?;
        check_options(&options)?;
        let (write, first) = OpenWrite::create(self.inner(), path, &options, false).await?;
        Box::pin(
            Session::new(write, WriteStart::New { first }, None, Arc::new(Nothing), 1, None).run(),
        )
        .await
    }
}

/// A source that ends where it begins.
struct Nothing;

impl Supply for Nothing {
    fn poll_events(&self) -> Result<Vec<WriteEvent>, ClientError> {
        Ok(vec![WriteEvent::Ended { length: 0 }])
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn block(&self, _index: u32) -> Option<BlockSource> {
        None
    }

    fn release(&self, _index: u32) {}

    fn check(&self) -> Result<(), ClientError> {
        Ok(())
    }
}
