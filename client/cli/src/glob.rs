//! Patterns in paths: `*`, `?`, `[a-z]`, `{a,b}` within a name, `**` for any number of directories.
//!
//! A path with such characters that names an existing file means that file: the caller looks for it
//! first. Names that start with a dot are matched like any other.

pub(crate) mod name_pattern;

use name_pattern::NamePattern;

use crate::error::CommandError;

/// One step of a pattern on its way down the tree.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Exactly this name.
    Name(String),
    /// Any name that matches.
    Pattern(NamePattern),
    /// This directory and all below.
    AnyDepth,
}

/// Whether `path` holds any character that a pattern may have.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

/// Cuts `pattern` into its steps.
///
/// # Errors
/// If a step is malformed, such as an open bracket.
pub(crate) fn parse(pattern: &str) -> Result<Vec<Step>, CommandError> {
    let mut steps: Vec<Step> = Vec::new();
    for name in pattern.split('/').filter(|name| !name.is_empty()) {
        if name == "**" {
            // Several in a row mean the same as one, and would find everything several times.
            if !matches!(steps.last(), Some(Step::AnyDepth)) {
                steps.push(Step::AnyDepth);
            }
        } else if is_pattern(name) {
            steps.push(Step::Pattern(matcher(name, pattern)?));
        } else {
            steps.push(Step::Name(name.to_owned()));
        }
    }
    Ok(steps)
}

/// A matcher of single names, as `find -name` needs it.
///
/// # Errors
/// If the pattern is malformed.
pub(crate) fn name_matcher(pattern: &str) -> Result<NamePattern, CommandError> {
    matcher(pattern, pattern)
}

fn matcher(name: &str, whole: &str) -> Result<NamePattern, CommandError> {
    NamePattern::parse(name).map_err(|error| {
        CommandError::request(
            format!("{whole:?} is no pattern: {error}"),
            "write `\\` before a character that is meant as it is",
        )
    })
}

/// The steps that are left below an entry called `name`, reached with `steps` left.
///
/// Each element is one way to go on; an empty one means that the entry itself matches.
pub(crate) fn descend<'a>(steps: &'a [Step], name: &str) -> Vec<&'a [Step]> {
    match steps {
        [] => Vec::new(),
        [Step::Name(wanted), rest @ ..] => {
            if wanted == name {
                vec![rest]
            } else {
                Vec::new()
            }
        }
        [Step::Pattern(matcher), rest @ ..] => {
            if matcher.matches(name) {
                vec![rest]
            } else {
                Vec::new()
            }
        }
        [Step::AnyDepth] => vec![&[], steps],
        [Step::AnyDepth, rest @ ..] => {
            let mut ways = vec![steps];
            ways.extend(descend(rest, name));
            ways
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let steps = parse(pattern).unwrap();
        let mut states: Vec<&[Step]> = vec![&steps];
        for name in path.split('/').filter(|name| !name.is_empty()) {
            states = states.iter().flat_map(|steps| descend(steps, name)).collect();
        }
        states.iter().any(|steps| steps.is_empty())
    }

    #[test]
    fn patterns_match_within_one_name() {
        for (pattern, path, expected) in [
            ("/a/*.gz", "/a/x.gz", true),
            ("/a/*.gz", "/a/b/x.gz", false),
            ("/a/?", "/a/ü", true),
            ("/a/[0-9]*", "/a/7x", true),
            ("/a/[0-9]*", "/a/x7", false),
            ("/*/{x,y}", "/q/y", true),
            ("/*/{x,y}", "/q/z", false),
            ("/a/b", "/a/b", true),
            ("/*", "/.hidden", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn two_stars_match_any_depth() {
        for (pattern, path, expected) in [
            ("/a/**/x", "/a/x", true),
            ("/a/**/x", "/a/b/c/x", true),
            ("/a/**/x", "/a/b/c/y", false),
            ("/**/**/x", "/x", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_malformed_pattern_is_named() {
        let error = parse("/a/[x").unwrap_err().to_string();
        assert!(error.contains("/a/[x"), "{error}");
    }
}
