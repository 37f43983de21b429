//! `mkdir`, `touch`, `rm`: what is there afterwards.

mod support;

use support::Cluster;

#[test]
fn directories_are_made_one_by_one_or_with_their_parents() {
    let cluster = Cluster::start();
    let made = cluster.run(&["mkdir", "/a", "/b"]).ok();
    assert_eq!((made.text(), made.stderr.as_str()), ("", ""));
    cluster.run(&["mkdir", "/a"]).expect(2).says(&["/a", "already exists"]);
    cluster.run(&["mkdir", "/x/y/z"]).expect(2).says(&["cannot create the directory /x/y/z"]);
    cluster.run(&["mkdir", "-p", "/x/y/z", "/a"]).ok();
    let records = cluster.run(&["--json", "mkdir", "-p", "/a", "/c/d"]).ok().json();
    assert_eq!(records[0], serde_json::json!({"path": "/a", "created": false}));
    assert_eq!(records[1], serde_json::json!({"path": "/c/d", "created": true}));
    cluster.store("/file", "");
    cluster.run(&["mkdir", "-p", "/file/below"]).expect(2).says(&["not a directory"]);
    cluster.run(&["mkdir", "/a", "/new"]).expect(4);
    cluster.run(&["test", "-d", "/new"]).ok();
}

#[test]
fn touch_makes_empty_files_and_renews_others() {
    let cluster = Cluster::start();
    cluster.run(&["touch", "/new"]).ok();
    cluster.run(&["test", "-z", "/new"]).ok();
    cluster.run(&["touch", "-c", "/other"]).ok();
    cluster.run(&["test", "-e", "/other"]).expect(1);
    let modified =
        || cluster.run(&["--json", "stat", "/new"]).ok().json()[0]["modified_ms"].as_u64();
    let before = modified();
    cluster.run(&["touch", "/new", "/"]).ok();
    assert!(modified() >= before);
    cluster.run(&["touch", "/no/parent"]).expect(2).says(&["cannot touch /no/parent"]);
}

#[test]
fn only_what_was_asked_for_is_deleted() {
    let cluster = Cluster::start();
    for path in ["/a", "/d/x", "/d/sub/y", "/e/z", "/l/1.gz", "/l/2.gz", "/l/3"] {
        cluster.store(path, path);
    }
    cluster.run(&["rm", "/a"]).ok();
    cluster.run(&["rm", "/a"]).expect(2).says(&["/a", "no such file"]);
    cluster.run(&["rm", "-f", "/a", "/none/*"]).ok();
    cluster.run(&["rm", "/d"]).expect(2).says(&["it is a directory", "add -r"]);
    cluster.run(&["rm", "-r", "/d"]).ok();
    cluster.run(&["rm", "/l/*.gz"]).ok();
    assert_eq!(cluster.run(&["ls", "-R", "/"]).ok().text(), "/e/\n/e/z\n/l/\n/l/3\n");
    cluster.run(&["rm", "-r", "/"]).expect(2).says(&["root of the cluster"]);
    cluster.run(&["rm", "/none", "/l/3"]).expect(4);
    assert_eq!(cluster.run(&["--json", "rm", "/e/z"]).ok().json()[0]["path"], "/e/z");
}
