//! What people write beside paths and files: quantities, addresses, patterns, choices.

use doldam_proto::digest::FileDigest;
use doldam_proto::id::ClusterId;
use doldam_proto::node::{host_of, is_on_host};
use doldam_runtime::config::{ByteSize, HumanDuration};

// The command line is a program and no library; this file of it stands alone.
#[path = "../../../client/cli/src/glob/name_pattern.rs"]
mod name_pattern;

/// A size, a duration, an address, an id: what is accepted reads the same when it is written again.
pub fn quantity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size), "{text}");
    }
    if let Ok(duration) = text.parse::<HumanDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration), "{text}");
    }
    if let Some(host) = host_of(text) {
        assert!(text.contains(host) && !host.is_empty());
        assert_eq!(is_on_host(text, host), !host.contains(','));
        assert!(!is_on_host(text, ""));
        assert!(!host.contains(':') || text.starts_with('['), "{text}");
    }
    if let Some(digest) = FileDigest::from_hex(text) {
        assert_eq!(FileDigest::from_hex(&digest.to_string()), Some(digest));
    }
    if let Some(cluster) = ClusterId::from_hex(text) {
        assert_eq!(ClusterId::from_hex(&cluster.to_string()), Some(cluster));
    }
}

pub(super) fn quantity_seeds() -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    [
        "1",
        "64KiB",
        "1.5GiB",
        "20MB",
        "18446744073709551615",
        "16EiB",
        "1h30m",
        "500ms",
        "584942417d",
        "10.0.0.1:8030",
        "[::1]:8030",
        "dn-1.example:65535",
        &digest,
        "0123456789abcdef0123456789abcdef",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A pattern of names and, behind a zero byte, a name: matching ends, and a name without special characters matches
/// itself.
pub fn name_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, name) = text.split_once('\0').unwrap_or((text, "a.gz"));
    let Ok(parsed) = name_pattern::NamePattern::parse(pattern) else { return };
    let matches = parsed.matches(name);
    if !pattern.contains(['*', '?', '[', '{', '\\']) {
        assert_eq!(matches, pattern == name, "{pattern}");
    }
}

pub(super) fn name_pattern_seeds() -> Vec<Vec<u8>> {
    let deep = format!("{}a{}", "{".repeat(5000), "}".repeat(5000));
    let wide = format!("{}{}", "{a,b}".repeat(9), "x".repeat(2000));
    [
        "*.gz\0a.gz",
        "[a-c]?{x,y*}\0bzy",
        "{a,{b,c}d}\0cd",
        "[!]]\\*\0x*",
        "a*a*a*a*b\0aaaaaaaaaaaaaaaaaaaaaaaa",
        &deep,
        &wide,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
