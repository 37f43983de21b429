//! `ls`: what is listed, and how.

mod support;

use support::Cluster;

#[test]
fn names_come_in_byte_order_and_directories_with_a_slash() {
    let cluster = Cluster::start();
    assert_eq!(cluster.run(&["ls"]).ok().text(), "");
    for path in ["/d/b", "/d/a", "/d/sub/x", "/d/Z", "/d/ü"] {
        cluster.store(path, path);
    }
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "d/\n");
    assert_eq!(cluster.run(&["ls", "/d"]).ok().text(), "Z\na\nb\nsub/\nü\n");
    assert_eq!(cluster.run(&["ls", "/d/a"]).ok().text(), "/d/a\n");
    assert_eq!(cluster.run(&["ls", "-d", "/d"]).ok().text(), "/d/\n");
    assert_eq!(cluster.run(&["ls", "/d/?"]).ok().text(), "/d/Z\n/d/a\n/d/b\n/d/ü\n");
    assert_eq!(
        cluster.run(&["ls", "/d/a", "/d/sub", "/d"]).ok().text(),
        "/d/a\n\n/d/sub:\nx\n\n/d:\nZ\na\nb\nsub/\nü\n"
    );
    assert_eq!(
        cluster.run(&["ls", "-R", "/"]).ok().text(),
        "/d/\n/d/Z\n/d/a\n/d/b\n/d/sub/\n/d/sub/x\n/d/ü\n"
    );
}

#[test]
fn long_lines_hold_everything() {
    let cluster = Cluster::start();
    cluster.store("/d/file", vec![0; 1536]);
    cluster.run(&["mkdir", "/d/sub"]).ok();
    let long = cluster.run(&["ls", "-l", "/d"]).ok();
    let lines: Vec<Vec<&str>> =
        long.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["-", "3", "1536"], "{lines:?}");
    assert_eq!(lines[0][5], "file", "{lines:?}");
    assert!(lines[0][3].starts_with("20") && lines[0][4].ends_with('Z'), "{lines:?}");
    assert_eq!((lines[1][0], lines[1][5]), ("d", "sub/"), "{lines:?}");
    assert!(cluster.run(&["ls", "-lh", "/d"]).ok().text().contains(" 1.5 KiB "));
}

#[test]
fn json_has_whole_paths_and_numbers() {
    let cluster = Cluster::start();
    cluster.store("/d/file", "1234");
    cluster.run(&["mkdir", "/d/sub"]).ok();
    let entries = cluster.run(&["ls", "/d", "--json"]).ok().json();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["path"], "/d/file");
    assert_eq!(entries[0]["kind"], "file");
    assert_eq!(entries[0]["bytes"], 4);
    assert_eq!(entries[0]["replication"], 3);
    assert_eq!(entries[0]["block_bytes"], 128 << 20);
    assert_eq!(entries[0]["durability"], "all");
    assert_eq!(entries[0]["digest"], blake3::hash(b"1234").to_string());
    assert!(entries[0]["modified_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(entries[0]["inode"].as_u64().unwrap() > 1);
    assert_eq!(entries[1]["kind"], "directory");
    assert!(entries[1].get("digest").is_none());
}

#[test]
fn what_is_not_there_is_told_and_the_rest_listed() {
    let cluster = Cluster::start();
    cluster.store("/a", "");
    cluster.run(&["ls", "/missing"]).expect(2).says(&["doldam: ls: cannot list /missing", "help:"]);
    let listed = cluster.run(&["ls", "/missing", "/a"]).expect(4);
    assert_eq!(listed.text(), "/a\n");
    cluster.run(&["ls", "/*.none"]).expect(2).says(&["nothing in the cluster matches"]);
    let failed = cluster.run(&["--json", "ls", "/missing"]).expect(2);
    let error: serde_json::Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!(error["error"], "cannot list /missing");
    assert_eq!(error["causes"], serde_json::json!(["no such file or directory"]));
}
