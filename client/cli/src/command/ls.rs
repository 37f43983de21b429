//! `ls`: what is in directories, page by page.

use doldam_client::Client;
use futures::StreamExt;

use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::output::entry::{EntryRecord, EntryStyle};
use crate::remote_tree::{RemoteEntry, RemoteWalk, joined};
use crate::session::Session;
use crate::sources::Outcomes;

/// List directories.
///
/// Names come in byte order, directories with a `/` behind them. With -l: kind, replicas, size in
/// bytes, last change (UTC) and name.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  doldam ls /logs
  doldam ls -lh '/logs/2026-*'
  doldam ls -R / --json | jq -r .path"
)]
pub(crate) struct LsArgs {
    /// Directories, files or patterns in the cluster.
    #[arg(default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Everything about each entry, not only its name.
    #[arg(long, short = 'l')]
    long: bool,

    /// All that is below, too, with whole paths.
    #[arg(long, short = 'R')]
    recursive: bool,

    /// A directory itself instead of what is in it.
    #[arg(long, short = 'd', conflicts_with = "recursive")]
    directory: bool,

    /// Sizes with units.
    #[arg(long = "human-readable", short = 'h')]
    human: bool,

    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: LsArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    let entries = outcomes.expand(session, &client, "list", &args.paths).await;
    let style = EntryStyle {
        name: None,
        long: args.long,
        human: args.human,
        color: session.colors_output(),
    };
    let titled = entries.len() > 1 && !session.output.is_json() && !args.recursive;
    let (directories, files): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.status.is_dir() && !args.directory);
    for entry in &files {
        let printed = session.output.record(&EntryRecord::from(entry).styled(style.clone()));
        outcomes.take(session, printed)?;
    }
    let mut needs_gap = !files.is_empty();
    for entry in directories {
        if titled {
            let gap = if needs_gap { "\n" } else { "" };
            session.output.text(&format!("{gap}{}:", entry.path))?;
            needs_gap = true;
        }
        let listed = if args.recursive {
            list_tree(session, &client, entry, &style).await
        } else {
            list(session, &client, &entry, &style).await
        };
        outcomes.take(session, listed)?;
    }
    Ok(outcomes.exit_code())
}

/// Prints what is in `directory`.
async fn list(
    session: &mut Session,
    client: &Client,
    directory: &RemoteEntry,
    style: &EntryStyle,
) -> Result<(), CommandError> {
    let mut entries = client.list(&directory.path);
    while let Some(status) = entries.next().await {
        let status = status.map_err(CommandError::cluster("list", &directory.path))?;
        let path = joined(&directory.path, &status.path)?;
        let style = EntryStyle { name: Some(status.path.clone()), ..style.clone() };
        session.output.record(&EntryRecord::new(path, &status).styled(style))?;
    }
    Ok(())
}

/// Prints what is below `directory`, with whole paths.
async fn list_tree(
    session: &mut Session,
    client: &Client,
    directory: RemoteEntry,
    style: &EntryStyle,
) -> Result<(), CommandError> {
    let mut walk = RemoteWalk::new(client, directory);
    while let Some(entry) = walk.next().await {
        let (entry, level) = entry?;
        if level > 0 {
            session.output.record(&EntryRecord::from(&entry).styled(style.clone()))?;
        }
    }
    Ok(())
}
