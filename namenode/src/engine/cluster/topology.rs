//! Racks and hosts: what fails together, and what is near.

use std::collections::BTreeSet;

use doldam_proto::id::NodeId;
pub use doldam_proto::node::host_of;
use doldam_proto::node::is_on_host;

use super::{Cluster, Node};

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

impl Cluster {
    /// The rack of a node; the default one if it is not known.
    pub fn rack(&self, id: NodeId) -> &str {
        self.node(id).map_or(DEFAULT_RACK, |node| &node.identity.rack)
    }

    /// The racks these nodes stand in.
    pub fn racks<'a>(&'a self, nodes: impl IntoIterator<Item = &'a NodeId>) -> BTreeSet<&'a str> {
        nodes.into_iter().map(|id| self.rack(*id)).collect()
    }

    /// Whether the node runs on the host that `hosts`, a list with commas, are the names of.
    pub fn is_on_host(&self, id: NodeId, hosts: &str) -> bool {
        self.node(id).is_some_and(|node| is_on_host(&node.identity.address, hosts))
    }

    /// The rack of a host, which is that of any node that runs there; empty if none does.
    pub fn rack_of_host(&self, hosts: &str) -> &str {
        let there = |node: &&Node| is_on_host(&node.identity.address, hosts);
        let found = self.nodes().find(there).filter(|_| !hosts.is_empty());
        found.map_or("", |node| &node.identity.rack)
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
}
