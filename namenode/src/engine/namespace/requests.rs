//! Never twice: the outcome of a client's request is kept under its id until the client has the
//! answer.
//!
//! A retry gets the outcome kept. A client says with each request below which sequence it has all
//! answers; those outcomes are forgotten a batch at a time, and the sequence is kept as the
//! client's floor, so that a duplicate that was delayed on the way is refused and not applied
//! again. Refusals are not kept: they changed nothing.

use doldam_proto::FsError;
use doldam_proto::id::ClientId;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    ForgetRequestsCommand, GarbageOutcome, Outcome, RequestId, RequestRecord,
};
use prost::Message;

use super::NamespaceError;
use super::draft::Draft;
use super::recovery::NAMENODE;
use crate::engine::records::requests::{self, FLOOR};
use crate::engine::records::{BREAK, CONTINUE, damaged, meta};
use crate::engine::tables::{StoreError, Table, Tables};

/// Answered requests that pile up before a batch of them is forgotten.
pub(super) const PRUNE_STEP: u64 = 32;
/// Most requests forgotten together with one command.
pub(super) const PRUNE_MAX: usize = 256;
/// Most requests looked at by one command of forgetting.
pub(super) const FORGET_MAX: u32 = 10_000;

/// A request id, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) client: ClientId,
    sequence: u64,
    answered_below: u64,
}

impl Request {
    /// Checks a request id.
    pub(super) fn check(request: &RequestId) -> Result<Self, FsError> {
        let refuse = |field: &str, why| {
            Err(FsError::InvalidArgument { field: format!("request.{field}"), why })
        };
        let Some(client) = ClientId::from_slice(&request.client_id) else {
            return refuse("client_id", format!("{} bytes, not 16", request.client_id.len()));
        };
        if client == NAMENODE {
            return refuse("client_id", "all zeros are no client's".to_owned());
        }
        let (sequence, answered_below) = (request.sequence, request.answered_below);
        if sequence == FLOOR {
            return refuse("sequence", "counts from 1".to_owned());
        }
        if answered_below > sequence {
            let why = format!("{answered_below} is beyond the request's own sequence {sequence}");
            return refuse("answered_below", why);
        }
        Ok(Self { client, sequence, answered_below })
    }
}

/// The outcome this request had when it was applied before.
pub(super) fn earlier_outcome(
    tables: &dyn Tables,
    request: &Request,
) -> Result<Option<Outcome>, NamespaceError> {
    if let Some(record) = requests::get(tables, request.client, request.sequence)? {
        let outcome = Outcome::decode(record.outcome).map_err(|error| {
            damaged(Table::Requests, format!("an outcome does not decode: {error}"))
        })?;
        return Ok(Some(outcome));
    }
    let floor = floor(tables, request.client)?;
    if request.sequence < floor {
        let sequence = request.sequence;
        let why = format!("request {sequence} was answered: every one below {floor} was");
        return Err(FsError::InvalidArgument { field: "request.sequence".to_owned(), why }.into());
    }
    Ok(None)
}

/// Keeps the outcome, and forgets what the client has answers to.
pub(super) fn remember(
    draft: &mut Draft<'_>,
    request: &Request,
    outcome: &Outcome,
) -> Result<(), NamespaceError> {
    let record = RequestRecord {
        time_ms: draft.time_ms,
        outcome: outcome.encode_to_vec().into(),
        answered_below: 0,
    };
    requests::put(&mut draft.set, request.client, request.sequence, &record);
    if request.answered_below >= PRUNE_STEP {
        prune(draft, request)?;
    }
    Ok(())
}

fn prune(draft: &mut Draft<'_>, request: &Request) -> Result<(), NamespaceError> {
    let floor = floor(&draft.set, request.client)?;
    if request.answered_below < floor.saturating_add(PRUNE_STEP) {
        return Ok(());
    }
    let mut answered = Vec::new();
    let mut new_floor = request.answered_below;
    requests::scan_sequences(&draft.set, request.client, floor.max(FLOOR + 1), &mut |sequence| {
        if sequence >= request.answered_below {
            return BREAK;
        }
        if answered.len() == PRUNE_MAX {
            new_floor = sequence;
            return BREAK;
        }
        answered.push(sequence);
        CONTINUE
    })?;
    for sequence in answered {
        requests::delete(&mut draft.set, request.client, sequence);
    }
    let record = RequestRecord {
        time_ms: draft.time_ms,
        answered_below: new_floor,
        ..RequestRecord::default()
    };
    requests::put(&mut draft.set, request.client, FLOOR, &record);
    Ok(())
}

fn floor(tables: &dyn Tables, client: ClientId) -> Result<u64, StoreError> {
    Ok(requests::get(tables, client, FLOOR)?.map_or(0, |record| record.answered_below))
}

/// Forgets the requests of clients that went away: looks at the next `max_items` and removes those
/// older than `older_than_ms`, which must lie further back than any retry or delayed duplicate.
pub(super) fn forget(
    draft: &mut Draft<'_>,
    command: ForgetRequestsCommand,
) -> Result<Kind, NamespaceError> {
    let max = command.max_items.clamp(1, FORGET_MAX) as usize;
    let before = meta::forgotten_to(&draft.set)?;
    let mut old = Vec::new();
    let mut seen = 0;
    let mut last = None;
    requests::scan_after(&draft.set, &before, &mut |client, sequence, record| {
        if seen == max {
            return BREAK;
        }
        seen += 1;
        last = Some((client, sequence));
        if record.time_ms < command.older_than_ms {
            old.push((client, sequence));
        }
        CONTINUE
    })?;
    for (client, sequence) in &old {
        requests::delete(&mut draft.set, *client, *sequence);
    }
    let more = seen == max;
    match last.filter(|_| more) {
        Some((client, sequence)) => {
            meta::put_forgotten_to(&mut draft.set, Some(&requests::key(client, sequence)));
        }
        None if before.is_empty() => {}
        None => meta::put_forgotten_to(&mut draft.set, None),
    }
    Ok(Kind::Garbage(GarbageOutcome { more, items: old.len() as u32 }))
}
