//! The files of a `cp`, found while the first of them are on their way.

use std::collections::VecDeque;

use doldam_client::Client;
use doldam_proto::path::FsPath;
use futures::stream::{self, Stream};

use crate::destination::{Placement, below};
use crate::error::CommandError;
use crate::progress::Progress;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::transfer::Job;

/// One file to copy.
#[derive(Debug)]
pub(crate) struct CopyJob {
    /// What.
    pub(crate) source: RemoteEntry,
    /// Where to.
    pub(crate) target: FsPath,
}

impl Job for CopyJob {
    fn bytes(&self) -> Option<u64> {
        Some(self.source.status.length)
    }
}

/// Sources with all that is below them; makes directories on the way.
pub(crate) struct Tree {
    client: Client,
    sources: VecDeque<RemoteEntry>,
    target: FsPath,
    placement: Placement,
    current: Option<Current>,
}

/// The source being walked.
struct Current {
    source: FsPath,
    target: FsPath,
    walk: RemoteWalk,
    /// A directory that could not be made: nothing below it is tried.
    unmade: Option<FsPath>,
}

impl Tree {
    /// Sources that go to `target` as `placement` says.
    pub(crate) fn new(
        client: &Client,
        sources: Vec<RemoteEntry>,
        target: FsPath,
        placement: Placement,
    ) -> Self {
        Self { client: client.clone(), sources: sources.into(), target, placement, current: None }
    }

    /// The files, in order, each announced to `progress`.
    pub(crate) fn into_jobs(
        self,
        progress: Progress,
    ) -> impl Stream<Item = Result<CopyJob, CommandError>> {
        stream::unfold((self, progress), async |(mut tree, progress)| {
            let item = tree.next().await?;
            if let Ok(job) = &item {
                progress.expect_file(job.source.status.length);
            }
            Some((item, (tree, progress)))
        })
    }

    async fn next(&mut self) -> Option<Result<CopyJob, CommandError>> {
        loop {
            let Some(current) = &mut self.current else {
                let source = self.sources.pop_front()?;
                match below(&self.target, &self.placement, source.path.name()) {
                    Ok(target) => {
                        let (path, client) = (source.path.clone(), &self.client);
                        let walk = RemoteWalk::new(client, source);
                        self.current = Some(Current { source: path, target, walk, unmade: None });
                        continue;
                    }
                    Err(error) => return Some(Err(too_long(&source.path, &error))),
                }
            };
            match current.walk.next().await {
                None => self.current = None,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok((entry, _))) => {
                    if let Some(item) = current.visit(&self.client, entry).await {
                        return Some(item);
                    }
                }
            }
        }
    }
}

impl Current {
    /// A file becomes a job; a directory is made and becomes nothing.
    async fn visit(
        &mut self,
        client: &Client,
        source: RemoteEntry,
    ) -> Option<Result<CopyJob, CommandError>> {
        if self.unmade.as_ref().is_some_and(|unmade| source.path.starts_with(unmade)) {
            return None;
        }
        let relative = source.relative_to(&self.source);
        let target = match self.target.join(relative) {
            Ok(target) => target,
            Err(error) => return Some(Err(too_long(&source.path, &error))),
        };
        if !source.status.is_dir() {
            return Some(Ok(CopyJob { source, target }));
        }
        // The root of the copy may be missing its parents, and they are not made unasked.
        let made = match client.mkdir(&target, !relative.is_empty()).await {
            Err(error) if relative.is_empty() => is_directory(client, &target, error).await,
            made => made.map(drop),
        };
        let error = made.map_err(CommandError::cluster("create the directory", &target)).err()?;
        self.unmade = Some(source.path);
        Some(Err(error))
    }
}

/// No error if a directory is at `target` already.
async fn is_directory(
    client: &Client,
    target: &FsPath,
    error: doldam_client::ClientError,
) -> Result<(), doldam_client::ClientError> {
    match client.try_stat(target).await? {
        Some(status) if status.is_dir() => Ok(()),
        Some(_) | None => Err(error),
    }
}

fn too_long(source: &FsPath, error: &doldam_client::PathError) -> CommandError {
    CommandError::request(format!("cannot copy {source}: {error}"), "choose a shorter target")
}
