//! Settings: files of TOML, and the values in them that carry units.
//!
//! A file is read into a struct with `deny_unknown_fields`, so a misspelt key is an error that names it. What
//! environment and flags put on top is the command line's affair.

mod byte_size;
mod human_duration;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use byte_size::ByteSize;
pub use human_duration::HumanDuration;

/// Variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "DOLDAM_CONFIG";
/// Largest configuration file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A quantity could not be read: what it is and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct BadQuantity {
    text: String,
    what: &'static str,
}

/// Why the settings of a file are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is none of ours.
    #[error("the configuration file {} has {bytes} bytes; {max} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length, or a lower bound of it.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A line cannot be understood, a key is unknown or missing, or its value is wrong.
    #[error("{}:{line}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Which key, and what is wrong with it.
        why: String,
    },
}

/// Reads the settings in the file at `path`.
///
/// # Errors
/// If the file cannot be read, or anything in it is not understood.
pub fn load_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse_toml(path, &read_text(path)?)
}

/// Reads settings from `text`; `path` is named in errors.
///
/// # Errors
/// If anything in it is not understood.
pub fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|cause: toml::de::Error| {
        let start = cause.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].split('\n').count();
        let key = key_of_line(text.lines().nth(line - 1).unwrap_or_default());
        let why = match key {
            Some(key) if !cause.message().contains(&format!("`{key}`")) => {
                format!("{key}: {}", cause.message())
            }
            _ => cause.message().to_owned(),
        };
        ConfigError::Invalid { path: path.to_owned(), line, why }
    })
}

/// `key` of a line `key = value`.
fn key_of_line(line: &str) -> Option<&str> {
    let (key, _value) = line.split_once('=')?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)? as u64;
    if read > CONFIG_BYTES_MAX {
        let (bytes, max) = (read, CONFIG_BYTES_MAX);
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes, max });
    }
    Ok(text)
}

/// The configuration file to read; `None` if there is none, which is well.
///
/// In this order: what [`CONFIG_VARIABLE`] names (whether it exists or not: a named file must be there),
/// `$XDG_CONFIG_HOME/doldam/config.toml` (by default under `~/.config`), `/etc/doldam/config.toml`.
pub fn find_config(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    find_config_among(variable, Path::is_file)
}

fn find_config_among(
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = variable(CONFIG_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    // The XDG rules: a relative path in the variable is to be ignored.
    let home = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let candidates = home.into_iter().chain([PathBuf::from("/etc")]);
    candidates.map(|folder| folder.join("doldam/config.toml")).find(|path| exists(path))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        listen: String,
        block_bytes: ByteSize,
        timeout: HumanDuration,
    }

    impl Default for Settings {
        fn default() -> Self {
            let timeout = HumanDuration(std::time::Duration::from_secs(3));
            Self { listen: "127.0.0.1:8020".to_owned(), block_bytes: ByteSize(1024), timeout }
        }
    }

    fn refusal(text: &str) -> String {
        parse_toml::<Settings>(Path::new("/etc/d.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn what_a_file_does_not_say_keeps_its_default() {
        let path = Path::new("x");
        assert_eq!(parse_toml::<Settings>(path, "").unwrap(), Settings::default());
        let text = "block_bytes = \"128MiB\"\ntimeout = 10\n";
        let found: Settings = parse_toml(path, text).unwrap();
        assert_eq!(found.block_bytes, ByteSize(128 << 20));
        assert_eq!(found.timeout.0.as_secs(), 10);
        assert_eq!(found.listen, "127.0.0.1:8020");
    }

    #[test]
    fn every_refusal_names_the_file_the_line_and_the_key() {
        let unknown = refusal("listen = \"a\"\nblok_bytes = 1\n");
        assert!(unknown.starts_with("/etc/d.toml:2: unknown field `blok_bytes`"), "{unknown}");
        let bad_value = refusal("\ntimeout = \"10 parsecs\"\n");
        assert!(bad_value.starts_with("/etc/d.toml:2: timeout: "), "{bad_value}");
        assert!(bad_value.contains("10 parsecs"), "{bad_value}");
        let bad_type = refusal("listen = 7");
        assert!(bad_type.starts_with("/etc/d.toml:1: listen: "), "{bad_type}");
        let no_toml = refusal("listen = \"a\"\n\nwhat is this");
        assert!(no_toml.starts_with("/etc/d.toml:3: "), "{no_toml}");
    }

    #[test]
    fn a_missing_and_an_oversized_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let missing = load_toml::<Settings>(&path).unwrap_err();
        assert!(matches!(missing, ConfigError::Read { .. }), "{missing:?}");
        assert!(missing.to_string().contains("config.toml"));
        std::fs::write(&path, vec![b'#'; CONFIG_BYTES_MAX as usize + 1]).unwrap();
        let large = load_toml::<Settings>(&path).unwrap_err();
        assert!(matches!(large, ConfigError::TooLarge { .. }), "{large:?}");
    }

    #[test]
    fn the_file_is_looked_for_in_the_documented_order() {
        let find = |variables: &[(&str, &str)], existing: &[&str]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let exists = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
            find_config_among(variable, exists).map(|path| path.display().to_string())
        };
        let (home, etc) = ("/home/a/.config/doldam/config.toml", "/etc/doldam/config.toml");
        let both = [home, etc];
        let set = [("DOLDAM_CONFIG", "/x.toml"), ("HOME", "/home/a")];
        assert_eq!(find(&set, &both).as_deref(), Some("/x.toml"), "a named one must exist");
        assert_eq!(find(&set[1..], &both).as_deref(), Some(home));
        assert_eq!(find(&set[1..], &[etc]).as_deref(), Some(etc));
        assert_eq!(find(&set[1..], &[]), None);
        let xdg = [("XDG_CONFIG_HOME", "/cfg"), ("HOME", "/home/a")];
        let moved = "/cfg/doldam/config.toml";
        assert_eq!(find(&xdg, &[home, moved]).as_deref(), Some(moved));
        let relative = [("XDG_CONFIG_HOME", "cfg"), ("HOME", "/home/a")];
        assert_eq!(find(&relative, &both).as_deref(), Some(home));
    }
}
