//! Paths of the namespace, checked once.
//!
//! The rules: a path is UTF-8 and starts with `/`. Repeated slashes count as one and a trailing slash
//! is dropped. Components are at most 255 bytes, paths at most 4096 bytes and 256 components. `.` and `..`
//! are refused, not resolved, and so are NUL and other control characters: a path means what it says.
//! Case and Unicode normal form are kept and told apart.

use std::fmt;

use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// A valid absolute path in its one normal form, such as `/`, `/logs` or `/logs/2026/app.log`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsPath(String);

/// Which rule a path breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Relative or empty.
    #[error("a path in the cluster starts with `/`")]
    NotAbsolute,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("{bytes} bytes are more than the {PATH_BYTES_MAX} a path may have")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A component longer than [`NAME_BYTES_MAX`].
    #[error("a name of {bytes} bytes is longer than {NAME_BYTES_MAX}")]
    NameTooLong {
        /// The length of the component.
        bytes: usize,
    },
    /// More than [`PATH_DEPTH_MAX`] components.
    #[error("more than {PATH_DEPTH_MAX} directories deep")]
    TooDeep,
    /// `.` or `..`.
    #[error("`.` and `..` are not resolved in the cluster; write the path out")]
    DotComponent,
    /// NUL or another control character.
    #[error("control characters are not allowed in names")]
    ControlCharacter,
}

impl FsPath {
    /// The root directory.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Checks `text` and brings it into normal form.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(PathError::NotAbsolute) };
        let mut normal = String::with_capacity(text.len());
        let mut depth = 0;
        for name in rest.split('/').filter(|name| !name.is_empty()) {
            check_name(name)?;
            depth += 1;
            if depth > PATH_DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            normal.push('/');
            normal.push_str(name);
        }
        if normal.is_empty() {
            normal.push('/');
        }
        Ok(Self(normal))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The names on the way down from the root; none for `/`.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last component; `None` for `/`.
    pub fn name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The directory this is in; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        let cut = if self.is_root() { return None } else { self.0.rfind('/')? };
        Some(if cut == 0 { Self::root() } else { Self(self.0[..cut].to_owned()) })
    }

    /// This path with `name` below it.
    ///
    /// # Errors
    /// If `name` is no valid component or the result is too long or too deep.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.is_empty() || name.contains('/') {
            return Self::parse(&format!("{}/{name}", self.0));
        }
        Self::parse(&format!("{}/{name}", self.0.trim_end_matches('/')))
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0.strip_prefix(&ancestor.0).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    }
}

/// Checks one component.
fn check_name(name: &str) -> Result<(), PathError> {
    if name.len() > NAME_BYTES_MAX {
        Err(PathError::NameTooLong { bytes: name.len() })
    } else if name == "." || name == ".." {
        Err(PathError::DotComponent)
    } else if name.chars().any(char::is_control) {
        Err(PathError::ControlCharacter)
    } else {
        Ok(())
    }
}

impl fmt::Display for FsPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl AsRef<str> for FsPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for FsPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equivalent_spellings_have_one_normal_form() {
        for (text, normal) in
            [("/", "/"), ("//", "/"), ("/a/", "/a"), ("//a///b//", "/a/b"), ("/ü.log", "/ü.log")]
        {
            assert_eq!(FsPath::parse(text).unwrap().as_str(), normal, "{text}");
        }
    }

    #[test]
    fn each_rule_refuses_what_it_forbids_and_nothing_less() {
        let name = "n".repeat(NAME_BYTES_MAX);
        assert!(FsPath::parse(&format!("/{name}")).is_ok());
        assert_eq!(
            FsPath::parse(&format!("/{name}n")),
            Err(PathError::NameTooLong { bytes: NAME_BYTES_MAX + 1 })
        );
        assert!(FsPath::parse(&"/a".repeat(PATH_DEPTH_MAX)).is_ok());
        assert_eq!(FsPath::parse(&"/a".repeat(PATH_DEPTH_MAX + 1)), Err(PathError::TooDeep));
        let long = "/".repeat(PATH_BYTES_MAX);
        assert!(FsPath::parse(&long).is_ok());
        let bytes = PATH_BYTES_MAX + 1;
        assert_eq!(FsPath::parse(&format!("{long}/")), Err(PathError::TooLong { bytes }));
        assert_eq!(FsPath::parse(""), Err(PathError::NotAbsolute));
        assert_eq!(FsPath::parse("a/b"), Err(PathError::NotAbsolute));
        assert_eq!(FsPath::parse("/a/../b"), Err(PathError::DotComponent));
        assert_eq!(FsPath::parse("/./b"), Err(PathError::DotComponent));
        assert_eq!(FsPath::parse("/a\0b"), Err(PathError::ControlCharacter));
        assert!(FsPath::parse("/...").is_ok());
    }

    #[test]
    fn parents_and_ancestors() {
        let path = FsPath::parse("/a/bc").unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), FsPath::root());
        assert_eq!(FsPath::root().parent(), None);
        assert!(path.starts_with(&FsPath::parse("/a").unwrap()) && path.starts_with(&path));
        assert!(!path.starts_with(&FsPath::parse("/a/b").unwrap()));
        assert_eq!(FsPath::root().join("a").unwrap().as_str(), "/a");
    }

    proptest! {
        #[test]
        fn a_parsed_path_is_the_join_of_its_components(text in "/[/a-cü.]{0,24}") {
            if let Ok(path) = FsPath::parse(&text) {
                let mut built = FsPath::root();
                for name in path.components() {
                    built = built.join(name).unwrap();
                }
                prop_assert_eq!(FsPath::parse(path.as_str()).unwrap(), path.clone());
                prop_assert_eq!(built, path);
            }
        }
    }
}
