//! The command line without a cluster: help, wrong arguments, configuration, unreachable servers.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in helpers too")]

mod support;

use support::{Home, finish};

/// Every subcommand with its own help.
const COMMANDS: &[&[&str]] = &[
    &["put"],
    &["append"],
    &["get"],
    &["ls"],
    &["cat"],
    &["head"],
    &["tail"],
    &["mkdir"],
    &["rm"],
    &["mv"],
    &["cp"],
    &["stat"],
    &["du"],
    &["df"],
    &["find"],
    &["touch"],
    &["truncate"],
    &["test"],
    &["setrep"],
    &["checksum"],
    &["fsck"],
    &["admin", "report"],
    &["local"],
    &["namenode"],
    &["datanode"],
    &["bench", "io"],
    &["bench", "load"],
    &["bench", "meta"],
    &["bench", "pread"],
    &["bench", "small"],
    &["completions"],
    &["man"],
];

/// Nobody listens there: the port is reserved and its use needs a privilege nobody takes.
const NOBODY: &str = "127.0.0.1:1";

#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let home = Home::new();
    let overview = home.run(&["--help"]).ok();
    for code in ["0    done", "1    the answer is no", "2    the request", "3    the cluster", "4 "]
    {
        assert!(overview.text().contains(code), "{code:?} is not in {}", overview.text());
    }
    for command in COMMANDS {
        assert!(overview.text().contains(&format!("\n  {} ", command[0])), "{command:?}");
        let help = home.run(&[*command, &["--help"]].concat()).ok();
        let example = format!("  doldam {}", command.join(" "));
        assert!(help.text().contains("Examples:"), "{command:?}");
        assert!(help.text().contains(&example), "{command:?}: {}", help.text());
    }
}

#[test]
fn wrong_arguments_are_named_and_end_with_2() {
    let home = Home::new();
    for (arguments, reason) in [
        (&["put", "/only-one"][..], "required"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["ls", "--frobnicate"], "unexpected argument"),
        (&["put", "--replication", "0", "a", "/a"], "0 is not in 1..=16"),
        (&["put", "--block-size", "100000", "a", "/a"], "power of two"),
        (&["mkdir", "relative"], "starts with `/`"),
        (&["mkdir", "/a/../b"], "`.` and `..` are not resolved"),
        (&["test", "/a"], "required"),
        (&["test", "-e", "-f", "/a"], "cannot be used with"),
        (&["datanode"], "data folders"),
        (&["namenode"], "--dir"),
        (&["checksum", "--check", "missing.b3"], "missing.b3"),
        (&["find", "/", "-name", "[x"], "is no pattern"),
        (&["put", "missing", "/a"], "cannot read missing"),
        (&["put", "-", "other", "/a"], "standard input"),
    ] {
        let arguments = [&["--namenode", NOBODY, "--timeout", "1s"], arguments].concat();
        let finished = home.run(&arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(reason), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unreachable_namenode_is_named_with_the_next_step_and_soon() {
    let home = Home::new();
    let command = ["--timeout", "2s", "--namenode", NOBODY, "ls", "/"];
    home.run(&command).expect(3).says(&[
        "doldam: ls: cannot reach the cluster at 127.0.0.1:1",
        "help: ",
        "--namenode or DOLDAM_NAMENODE",
    ]);
    let wrong = home.run(&["--json", "mkdir", "relative"]).expect(2);
    let error: serde_json::Value = serde_json::from_str(wrong.stderr.trim()).unwrap();
    assert!(error["error"].as_str().unwrap().contains("starts with `/`"), "{error}");
    let finished = home.run(&[&["--json"], &command[..]].concat()).expect(3);
    let error: serde_json::Value = serde_json::from_str(finished.stderr.trim()).unwrap();
    assert_eq!(error["command"], "ls");
    assert_eq!(error["exit_code"], 3);
    assert_eq!(error["error"], "cannot reach the cluster at 127.0.0.1:1");
    assert!(error["causes"][0].as_str().unwrap().contains("127.0.0.1:1"), "{error}");
    assert!(error["next_step"].as_str().unwrap().contains("namenode"), "{error}");
}

/// The address that a command tries to reach, as the error names it.
fn address_tried(home: &Home, arguments: &[&str], variable: Option<&str>) -> String {
    let mut command = home.command();
    command.args(["--timeout", "1s"]).args(arguments).arg("ls");
    if let Some(value) = variable {
        command.env("DOLDAM_NAMENODE", value);
    }
    let finished = finish(&mut command, b"").expect(3);
    let start = finished.stderr.find("cluster at ").unwrap() + "cluster at ".len();
    finished.stderr[start..].split(": ").next().unwrap().to_owned()
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let home = Home::new();
    // Whoever runs the tests may run a cluster at the default address: it is not looked for here.
    home.write(".config/doldam/config.toml", "[client]\nnamenodes = [\"127.0.0.1:2\"]\n");
    assert_eq!(address_tried(&home, &[], None), "127.0.0.1:2");
    assert_eq!(address_tried(&home, &[], Some("127.0.0.1:3")), "127.0.0.1:3");
    let flag = ["--namenode", "127.0.0.1:4,127.0.0.1:5"];
    assert_eq!(address_tried(&home, &flag, Some("127.0.0.1:3")), "127.0.0.1:4,127.0.0.1:5");
    home.write("other.toml", "[client]\nnamenodes = [\"127.0.0.1:6\"]\n");
    assert_eq!(address_tried(&home, &["--config", "other.toml"], None), "127.0.0.1:6");
}

#[test]
fn a_configuration_file_with_a_mistake_is_refused_with_its_line() {
    let home = Home::new();
    for (text, reasons) in [
        ("[client]\nnamenode = [\"a:1\"]\n", ["bad.toml:2", "unknown field"]),
        ("[client]\nreplication = 99\n", ["replication", "1..=16"]),
        ("[client]\nblock_size = \"3MiB\"\n", ["block_size", "power of two"]),
        ("[client]\ntimeout = \"soon\"\n", ["bad.toml:2", "soon"]),
        ("[datanode]\nrakc = \"/r\"\n", ["bad.toml:2", "unknown field"]),
        ("what is this", ["bad.toml:1", "help: "]),
    ] {
        home.write("bad.toml", text);
        home.run(&["--config", "bad.toml", "ls"]).expect(2).says(&reasons);
    }
    home.run(&["--config", "missing.toml", "ls"]).expect(2).says(&["missing.toml"]);
    let mut command = home.command();
    finish(command.args(["ls"]).env("DOLDAM_LOG", "x=loud"), b"").expect(2).says(&["DOLDAM_LOG"]);
}

#[test]
fn completions_and_manual_are_generated() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell]).ok();
        assert!(script.text().contains("setrep"), "{shell}");
    }
    let page = home.run(&["man"]).ok();
    assert!(page.text().contains(".TH doldam 1"), "{}", page.text());
    std::fs::create_dir(home.path("man1")).unwrap();
    home.run(&["man", "--dir", "man1"]).ok();
    for name in ["doldam.1", "doldam-put.1", "doldam-admin-report.1", "doldam-bench-io.1"] {
        let page = std::fs::read_to_string(home.path("man1").join(name));
        assert!(page.unwrap_or_else(|_| panic!("{name}")).contains(".TH"));
    }
    home.run(&["man", "--dir", "nowhere"]).expect(2).says(&["nowhere"]);
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let home = Home::new();
    let arguments = ["--timeout", "1s", "--namenode", NOBODY, "ls"];
    assert!(!home.run(&arguments).stderr.contains('\u{1b}'));
    let colored = home.run(&[&["--color", "always"], &arguments[..]].concat());
    assert!(colored.stderr.contains("\u{1b}[1;31mdoldam: ls:"), "{}", colored.stderr);
}
