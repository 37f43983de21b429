//! Hosts of their own, and the wires between them, to be cut one by one. Only inside a [`sandbox`](super::sandbox): the
//! network ends with it.
//!
//! Each server is in a network namespace with one address, all on one bridge; the test itself, and so every client, is
//! at the bridge's address. A wire is cut where it ends: the receiver drops what comes from the other address, so
//! that senders notice nothing, as with a real cut.

use std::path::Path;
use std::process::Command;

use super::sandbox::command;

const PREFIX: &str = "10.77.0";
const PORT: u16 = 8020;

/// Somebody with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The test and its clients.
    Client,
    /// The namenode.
    Namenode,
    /// The datanode with this index.
    Datanode(usize),
}

impl Host {
    fn ip(self) -> String {
        let last = match self {
            Self::Client => 1,
            Self::Namenode => 2,
            Self::Datanode(index) => 10 + index,
        };
        format!("{PREFIX}.{last}")
    }

    fn name(self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Namenode => "nn".to_owned(),
            Self::Datanode(index) => format!("dn{index}"),
        }
    }
}

/// A namenode, datanodes and clients, each on a host.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
}

impl Network {
    /// Hosts for a namenode and so many datanodes.
    pub fn build(datanodes: usize) -> Self {
        std::fs::create_dir_all("/run/netns").unwrap();
        command("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"]);
        command("ip", &["link", "set", "lo", "up"]);
        command("ip", &["link", "add", "bridge0", "type", "bridge"]);
        let address = format!("{}/24", Host::Client.ip());
        command("ip", &["addr", "add", &address, "dev", "bridge0"]);
        command("ip", &["link", "set", "bridge0", "up"]);
        let servers = (0..datanodes).map(Host::Datanode).chain([Host::Namenode]);
        let network = Self { hosts: servers.chain([Host::Client]).collect() };
        for host in &network.hosts {
            if *host != Host::Client {
                Self::add(*host);
            }
            let table =
                "add table inet cut; add chain inet cut in { type filter hook input priority 0; }";
            Self::run(*host, "nft", &[table]);
        }
        network
    }

    fn add(host: Host) {
        let (name, wire) = (host.name(), format!("to-{}", host.name()));
        command("ip", &["netns", "add", &name]);
        command(
            "ip",
            &["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", &name],
        );
        command("ip", &["link", "set", &wire, "master", "bridge0", "up"]);
        let address = format!("{}/24", host.ip());
        command("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"]);
        command("ip", &["-n", &name, "link", "set", "eth0", "up"]);
        command("ip", &["-n", &name, "link", "set", "lo", "up"]);
    }

    /// Where the server on `host` listens.
    pub fn address(&self, host: Host) -> String {
        format!("{}:{PORT}", host.ip())
    }

    /// `program` on `host`, to be started; it is then the process itself, so that it can be killed.
    pub fn command(&self, host: Host, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.name()]).arg(program);
        command
    }

    /// Nothing gets from `one` to `other` any more, nor back.
    pub fn cut(&self, one: Host, other: Host) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nothing gets from `from` to `to` any more.
    pub fn cut_one_way(&self, from: Host, to: Host) {
        Self::run(
            to,
            "nft",
            &["add", "rule", "inet", "cut", "in", "ip", "saddr", &from.ip(), "drop"],
        );
    }

    /// Of what goes from `from` to `to`, so many percent are lost.
    pub fn lose(&self, from: Host, to: Host, percent: u8) {
        let rule = format!(
            "add rule inet cut in ip saddr {} numgen random mod 100 < {percent} drop",
            from.ip()
        );
        Self::run(to, "nft", &[&rule]);
    }

    /// All wires are whole again.
    pub fn heal(&self) {
        for host in &self.hosts {
            Self::run(*host, "nft", &["flush", "chain", "inet", "cut", "in"]);
        }
    }

    fn run(host: Host, program: &str, arguments: &[&str]) {
        let name = host.name();
        let mut words = vec!["netns", "exec", &name, program];
        words.extend(arguments);
        match host {
            Host::Client => command(program, arguments),
            Host::Namenode | Host::Datanode(_) => command("ip", &words),
        }
    }
}
