//! Files in the cluster as sources: patterns, and whole trees, page by page.

use std::collections::VecDeque;

use doldam_client::{Client, FileStatus, ListStream};
use doldam_proto::path::FsPath;
use futures::StreamExt;

use crate::destination::remote_path;
use crate::error::CommandError;
use crate::glob::{self, Step};

/// Something in the cluster, with its whole path.
#[derive(Debug, Clone)]
pub(crate) struct RemoteEntry {
    /// Where it is.
    pub(crate) path: FsPath,
    /// What it is.
    pub(crate) status: FileStatus,
}

/// What is at `typed`, or everything that it matches as a pattern, in order of paths.
///
/// # Errors
/// If nothing is there and nothing matches, or the cluster does not answer.
pub(crate) async fn expand(
    client: &Client,
    action: &'static str,
    typed: &str,
) -> Result<Vec<RemoteEntry>, CommandError> {
    let path = remote_path(typed)?;
    if !glob::is_pattern(typed) {
        let status = client.stat(&path).await.map_err(CommandError::cluster(action, &path))?;
        return Ok(vec![RemoteEntry { path, status }]);
    }
    let literal = client.try_stat(&path).await.map_err(CommandError::cluster(action, &path))?;
    if let Some(status) = literal {
        return Ok(vec![RemoteEntry { path, status }]);
    }
    let found = matches(client, action, path.as_str()).await?;
    if found.is_empty() {
        return Err(CommandError::request(
            format!("{typed}: nothing in the cluster matches"),
            "see what is there with `doldam ls`",
        ));
    }
    Ok(found)
}

async fn matches(
    client: &Client,
    action: &'static str,
    pattern: &str,
) -> Result<Vec<RemoteEntry>, CommandError> {
    let steps = glob::parse(pattern)?;
    let mut found: Vec<RemoteEntry> = Vec::new();
    let mut waiting: VecDeque<(FsPath, &[Step])> = VecDeque::from([(FsPath::root(), &steps[..])]);
    while let Some((folder, steps)) = waiting.pop_front() {
        if let [Step::Name(name), rest @ ..] = steps {
            let path = joined(&folder, name)?;
            let status = client.try_stat(&path).await;
            let status = status.map_err(CommandError::cluster(action, &path))?;
            match status {
                Some(status) if rest.is_empty() => found.push(RemoteEntry { path, status }),
                Some(status) if status.is_dir() => waiting.push_back((path, rest)),
                Some(_) | None => {}
            }
            continue;
        }
        let mut entries = client.list(&folder);
        while let Some(entry) = entries.next().await {
            let status = entry.map_err(CommandError::cluster("list", &folder))?;
            for rest in glob::descend(steps, &status.path) {
                let path = joined(&folder, &status.path)?;
                if rest.is_empty() {
                    found.push(RemoteEntry { path, status: status.clone() });
                } else if status.is_dir() {
                    waiting.push_back((path, rest));
                }
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found.dedup_by(|one, other| one.path == other.path);
    Ok(found)
}

/// The path of the entry `name` of `folder`.
///
/// # Errors
/// If the cluster sent a name that is none.
pub(crate) fn joined(folder: &FsPath, name: &str) -> Result<FsPath, CommandError> {
    folder.join(name).map_err(|error| CommandError::Unmet {
        what: format!("{folder} has an entry {name:?} that is no name: {error}"),
        next_step: "use the same release on both sides".to_owned(),
    })
}

/// A walk through everything at and below one entry: directories before what is in them, in order.
///
/// Holds one page per level, however large the directories are.
pub(crate) struct RemoteWalk {
    client: Client,
    start: Option<RemoteEntry>,
    open: Vec<(FsPath, ListStream)>,
    levels_max: usize,
}

impl RemoteWalk {
    /// Starts with `entry` itself, at level 0.
    pub(crate) fn new(client: &Client, entry: RemoteEntry) -> Self {
        Self {
            client: client.clone(),
            start: Some(entry),
            open: Vec::new(),
            levels_max: usize::MAX,
        }
    }

    /// Does not go further down than `levels` below the start.
    pub(crate) fn levels_max(mut self, levels: usize) -> Self {
        self.levels_max = levels;
        self
    }

    /// The next entry with its level; `None` at the end. After an error in one directory the walk
    /// goes on with the next.
    pub(crate) async fn next(&mut self) -> Option<Result<(RemoteEntry, usize), CommandError>> {
        if let Some(entry) = self.start.take() {
            self.enter(&entry);
            return Some(Ok((entry, 0)));
        }
        loop {
            let (folder, entries) = self.open.last_mut()?;
            match entries.next().await {
                None => drop(self.open.pop()),
                Some(Err(error)) => {
                    let folder = folder.clone();
                    self.open.pop();
                    return Some(Err(CommandError::cluster("list", folder)(error)));
                }
                Some(Ok(status)) => {
                    let path = match joined(folder, &status.path) {
                        Ok(path) => path,
                        Err(error) => return Some(Err(error)),
                    };
                    let level = self.open.len();
                    let entry = RemoteEntry { path, status };
                    self.enter(&entry);
                    return Some(Ok((entry, level)));
                }
            }
        }
    }

    fn enter(&mut self, entry: &RemoteEntry) {
        if entry.status.is_dir() && self.open.len() < self.levels_max {
            self.open.push((entry.path.clone(), self.client.list(&entry.path)));
        }
    }
}

impl RemoteEntry {
    /// The part of the path below `root`, `/` between the names; empty for `root` itself.
    pub(crate) fn relative_to(&self, root: &FsPath) -> &str {
        let rest = self.path.as_str().strip_prefix(root.as_str()).unwrap_or_default();
        rest.trim_start_matches('/')
    }
}
