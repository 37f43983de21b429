//! The thread that owns writes.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::{BlockId, Generation, JournalIndex, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{Command, Outcome};
use doldam_runtime::planted::{Bug, is_planted};

use super::checkpoint::Checkpoints;
use super::progress::Held;
use super::queue::{Proposal, Taken};
use super::{News, Shared, StartError};
use crate::engine::namespace::apply;
use crate::engine::tables::{Changes, StoreError, Table};
use crate::journal::{JournalError, Record};

/// Commands applied between two hand-overs to the journal.
const BATCH_COMMANDS_MAX: usize = 256;
/// How long the thread sleeps at the most when there is nothing to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the thread ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriterError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the metadata store could not write a checkpoint")]
    Checkpoint,
}

/// Works until the queue is closed, then writes a last checkpoint and closes the journal.
pub(super) async fn run(shared: &Arc<Shared>, checkpoints: Checkpoints) -> Result<(), WriterError> {
    let guard = FailOnExit { shared, is_clean: false };
    let result = work(shared, checkpoints).await;
    if let Err(cause) = &result {
        shared.fail(cause);
    }
    shared.journal.close();
    guard.done();
    result
}

async fn work(shared: &Arc<Shared>, mut checkpoints: Checkpoints) -> Result<(), WriterError> {
    loop {
        match shared.queue.take(PATIENCE).await {
            Taken::Proposals(mut proposals) => {
                while !proposals.is_empty() {
                    let count = proposals.len().min(BATCH_COMMANDS_MAX);
                    shared.journal.room().await;
                    decide(shared, proposals.drain(..count))?;
                    checkpoints.keep_up(shared).await?;
                }
                checkpoints.keep_up(shared).await?;
            }
            Taken::Closed => return checkpoints.finish(shared).await,
        }
    }
}

/// Applies a batch of proposals and hands their records to the journal.
fn decide(
    shared: &Arc<Shared>,
    proposals: impl Iterator<Item = Proposal>,
) -> Result<(), WriterError> {
    let mut records = Vec::new();
    let mut held = Held::default();
    for Proposal { command, payload, answer } in proposals {
        let applied = {
            let store = shared.store.read();
            apply(&*store, &command)?
        };
        let mut outcome = applied.outcome;
        if !applied.changes.is_empty() {
            if let Ok(outcome) = &mut outcome {
                collect_news(&mut held.news, &command, outcome, &applied.changes);
            }
            let mut store = shared.store.write();
            let index = store.applied_index().next();
            store.commit(applied.changes, index);
            drop(store);
            records.push(Record { index, epoch: shared.epoch, payload });
        }
        held.answers.push((answer, outcome));
    }
    let last = records.last().map(|record| record.index);
    let rests_on = last.unwrap_or_else(|| shared.store.read().applied_index());
    let rests_on = if is_planted(Bug::AnswerBeforeJournal) { JournalIndex(0) } else { rests_on };
    if let Some(mut news) = shared.progress.hold(rests_on, held) {
        shared.add_news(&mut news);
    }
    match last {
        Some(last) => Ok(append(shared, records, last)?),
        None => Ok(()),
    }
}

fn append(
    shared: &Arc<Shared>,
    records: Vec<Record>,
    last: JournalIndex,
) -> Result<(), JournalError> {
    let progress = Arc::clone(shared);
    shared.journal.append(
        records,
        Box::new(move |written| match written {
            Ok(()) => progress.progress.advance(last, |news| progress.add_news(news)),
            Err(cause) => progress.fail(&cause),
        }),
    )
}

/// What a change means for repair, taken out of the outcome, which its client needs not.
fn collect_news(news: &mut News, command: &Command, outcome: &mut Outcome, changes: &Changes) {
    let is_in_debt_or_was = |block: &u64| changes.get(Table::Debts, &block.to_be_bytes()).is_some();
    let touched = std::mem::take(&mut outcome.touched_blocks);
    news.touched.extend(touched.into_iter().filter(is_in_debt_or_was).map(BlockId));
    news.touched.extend(std::mem::take(&mut outcome.late_commits).into_iter().map(BlockId));
    let dropped = std::mem::take(&mut outcome.dropped).into_iter();
    let dropped = dropped.map(|replica| {
        (NodeId(replica.node_id), BlockId(replica.block_id), Generation(replica.generation))
    });
    match &command.change {
        // The replica a new one replaces stays on its node until it is confirmed that it is not needed.
        Some(Change::AddReplica(add)) => {
            news.unowned.extend(dropped.filter(|(node, _, _)| node.0 == add.node_id));
        }
        // Whoever proposed the removal knows whether the node is to drop the replica.
        Some(Change::RemoveReplica(_)) => {}
        Some(_) | None => news.unowned.extend(dropped),
    }
}

/// Lets nobody wait for a thread that panicked.
struct FailOnExit<'a> {
    shared: &'a Shared,
    is_clean: bool,
}

impl FailOnExit<'_> {
    fn done(mut self) {
        self.is_clean = true;
    }
}

impl Drop for FailOnExit<'_> {
    fn drop(&mut self) {
        if !self.is_clean {
            self.shared.fail(&StartError::Panicked);
        }
    }
}
