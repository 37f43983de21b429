//! `bench meta`: metadata operations per second, and how long each takes.

use std::fmt;
use std::sync::Arc;

use doldam_client::{Client, ClientError, WriteOptions};
use futures::StreamExt;
use serde::Serialize;

use super::Workplace;
use super::workers::{LatencySummary, whole_rate, work};
use crate::args::parse_remote;
use crate::command::CommandResult;
use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::output::table::table;
use crate::session::Session;

/// Entries of the directory that is listed.
const LISTED_ENTRIES: u64 = 100;

/// Measure metadata operations.
///
/// Each of the clients works in a directory of its own: mkdir, create and close of empty files,
/// stat, list of a directory with 100 entries, rename, delete. Everything is deleted afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  doldam bench meta
  doldam bench meta --clients 64 --ops 100000 --connections 4
  doldam bench meta --json")]
pub(crate) struct MetaArgs {
    /// Calls in flight at once.
    #[arg(long, default_value_t = 32, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,

    /// Calls of each operation.
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    ops: u64,

    /// Connections to the namenode.
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,

    /// Directory in the cluster to work in.
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = parse_remote)]
    path: String,
}

/// All operations.
#[derive(Debug, Serialize)]
struct MetaRecord {
    /// Calls in flight at once.
    clients: u16,
    /// Connections to the namenode.
    connections: u8,
    /// What was measured, in this order.
    operations: Vec<Measured>,
}

/// One operation.
#[derive(Debug, Serialize)]
struct Measured {
    /// Its name.
    operation: &'static str,
    /// How often it was called.
    calls: u64,
    /// Calls a second, all clients together.
    per_second: f64,
    /// How long a call took.
    #[serde(flatten)]
    latencies: LatencySummary,
}

impl fmt::Display for MetaRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} clients over {} connections; latencies in ms:",
            self.clients, self.connections
        )?;
        let rows = self.operations.iter().map(|measured| {
            let [p50, p99, p999, max] = measured.latencies.columns();
            [measured.operation.to_owned(), whole_rate(measured.per_second), p50, p99, p999, max]
        });
        let [p50, p99, p999, max] = LatencySummary::HEADER;
        let header = ["operation", "per second", p50, p99, p999, max];
        formatter.write_str(&table(header, rows.collect(), &[1, 2, 3, 4, 5]))
    }
}

/// Does it.
///
/// # Errors
/// If any call fails.
pub(crate) async fn run(session: &mut Session, args: MetaArgs) -> CommandResult {
    let channels = usize::from(args.connections);
    let client = session.connect_with(|config| config.metadata_channels = channels).await?;
    let workplace = Workplace::make(session, &client, &args.path).await?;
    let measured = measure(session, &client, &workplace, &args).await;
    let removed = workplace.remove(&client).await;
    let operations = measured?;
    let (clients, connections) = (args.clients, args.connections);
    session.output.record(&MetaRecord { clients, connections, operations })?;
    removed?;
    Ok(ExitCode::Done)
}

async fn measure(
    session: &Session,
    client: &Client,
    workplace: &Workplace,
    args: &MetaArgs,
) -> Result<Vec<Measured>, CommandError> {
    let clients = u64::from(args.clients);
    let base: Arc<str> = workplace.path.as_str().into();
    for index in 0..clients {
        prepare(client, &format!("{base}/c{index}"), 0).await?;
    }
    prepare(client, &format!("{base}/listed"), LISTED_ENTRIES).await?;
    let mut measured = Vec::new();
    for operation in Operation::ALL {
        let (name, client, base) = (operation.name(), client.clone(), Arc::clone(&base));
        let call = move |_worker, op: u64| {
            let (client, base) = (client.clone(), Arc::clone(&base));
            async move {
                let called = operation.call(&client, &base, op % clients, op).await;
                called.map_err(CommandError::cluster("measure", name))
            }
        };
        let worked = work(&session.seams, clients, args.ops, name, call).await?;
        measured.push(Measured {
            operation: name,
            calls: args.ops,
            per_second: worked.per_second(args.ops),
            latencies: worked.latencies.summary(),
        });
    }
    Ok(measured)
}

/// What is measured; each leaves behind what the next needs.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Mkdir,
    Create,
    Stat,
    List,
    Rename,
    Delete,
}

impl Operation {
    const ALL: [Self; 6] =
        [Self::Mkdir, Self::Create, Self::Stat, Self::List, Self::Rename, Self::Delete];

    fn name(self) -> &'static str {
        match self {
            Self::Mkdir => "mkdir",
            Self::Create => "create+close",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Rename => "rename",
            Self::Delete => "delete",
        }
    }

    /// Does it once, for number `op` of this operation.
    async fn call(self, client: &Client, base: &str, directory: u64, op: u64) -> Called {
        let path = |kind: char| format!("{base}/c{directory}/{kind}{op}");
        match self {
            Self::Mkdir => client.mkdir(path('d'), false).await.map(drop),
            Self::Create => client.create_empty(path('f'), WriteOptions::default()).await.map(drop),
            Self::Stat => client.stat(path('f')).await.map(drop),
            Self::List => list(client, &format!("{base}/listed")).await,
            Self::Rename => client.rename(path('f'), path('g'), false).await,
            Self::Delete => client.delete(path('g'), false).await,
        }
    }
}

type Called = Result<(), ClientError>;

/// Makes a directory with `entries` directories in it.
async fn prepare(client: &Client, path: &str, entries: u64) -> Result<(), CommandError> {
    let made = client.mkdir(path, true).await;
    made.map_err(CommandError::cluster("create the directory", path))?;
    for entry in 0..entries {
        let child = format!("{path}/{entry}");
        let made = client.mkdir(&child, true).await;
        made.map_err(CommandError::cluster("create the directory", child))?;
    }
    Ok(())
}

async fn list(client: &Client, path: &str) -> Result<(), ClientError> {
    let mut entries = client.list(path);
    while let Some(entry) = entries.next().await {
        entry?;
    }
    Ok(())
}
