//! `find`: everything below a directory that passes all tests.

use std::str::FromStr;

use clap::ValueEnum;
use doldam_client::FileStatus;
use doldam_proto::path::FsPath;
use doldam_runtime::config::ByteSize;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::glob::name_matcher;
use crate::glob::name_pattern::NamePattern;
use crate::output::entry::EntryRecord;
use crate::remote_tree::{RemoteEntry, RemoteWalk};
use crate::session::Session;
use crate::sources::Outcomes;

const DAY_MS: u64 = 86_400_000;

/// Find files and directories; all tests must hold.
///
/// Tests may be written with one dash, as with other `find` programs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam find /logs -name '*.gz'
  doldam find / -type f -size +1GiB
  doldam find /scratch -mtime +30 -type f --json | jq -r .path")]
pub(crate) struct FindArgs {
    /// Where to start: directories, files or patterns in the cluster.
    #[arg(default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// The name matches this pattern: `*`, `?`, `[a-z]`, `{a,b}`.
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,

    /// It is a file (f) or a directory (d).
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,

    /// A file of exactly SIZE, of more (+SIZE) or of less (-SIZE), such as +10MiB.
    #[arg(long, value_name = "[+-]SIZE", allow_hyphen_values = true)]
    size: Option<Bound<Size>>,

    /// Last changed DAYS days ago, before that (+DAYS) or since (-DAYS).
    #[arg(long, value_name = "[+-]DAYS", allow_hyphen_values = true)]
    mtime: Option<Bound<Days>>,

    /// Goes down this many levels below PATH at most.
    #[arg(long, value_name = "LEVELS")]
    maxdepth: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A file.
    F,
    /// A directory.
    D,
}

/// A number with what to compare it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound<T> {
    Exactly(T),
    More(T),
    Less(T),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Days(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<ByteSize>().map(|size| Self(size.0)).map_err(|error| error.to_string())
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let days = text.parse::<u32>().map_err(|_| format!("{text:?} is no number of days"))?;
        Ok(Self(u64::from(days)))
    }
}

impl<T: FromStr<Err = String>> FromStr for Bound<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(more) = text.strip_prefix('+') {
            more.parse().map(Self::More)
        } else if let Some(less) = text.strip_prefix('-') {
            less.parse().map(Self::Less)
        } else {
            text.parse().map(Self::Exactly)
        }
    }
}

impl<T> Bound<T> {
    fn holds(&self, value: u64, number: impl Fn(&T) -> u64) -> bool {
        match self {
            Self::Exactly(bound) => value == number(bound),
            Self::More(bound) => value > number(bound),
            Self::Less(bound) => value < number(bound),
        }
    }
}

/// Does it.
///
/// # Errors
/// If a pattern is malformed, the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: FindArgs) -> CommandResult {
    let tests = Tests {
        name: args.name.as_deref().map(name_matcher).transpose()?,
        kind: args.kind,
        size: args.size,
        mtime: args.mtime,
        now_ms: session.seams.clock.wall_ms(),
    };
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for entry in outcomes.expand(session, &client, "search", &args.paths).await {
        let levels = args.maxdepth.unwrap_or(usize::MAX);
        let walk = RemoteWalk::new(&client, entry).levels_max(levels);
        let searched = search(session, walk, &tests).await;
        outcomes.take(session, searched)?;
    }
    Ok(outcomes.exit_code())
}

async fn search(
    session: &mut Session,
    mut walk: RemoteWalk,
    tests: &Tests,
) -> Result<(), CommandError> {
    while let Some(found) = walk.next().await {
        let (RemoteEntry { path, status }, _) = found?;
        if tests.hold(&path, &status) {
            session.output.record(&EntryRecord::new(&path, &status))?;
        }
    }
    Ok(())
}

/// What an entry has to pass.
struct Tests {
    name: Option<NamePattern>,
    kind: Option<Kind>,
    size: Option<Bound<Size>>,
    mtime: Option<Bound<Days>>,
    now_ms: u64,
}

impl Tests {
    fn hold(&self, path: &FsPath, status: &FileStatus) -> bool {
        let name = path.name().unwrap_or("/");
        let age_days = self.now_ms.saturating_sub(status.modified_ms) / DAY_MS;
        self.name.as_ref().is_none_or(|matcher| matcher.matches(name))
            && self.kind.is_none_or(|kind| (kind == Kind::D) == status.is_dir())
            && self
                .size
                .is_none_or(|bound| !status.is_dir() && bound.holds(status.length, |size| size.0))
            && self.mtime.is_none_or(|bound| bound.holds(age_days, |days| days.0))
    }
}

#[cfg(test)]
mod tests {
    use doldam_client::{FileKind, InodeId};

    use super::*;

    fn status(kind: FileKind, length: u64, age_days: u64) -> FileStatus {
        FileStatus {
            path: String::new(),
            inode: InodeId(2),
            kind,
            length,
            replication: 3,
            block_bytes: 1 << 20,
            modified_ms: 100 * DAY_MS - age_days * DAY_MS,
            created_ms: 0,
            digest: None,
            durability: None,
            being_written: false,
        }
    }

    fn holds(tests: &Tests, path: &str, status: &FileStatus) -> bool {
        tests.hold(&FsPath::parse(path).unwrap(), status)
    }

    fn no_tests() -> Tests {
        Tests { name: None, kind: None, size: None, mtime: None, now_ms: 100 * DAY_MS }
    }

    #[test]
    fn both_sides_of_each_bound() {
        let file = |length, age| status(FileKind::File, length, age);
        for (bound, length, expected) in [
            ("+10", 10, false),
            ("+10", 11, true),
            ("-10", 10, false),
            ("-10", 9, true),
            ("1KiB", 1024, true),
            ("1KiB", 1023, false),
        ] {
            let tests = Tests { size: Some(bound.parse().unwrap()), ..no_tests() };
            assert_eq!(holds(&tests, "/a", &file(length, 0)), expected, "{bound} {length}");
        }
        for (bound, age, expected) in
            [("+7", 7, false), ("+7", 8, true), ("-7", 7, false), ("-7", 6, true), ("7", 7, true)]
        {
            let tests = Tests { mtime: Some(bound.parse().unwrap()), ..no_tests() };
            assert_eq!(holds(&tests, "/a", &file(0, age)), expected, "{bound} {age}");
        }
    }

    #[test]
    fn all_tests_must_hold() {
        let tests =
            Tests { name: Some(name_matcher("*.gz").unwrap()), kind: Some(Kind::F), ..no_tests() };
        assert!(holds(&tests, "/a/b.gz", &status(FileKind::File, 0, 0)));
        assert!(!holds(&tests, "/a/b.gz", &status(FileKind::Directory, 0, 0)));
        assert!(!holds(&tests, "/a.gz/b", &status(FileKind::File, 0, 0)));
        let sized = Tests { size: Some("0".parse().unwrap()), ..no_tests() };
        assert!(
            !holds(&sized, "/a", &status(FileKind::Directory, 0, 0)),
            "a directory has no size"
        );
    }

    #[test]
    fn bounds_that_are_none_are_refused() {
        for text in ["x", "+", "-", "+1.5X", ""] {
            assert!(text.parse::<Bound<Size>>().is_err(), "{text:?}");
            assert!(text.parse::<Bound<Days>>().is_err(), "{text:?}");
        }
    }
}
