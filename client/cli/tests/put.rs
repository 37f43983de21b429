//! `put`: what arrives, where, and what a failure leaves.

mod support;

use std::process::{Command, Stdio};

use support::{Cluster, noise, read_all, signal};

#[test]
fn files_arrive_whole_under_the_name_that_cp_would_give_them() {
    let cluster = Cluster::start();
    let content = noise(1, 300_000);
    cluster.home().write("a.bin", &content);
    cluster.home().write("b.txt", "b");

    let stored = cluster.run(&["put", "a.bin", "/renamed"]).ok();
    let digest = blake3::hash(&content).to_string();
    assert!(stored.text().starts_with("stored /renamed: 293.0 KiB in "), "{}", stored.text());
    assert!(stored.text().contains(&digest), "{}", stored.text());
    assert!(cluster.content("/renamed") == content);

    cluster.run(&["mkdir", "/d"]).ok();
    cluster.run(&["put", "a.bin", "/d"]).ok();
    cluster.run(&["put", "a.bin", "b.txt", "/d"]).expect(4).says(&["/d/a.bin", "already exists"]);
    assert!(cluster.content("/d/a.bin") == content);
    assert_eq!(cluster.content("/d/b.txt"), b"b");

    cluster.run(&["put", "a.bin", "b.txt", "/nowhere"]).expect(2).says(&["no such directory"]);
    cluster.run(&["put", "a.bin", "/nowhere/"]).expect(2).says(&["no such directory"]);
    cluster.run(&["put", "a.bin", "/no/parent"]).expect(2).says(&["cannot store /no/parent"]);
    cluster.run(&["put", "-p", "a.bin", "/no/parent"]).ok();
    cluster.run(&["put", "a.bin", "/renamed/below"]).expect(2).says(&["not a directory"]);
}

#[test]
fn an_existing_file_is_replaced_only_on_request_and_then_at_once() {
    let cluster = Cluster::start();
    cluster.store("/a", "old");
    cluster.home().write("new", "new");
    cluster.run(&["put", "new", "/a"]).expect(2).says(&["/a", "already exists", "help: ", "-f"]);
    assert_eq!(cluster.content("/a"), b"old");
    cluster.run(&["put", "--overwrite", "new", "/a"]).ok();
    assert_eq!(cluster.content("/a"), b"new");
    cluster.run(&["put", "-f", "new", "/"]).ok();
    assert_eq!(cluster.content("/new"), b"new");
}

#[test]
fn standard_input_becomes_a_file() {
    let cluster = Cluster::start();
    let content = noise(2, 3_000_000);
    let stored = cluster.run_with(&["put", "--block-size", "1MiB", "-", "/in"], &content).ok();
    assert!(stored.text().contains(&blake3::hash(&content).to_string()));
    assert!(cluster.content("/in") == content);
    cluster.run_with(&["put", "-", "/empty"], b"").ok();
    assert_eq!(cluster.content("/empty"), b"");
    cluster.run_with(&["put", "-", "/"], b"x").expect(2).says(&["standard input has no name"]);
    cluster.run(&["put", "/dev/null", "/null"]).ok();
    assert_eq!(cluster.content("/null"), b"");
}

#[test]
fn options_are_kept_with_the_file_and_shown() {
    let cluster = Cluster::start();
    cluster.home().write("x", noise(3, 200_000));
    let options = ["--replication", "2", "--block-size", "64KiB", "--durability", "one"];
    let put = [&["--json", "put"], &options[..], &["x", "/x"]].concat();
    let stored = &cluster.run(&put).ok().json()[0];
    assert_eq!(stored["path"], "/x");
    assert_eq!(stored["source"], "x");
    assert_eq!(stored["bytes"], 200_000);
    assert_eq!(stored["replication"], 2);
    assert_eq!(stored["block_bytes"], 65_536);
    assert_eq!(stored["durability"], "one");
    assert_eq!(stored["under_replicated_blocks"], 0);
    assert_eq!(stored["digest"], blake3::hash(&noise(3, 200_000)).to_string());
    let status = &cluster.run(&["--json", "stat", "/x"]).ok().json()[0];
    assert_eq!(status["durability"], "one");
    assert_eq!(status["digest"], stored["digest"]);

    // Variables mirror the options.
    let mut command = cluster.command();
    command.env("DOLDAM_REPLICATION", "1").args(["--json", "put", "x", "/y"]);
    assert_eq!(support::finish(&mut command, b"").ok().json()[0]["replication"], 1);
}

#[test]
fn a_tree_arrives_with_its_empty_directories() {
    let cluster = Cluster::start();
    let home = cluster.home();
    for (name, content) in [("t/a", "1"), ("t/sub/b", "2"), ("t/sub/deep/c", "3"), ("t/ü ö", "4")]
    {
        home.write(name, content);
    }
    std::fs::create_dir(home.path("t/empty")).unwrap();
    let stored = cluster.run(&["put", "t", "/copy"]).ok();
    assert!(stored.text().starts_with("stored 4 files, 4 B in "), "{}", stored.text());
    let listed = cluster.run(&["ls", "-R", "/copy"]).ok();
    let expected = "/copy/a\n/copy/empty/\n/copy/sub/\n/copy/sub/b\n/copy/sub/deep/\n\
                    /copy/sub/deep/c\n/copy/ü ö\n";
    assert_eq!(listed.text(), expected);
    assert_eq!(cluster.content("/copy/sub/deep/c"), b"3");

    // Into an existing directory: below it, under the own name.
    cluster.run(&["put", "t", "/copy"]).ok();
    assert_eq!(cluster.content("/copy/t/sub/b"), b"2");
    // The content alone.
    cluster.run(&["mkdir", "/flat"]).ok();
    cluster.run(&["put", "t/.", "/flat"]).ok();
    assert_eq!(cluster.content("/flat/sub/b"), b"2");
}

#[test]
fn one_bad_file_of_a_tree_is_told_and_the_rest_arrives() {
    let cluster = Cluster::start();
    let home = cluster.home();
    home.write("t/a", "1");
    home.write("t/z", "2");
    std::os::unix::fs::symlink("nowhere", home.path("t/dangling")).unwrap();
    let stored = cluster.run(&["put", "t", "/t"]).expect(4).says(&["t/dangling"]);
    assert!(stored.text().contains("stored 2 files"), "{}", stored.text());
    assert!(stored.text().contains("1 file failed"), "{}", stored.text());
    assert_eq!(cluster.run(&["ls", "/t"]).ok().text(), "a\nz\n");
}

#[test]
fn patterns_that_the_shell_left_alone_are_expanded() {
    let cluster = Cluster::start();
    for name in ["l/a.gz", "l/b.gz", "l/c.txt", "l/m/d.gz"] {
        cluster.home().write(name, name);
    }
    cluster.run(&["mkdir", "/one", "/deep"]).ok();
    cluster.run(&["put", "l/*.gz", "/one"]).ok();
    assert_eq!(cluster.run(&["ls", "/one"]).ok().text(), "a.gz\nb.gz\n");
    cluster.run(&["put", "l/**/*.gz", "/deep"]).ok();
    assert_eq!(cluster.run(&["ls", "/deep"]).ok().text(), "a.gz\nb.gz\nd.gz\n");
    cluster.run(&["put", "l/*.zip", "/one"]).expect(2).says(&["no local file matches"]);
}

#[test]
fn quiet_says_nothing_and_json_says_it_all() {
    let cluster = Cluster::start();
    cluster.home().write("t/a", "1");
    cluster.home().write("t/b", "22");
    let quiet = cluster.run(&["-q", "put", "t", "/quiet"]).ok();
    assert_eq!((quiet.text(), quiet.stderr.as_str()), ("", ""));
    let mut records = cluster.run(&["--json", "put", "t", "/json"]).ok().json();
    records.sort_by_key(|record| record["path"].to_string());
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["path"], "/json/b");
    assert_eq!(records[1]["bytes"], 2);
}

#[test]
fn with_too_few_datanodes_it_is_stored_and_said_so() {
    let cluster = Cluster::with_datanodes(1);
    cluster.home().write("x", "x");
    let put = ["put", "--replication", "2", "x", "/x"];
    cluster.run(&put).ok().says(&["warning: /x", "fewer replicas than wanted"]);
    assert_eq!(cluster.content("/x"), b"x");
    cluster.run(&["put", "x", "/y"]).ok();
}

#[test]
fn an_interrupted_put_leaves_nothing_and_does_not_lock_the_path() {
    let cluster = Cluster::start();
    cluster.store("/kept", "old");
    let mut command = cluster.command();
    command.args(["put", "-f", "-", "/kept"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = piped.spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // More than fits the pipe: the command is reading, so it is past its start.
    std::io::Write::write_all(&mut stdin, &noise(4, 4 << 20)).unwrap();
    signal(&process, "INT");
    let status = process.wait().unwrap();
    let said = read_all(process.stderr.take().unwrap());
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: 0 of 1 file done"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(cluster.content("/kept"), b"old");
    cluster.store("/kept", "new");
    assert_eq!(cluster.content("/kept"), b"new");
}

#[test]
fn thousands_of_small_files_go_in_and_out() {
    let cluster = Cluster::start();
    let home = cluster.home();
    for directory in 0..20 {
        for file in 0..100 {
            home.write(&format!("t/{directory:02}/{file:02}"), format!("{directory} {file}"));
        }
    }
    let stored = cluster.run(&["put", "t", "/t"]).ok();
    assert!(stored.text().starts_with("stored 2,000 files, "), "{}", stored.text());
    assert_eq!(stored.stderr, "");
    cluster.run(&["get", "/t", "back"]).ok();
    let same = Command::new("diff").args(["-r", "t", "back"]).current_dir(home.path("")).output();
    assert!(same.unwrap().status.success());
}
