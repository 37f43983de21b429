//! Standard output: the result of a command, as text or as JSON.
//!
//! A command prints records. In text mode a record is printed by its [`Display`](fmt::Display), one
//! or more lines; with `--json` it is one JSON object on one line, whose fields are those of the
//! struct, never renamed and never removed within a major version. Lists are one object per line,
//! so that a directory of a million entries is neither held in memory nor waited for.

pub(crate) mod entry;
pub(crate) mod sink;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod time;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use crate::error::CommandError;

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 64 * 1024;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people, one record after another.
    Text,
    /// One JSON object per line.
    Json,
}

/// The result's way out.
pub(crate) struct Output {
    writer: Box<dyn Write + Send>,
    format: Format,
    /// Each record leaves at once: someone is watching.
    flush_each: bool,
}

impl Output {
    /// Prints to the process's standard output.
    ///
    /// # Errors
    /// If it is closed.
    pub(crate) fn standard(format: Format) -> io::Result<Self> {
        let flush_each = io::stdout().is_terminal();
        Ok(Self {
            writer: Box::new(BufWriter::with_capacity(BUFFER_BYTES, raw_stdout()?)),
            format,
            flush_each,
        })
    }

    /// Whether records are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one record in the chosen format.
    ///
    /// # Errors
    /// If standard output does not take it.
    pub(crate) fn record<R: Serialize + fmt::Display>(
        &mut self,
        record: &R,
    ) -> Result<(), CommandError> {
        match self.format {
            Format::Text => self.text(record),
            Format::Json => {
                let line = serde_json::to_string(record)
                    .map_err(|error| CommandError::Output(io::Error::other(error)))?;
                self.text(&line)
            }
        }
    }

    /// Prints a line whatever the format.
    ///
    /// # Errors
    /// If standard output does not take it.
    pub(crate) fn text<T: fmt::Display + ?Sized>(&mut self, line: &T) -> Result<(), CommandError> {
        writeln!(self.writer, "{line}").map_err(CommandError::Output)?;
        if self.flush_each { self.flush() } else { Ok(()) }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// If standard output does not take them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.writer.write_all(bytes).map_err(CommandError::Output)
    }

    /// Hands everything printed so far to the system.
    ///
    /// # Errors
    /// If standard output does not take it.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.writer.flush().map_err(CommandError::Output)
    }
}

/// Standard output without the line buffer that the standard library puts before it.
///
/// # Errors
/// If it is closed.
pub(crate) fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Standard input, unbuffered.
///
/// # Errors
/// If it is closed.
pub(crate) fn raw_stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        /// An output that keeps what is printed to it.
        pub(crate) fn output(&self, format: Format) -> Output {
            Output { writer: Box::new(self.clone()), format, flush_each: true }
        }

        /// All of it.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Printed {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Printed;
    use super::*;

    #[derive(Serialize)]
    struct Name {
        name: &'static str,
    }

    impl fmt::Display for Name {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "it is {}", self.name)
        }
    }

    #[test]
    fn a_record_is_one_line_in_either_format() {
        for (format, expected) in
            [(Format::Text, "it is a\"b\n"), (Format::Json, "{\"name\":\"a\\\"b\"}\n")]
        {
            let printed = Printed::default();
            printed.output(format).record(&Name { name: "a\"b" }).unwrap();
            assert_eq!(printed.text(), expected);
        }
    }
}
