//! `admin health`: asks one server's health page, for images that have nothing but `doldam` to ask with.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::args::parse_address;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::session::Session;

/// Longest wait for the whole answer, unless --timeout says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Ask the health page of one server; the answer is the exit code: 0 healthy, 1 not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam admin health 127.0.0.1:8021
  healthcheck: { test: [CMD, /doldam, admin, health, \"127.0.0.1:8021\"] }   (in a compose file)")]
pub(crate) struct HealthArgs {
    /// What the server was given as --http.
    #[arg(value_name = "HOST:PORT", value_parser = parse_address)]
    http: String,
}

/// The answer.
#[derive(Debug, Serialize)]
struct HealthRecord {
    /// Who was asked.
    address: String,
    /// Whether it does its work.
    healthy: bool,
    /// What its page says besides.
    details: Value,
}

impl fmt::Display for HealthRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.healthy { "healthy" } else { "not healthy" };
        write!(formatter, "{}: {word}: {}", self.address, self.details)
    }
}

/// Does it.
///
/// # Errors
/// If the page cannot be reached, or answers something else.
pub(crate) async fn run(session: &mut Session, args: HealthArgs) -> CommandResult {
    let limit = session.settings.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let answer = match timeout(limit, ask(session, &args.http)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unmet(&args.http, &error.to_string())),
        Err(_elapsed) => return Err(unmet(&args.http, &format!("no answer within {limit:?}"))),
    };
    let Some((healthy, details)) = parse(&answer) else {
        return Err(unmet(&args.http, "what answers is no health page"));
    };
    session.output.record(&HealthRecord { address: args.http, healthy, details })?;
    Ok(if healthy { ExitCode::Done } else { ExitCode::AnswerIsNo })
}

fn unmet(address: &str, why: &str) -> CommandError {
    CommandError::Unmet {
        what: format!("cannot ask the health page at {address}: {why}"),
        next_step: "give the HOST:PORT of the server's --http".to_owned(),
    }
}

async fn ask(session: &Session, address: &str) -> io::Result<Vec<u8>> {
    let mut stream = session.seams.net.connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Whether the server is healthy, and the body; `None` if it is no answer of a health page.
fn parse(answer: &[u8]) -> Option<(bool, Value)> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let details = serde_json::from_str(body).ok()?;
    match status {
        "200" => Some((true, details)),
        "503" => Some((false, details)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_status() {
        let answer = |status: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\r\n{{\"a\":1}}")
        };
        let details = serde_json::json!({ "a": 1 });
        assert_eq!(parse(answer("200 OK").as_bytes()), Some((true, details.clone())));
        assert_eq!(parse(answer("503 Service Unavailable").as_bytes()), Some((false, details)));
        assert_eq!(parse(answer("404 Not Found").as_bytes()), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\nnot json"), None);
        assert_eq!(parse(b"SSH-2.0"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"\xff\xff"), None);
    }
}
