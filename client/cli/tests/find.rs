//! `find` and `du`: what is below a directory.

mod support;

use support::Cluster;

fn filled() -> Cluster {
    let cluster = Cluster::start();
    for (path, bytes) in [("/d/a.gz", 10), ("/d/sub/b.gz", 2000), ("/d/sub/c.txt", 0), ("/e", 5)] {
        cluster.store(path, vec![b'x'; bytes]);
    }
    cluster.run(&["mkdir", "/d/empty.gz"]).ok();
    cluster
}

#[test]
fn all_tests_of_find_must_hold() {
    let cluster = filled();
    let find = |arguments: &[&str]| {
        let found = cluster.run(&[&["find"], arguments].concat()).ok();
        found.text().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        find(&["/d"]),
        ["/d/", "/d/a.gz", "/d/empty.gz/", "/d/sub/", "/d/sub/b.gz", "/d/sub/c.txt"]
    );
    assert_eq!(find(&["/", "-name", "*.gz", "-type", "f"]), ["/d/a.gz", "/d/sub/b.gz"]);
    assert_eq!(find(&["/", "--type", "d", "--name", "*.gz"]), ["/d/empty.gz/"]);
    assert_eq!(find(&["-size", "+1KiB"]), ["/d/sub/b.gz"]);
    assert_eq!(find(&["/", "-size", "-6", "-type", "f"]), ["/d/sub/c.txt", "/e"]);
    assert_eq!(find(&["/", "-mtime", "+1"]), Vec::<String>::new());
    assert_eq!(find(&["/", "-mtime", "-1", "-maxdepth", "1"]), ["/", "/d/", "/e"]);
    assert_eq!(find(&["/e"]), ["/e"]);
    cluster.run(&["find", "/none"]).expect(2).says(&["cannot search /none"]);
    let entry = &cluster.run(&["--json", "find", "/e"]).ok().json()[0];
    assert_eq!((&entry["path"], &entry["bytes"]), (&"/e".into(), &5.into()));
}

#[test]
fn sums_count_files_and_replicas() {
    let cluster = filled();
    let all = cluster.run(&["--json", "du", "/"]).ok().json();
    let sums: Vec<_> = all
        .iter()
        .map(|sum| (sum["path"].as_str().unwrap(), sum["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(sums, [("/d/empty.gz", 0), ("/d/sub", 2000), ("/d", 2010), ("/", 2015)]);
    assert_eq!(all[3]["replicated_bytes"], 3 * 2015);
    assert_eq!((&all[3]["files"], &all[3]["directories"]), (&4.into(), &4.into()));
    let short = cluster.run(&["du", "-s", "-h", "/d", "/e"]).ok();
    let lines: Vec<Vec<&str>> =
        short.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["2.0", "KiB", "5.9", "KiB", "/d"]);
    assert_eq!(lines[1], ["5", "B", "15", "B", "/e"]);
    assert_eq!(cluster.run(&["du", "-d", "1", "/"]).ok().text().lines().count(), 2);
}
