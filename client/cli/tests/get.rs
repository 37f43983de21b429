//! `get`: what arrives on this machine, where, and what a failure leaves.

mod support;

use std::process::Stdio;

use support::{Cluster, finish, noise, tree};

#[test]
fn files_arrive_under_the_name_that_cp_would_give_them() {
    let cluster = Cluster::start();
    let home = cluster.home();
    let content = noise(1, 500_000);
    cluster.store("/d/a.bin", &content);
    cluster.store("/d/b", "b");

    let fetched = cluster.run(&["get", "/d/a.bin", "renamed"]).ok();
    assert!(fetched.text().starts_with("fetched /d/a.bin: 488.3 KiB in "), "{}", fetched.text());
    assert!(std::fs::read(home.path("renamed")).unwrap() == content);
    cluster.run(&["get", "/d/a.bin", "."]).ok();
    assert!(std::fs::read(home.path("a.bin")).unwrap() == content);
    std::fs::create_dir(home.path("into")).unwrap();
    cluster.run(&["get", "/d/a.bin", "/d/b", "into/"]).ok();
    assert_eq!(std::fs::read(home.path("into/b")).unwrap(), b"b");

    cluster.run(&["get", "/d/a.bin", "/d/b", "nowhere"]).expect(2).says(&["no such directory"]);
    cluster.run(&["get", "/d/missing", "x"]).expect(2).says(&["/d/missing", "no such file"]);
    assert!(!home.path("x").exists());
    cluster.run(&["get", "/d/b", "no/parent"]).expect(2).says(&["no/parent"]);
}

#[test]
fn a_local_file_is_replaced_only_on_request() {
    let cluster = Cluster::start();
    cluster.store("/a", "new");
    let target = cluster.home().write("a", "old");
    cluster.run(&["get", "/a", "a"]).expect(2).says(&["a: already exists", "help: "]);
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    cluster.run(&["get", "--overwrite", "/a", "."]).ok();
    assert_eq!(std::fs::read(&target).unwrap(), b"new");
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let cluster = Cluster::start();
    let home = cluster.home();
    for (name, content) in [("t/a", "1"), ("t/sub/b", ""), ("t/sub/deep/c", "3"), ("t/ü ö", "4")]
    {
        home.write(name, content);
    }
    home.write("t/large", noise(5, 3 << 20));
    std::fs::create_dir(home.path("t/empty")).unwrap();
    cluster.run(&["put", "--block-size", "1MiB", "t", "/t"]).ok();
    let fetched = cluster.run(&["get", "--parallel", "3", "/t", "back"]).ok();
    assert!(fetched.text().starts_with("fetched 5 files, "), "{}", fetched.text());
    assert!(tree(&home.path("t")) == tree(&home.path("back")));
    cluster.run(&["get", "/", "everything"]).ok();
    assert!(tree(&home.path("t")) == tree(&home.path("everything/t")));
    // What is there already is told file by file.
    cluster.run(&["get", "/t/.", "back"]).expect(2);
    cluster.run(&["get", "/t", "/t/a", "back"]).expect(4).says(&["already exists"]);
}

#[test]
fn patterns_are_expanded_in_the_cluster() {
    let cluster = Cluster::start();
    for name in ["/l/1/a.gz", "/l/1/b.txt", "/l/2/c.gz", "/l/2/deep/d.gz", "/l/[x].gz"] {
        cluster.store(name, name);
    }
    let home = cluster.home();
    std::fs::create_dir(home.path("got")).unwrap();
    cluster.run(&["get", "/l/?/*.gz", "got"]).ok();
    let names: Vec<String> = tree(&home.path("got")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.gz", "c.gz"]);
    cluster.run(&["get", "-f", "/l/**/*.gz", "got"]).ok();
    assert_eq!(tree(&home.path("got")).len(), 4);
    // A name that looks like a pattern means itself.
    cluster.run(&["get", "/l/[x].gz", "literal"]).ok();
    assert_eq!(std::fs::read(home.path("literal")).unwrap(), b"/l/[x].gz");
    cluster.run(&["get", "/l/*.zip", "got"]).expect(2).says(&["nothing in the cluster matches"]);
}

#[test]
fn standard_output_gets_the_bytes_and_nothing_else() {
    let cluster = Cluster::start();
    let content = noise(6, 3 << 20);
    cluster.store("/a", &content);
    cluster.store("/b", "b");
    let mut both = content.clone();
    both.push(b'b');
    assert!(cluster.run(&["get", "/a", "/b", "-"]).ok().stdout == both);
    assert!(cluster.run(&["--json", "get", "/a", "-"]).ok().stdout == content);
    cluster.run(&["get", "/", "-"]).expect(2).says(&["it is a directory"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let cluster = Cluster::start();
    cluster.store("/a", noise(7, 4 << 20));
    for arguments in [["cat", "/a"], ["get", "/a"]] {
        let mut command = cluster.command();
        command.args(arguments);
        if arguments[0] == "get" {
            command.arg("-");
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(process.stdout.take());
        let finished = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&finished.stderr);
        assert_eq!((finished.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_told() {
    let cluster = Cluster::start();
    cluster.store("/a", noise(8, 1 << 20));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = cluster.command();
    let process = command.args(["cat", "/a"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let finished = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&finished.stderr);
    assert_eq!(finished.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write to standard output: "), "{said}");
}

#[test]
fn json_tells_what_was_verified() {
    let cluster = Cluster::start();
    cluster.store("/a", noise(9, 100_000));
    let fetched = &finish(cluster.command().args(["--json", "get", "/a", "x"]), b"").ok().json()[0];
    assert_eq!(fetched["path"], "/a");
    assert_eq!(fetched["target"], "x");
    assert_eq!(fetched["bytes_verified"], 100_000);
    assert_eq!(fetched["digest"], blake3::hash(&noise(9, 100_000)).to_string());
    assert_eq!(fetched["bad_replicas"], serde_json::json!([]));
    let hedges = |name: &str| fetched[name].as_u64().unwrap();
    assert!(hedges("hedges") >= hedges("hedges_won"), "{fetched}");
    cluster.run(&["get", "--hedge", "off", "/a", "y"]).ok();
    cluster.run(&["get", "--hedge", "9ms..1ms", "/a", "z"]).expect(2).says(&["50ms..400ms"]);
}
