//! `local`, `namenode` and `datanode`: starting, stopping, starting again.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in helpers too")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use support::{Cluster, Home, noise, read_all, signal};

#[test]
fn a_restart_keeps_files_and_addresses() {
    let cluster = Cluster::start();
    let content = noise(1, 2 << 20);
    cluster.store("/a", &content);
    let nodes = |cluster: &Cluster| -> Vec<String> {
        let report = &cluster.run(&["--json", "admin", "report"]).ok().json()[0];
        let nodes = report["datanodes"].as_array().unwrap().iter();
        nodes.map(|node| node["address"].as_str().unwrap().to_owned()).collect()
    };
    let (address, datanodes) = (cluster.address.clone(), nodes(&cluster));
    let home = cluster.stop();
    // Without a word about it the addresses of last time are taken.
    let again = Cluster::in_home(home, &["--listen", &address]);
    assert_eq!((&again.address, nodes(&again)), (&address, datanodes.clone()));
    assert!(again.content("/a") == content);
    again.store("/b", "b");

    let killed = Cluster::in_home(again.kill(), &["--listen", &address]);
    assert!(killed.content("/a") == content);
    assert_eq!(killed.content("/b"), b"b");
    assert_eq!(nodes(&killed), datanodes);
}

#[test]
fn it_says_how_to_reach_it_and_stops_on_ctrl_c() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["local", "--dir", "data", "--listen", "127.0.0.1:0", "--datanodes", "2"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let said: Vec<String> = lines.by_ref().take(9).map(Result::unwrap).collect();
    assert_eq!(said[0], "Doldam is running.");
    let address = said[1].split_whitespace().last().unwrap().to_owned();
    assert_eq!(said[2].split_whitespace().count(), 3, "{said:?}");
    assert!(said[5].contains(&format!("doldam --namenode {address} put ")), "{said:?}");
    home.run(&["--namenode", &address, "mkdir", "/a"]).ok();

    // A second one on the same folder is refused, and the first goes on.
    let second = ["local", "--dir", "data", "--listen", "127.0.0.1:0"];
    home.run(&second).expect(3).says(&["cannot use data: another process runs a cluster in it"]);
    // And so is one on the same address.
    let taken = ["local", "--dir", "other", "--listen", &address];
    home.run(&taken).expect(3).says(&["cannot start the namenode", &address, "--listen"]);
    home.run(&["--namenode", &address, "test", "-d", "/a"]).ok();

    signal(&process, "INT");
    let status = process.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", read_all(process.stderr.take().unwrap()));
}

/// A server in a process of its own.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command();
        let piped = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = piped.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (name, address) = line.trim().split_once(" ready at ").unwrap();
        assert_eq!(name, arguments[0]);
        let address = address.split(',').next().unwrap().to_owned();
        Self { process, address }
    }

    fn stop(mut self) {
        signal(&self.process, "TERM");
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn separate_processes_make_a_cluster_too() {
    let home = Home::new();
    let listen = ["--listen", "127.0.0.1:0"];
    let http = ["--http", "127.0.0.1:0"];
    let start = [&["namenode", "--dir", "nn"], &listen[..], &http[..]].concat();
    let namenode = Server::start(&home, &start);
    let at = ["--namenode", &namenode.address];
    // Nobody to keep blocks yet: an empty file needs none, others are refused by name.
    home.run(&[&at, &["touch", "/empty"][..]].concat()).ok();
    home.write("x", "x");
    let put = [&at, &["put", "x", "/x"][..]].concat();
    home.run(&put).expect(3).says(&["cannot store /x", "datanode", "help: "]);

    let with = ["--dir", "dn1", "--dir", "dn2", "--rack", "/r1"];
    let start = [&["datanode"], &listen[..], &with[..], &at[..]].concat();
    let datanode = Server::start(&home, &start);
    let put = [&at, &["put", "--replication", "1", "x", "/x"][..]].concat();
    home.run(&put).ok();
    assert_eq!(home.run(&[&at, &["cat", "/x"][..]].concat()).ok().text(), "x");
    let report = &home.run(&[&at, &["--json", "admin", "report"][..]].concat()).ok().json()[0];
    assert_eq!(report["datanodes"][0]["rack"], "/r1");
    assert_eq!(report["datanodes"][0]["address"], datanode.address);

    // Two processes never share a folder.
    home.run(&["namenode", "--dir", "nn", "--listen", "127.0.0.1:0"])
        .expect(3)
        .says(&["cannot start the namenode", "help: "]);
    let start = [&["datanode", "--dir", "dn2"], &listen[..], &at[..]].concat();
    home.run(&start).expect(3).says(&["cannot start the datanode", "help: "]);
    datanode.stop();
    namenode.stop();
}
