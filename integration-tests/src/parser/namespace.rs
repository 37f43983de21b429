//! What users name.

use doldam_proto::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use doldam_proto::path::FsPath;

/// A path: what is accepted is normal, within the limits and rebuilt from its components.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = FsPath::parse(text) else { return };
    assert!(path.as_str().len() <= PATH_BYTES_MAX);
    assert!(path.components().count() <= PATH_DEPTH_MAX);
    assert!(path.components().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX));
    assert!(FsPath::parse(path.as_str()).is_ok_and(|again| again == path));
    let rebuilt = path.components().try_fold(FsPath::root(), |built, name| built.join(name));
    assert!(rebuilt.is_ok_and(|rebuilt| rebuilt == path));
    assert_eq!(path.parent().is_none(), path.is_root());
}

pub(super) fn path_seeds() -> Vec<Vec<u8>> {
    ["/", "/a", "//a//b/", "/logs/2026/app.log", "/ü/\u{1F40D}", "a", "/..", "/a/./b", "/a\0"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
