//! What the documents show is what the programs take. The quick start itself is run by `.ci/quickstart`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use doldam_datanode::DatanodeConfig;
use doldam_integration_tests::cluster::process;
use doldam_namenode::NamenodeConfig;

fn document(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(name)).unwrap()
}

/// The code blocks of a document in `language`.
fn code(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(found), None) => block = (found == language).then(String::new),
            (None, Some(block)) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn the_sample_settings_are_accepted_and_the_defaults_are_as_told() {
    let sample = code(&document("docs/operations.md"), "toml").remove(0);
    let mut sample: toml::Table = sample.parse().unwrap();
    let namenode: NamenodeConfig = sample.remove("namenode").unwrap().try_into().unwrap();
    assert_eq!(namenode, NamenodeConfig::default());
    let mut datanode: DatanodeConfig = sample.remove("datanode").unwrap().try_into().unwrap();
    datanode.dirs.push("/disk1".into());
    datanode.check().unwrap();
    let told = (datanode.scrub_bytes_per_sec, datanode.scrub_interval, datanode.streams_max);
    let default = DatanodeConfig::default();
    assert_eq!(told, (default.scrub_bytes_per_sec, default.scrub_interval, default.streams_max));
    assert_eq!(datanode.reserve_bytes, default.reserve_bytes);
}

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    let readme = document("README.md");
    let command = "cargo test --workspace";
    assert!(code(&readme, "sh").contains(&format!("{command}\n")));
    assert!(document(".ci/run").lines().any(|line| line.contains(command)));
    for mark in ["<!-- quick start: first terminal -->", "<!-- quick start: second terminal -->"] {
        assert_eq!(readme.lines().filter(|line| *line == mark).count(), 1, "{mark}");
    }
}

/// Every `doldam ...` line of the documents: its subcommand and long options are there.
#[test]
fn every_command_shown_is_one_that_the_binary_knows() {
    let mut checked = 0;
    for name in ["README.md", "docs/operations.md", "docs/testing.md", "docs/architecture.md"] {
        let blocks = code(&document(name), "sh");
        let lines = blocks.iter().flat_map(|block| block.lines());
        for line in lines.filter_map(|line| line.strip_prefix("doldam ")) {
            let line = line.split('#').next().unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let subcommand: Vec<&str> = match words[0] {
                "admin" | "bench" => words[..2].to_vec(),
                _ => words[..1].to_vec(),
            };
            let mut command = Command::new(process::binary());
            let help = command.args(&subcommand).arg("--help").output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            assert!(help.contains("Usage:"), "{name}: doldam {line}");
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{name}: {option} of doldam {line}");
            }
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} commands");
}
