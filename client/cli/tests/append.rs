//! `append` and `truncate`: files that grow and shrink in place.

mod support;

use support::{Cluster, noise};

#[test]
fn files_and_standard_input_are_added_in_order_and_the_digest_is_that_of_the_whole() {
    let cluster = Cluster::start();
    let content = noise(1, 300_000);
    cluster.run_with(&["put", "--block-size", "64KiB", "-", "/a"], &content[..100_000]).ok();
    let home = support::Home::new();
    let first = home.write("first", &content[100_000..150_000]);
    let last = home.write("last", &content[250_000..]);
    let arguments = ["append", first.to_str().unwrap(), "-", last.to_str().unwrap(), "/a"];
    let appended = cluster.run_with(&arguments, &content[150_000..250_000]).ok();
    let digest = blake3::hash(&content).to_string();
    assert!(appended.text().starts_with("appended to /a: "), "{}", appended.text());
    assert!(appended.text().contains(&digest), "{}", appended.text());
    assert!(cluster.run(&["cat", "/a"]).ok().stdout == content);

    let record = &cluster.run_with(&["--json", "append", "-", "/a"], b"more").ok().json()[0];
    assert_eq!((&record["appended_bytes"], &record["bytes"]), (&4.into(), &300_004.into()));
    let stat = &cluster.run(&["--json", "stat", "/a"]).ok().json()[0];
    assert_eq!(stat["digest"], record["digest"]);
    assert_eq!(stat.get("being_written"), None);
    assert_eq!(cluster.run_with(&["-q", "append", "-", "/a"], b"x").ok().text(), "");
}

#[test]
fn what_cannot_be_appended_changes_nothing_and_says_what_to_do() {
    let cluster = Cluster::start();
    cluster.store("/a", "hello");
    let home = support::Home::new();
    let good = home.write("good", "more");
    std::fs::create_dir(home.path("folder")).unwrap();
    let good = good.to_str().unwrap();
    let folder = home.path("folder");
    let missing = home.path("missing");
    for (arguments, said) in [
        (["append", good, folder.to_str().unwrap(), "/a"], "is a directory"),
        (["append", good, missing.to_str().unwrap(), "/a"], "cannot read"),
        (["append", "-", "-", "/a"], "only once"),
        (["append", good, good, "/none"], "doldam put"),
        (["append", good, good, "/"], "cannot append to /"),
    ] {
        cluster.run(&arguments).expect(2).says(&[said]);
    }
    assert_eq!(cluster.run(&["cat", "/a"]).ok().text(), "hello");
}

#[test]
fn files_are_cut_to_a_length_and_no_longer_than_they_are() {
    let cluster = Cluster::start();
    let content = noise(2, 200_000);
    for path in ["/a", "/b"] {
        cluster.run_with(&["put", "--block-size", "64KiB", "-", path], &content).ok();
    }
    cluster.run(&["truncate", "100KiB", "/a", "/b"]).ok();
    assert!(cluster.run(&["cat", "/b"]).ok().stdout == content[..102_400]);
    let record = &cluster.run(&["--json", "truncate", "65536", "/a"]).ok().json()[0];
    assert_eq!((&record["previous_bytes"], &record["bytes"]), (&102_400.into(), &65_536.into()));
    assert_eq!(record["digest"], blake3::hash(&content[..65_536]).to_string());
    cluster
        .run(&["truncate", "65537", "/a"])
        .expect(2)
        .says(&["cannot truncate /a", "doldam stat"]);
    cluster.run(&["truncate", "0", "/"]).expect(2).says(&["is a directory"]);
    cluster.run(&["truncate", "0", "/a", "/none"]).expect(4).says(&["/none"]);
    assert_eq!(cluster.run(&["cat", "/a"]).ok().text(), "");
    assert!(cluster.run(&["cat", "/b"]).ok().stdout == content[..102_400]);
}

#[test]
fn a_file_that_is_being_appended_to_is_told_from_others_and_locked() {
    let cluster = Cluster::start();
    cluster.store("/a", "hello");
    let mut command = cluster.command();
    command.args(["append", "-", "/a"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut writer = command.spawn().unwrap();
    // Its lease shows as soon as it has opened the file.
    let written = |line: &str| line.contains("(being written)");
    while !written(cluster.run(&["ls", "-l", "/"]).ok().text()) {
        assert!(writer.try_wait().unwrap().is_none(), "it waits for its input");
    }
    let stat = cluster.run(&["stat", "/a"]).ok();
    assert!(stat.text().contains("state        being written"), "{}", stat.text());
    let other = cluster.run_with(&["append", "-", "/a"], b"other");
    other.expect(2).says(&["cannot append to /a", "wait for the other writer"]);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    assert!(!written(cluster.run(&["ls", "-l", "/"]).ok().text()));
}
