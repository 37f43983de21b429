//! The files of a `get`, found while the first of them are on their way.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use doldam_client::Client;
use doldam_proto::path::FsPath;
use futures::stream::{self, Stream};

use crate::destination::Placement;
use crate::error::CommandError;
use crate::progress::Progress;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::transfer::Job;

/// One file to fetch.
#[derive(Debug)]
pub(crate) struct GetJob {
    /// In the cluster.
    pub(crate) entry: RemoteEntry,
    /// On this machine.
    pub(crate) target: PathBuf,
}

impl Job for GetJob {
    fn bytes(&self) -> Option<u64> {
        Some(self.entry.status.length)
    }
}

/// Sources with all that is below them; makes local directories on the way.
pub(crate) struct Tree {
    client: Client,
    sources: VecDeque<RemoteEntry>,
    target: PathBuf,
    placement: Placement,
    current: Option<Current>,
}

/// The source being walked.
struct Current {
    source: FsPath,
    target: PathBuf,
    walk: RemoteWalk,
    /// A directory that could not be made: nothing below it is tried.
    unmade: Option<FsPath>,
}

impl Tree {
    /// Sources that go to `target` as `placement` says.
    pub(crate) fn new(
        client: &Client,
        sources: Vec<RemoteEntry>,
        target: PathBuf,
        placement: Placement,
    ) -> Self {
        Self { client: client.clone(), sources: sources.into(), target, placement, current: None }
    }

    /// The files, in order, each announced to `progress`.
    pub(crate) fn into_jobs(
        self,
        progress: Progress,
    ) -> impl Stream<Item = Result<GetJob, CommandError>> {
        stream::unfold((self, progress), async |(mut tree, progress)| {
            let item = tree.next().await?;
            if let Ok(job) = &item {
                progress.expect_file(job.entry.status.length);
            }
            Some((item, (tree, progress)))
        })
    }

    async fn next(&mut self) -> Option<Result<GetJob, CommandError>> {
        loop {
            let Some(current) = &mut self.current else {
                let source = self.sources.pop_front()?;
                self.current = Some(Current {
                    source: source.path.clone(),
                    target: root_of(&self.target, &self.placement, source.path.name()),
                    walk: RemoteWalk::new(&self.client, source),
                    unmade: None,
                });
                continue;
            };
            match current.walk.next().await {
                None => self.current = None,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok((entry, _))) => {
                    if let Some(item) = current.visit(entry).await {
                        return Some(item);
                    }
                }
            }
        }
    }
}

impl Current {
    /// A file becomes a job; a directory is made and becomes nothing.
    async fn visit(&mut self, entry: RemoteEntry) -> Option<Result<GetJob, CommandError>> {
        if self.unmade.as_ref().is_some_and(|unmade| entry.path.starts_with(unmade)) {
            return None;
        }
        let relative = entry.relative_to(&self.source);
        let target =
            if relative.is_empty() { self.target.clone() } else { self.target.join(relative) };
        if !entry.status.is_dir() {
            return Some(Ok(GetJob { entry, target }));
        }
        let error = make_directory(&target).await.err()?;
        self.unmade = Some(entry.path);
        Some(Err(error))
    }
}

/// Where a source called `name` goes; the root directory has no name, so its content does.
fn root_of(target: &Path, placement: &Placement, name: Option<&str>) -> PathBuf {
    match (placement, name) {
        (Placement::Into, Some(name)) => target.join(name),
        (Placement::Into, None) | (Placement::As, _) => target.to_owned(),
    }
}

/// Makes one directory; one that is there already will do.
async fn make_directory(path: &Path) -> Result<(), CommandError> {
    match tokio::fs::create_dir(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(CommandError::local("create the directory", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_cluster_has_no_name_to_keep() {
        let target = Path::new("here");
        assert_eq!(root_of(target, &Placement::Into, Some("a")), Path::new("here/a"));
        assert_eq!(root_of(target, &Placement::Into, None), target);
        assert_eq!(root_of(target, &Placement::As, Some("a")), target);
    }

    #[tokio::test]
    async fn an_existing_directory_will_do_and_an_existing_file_will_not() {
        let folder = tempfile::tempdir().unwrap();
        let (new, file) = (folder.path().join("new"), folder.path().join("file"));
        std::fs::write(&file, "x").unwrap();
        make_directory(&new).await.unwrap();
        make_directory(&new).await.unwrap();
        assert!(make_directory(&file).await.is_err());
        assert!(make_directory(&folder.path().join("a/b")).await.is_err(), "no parents unasked");
    }
}
