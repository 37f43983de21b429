//! A test in a world of its own: its mounts, its networks and its processes are seen by nobody else and end with it,
//! whatever happens.
//!
//! The test's executable starts itself again, for this one test, in new namespaces of mounts, processes and, if it
//! needs them, networks (`unshare`, as root). The first process of a process namespace takes all others with it when
//! it ends, and the kernel takes back mounts, loop devices and networks that nobody uses any more.
//!
//! Where the machine does not allow it the test says so on standard error and does nothing, unless
//! `DOLDAM_TEST_SANDBOX=required` asks for a failure, as `.ci/run` does.

use std::io::Write;
use std::process::{Command, Stdio};

use super::process;

/// Set for the second process, to its test's name; or to `required`, from outside.
const VARIABLE: &str = "DOLDAM_TEST_SANDBOX";
const REQUIRED: &str = "required";

/// Commands to build networks, each with the Debian package that brings it.
pub const NETWORK: &[(&str, &str)] = &[("ip", "iproute2"), ("nft", "nftables")];
/// Commands to make and break disks.
pub const DISKS: &[(&str, &str)] =
    &[("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("perl", "perl-base")];

/// Runs the calling test, which needs the commands in `needs`, in a world of its own.
pub fn run<F: Future<Output = ()>>(needs: &[(&str, &str)], test: impl FnOnce() -> F) {
    let name = test_name(&test);
    if std::env::var(VARIABLE).is_ok_and(|inside| inside == name) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(test());
    }
    if let Some(reason) = missing(needs) {
        let required = std::env::var(VARIABLE).is_ok_and(|value| value == REQUIRED);
        assert!(!required, "{name} cannot run here: {reason}");
        // Past the test harness, which keeps what passing tests print to itself.
        std::io::stderr().write_all(format!("SKIPPED {name}: {reason}\n").as_bytes()).unwrap();
        return;
    }
    let mut command = unshare(needs);
    command.arg(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env("DOLDAM_BIN", process::binary()).env(VARIABLE, &name);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {}\n{printed}", output.status);
    assert!(printed.contains("1 passed"), "{name} did not run:\n{printed}");
}

/// Ends with the thread that starts it, and everything in it then too.
fn unshare(needs: &[(&str, &str)]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc"]);
    command.args(["--propagation", "private", "--kill-child"]);
    if needs == NETWORK {
        command.arg("--net");
    }
    command
}

/// A closure is called after the function it stands in: `partition::a_node_is_cut::{{closure}}`.
fn test_name<T>(_: &T) -> String {
    let name = std::any::type_name::<T>();
    let name = name.split("::{{closure}}").next().unwrap_or(name);
    name.split_once("::").map_or(name, |(_, name)| name).to_owned()
}

/// Why it cannot be done here.
fn missing(needs: &[(&str, &str)]) -> Option<String> {
    for (command, package) in needs {
        let found = Command::new("sh").args(["-c", &format!("command -v {command}")]).output();
        if !found.is_ok_and(|found| found.status.success()) {
            return Some(format!("`{command}` is missing: install {package}"));
        }
    }
    match unshare(needs).arg("true").output() {
        Ok(probe) if probe.status.success() => None,
        Ok(probe) => {
            let cause = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
            Some(format!("no namespaces for this user, only for root: {cause}"))
        }
        Err(error) => {
            Some(format!("`setpriv` and `unshare` are missing: install util-linux ({error})"))
        }
    }
}

/// Runs a command of the system that must succeed.
pub(super) fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{errors}", output.status);
}
