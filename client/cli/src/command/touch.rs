//! `touch`: makes empty files, or sets the time of last change.

use doldam_client::Client;

use crate::args::{WriteArgs, parse_remote};
use crate::command::CommandResult;
use crate::command::put::write_options;
use crate::destination::remote_path;
use crate::error::CommandError;
use crate::output::entry::{EntryRecord, EntryStyle};
use crate::session::Session;
use crate::sources::Outcomes;

/// Create empty files, or set the time of last change of existing ones to now.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam touch /jobs/done
  doldam touch -c /logs/app.log         not if it is missing")]
pub(crate) struct TouchArgs {
    /// Files or directories in the cluster.
    #[arg(required = true, value_name = "PATH", value_parser = parse_remote)]
    paths: Vec<String>,

    /// Do not create what is missing.
    #[arg(long, short = 'c')]
    no_create: bool,

    #[command(flatten)]
    write: WriteArgs,
}

/// Does it.
///
/// # Errors
/// If the cluster cannot be reached or standard output fails.
pub(crate) async fn run(session: &mut Session, args: TouchArgs) -> CommandResult {
    let client = session.connect().await?;
    let mut outcomes = Outcomes::default();
    for typed in &args.paths {
        let touched = touch(session, &client, typed, &args).await;
        if let Some(Some(record)) = outcomes.take(session, touched)? {
            session.changed(&record)?;
        }
    }
    Ok(outcomes.exit_code())
}

async fn touch(
    session: &Session,
    client: &Client,
    typed: &str,
    args: &TouchArgs,
) -> Result<Option<EntryRecord>, CommandError> {
    let path = remote_path(typed)?;
    let error = || CommandError::cluster("touch", &path);
    let existing = client.try_stat(&path).await.map_err(error())?;
    let status = if existing.is_some() {
        let now_ms = session.seams.clock.wall_ms();
        client.set_modified(&path, now_ms).await.map_err(error())?;
        client.stat(&path).await.map_err(error())?
    } else if args.no_create {
        return Ok(None);
    } else {
        let settings = session.settings.clone().with_write(&args.write);
        client.create_empty(&path, write_options(&settings)).await.map_err(error())?.status
    };
    let style = EntryStyle { long: true, ..EntryStyle::default() };
    Ok(Some(EntryRecord::new(&path, &status).styled(style)))
}
