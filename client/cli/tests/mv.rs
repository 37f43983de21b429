//! `mv`: names change, content does not.

mod support;

use support::Cluster;

#[test]
fn files_and_directories_get_new_names() {
    let cluster = Cluster::start();
    cluster.store("/a", "a");
    cluster.store("/d/x", "x");
    cluster.run(&["mv", "/a", "/b"]).ok();
    assert_eq!(cluster.content("/b"), b"a");
    cluster.run(&["mv", "/d", "/e"]).ok();
    assert_eq!(cluster.content("/e/x"), b"x");
    cluster.run(&["mv", "/b", "/e"]).ok();
    assert_eq!(cluster.content("/e/b"), b"a");
    cluster.run(&["mkdir", "/into"]).ok();
    cluster.run(&["mv", "/e/*", "/into/"]).ok();
    assert_eq!(cluster.run(&["ls", "/into"]).ok().text(), "b\nx\n");
    let moved = cluster.run(&["--json", "mv", "/into/b", "/z"]).ok().json();
    assert_eq!(moved[0], serde_json::json!({"from": "/into/b", "to": "/z"}));
}

#[test]
fn nothing_is_replaced_unasked() {
    let cluster = Cluster::start();
    cluster.store("/a", "a");
    cluster.store("/b", "b");
    cluster.run(&["mkdir", "-p", "/d/sub"]).ok();
    cluster.run(&["mv", "/a", "/b"]).expect(2).says(&["cannot move /a to /b", "already exists"]);
    cluster.run(&["mv", "--replace", "/a", "/b"]).ok();
    assert_eq!(cluster.content("/b"), b"a");
    cluster.run(&["test", "-e", "/a"]).expect(1);
    cluster.run(&["mv", "/none", "/c"]).expect(2).says(&["/none"]);
    cluster.run(&["mv", "/b", "/no/parent"]).expect(2).says(&["/no/parent"]);
    cluster.run(&["mv", "/b", "/d", "/nowhere"]).expect(2).says(&["no such directory"]);
    cluster.run(&["mv", "/d", "/d/sub/below"]).expect(2).says(&["cannot move /d"]);
}
