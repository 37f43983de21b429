//! Where a copy goes, decided as `cp` does: into an existing directory under its own name, else to
//! exactly the target. One rule for `put`, `get`, `cp` and `mv`; nothing here looks at a disk.

use doldam_proto::path::{FsPath, PathError};

use crate::error::CommandError;

/// What is at the target now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing.
    Nothing,
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// What a copy's target turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Sources keep their names below the target.
    Into,
    /// The one source becomes the target.
    As,
}

/// Decides for `sources` sources and a target as typed.
///
/// # Errors
/// If several sources, or a name that ends with a slash, need a directory that is not there.
pub(crate) fn place(
    typed: &str,
    existing: Existing,
    sources: usize,
) -> Result<Placement, CommandError> {
    let needs_directory = sources > 1 || typed.ends_with('/');
    match existing {
        Existing::Directory => Ok(Placement::Into),
        Existing::File | Existing::Nothing if !needs_directory => Ok(Placement::As),
        Existing::File => Err(CommandError::request(
            format!("{typed} is a file, and a directory is needed"),
            "name a directory as the target",
        )),
        Existing::Nothing => Err(CommandError::request(
            format!("{typed}: no such directory"),
            "create it first (`doldam mkdir -p` in the cluster), or leave the trailing slash away",
        )),
    }
}

/// Where a source named `name` goes; without a name (`/`, `.`) its content goes into the target.
///
/// # Errors
/// If the name is no valid name in the cluster.
pub(crate) fn below(
    target: &FsPath,
    placement: &Placement,
    name: Option<&str>,
) -> Result<FsPath, PathError> {
    match (placement, name) {
        (Placement::Into, Some(name)) => target.join(name),
        (Placement::Into, None) | (Placement::As, _) => Ok(target.clone()),
    }
}

/// A path in the cluster as typed, or what is wrong with it.
///
/// # Errors
/// If it breaks a rule of [`doldam_proto::path`].
pub(crate) fn remote_path(typed: &str) -> Result<FsPath, CommandError> {
    FsPath::parse(typed).map_err(|error| {
        CommandError::request(
            format!("{typed:?} is no path in the cluster: {error}"),
            "give an absolute path in the cluster, such as /logs/2026/app.log",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_directory_takes_sources_under_their_names() {
        let target = FsPath::parse("/d").unwrap();
        let into = place("/d", Existing::Directory, 1).unwrap();
        assert_eq!(below(&target, &into, Some("a")).unwrap().as_str(), "/d/a");
        assert_eq!(below(&target, &into, None).unwrap().as_str(), "/d");
        assert_eq!(place("/d/", Existing::Directory, 2).unwrap(), Placement::Into);
    }

    #[test]
    fn one_source_becomes_a_target_that_is_not_there_yet() {
        let target = FsPath::parse("/new").unwrap();
        let placement = place("/new", Existing::Nothing, 1).unwrap();
        assert_eq!(below(&target, &placement, Some("a")).unwrap().as_str(), "/new");
        assert_eq!(place("/new", Existing::File, 1).unwrap(), Placement::As);
    }

    #[test]
    fn what_needs_a_directory_does_not_get_a_file() {
        for (typed, existing, sources) in [
            ("/x/", Existing::Nothing, 1),
            ("/x/", Existing::File, 1),
            ("/x", Existing::Nothing, 2),
            ("/x", Existing::File, 2),
        ] {
            assert!(place(typed, existing, sources).is_err(), "{typed} {existing:?} {sources}");
        }
    }

    #[test]
    fn a_relative_path_is_refused_with_the_rule() {
        let error = remote_path("a/b").unwrap_err();
        assert!(error.to_string().contains("starts with `/`"), "{error}");
    }
}
