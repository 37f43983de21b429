//! From a command to its outcome.

use doldam_proto::FsError;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{Command, Outcome};

use super::draft::{Draft, Finished};
use super::requests::Request;
use super::{
    Applied, NamespaceError, append, attributes, block, complete, create, delete, flush, format,
    garbage, lease, mkdir, node, recover_block, recovery, rename, replica, requests,
};
use crate::engine::tables::{Changes, StoreError, Tables};

/// Decides `command` in the state `tables`.
///
/// The same command in the same state always gives the same outcome and the same changes. A command
/// with a request id that was applied before gives the outcome it had then, without its `dropped`
/// and the blocks to be looked at, and changes nothing. A command from the journal that is refused does not
/// fit this state: the caller must not go on.
///
/// # Errors
/// If the store fails or holds records that contradict each other. The request is then neither
/// refused nor done.
pub fn apply(tables: &dyn Tables, command: &Command) -> Result<Applied, StoreError> {
    match decide(tables, command) {
        Ok((outcome, changes)) => Ok(Applied { outcome: Ok(outcome), changes }),
        Err(NamespaceError::Refused(refusal)) => {
            Ok(Applied { outcome: Err(refusal), changes: Changes::new() })
        }
        Err(NamespaceError::Store(error)) => Err(error),
    }
}

fn decide(tables: &dyn Tables, command: &Command) -> Result<(Outcome, Changes), NamespaceError> {
    let Some(change) = &command.change else {
        return Err(FsError::Internal { what: "a command without a change".to_owned() }.into());
    };
    if let Change::Format(format) = change {
        return format::format(tables, command.time_ms, format);
    }
    let request = command.request.as_ref().map(Request::check).transpose()?;
    if let Some(request) = &request
        && let Some(outcome) = requests::earlier_outcome(tables, request)?
    {
        return Ok((outcome, Changes::new()));
    }
    let client = request.as_ref().map(|request| request.client);
    let mut draft = Draft::new(tables, command.time_ms, client)?;
    let kind = dispatch(&mut draft, change)?;
    let outcome = Outcome { kind: Some(kind), ..Outcome::default() };
    if let Some(request) = &request {
        requests::remember(&mut draft, request, &outcome)?;
    }
    let Finished { changes, dropped, touched_blocks, late_commits } = draft.finish();
    Ok((Outcome { dropped, touched_blocks, late_commits, ..outcome }, changes))
}

fn dispatch(draft: &mut Draft<'_>, change: &Change) -> Result<Kind, NamespaceError> {
    match change {
        Change::Mkdir(command) => mkdir::mkdir(draft, command),
        Change::Create(command) => create::create(draft, command),
        Change::AllocateBlock(command) => block::allocate(draft, command),
        Change::CommitBlocks(command) => block::commit_blocks(draft, command),
        Change::Complete(command) => complete::complete(draft, command),
        Change::Abandon(command) => lease::abandon(draft, *command),
        Change::ExpireLease(command) => lease::expire(draft, command),
        Change::RecoverBlock(command) => recover_block::recover_block(draft, command),
        Change::Flush(command) => flush::flush(draft, command),
        Change::Append(command) => append::append(draft, command),
        Change::BeginRecovery(command) => recovery::begin(draft, *command),
        Change::FinishRecovery(command) => recovery::finish(draft, command),
        Change::Rename(command) => rename::rename(draft, command),
        Change::Delete(command) => delete::delete(draft, command),
        Change::SetReplication(command) => attributes::set_replication(draft, command),
        Change::SetTimes(command) => attributes::set_times(draft, command),
        Change::RegisterNode(command) => node::register(draft, command),
        Change::AddReplica(command) => replica::add(draft, command),
        Change::RemoveReplica(command) => replica::remove(draft, *command),
        Change::MarkBadReplica(command) => replica::mark_bad(draft, *command),
        Change::CollectGarbage(command) => garbage::collect(draft, *command),
        Change::ForgetRequests(command) => requests::forget(draft, *command),
        Change::SetNodeMode(command) => node::set_mode(draft, *command),
        Change::Format(_) => {
            Err(FsError::Internal { what: "format is decided before".to_owned() }.into())
        }
    }
}
