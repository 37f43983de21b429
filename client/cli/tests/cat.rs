//! `cat`, `head` and `tail`: the right bytes of the right files.

mod support;

use std::io::Read;
use std::process::Stdio;

use support::{Cluster, noise, read_all, signal};

#[test]
fn files_follow_one_another_and_a_missing_one_is_told() {
    let cluster = Cluster::start();
    let content = noise(1, 400_000);
    cluster.store("/d/a", &content);
    cluster.store("/d/b", "b");
    let both = cluster.run(&["cat", "/d/*"]).ok().stdout;
    assert!(both == [&content[..], b"b"].concat());
    let rest = cluster.run(&["cat", "/d/missing", "/d/b"]).expect(4).says(&["/d/missing"]);
    assert_eq!(rest.stdout, b"b");
    cluster.run(&["cat", "/d"]).expect(2).says(&["cannot read /d: it is a directory"]);
}

#[test]
fn head_and_tail_take_lines_and_bytes_from_either_end() {
    let cluster = Cluster::start();
    let lines: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    cluster.run_with(&["put", "--block-size", "64KiB", "-", "/lines"], lines.as_bytes()).ok();
    cluster.store("/short", "only\ntwo");

    let first: String = (0..10).map(|line| format!("line {line}\n")).collect();
    assert_eq!(cluster.run(&["head", "/lines"]).ok().text(), first);
    assert_eq!(cluster.run(&["head", "-n", "1", "/short"]).ok().text(), "only\n");
    assert_eq!(cluster.run(&["head", "-n", "0", "/lines"]).ok().text(), "");
    assert_eq!(cluster.run(&["head", "-c", "6", "/lines"]).ok().text(), "line 0");
    let many = cluster.run(&["head", "-n", "60000", "/lines"]).ok();
    assert_eq!(many.text().lines().count(), 60_000);
    assert!(lines.starts_with(many.text()));

    let last: String = (99_990..100_000).map(|line| format!("line {line}\n")).collect();
    assert_eq!(cluster.run(&["tail", "/lines"]).ok().text(), last);
    assert_eq!(cluster.run(&["tail", "-n", "1", "/short"]).ok().text(), "two");
    assert_eq!(cluster.run(&["tail", "-c", "3", "/short"]).ok().text(), "two");
    let many = cluster.run(&["tail", "-n", "60000", "/lines"]).ok();
    assert_eq!(many.text().lines().count(), 60_000);
    assert!(lines.ends_with(many.text()));
    let all = cluster.run(&["tail", "-c", "1GiB", "/lines"]).ok();
    assert!(all.text() == lines);

    assert_eq!(
        cluster.run(&["tail", "-n", "1", "/lines", "/short"]).ok().text(),
        "==> /lines <==\nline 99999\n\n==> /short <==\ntwo"
    );
    cluster.run(&["head", "/"]).expect(2).says(&["it is a directory"]);
    cluster.run(&["tail", "/none"]).expect(2).says(&["cannot read /none"]);
}

#[test]
fn an_interrupt_is_heard_while_nobody_takes_the_output() {
    let cluster = Cluster::start();
    cluster.store("/a", noise(2, 8 << 20));
    let mut command = cluster.command();
    let piped = command.args(["cat", "/a"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = piped.spawn().unwrap();
    let mut stdout = process.stdout.take().unwrap();
    // It has begun to write, and cannot end before somebody reads the rest.
    stdout.read_exact(&mut [0]).unwrap();
    signal(&process, "INT");
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let said = read_all(process.stderr.take().unwrap());
    assert!(said.starts_with("doldam: cat: warning: interrupted: 0 of 1 file done"), "{said}");
}
