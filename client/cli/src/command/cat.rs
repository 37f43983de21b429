//! `cat`: files, one after another, to standard output.

use doldam_client::Client;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::sink::Sink;
use crate::remote_tree::RemoteEntry;
use crate::session::Session;
use crate::sources::{Outcomes, must_be_file};
use crate::summary::VerificationRecord;

/// Print the content of files, every byte verified.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam cat /logs/app.log | grep error
  doldam cat '/logs/2026-03-*.gz' | gunzip")]
pub(crate) struct CatArgs {
    /// Files or patterns in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: CatArgs) -> CommandResult {
    pour(session, &args.paths).await
}

/// Writes the content of everything that `typed` means to standard output.
///
/// # Errors
/// As [`run`].
pub(crate) async fn pour(session: &mut Session, typed: &[String]) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let entries = outcomes.expand(session, &client, "read", typed).await;
    session.progress.start("read");
    for entry in &entries {
        session.progress.expect_file(entry.status.length);
    }
    let mut sink = Sink::standard()?;
    for entry in &entries {
        let poured = pour_one(session, &client, entry, &mut sink).await;
        if outcomes.take(session, poured)? == Some(false) {
            break;
        }
    }
    sink.finish().await?;
    Ok(outcomes.exit_code())
}

/// Returns whether anyone still reads.
async fn pour_one(
    session: &Session,
    client: &Client,
    entry: &RemoteEntry,
    sink: &mut Sink,
) -> Result<bool, CommandError> {
    must_be_file("read", entry)?;
    let progress = session.progress.start_file(entry.path.as_str(), Some(entry.status.length));
    let opened = client.open(&entry.path).await;
    let mut reader = opened.map_err(CommandError::cluster("read", &entry.path))?;
    let poured = sink.pour(&mut reader, &*progress.advance()).await;
    let verification = VerificationRecord::from(&reader.verification());
    for text in verification.warnings(entry.path.as_str()) {
        session.messages.warn(&text);
    }
    let goes_on = poured.map_err(CommandError::cluster("read", &entry.path))?;
    progress.done();
    Ok(goes_on)
}
