//! Datanodes as others see them.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// How far a datanode can be relied on right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heard of within the last seconds.
    Live,
    /// Its connection broke or it fell silent: it gets no new block and is read last.
    Suspect,
    /// Silent for so long that what it held is rebuilt elsewhere.
    Dead,
}

/// A datanode as a peer needs it: to connect, and to name it in an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Short id.
    pub id: NodeId,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    /// Such as `/r1`.
    pub rack: String,
    /// As the namenode saw it when it answered.
    pub state: NodeState,
}

/// How near a node is to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// On the client's own host.
    SameHost,
    /// On the client's own rack.
    SameRack,
    /// Anywhere else, or nothing is known of the client.
    Elsewhere,
}

impl NodeAddress {
    /// How near the node is to a client on `rack` whose host is called by one of `hosts`, a list with commas; either
    /// is empty if it is not known. The namenode and the clients both go by this.
    pub fn nearness(&self, hosts: &str, rack: &str) -> Nearness {
        if is_on_host(&self.address, hosts) {
            Nearness::SameHost
        } else if !rack.is_empty() && self.rack == rack {
            Nearness::SameRack
        } else {
            Nearness::Elsewhere
        }
    }
}

/// Whether the host of `address` is one of `hosts`, a list with commas.
pub fn is_on_host(address: &str, hosts: &str) -> bool {
    host_of(address).is_some_and(|host| hosts.split(',').any(|name| name == host))
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

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "datanode {} ({})", self.id, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_host_goes_before_a_rack_and_what_is_not_known_is_never_near() {
        let (id, state) = (NodeId(1), NodeState::Live);
        let node = NodeAddress { id, address: "10.0.0.1:80".into(), rack: "/r".into(), state };
        assert_eq!(node.nearness("dn1,10.0.0.1", "/other"), Nearness::SameHost);
        assert_eq!(node.nearness("dn1,10.0.0.2", "/r"), Nearness::SameRack);
        assert_eq!(node.nearness("10.0.0", "/rack"), Nearness::Elsewhere);
        let unnamed = NodeAddress { rack: String::new(), address: ":80".into(), ..node };
        assert_eq!(unnamed.nearness("", ""), Nearness::Elsewhere);
        assert!(Nearness::SameHost < Nearness::SameRack);
        assert!(Nearness::SameRack < Nearness::Elsewhere);
    }
}
