//! Runs the real binary with an empty home and a clean environment, alone or against a cluster of
//! its own.

#![allow(dead_code, reason = "no test file needs all of it")]
#![allow(clippy::unwrap_used, reason = "what cannot even start fails its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard output as JSON, one value per line.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let lines = self.text().lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// Fails the test unless the command did as asked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.expect(0)
    }

    /// Fails the test unless each of `parts` is on standard error.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in:\n{}", self.stderr);
        }
        self
    }
}

/// A home of its own, with a folder for local files.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into it, with the folders above.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The binary, in this home.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doldam"));
        command.env_clear().env("HOME", self.folder.path()).env("TMPDIR", self.folder.path());
        command.current_dir(self.folder.path());
        command
    }

    /// Runs it with `arguments` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command().args(arguments), b"")
    }
}

/// Runs `command` to its end with `input` on its standard input.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // It may well end without reading all of it.
        scope.spawn(move || drop(stdin.write_all(input)));
        let output = child.wait_with_output().unwrap();
        Finished {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

/// A whole cluster in a process of its own; stopped when dropped.
pub(crate) struct Cluster {
    /// `HOST:PORT` of its namenode.
    pub(crate) address: String,
    home: Home,
    process: Child,
}

impl Cluster {
    /// Starts one with three datanodes.
    pub(crate) fn start() -> Self {
        Self::with_datanodes(3)
    }

    /// Starts one with `count` datanodes.
    pub(crate) fn with_datanodes(count: u32) -> Self {
        Self::in_home(Home::new(), &["--datanodes", &count.to_string()])
    }

    /// Starts one in the folder `cluster` of `home`.
    pub(crate) fn in_home(home: Home, options: &[&str]) -> Self {
        let mut command = home.command();
        command.args(["local", "--quiet", "--dir", "cluster"]).args(options);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let log = std::fs::File::create(home.path("cluster.log")).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        if address.is_empty() {
            let log = std::fs::read_to_string(home.path("cluster.log")).unwrap();
            panic!("no cluster: {:?}\n{log}", process.wait());
        }
        Self { address, home, process }
    }

    /// The binary, told where this cluster is.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.home.command();
        command.env("DOLDAM_NAMENODE", &self.address);
        command
    }

    /// Runs a command against this cluster.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command().args(arguments), b"")
    }

    /// Runs a command against this cluster with `input` on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Finished {
        finish(self.command().args(arguments), input)
    }

    /// Stores `content` at `path`.
    #[track_caller]
    pub(crate) fn store(&self, path: &str, content: impl AsRef<[u8]>) {
        self.run_with(&["put", "-f", "-p", "-", path], content.as_ref()).ok();
    }

    /// What is at `path`.
    #[track_caller]
    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        self.run(&["cat", path]).ok().stdout
    }

    /// Its home, for local files.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Stops it as a user would; returns the home with all that it kept.
    pub(crate) fn stop(mut self) -> Home {
        signal(&self.process, "TERM");
        let status = self.process.wait().unwrap();
        let log = std::fs::read_to_string(self.home.path("cluster.log")).unwrap();
        assert!(status.success(), "{status}\n{log}");
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Kills it without a warning; returns the home with all that it kept.
    pub(crate) fn kill(mut self) -> Home {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::mem::replace(&mut self.home, Home::new())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// All that `stream` gives.
pub(crate) fn read_all(stream: impl Read) -> String {
    let mut stream = stream;
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// `bytes` bytes that look like noise and are the same for the same `seed`.
pub(crate) fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
    content
}

/// Everything below `folder` by relative path; directories end with a slash.
pub(crate) fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let relative = format!("{prefix}{}", name.to_str().unwrap());
            if path.is_dir() {
                found.push((format!("{relative}/"), Vec::new()));
                walk(&path, &format!("{relative}/"), found);
            } else {
                found.push((relative, std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found);
    found
}
