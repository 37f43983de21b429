//! Logs on standard error, and the trace id that follows a request from node to node.
//!
//! A request gets its id where it starts (a client's call, a repair). It travels as metadata of gRPC calls and as
//! the `trace` field of block-stream requests; each node logs it in a span `request{trace}`.

use std::fmt;
use std::io;
use std::str::FromStr;

use http::HeaderMap;
use tonic::metadata::MetadataMap;
use tracing::{Span, info_span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::random::Random;

/// Metadata key of a trace id.
pub const TRACE_KEY: &str = "doldam-trace";
/// Variable that overrides the level: a level, or directives such as `info,doldam_datanode=debug`.
pub const LOG_VARIABLE: &str = "DOLDAM_LOG";
/// Longest trace id that is taken from a peer.
const TRACE_CHARS_MAX: usize = 64;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format; known are text and json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What to log, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Filter directives: a level, or `target=level` separated by commas.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl LogOptions {
    /// For client commands: warnings only.
    pub fn quiet() -> Self {
        Self { filter: "warn".to_owned(), format: LogFormat::Text }
    }

    /// For servers: what Doldam does, and warnings of its libraries.
    pub fn server() -> Self {
        let filter =
            "warn,doldam=info,doldam_namenode=info,doldam_datanode=info,doldam_runtime=info";
        Self { filter: filter.to_owned(), format: LogFormat::Text }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives cannot be read.
    #[error("{filter:?} is no log filter")]
    BadFilter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process logs already.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Starts to log to standard error. `overriding` is the value of [`LOG_VARIABLE`] if that is set and not empty.
///
/// # Errors
/// If the filter cannot be read, or the process logs already.
pub fn init_logging(options: &LogOptions, overriding: Option<&str>) -> Result<(), LogError> {
    let filter = overriding.filter(|text| !text.is_empty()).unwrap_or(&options.filter);
    let filter = parse_filter(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_timer(SystemTime);
    let set = match options.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| LogError::AlreadySet)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::BadFilter { filter: filter.to_owned(), source })
}

/// Id of a request, the same on every node it touches. Letters, digits and `-` only, so that it can be searched
/// for and pasted anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceId(String);

impl TraceId {
    /// A new one.
    pub fn new(random: &dyn Random) -> Self {
        Self(format!("{:016x}", random.next_u64()))
    }

    /// What a peer sent; nothing if it breaks the rules, for a log is not worth a refusal.
    pub fn from_peer(text: &str) -> Self {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let valid = text.len() <= TRACE_CHARS_MAX && text.bytes().all(fits);
        Self(if valid { text.to_owned() } else { String::new() })
    }

    /// As the `trace` field of a block-stream request carries it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The span that a node works in for a request.
pub fn request_span(trace: &TraceId) -> Span {
    info_span!("request", %trace)
}

/// Sends `trace` along with a gRPC call: `inject_trace(request.metadata_mut(), &trace)`.
pub fn inject_trace(metadata: &mut MetadataMap, trace: &TraceId) {
    // Letters, digits and `-` are valid in any header.
    if let Ok(value) = trace.as_str().parse() {
        metadata.insert(TRACE_KEY, value);
    }
}

/// The trace id that came with a gRPC call; empty if none did.
pub fn extract_trace(metadata: &MetadataMap) -> TraceId {
    let text = metadata.get(TRACE_KEY).and_then(|value| value.to_str().ok());
    TraceId::from_peer(text.unwrap_or_default())
}

/// As [`extract_trace`], from bare headers.
pub(crate) fn trace_of_headers(headers: &HeaderMap) -> TraceId {
    let text = headers.get(TRACE_KEY).and_then(|value| value.to_str().ok());
    TraceId::from_peer(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn a_trace_id_survives_the_metadata_of_a_call() {
        let trace = TraceId::new(&SeededRandom::new(1));
        assert_eq!(trace.as_str().len(), 16);
        let mut metadata = MetadataMap::new();
        assert_eq!(extract_trace(&metadata), TraceId::default());
        inject_trace(&mut metadata, &trace);
        assert_eq!(extract_trace(&metadata), trace);
        assert_eq!(trace_of_headers(&metadata.into_headers()), trace);
    }

    #[test]
    fn what_could_forge_a_line_of_the_log_is_no_trace_id() {
        let too_long = "a".repeat(TRACE_CHARS_MAX + 1);
        for text in ["a\nb", "a b", "a\"b", "ü", "\u{1b}[31m", &too_long] {
            assert_eq!(TraceId::from_peer(text), TraceId::default(), "{text:?}");
        }
        assert_eq!(TraceId::from_peer("Ab-9").as_str(), "Ab-9");
    }

    #[test]
    fn filters_of_our_own_are_valid_and_others_are_named() {
        for options in [LogOptions::quiet(), LogOptions::server()] {
            assert!(parse_filter(&options.filter).is_ok(), "{options:?}");
        }
        let refusal = parse_filter("info,doldam=loud").unwrap_err();
        assert_eq!(refusal.to_string(), "\"info,doldam=loud\" is no log filter");
    }

    #[test]
    fn formats_are_read_as_they_are_printed() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
