//! `cp`: copies are the same and stand on their own.

mod support;

use support::{Cluster, noise};

#[test]
fn a_copy_has_the_content_and_the_layout_of_its_source() {
    let cluster = Cluster::start();
    let content = noise(1, 300_000);
    let options = ["--replication", "2", "--block-size", "64KiB"];
    let put = [&["put"], &options[..], &["-", "/a"]].concat();
    cluster.run_with(&put, &content).ok();
    cluster.run(&["cp", "/a", "/b"]).ok();
    assert!(cluster.content("/b") == content);
    let status = &cluster.run(&["--json", "stat", "/b"]).ok().json()[0];
    assert_eq!((&status["replication"], &status["block_bytes"]), (&2.into(), &65_536.into()));
    cluster.run(&["rm", "/a"]).ok();
    assert!(cluster.content("/b") == content);
    cluster.run(&["cp", "--replication", "1", "/b", "/c"]).ok();
    assert_eq!(cluster.run(&["--json", "stat", "/c"]).ok().json()[0]["replication"], 1);
}

#[test]
fn a_tree_is_copied_on_request() {
    let cluster = Cluster::start();
    for path in ["/t/a", "/t/sub/b"] {
        cluster.store(path, path);
    }
    cluster.run(&["mkdir", "/t/empty"]).ok();
    cluster.run(&["cp", "/t", "/u"]).expect(2).says(&["it is a directory", "add -r"]);
    let copied = cluster.run(&["cp", "-r", "/t", "/u"]).ok();
    assert!(copied.text().starts_with("copied 2 files, "), "{}", copied.text());
    assert_eq!(
        cluster.run(&["ls", "-R", "/u"]).ok().text(),
        "/u/a\n/u/empty/\n/u/sub/\n/u/sub/b\n"
    );
    assert_eq!(cluster.content("/u/sub/b"), b"/t/sub/b");
    cluster.run(&["cp", "-r", "/t", "/u"]).ok();
    assert_eq!(cluster.content("/u/t/a"), b"/t/a");
    cluster.run(&["cp", "-r", "/t", "/t/sub"]).expect(2).says(&["into itself"]);
}

#[test]
fn nothing_is_replaced_unasked() {
    let cluster = Cluster::start();
    cluster.store("/a", "a");
    cluster.store("/b", "b");
    cluster.run(&["cp", "/a", "/b"]).expect(2).says(&["/b", "already exists"]);
    assert_eq!(cluster.content("/b"), b"b");
    cluster.run(&["cp", "-f", "/a", "/b"]).ok();
    assert_eq!(cluster.content("/b"), b"a");
    cluster.run(&["cp", "-f", "/a", "/a"]).expect(2).says(&["itself"]);
    cluster.run(&["mkdir", "/new"]).ok();
    cluster.run(&["cp", "/a", "/none", "/new/"]).expect(4).says(&["/none"]);
}
