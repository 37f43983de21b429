//! Standard error: errors with their next step, warnings, summaries.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::{ColorChoice, GlobalArgs};
use crate::error::{CommandError, ErrorRecord};
use crate::progress::Progress;

/// Failures shown one by one; more are only counted, lest a cluster that is down fills the screen.
const FAILURES_SHOWN_MAX: u64 = 50;

/// One command's voice on standard error.
#[derive(Clone)]
pub(crate) struct Messages {
    command: &'static str,
    json: bool,
    quiet: bool,
    color: bool,
    progress: Progress,
}

#[derive(Serialize)]
struct WarningRecord<'a> {
    command: &'static str,
    warning: &'a str,
}

impl Messages {
    /// For `command`, as the global options say.
    pub(crate) fn new(command: &'static str, global: &GlobalArgs, progress: Progress) -> Self {
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => io::stderr().is_terminal() && !no_color(),
        };
        Self { command, json: global.json, quiet: global.quiet, color, progress }
    }

    /// Says what failed, why, and what to do.
    pub(crate) fn error(&self, error: &CommandError) {
        if self.json {
            self.json_line(&ErrorRecord::new(self.command, error));
            return;
        }
        let (red, cyan, plain) = self.colors();
        let command = self.prefix();
        self.line(&format!(
            "{red}{command}:{plain} {}\n{cyan}help:{plain} {}",
            error.one_line(),
            error.next_step()
        ));
    }

    /// Says that the `count`th of several files failed; the next step only with the first.
    pub(crate) fn one_of_many(&self, error: &CommandError, count: u64) {
        if count == 1 {
            self.error(error);
        } else if self.json {
            self.json_line(&ErrorRecord::new(self.command, error));
        } else if count <= FAILURES_SHOWN_MAX {
            let (red, _, plain) = self.colors();
            self.line(&format!("{red}{}:{plain} {}", self.prefix(), error.one_line()));
        } else if count == FAILURES_SHOWN_MAX + 1 {
            self.line(&format!("{}: further failures are counted, not shown", self.prefix()));
        }
    }

    /// Says what is done but not as it should be.
    pub(crate) fn warn(&self, text: &str) {
        if self.json {
            self.json_line(&WarningRecord { command: self.command, warning: text });
        } else {
            self.line(&format!("{}: warning: {text}", self.prefix()));
        }
    }

    /// Says something nice to know: not with `--quiet`, not with `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.line(text);
        }
    }

    fn json_line(&self, record: &impl Serialize) {
        match serde_json::to_string(record) {
            Ok(line) => self.line(&line),
            Err(error) => self.line(&format!("{}: {error}", self.prefix())),
        }
    }

    fn line(&self, text: &str) {
        // Nowhere to complain about a standard error that is closed.
        self.progress.around(|| drop(writeln!(io::stderr(), "{text}")));
    }

    fn prefix(&self) -> String {
        format!("doldam: {}", self.command)
    }

    fn colors(&self) -> (&'static str, &'static str, &'static str) {
        if self.color { ("\u{1b}[1;31m", "\u{1b}[36m", "\u{1b}[0m") } else { ("", "", "") }
    }
}

/// Whether the user asked for no colour anywhere (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Says nothing to anyone.
    pub(crate) fn silent() -> Messages {
        Messages {
            command: "test",
            json: false,
            quiet: true,
            color: false,
            progress: Progress::new(false),
        }
    }
}
