//! `stat`, `test`, `checksum`, `fsck`, `setrep`: what the cluster knows about files.

mod support;

use support::{Cluster, noise};

#[test]
fn stat_shows_everything_and_where_the_blocks_are() {
    let cluster = Cluster::start();
    let content = noise(1, 150_000);
    cluster.run_with(&["put", "--block-size", "64KiB", "-", "/a"], &content).ok();
    let text = cluster.run(&["stat", "/a"]).ok();
    let digest = blake3::hash(&content).to_string();
    for part in ["kind         file", "150,000 bytes", "64.0 KiB", "durability   all", &digest] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    let status = &cluster.run(&["--json", "stat", "--blocks", "/a"]).ok().json()[0];
    let blocks = status["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 3);
    for (index, block) in blocks.iter().enumerate() {
        assert_eq!(block["index"], index);
        assert_eq!(block["live"], 3);
        assert_eq!(block["health"], "healthy");
        assert_eq!(block["replicas"].as_array().unwrap().len(), 3);
    }
    let directory = cluster.run(&["stat", "/"]).ok();
    assert!(directory.text().contains("kind         directory"), "{}", directory.text());
    cluster.run(&["stat", "/none"]).expect(2).says(&["cannot stat /none"]);
    assert_eq!(
        cluster.run(&["stat", "--blocks", "/a"]).ok().text().matches("\n  block ").count(),
        4
    );
}

#[test]
fn test_answers_by_its_exit_code() {
    let cluster = Cluster::start();
    cluster.store("/full", "x");
    cluster.store("/empty", "");
    for (flag, path, code) in [
        ("-e", "/full", 0),
        ("-e", "/", 0),
        ("-e", "/none", 1),
        ("-f", "/full", 0),
        ("-f", "/", 1),
        ("-d", "/", 0),
        ("-d", "/full", 1),
        ("-s", "/full", 0),
        ("-s", "/empty", 1),
        ("-z", "/empty", 0),
        ("-z", "/full", 1),
        ("-z", "/none", 1),
        ("-e", "/full/below", 1),
    ] {
        let finished = cluster.run(&["test", flag, path]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(code), ""), "{flag} {path}");
    }
    let answer = cluster.run(&["--json", "test", "-d", "/full"]).expect(1).json();
    assert_eq!(answer[0], serde_json::json!({"path": "/full", "answer": false}));
}

#[test]
fn checksums_are_those_of_b3sum() {
    let cluster = Cluster::start();
    let mut expected = String::new();
    for (path, bytes) in [("/d/a", 0), ("/d/b", 70_000), ("/d/sub/c", 200_000)] {
        let content = noise(bytes as u8, bytes);
        cluster.run_with(&["put", "-p", "--block-size", "64KiB", "-", path], &content).ok();
        expected += &format!("{}  {path}\n", blake3::hash(&content));
    }
    let listed = cluster.run(&["checksum", "-r", "/d"]).ok();
    assert_eq!(listed.text(), expected);
    let one = cluster.run(&["checksum", "/d/a"]).ok();
    assert_eq!(one.text(), format!("{}  /d/a\n", blake3::hash(b"")));
    cluster.run(&["checksum", "/d"]).expect(2).says(&["it is a directory"]);
    cluster.run(&["checksum", "/d/a", "/none"]).expect(4);

    cluster.home().write("d.b3", &expected);
    let checked = cluster.run(&["checksum", "--check", "d.b3"]).ok();
    assert_eq!(checked.text(), "/d/a: OK\n/d/b: OK\n/d/sub/c: OK\n");
    cluster.store("/d/b", "changed");
    cluster.run(&["rm", "/d/a"]).ok();
    let checked = cluster.run_with(&["checksum", "--check", "-"], expected.as_bytes()).expect(1);
    assert_eq!(checked.text(), "/d/a: FAILED (no such file)\n/d/b: FAILED\n/d/sub/c: OK\n");
    cluster
        .run_with(&["checksum", "-c", "-"], b"what\n")
        .expect(2)
        .says(&["-:1: no line of b3sum"]);
}

#[test]
fn replication_changes_and_fsck_tells_the_debt() {
    let cluster = Cluster::start();
    cluster.run_with(&["put", "--replication", "1", "-", "/a"], b"a").ok();
    assert_eq!(cluster.run(&["fsck"]).ok().text(), "/ is healthy: every block has its replicas\n");
    cluster.run(&["setrep", "-w", "3", "/a"]).ok();
    let block = &cluster.run(&["--json", "stat", "--blocks", "/a"]).ok().json()[0]["blocks"][0];
    assert_eq!(block["live"], 3, "{block}");
    cluster.run(&["setrep", "-w", "2", "/a"]).ok();
    let changed = cluster.run(&["--json", "setrep", "5", "/a"]).ok().json();
    assert_eq!(changed[0], serde_json::json!({"path": "/a", "previous": 2, "replication": 5}));

    let found = cluster.run(&["fsck", "/"]).expect(1);
    assert!(found.text().starts_with("/a: under-replicated (1 block, replication 5)\n  under-"));
    assert!(
        found.text().ends_with("/: findings in 1 file: 1 under-replicated\n"),
        "{}",
        found.text()
    );
    let finding = &cluster.run(&["--json", "fsck", "/a"]).expect(1).json()[0];
    assert_eq!(finding["health"], "under_replicated");
    assert_eq!(finding["block_count"], 1);
    let short = ["setrep", "-w", "--wait-max", "1s", "4", "/a"];
    cluster.run(&short).expect(3).says(&["0 of 1 blocks have exactly 4 live replicas", "help: "]);

    cluster.store("/d/x", "x");
    cluster.run(&["setrep", "1", "/d"]).expect(2).says(&["it is a directory"]);
    cluster.run(&["setrep", "-R", "1", "/d"]).ok();
    assert_eq!(cluster.run(&["--json", "stat", "/d/x"]).ok().json()[0]["replication"], 1);
    cluster.run(&["fsck", "/none"]).expect(2).says(&["cannot check /none"]);
    let all = cluster.run(&["--json", "fsck", "--all", "/d"]).ok().json();
    assert_eq!(all[0]["path"], "/d/x");
}
