//! One server as a process of its own.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::disk_fault::files_below;

/// Bytes of a log that are printed when a test fails.
const LOG_BYTES_SHOWN: usize = 12_000;

/// A server: the command that starts it, and the process while it runs.
#[derive(Debug)]
pub struct Server {
    name: String,
    command: Command,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Starts `command`; what it prints goes to the end of `log`.
    pub fn start(name: &str, command: Command, log: &Path) -> Self {
        let (name, log) = (name.to_owned(), log.to_owned());
        let mut server = Self { name, command, log, child: None };
        server.restart();
        server
    }

    /// Starts it again after it was killed or stopped.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let command = self.command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop as Ctrl-C does, waits, and returns whether it ended with 0.
    pub fn stop(&mut self) -> bool {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        self.signal_to(child.id(), "INT");
        child.wait().unwrap().success()
    }

    /// Stops it from doing anything, as an overloaded machine does (`kill -STOP`).
    pub fn freeze(&self) {
        self.signal_to(self.id(), "STOP");
        // Its threads stop one after the other: until all have, an answer may slip out.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let process = Pid::from_raw(self.id().cast_signed()).unwrap();
        waitid(WaitId::Pid(process), stopped).unwrap();
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal_to(self.id(), "CONT");
    }

    /// The exit code if it ended by itself, for servers that are expected to.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status.code().unwrap_or(-1))
    }

    /// All it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Prints the end of what it wrote.
    pub fn print_log(&self) {
        let log = self.log();
        let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_BYTES_SHOWN));
        eprintln!("---- {} ({}) ----\n{}", self.name, self.log.display(), &log[start..]);
    }

    fn id(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    fn signal_to(&self, id: u32, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
        assert!(status.unwrap().success(), "{}: kill -{signal}", self.name);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `doldam` to test: `DOLDAM_BIN` if set, else the one of this build, made first if it is not up to date.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("DOLDAM_BIN") {
        Some(path) => PathBuf::from(path),
        None => built_binary(),
    })
}

/// Test executables lie in `<target>/<profile>/deps`, the binary in `<target>/<profile>`.
fn built_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile_dir =
        test.ancestors().find(|path| path.ends_with("deps")).unwrap().parent().unwrap();
    let binary = profile_dir.join("doldam");
    // One test builds, the others wait for it.
    let lock = File::create(profile_dir.join(".doldam-test-build.lock")).unwrap();
    lock.lock().unwrap();
    // A run of all tests has made it already, with features that differ from those of a build of it alone, which
    // would thus take minutes.
    if is_up_to_date(&binary) {
        return binary;
    }
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev".to_owned(),
        Some(name) => name.to_owned(),
        None => panic!("no profile in {}", test.display()),
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "doldam", "--profile", &profile, "--target-dir"])
        .arg(profile_dir.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "doldam does not build");
    binary
}

/// Whether the binary is newer than everything it is made of.
fn is_up_to_date(binary: &Path) -> bool {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = ["proto", "namenode", "datanode", "client"];
    let mut sources: Vec<PathBuf> =
        folders.iter().flat_map(|folder| files_below(&workspace.join(folder))).collect();
    sources.extend(["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name)));
    let modified = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let Some(built) = modified(binary) else { return false };
    sources.iter().all(|source| modified(source).is_some_and(|changed| changed <= built))
}

/// Takes away what would configure `doldam` from outside: a test decides alone.
pub fn clean_environment(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOLDAM_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("RUST_BACKTRACE", "1")
}
