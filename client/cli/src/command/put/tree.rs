//! The files of a `put`, found while the first of them are on their way.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use doldam_client::Client;
use doldam_proto::path::FsPath;
use futures::stream::{self, Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;

use crate::destination::{Placement, below};
use crate::error::CommandError;
use crate::local_tree::{self, LocalEntry, LocalKind};
use crate::progress::Progress;
use crate::transfer::Job;

/// One file to store.
#[derive(Debug)]
pub(crate) struct PutJob {
    /// On this machine; `-` for standard input.
    pub(crate) source: PathBuf,
    /// In the cluster.
    pub(crate) target: FsPath,
    /// File or stream.
    pub(crate) kind: LocalKind,
}

impl PutJob {
    /// Its length, if it is known.
    pub(crate) fn known_bytes(&self) -> Option<u64> {
        match self.kind {
            LocalKind::File(bytes) => Some(bytes),
            LocalKind::Stream | LocalKind::Directory => None,
        }
    }
}

impl Job for PutJob {
    fn bytes(&self) -> Option<u64> {
        self.known_bytes()
    }
}

/// Sources with all that is below them; makes their directories on the way.
pub(crate) struct Tree {
    client: Client,
    sources: VecDeque<PathBuf>,
    target: FsPath,
    placement: Placement,
    parents: bool,
    current: Option<Current>,
}

/// The source being walked.
struct Current {
    root: FsPath,
    entries: ReceiverStream<Result<LocalEntry, CommandError>>,
    /// A directory that could not be made: nothing below it is tried.
    unmade: Option<String>,
}

impl Tree {
    /// Sources that go to `target` as `placement` says.
    pub(crate) fn new(
        client: &Client,
        sources: Vec<PathBuf>,
        target: &FsPath,
        placement: Placement,
        parents: bool,
    ) -> Self {
        Self {
            client: client.clone(),
            sources: sources.into(),
            target: target.clone(),
            placement,
            parents,
            current: None,
        }
    }

    /// The files, in order, each announced to `progress`.
    pub(crate) fn into_jobs(
        self,
        progress: Progress,
    ) -> impl Stream<Item = Result<PutJob, CommandError>> {
        stream::unfold((self, progress), async |(mut tree, progress)| {
            let item = tree.next().await?;
            if let Ok(job) = &item {
                progress.expect_file(job.known_bytes().unwrap_or(0));
            }
            Some((item, (tree, progress)))
        })
    }

    async fn next(&mut self) -> Option<Result<PutJob, CommandError>> {
        loop {
            if let Some(current) = &mut self.current {
                match current.entries.next().await {
                    Some(Ok(entry)) => {
                        if let Some(item) = self.visit(entry).await {
                            return Some(item);
                        }
                        continue;
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.current = None,
                }
            }
            let source = self.sources.pop_front()?;
            if source.as_os_str() == "-" {
                let (target, kind) = (self.target.clone(), LocalKind::Stream);
                return Some(Ok(PutJob { source, target, kind }));
            }
            match self.root_of(&source) {
                Ok(root) => {
                    let entries = local_tree::walk(source);
                    self.current = Some(Current { root, entries, unmade: None });
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Where `source` itself goes.
    fn root_of(&self, source: &Path) -> Result<FsPath, CommandError> {
        let name = source_name(source)?;
        below(&self.target, &self.placement, name.as_deref()).map_err(|error| {
            CommandError::request(
                format!("cannot store {}: {error}", source.display()),
                "rename it, or name the target in full",
            )
        })
    }

    /// A file becomes a job; a directory is made and becomes nothing.
    async fn visit(&mut self, entry: LocalEntry) -> Option<Result<PutJob, CommandError>> {
        let current = self.current.as_mut()?;
        let skip = |unmade: &String| {
            unmade.is_empty() || entry.relative.starts_with(&format!("{unmade}/"))
        };
        if current.unmade.as_ref().is_some_and(skip) {
            return None;
        }
        let target = match relative_to(&current.root, &entry) {
            Ok(target) => target,
            Err(error) => return Some(Err(error)),
        };
        if entry.kind != LocalKind::Directory {
            return Some(Ok(PutJob { source: entry.path, target, kind: entry.kind }));
        }
        let made = self.make_directory(&target, entry.relative.is_empty()).await;
        let error = made.err()?;
        if let Some(current) = &mut self.current {
            current.unmade = Some(entry.relative);
        }
        Some(Err(error))
    }

    async fn make_directory(&self, target: &FsPath, is_root: bool) -> Result<(), CommandError> {
        // The root may take the place of the target, whose parents are not to be made unasked.
        let checked = is_root && self.placement == Placement::As && !self.parents;
        let made = self.client.mkdir(target, !checked).await;
        made.map(drop).map_err(CommandError::cluster("create the directory", target))
    }
}

fn relative_to(root: &FsPath, entry: &LocalEntry) -> Result<FsPath, CommandError> {
    if entry.relative.is_empty() {
        return Ok(root.clone());
    }
    FsPath::parse(&format!("{root}/{}", entry.relative)).map_err(|error| {
        CommandError::request(
            format!("cannot store {}: {error}", entry.path.display()),
            "rename it, or store it on its own under another name",
        )
    })
}

/// The name `source` keeps in a directory; none if its content is meant (`.`, `dir/.`, `/`).
fn source_name(source: &Path) -> Result<Option<String>, CommandError> {
    let text = source.to_string_lossy();
    if text == "." || text.ends_with("/.") || text == "/" {
        return Ok(None);
    }
    let named = if let Some(name) = source.file_name() {
        name.to_owned()
    } else {
        // `..` has the name of the directory it leads to.
        let real = source.canonicalize().map_err(CommandError::local("read", source))?;
        let Some(name) = real.file_name() else { return Ok(None) };
        name.to_owned()
    };
    named.into_string().map(Some).map_err(|_| {
        CommandError::request(
            format!("{}: the name is not UTF-8", source.display()),
            "name the target in full; names in the cluster are UTF-8",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_keeps_its_name_unless_its_content_is_meant() {
        for (source, name) in [
            ("a/b", Some("b")),
            ("a/b/", Some("b")),
            (".", None),
            ("a/.", None),
            ("/", None),
            ("./-", Some("-")),
        ] {
            assert_eq!(source_name(Path::new(source)).unwrap().as_deref(), name, "{source}");
        }
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("x");
        std::fs::create_dir(&below).unwrap();
        let expected = folder.path().file_name().unwrap().to_str();
        assert_eq!(source_name(&below.join("..")).unwrap().as_deref(), expected);
    }
}
