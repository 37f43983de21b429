//! The house rules that a machine can keep.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use doldam_integration_tests::parser::PARSERS;
use toml::{Table, Value};

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 120;

/// Every package and which of ours it may use: none of those after it, and no server knows another.
const PACKAGES: &[(&str, &str, &[&str])] = &[
    ("proto", "doldam-proto", &[]),
    ("proto/runtime", "doldam-runtime", &["doldam-proto"]),
    ("namenode", "doldam-namenode", &["doldam-proto", "doldam-runtime"]),
    ("datanode", "doldam-datanode", &["doldam-proto", "doldam-runtime"]),
    ("client", "doldam-client", &["doldam-proto", "doldam-runtime"]),
    (
        "client/cli",
        "doldam",
        &["doldam-proto", "doldam-runtime", "doldam-namenode", "doldam-datanode", "doldam-client"],
    ),
    (
        "integration-tests",
        "doldam-integration-tests",
        &["doldam-proto", "doldam-runtime", "doldam-namenode", "doldam-datanode", "doldam-client"],
    ),
    ("integration-tests/fuzz", "doldam-fuzz", &["doldam-integration-tests"]),
];

/// What has no place where only decisions are made.
const IMPURE: &[&str] = &[
    ".await",
    "async fn",
    "async move",
    "tokio::",
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "Mutex",
    "RwLock",
    "parking_lot",
    "rand::",
    "SystemClock",
    "dyn Clock",
    "doldam_runtime::connection",
    "doldam_runtime::disk",
    "doldam_runtime::http",
    "doldam_runtime::net",
    "doldam_runtime::pool",
    "doldam_runtime::random",
    "doldam_runtime::seams",
    "doldam_runtime::tasks",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files of the source tree with one of `extensions`, by their path from the root.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "corpus", "artifacts"].contains(&name) {
                    walk(&path, extensions, found);
                }
            } else if path.extension().is_some_and(|end| extensions.iter().any(|it| end == *it)) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root, extensions, &mut found);
    found.sort();
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// The part of a source file that is no test.
fn without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut previous_is_cfg_test = false;
    lines.take_while(move |(_, line)| {
        let starts_tests = previous_is_cfg_test && line.starts_with("mod ") && line.ends_with('{');
        previous_is_cfg_test = *line == "#[cfg(test)]";
        !starts_tests
    })
}

/// Whether `code` has `word`, not only as the start of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let continues = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| {
        let next = code[at + word.len()..].chars().next();
        word.ends_with(':') || !next.is_some_and(continues)
    })
}

#[test]
fn files_are_short_and_lines_too() {
    let mut findings = Vec::new();
    for (path, text) in files(&["rs"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{path}: {lines} lines"));
        }
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                findings.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
    }
    assert_none("at most 600 lines of at most 120 columns", &findings);
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let findings: Vec<String> = files(&["rs"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert_none("a file starts with its `//!`", &findings);
}

#[test]
fn nothing_under_an_engine_is_impure() {
    let mut findings = Vec::new();
    let mut seen = 0;
    for (path, text) in files(&["rs"]) {
        let pure = path.contains("/engine/") || path.ends_with("/engine.rs");
        let pure = pure || (path.starts_with("proto/src/") && path != "proto/src/error/status.rs");
        if !pure || path.ends_with("_test.rs") {
            continue;
        }
        seen += 1;
        for (line, code) in without_tests(&text) {
            let code = code.split("//").next().unwrap();
            for word in IMPURE.iter().filter(|word| has_word(code, word)) {
                findings.push(format!("{path}:{line}: {word}"));
            }
        }
    }
    assert!(seen > 20, "the engines were found");
    assert_none("an engine decides, and touches nothing", &findings);
}

/// What only the real one of two worlds may use: a simulator steers all else.
#[test]
fn what_a_simulator_steers_goes_through_its_doors() {
    let mut findings = Vec::new();
    let door = "proto/runtime/src/tasks/inline.rs";
    let simulated = ["proto/runtime/src/", "namenode/src/", "datanode/src/", "client/src/"];
    for (path, text) in files(&["rs"]) {
        let is_test = path.ends_with("_test.rs") || path.contains("/test") || path == door;
        if is_test || !simulated.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let lines: Vec<(usize, &str)> = without_tests(&text).collect();
        for (position, (number, line)) in lines.iter().enumerate() {
            let next = lines.get(position + 1).map_or("", |(_, line)| line.trim());
            if line.contains("spawn_blocking") {
                findings.push(format!("{path}:{number}: use tasks::run_blocking"));
            }
            if line.contains("select! {") && !next.starts_with("biased;") {
                findings.push(format!("{path}:{number}: a select! that is not biased draws lots"));
            }
        }
    }
    assert_none("a simulation cannot be replayed", &findings);
}

#[test]
fn engines_name_every_variant_they_match() {
    let mut findings = Vec::new();
    for package in ["namenode", "datanode", "client"] {
        let text = fs::read_to_string(root().join(package).join("src/engine.rs")).unwrap();
        if !text.contains("clippy::wildcard_enum_match_arm") {
            findings.push(format!("{package}/src/engine.rs"));
        }
    }
    assert_none("an engine denies `clippy::wildcard_enum_match_arm`", &findings);
}

fn manifest(folder: &str) -> Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

#[test]
fn packages_build_upon_each_other_in_one_order() {
    let mut findings = Vec::new();
    for (folder, name, allowed) in PACKAGES {
        let manifest = manifest(folder);
        assert_eq!(manifest["package"]["name"].as_str(), Some(*name));
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(Value::Table(dependencies)) = manifest.get(section) else { continue };
            for used in dependencies.keys().filter(|used| used.starts_with("doldam")) {
                // A package may use itself in its tests, as its users do.
                if !allowed.contains(&used.as_str()) && used != name {
                    findings.push(format!("{name} uses {used}"));
                }
            }
        }
    }
    assert_none(
        "proto, runtime, servers and client, cli, tests: each uses those before",
        &findings,
    );
}

#[test]
fn every_package_is_listed_and_keeps_the_lints_of_the_workspace() {
    let listed: BTreeSet<&str> = PACKAGES.iter().map(|(folder, ..)| *folder).collect();
    let workspace = manifest("");
    let members = workspace["workspace"]["members"].as_array().unwrap().iter();
    let excluded = workspace["workspace"]["exclude"].as_array().unwrap().iter();
    let found: BTreeSet<&str> = members.chain(excluded).filter_map(Value::as_str).collect();
    assert_eq!(found, listed);
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let manifest = manifest(member.as_str().unwrap());
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{member}");
        assert_eq!(manifest["package"]["license"]["workspace"].as_bool(), Some(true), "{member}");
    }
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Targets of all `[text](target)` of a Markdown file, outside code blocks.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            found.extend(part.split(')').next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn documents_have_no_dead_links() {
    let documents: BTreeMap<String, String> = files(&["md"]).into_iter().collect();
    assert!(documents.contains_key("README.md") && documents.contains_key("docs/architecture.md"));
    let mut findings = Vec::new();
    for (path, text) in &documents {
        for link in links(text).iter().filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(path),
                _ => root().join(path).parent().unwrap().join(file),
            };
            let Ok(target) = target.canonicalize() else {
                findings.push(format!("{path}: {link}"));
                continue;
            };
            let is_known = fragment.is_empty()
                || fs::read_to_string(target).is_ok_and(|text| anchors(&text).contains(fragment));
            if !is_known {
                findings.push(format!("{path}: {link}: no such heading"));
            }
        }
    }
    assert_none("links lead somewhere", &findings);
}

#[test]
fn documents_named_in_the_source_exist() {
    let mut findings = Vec::new();
    for (path, text) in files(&["rs", "proto", "toml", "yml", "sh"]) {
        for part in text.split("docs/").skip(1) {
            let is_name =
                |letter: &char| letter.is_ascii_alphanumeric() || "-_/.".contains(*letter);
            let name: String = part.chars().take_while(is_name).collect();
            let Some(name) = name.find(".md").map(|end| &name[..end + 3]) else { continue };
            if !root().join("docs").join(name).exists() {
                findings.push(format!("{path}: docs/{name}"));
            }
        }
    }
    assert_none("documents that the source names exist", &findings);
}

#[test]
fn every_parser_has_a_fuzz_target_and_every_target_a_parser() {
    let parsers: BTreeSet<String> = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
    let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let targets = fs::read_dir(root().join("integration-tests/fuzz/fuzz_targets")).unwrap();
    let targets: BTreeSet<String> = targets.map(|entry| stem(entry.unwrap())).collect();
    let manifest = manifest("integration-tests/fuzz");
    let binaries = manifest["bin"].as_array().unwrap().iter();
    let binaries: BTreeSet<String> =
        binaries.map(|binary| binary["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(targets, parsers);
    assert_eq!(binaries, parsers);
    for (path, text) in files(&["rs"]) {
        let Some(name) = path.strip_prefix("integration-tests/fuzz/fuzz_targets/") else {
            continue;
        };
        let feed = format!("parser::{}(bytes)", name.trim_end_matches(".rs"));
        assert!(text.contains(&feed), "{path} feeds its own parser");
    }
}

#[test]
fn anchors_and_links_are_read_as_they_are_written() {
    assert_eq!(anchor(" What `put` does: 3 steps"), "what-put-does-3-steps");
    let text = "[a](b.md) and [c](d#e)\n```\n[no](code)\n```\n![f](g.png)";
    assert_eq!(links(text), ["b.md", "d#e", "g.png"]);
}
