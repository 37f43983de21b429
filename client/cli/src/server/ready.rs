//! The one line that a server prints when it serves; whoever started it waits for this line.

use std::fmt;

use serde::Serialize;

/// A server that serves.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyRecord {
    /// `namenode` or `datanode`.
    pub(crate) ready: &'static str,
    /// `HOST:PORT` where it listens.
    pub(crate) address: String,
    /// `HOST:PORT` of its pages for people and monitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
}

impl fmt::Display for ReadyRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ready at {}", self.ready, self.address)?;
        match &self.http {
            Some(http) => write!(formatter, ", metrics and health at http://{http}/"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_easy_to_parse() {
        let mut ready = ReadyRecord { ready: "namenode", address: "a:1".into(), http: None };
        assert_eq!(ready.to_string(), "namenode ready at a:1");
        ready.http = Some("a:2".into());
        assert!(ready.to_string().ends_with("http://a:2/"));
    }
}
