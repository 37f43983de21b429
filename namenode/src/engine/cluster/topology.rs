//! Racks and hosts: what fails together, and what is near.

use std::collections::BTreeSet;

use doldam_proto::id::NodeId;

use super::Cluster;

/// Rack of a node that names none.
pub const DEFAULT_RACK: &str = "/default";
/// Longest name of a rack, in bytes.
pub const RACK_BYTES_MAX: usize = 255;

/// A rack in its one normal form: starts with `/`, no slash at the end; an empty text is the default rack.
///
/// # Errors
/// The rule that `text` breaks.
pub fn normal_rack(text: &str) -> Result<String, &'static str> {
    let rack = text.trim_end_matches('/');
    if text.is_empty() {
        Ok(DEFAULT_RACK.to_owned())
    } else if !rack.starts_with('/') {
        Err("a rack starts with `/` and has a name, such as /r1")
    } else if rack.len() > RACK_BYTES_MAX {
        Err("longer than 255 bytes")
    } else if rack.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        Err("spaces and control characters are not allowed")
    } else {
        Ok(rack.to_owned())
    }
}

/// The host of `HOST:PORT` or `[HOST]:PORT`; `None` unless both parts are there and the port is a number.
pub fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => Some(host).filter(|host| !host.contains(':'))?,
    };
    let is_plain = |letter: char| !letter.is_control() && !letter.is_whitespace() && letter != '/';
    (!host.is_empty() && host.chars().all(is_plain)).then_some(host)
}

impl Cluster {
    /// The rack of a node; the default one if it is not known.
    pub fn rack(&self, id: NodeId) -> &str {
        self.node(id).map_or(DEFAULT_RACK, |node| &node.identity.rack)
    }

    /// The racks these nodes stand in.
    pub fn racks<'a>(&'a self, nodes: impl IntoIterator<Item = &'a NodeId>) -> BTreeSet<&'a str> {
        nodes.into_iter().map(|id| self.rack(*id)).collect()
    }

    /// Whether the node runs on `host`; never for an empty host.
    pub fn is_on_host(&self, id: NodeId, host: &str) -> bool {
        let address = self.node(id).map(|node| node.identity.address.as_str());
        !host.is_empty() && address.and_then(host_of) == Some(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn racks_have_one_normal_form() {
        assert_eq!(normal_rack("").unwrap(), DEFAULT_RACK);
        assert_eq!(normal_rack("/r1").unwrap(), "/r1");
        assert_eq!(normal_rack("/dc/r1//").unwrap(), "/dc/r1");
        for bad in ["r1", "/", "//", "/a b", "/a\n"] {
            assert!(normal_rack(bad).is_err(), "{bad:?}");
        }
        let longest = format!("/{}", "r".repeat(RACK_BYTES_MAX - 1));
        assert!(normal_rack(&longest).is_ok());
        assert!(normal_rack(&format!("{longest}r")).is_err());
    }

    #[test]
    fn hosts_are_read_from_addresses_of_both_families() {
        assert_eq!(host_of("10.0.0.1:9000"), Some("10.0.0.1"));
        assert_eq!(host_of("dn-1.example:9000"), Some("dn-1.example"));
        assert_eq!(host_of("[::1]:9000"), Some("::1"));
        for bad in
            ["", ":1", "host", "host:", "host:0", "host:65536", "::1:9000", "[::1:1", "a b:1"]
        {
            assert_eq!(host_of(bad), None, "{bad:?}");
        }
    }
}
