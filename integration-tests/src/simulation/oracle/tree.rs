//! What an operation does to the names below a client's home, as its documentation says.

use std::collections::BTreeMap;

use super::content::ContentId;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Folder,
    /// A file.
    File {
        /// Its bytes.
        content: ContentId,
        /// Its wanted replicas.
        replication: u32,
    },
}

/// The names below a home, the home included, by path.
pub type Tree = BTreeMap<String, Node>;

/// A change that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a directory.
    Mkdir {
        /// Where.
        path: String,
    },
    /// Writes a file.
    Put {
        /// Where.
        path: String,
        /// Its bytes.
        content: ContentId,
        /// Its wanted replicas.
        replication: u32,
        /// Whether a file there is replaced.
        overwrite: bool,
    },
    /// Deletes.
    Delete {
        /// What.
        path: String,
        /// With all that is below.
        recursive: bool,
    },
    /// Renames.
    Rename {
        /// What.
        from: String,
        /// To what.
        to: String,
        /// Whether what is there may be replaced.
        replace: bool,
    },
    /// Asks for another number of replicas.
    Replicate {
        /// Of which file.
        path: String,
        /// How many.
        replication: u32,
    },
}

/// The documentation says that this is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// The tree after `change`.
///
/// # Errors
/// If it is refused; nothing has changed then.
pub fn apply(tree: &Tree, change: &Change) -> Result<Tree, Refused> {
    let mut tree = tree.clone();
    match change {
        Change::Mkdir { path } => {
            if !is_folder(&tree, parent(path)) || tree.contains_key(path) {
                return Err(Refused);
            }
            tree.insert(path.clone(), Node::Folder);
        }
        Change::Put { path, content, replication, overwrite } => {
            let is_free = match tree.get(path) {
                None => true,
                Some(Node::Folder) => false,
                Some(Node::File { .. }) => *overwrite,
            };
            if !is_folder(&tree, parent(path)) || !is_free {
                return Err(Refused);
            }
            let (content, replication) = (*content, *replication);
            tree.insert(path.clone(), Node::File { content, replication });
        }
        Change::Delete { path, recursive } => {
            let Some(node) = tree.get(path) else { return Err(Refused) };
            if *node == Node::Folder && !*recursive && !is_empty(&tree, path) {
                return Err(Refused);
            }
            tree.retain(|other, _| !is_at_or_below(other, path));
        }
        Change::Rename { from, to, replace } => rename(&mut tree, from, to, *replace)?,
        Change::Replicate { path, replication: wanted } => match tree.get_mut(path) {
            Some(Node::File { replication, .. }) => *replication = *wanted,
            Some(Node::Folder) | None => return Err(Refused),
        },
    }
    Ok(tree)
}

fn rename(tree: &mut Tree, from: &str, to: &str, replace: bool) -> Result<(), Refused> {
    let Some(moved) = tree.get(from).cloned() else { return Err(Refused) };
    if from == to {
        return Ok(());
    }
    if (moved == Node::Folder && is_at_or_below(to, from)) || !is_folder(tree, parent(to)) {
        return Err(Refused);
    }
    match (&moved, tree.get(to)) {
        (_, None) => {}
        (Node::Folder, Some(Node::Folder)) if replace && is_empty(tree, to) => {}
        (Node::File { .. }, Some(Node::File { .. })) if replace => {}
        (_, Some(_)) => return Err(Refused),
    }
    let below: Vec<String> =
        tree.keys().filter(|path| is_at_or_below(path, from)).cloned().collect();
    for path in below {
        if let Some(node) = tree.remove(&path) {
            tree.insert(format!("{to}{}", &path[from.len()..]), node);
        }
    }
    Ok(())
}

/// The names directly in the directory `path`.
pub fn children<'a>(tree: &'a Tree, path: &'a str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    tree.iter()
        .filter(move |(other, _)| parent(other) == path)
        .map(move |(other, node)| (&other[path.len() + 1..], node))
}

fn is_empty(tree: &Tree, path: &str) -> bool {
    children(tree, path).next().is_none()
}

fn is_folder(tree: &Tree, path: &str) -> bool {
    tree.get(path) == Some(&Node::Folder)
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directory that `path` is in.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
