//! Going on with a block whose pipeline broke: a new generation, written to other nodes.

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{BlockRecord, RecoverBlockCommand, RecoverBlockOutcome};

use super::NamespaceError;
use super::block::{check_targets, mismatch, own_block};
use super::draft::Draft;
use super::lease::{Write, require_write};
use super::open_block::{
    drop_written, floor, floor_holders, has_flushed, in_progress, newest, renew,
};
use super::resolve::ascend;
use crate::engine::records::blocks;

/// Hands out the next generation of a block that is being written, to go on behind `length` bytes that `holders` have.
///
/// Who is no longer written to drops its part, unless readers see it or it is on stable storage.
pub(super) fn recover_block(
    draft: &mut Draft<'_>,
    command: &RecoverBlockCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    let id = BlockId(command.block_id);
    let (index, before) = own_block(draft, &write, id, Generation(command.generation))?;
    check(draft, &write, &before, command)?;
    let mut after = before.clone();
    let generation = renew(&mut after, command.targets.clone());
    if let Some(flushed) = &mut after.flushed {
        let more = command.holders.iter().filter(|node| !flushed.nodes.contains(node));
        let more: Vec<u32> = more.copied().collect();
        flushed.nodes.extend(more);
    }
    let stays = |node: &u32| command.targets.contains(node) || has_flushed(&after, *node);
    let before_targets = in_progress(&before).map_or(&[][..], |writing| writing.targets);
    let left: Vec<u32> = before_targets.iter().filter(|node| !stays(node)).copied().collect();
    drop_written(draft, &before, newest(&before), &left);
    blocks::put(&mut draft.set, write.id, index, &after);
    Ok(Kind::RecoverBlock(RecoverBlockOutcome {
        generation,
        index,
        length: command.length,
        holders: command.holders.clone(),
        targets: command.targets.clone(),
    }))
}

fn check(
    draft: &Draft<'_>,
    write: &Write,
    before: &BlockRecord,
    command: &RecoverBlockCommand,
) -> Result<(), NamespaceError> {
    let refuse = |why: String| Err(NamespaceError::from(mismatch(before, why)));
    let wrong = |field: &str, why: String| {
        Err(NamespaceError::from(FsError::InvalidArgument { field: field.to_owned(), why }))
    };
    let Some(writing) = in_progress(before) else {
        return refuse("is finished: there is nothing to go on with".to_owned());
    };
    if command.generation > writing.generation {
        return refuse(format!("generation {} was never handed out", command.generation));
    }
    if command.targets.is_empty() {
        let path = ascend(&draft.set, write.id, &write.inode)?.for_people();
        return Err(FsError::NoDatanodes { path, refusals: Vec::new() }.into());
    }
    check_targets(draft, "targets", &command.targets)?;
    if !command.targets.starts_with(&command.holders) {
        return wrong("holders", "are not the first of the targets".to_owned());
    }
    let (length, least) = (command.length, floor(before));
    if length < least || length > write.file.block_bytes {
        return wrong("length", format!("{length} is not from {least} to a whole block"));
    }
    if (length == 0) != command.holders.is_empty() {
        return wrong("holders", format!("{} have {length} bytes", command.holders.len()));
    }
    let known = floor_holders(before);
    let may_hold = |node: &u32| writing.targets.contains(node) || known.contains(node);
    match command.holders.iter().find(|node| !may_hold(node)) {
        Some(node) => wrong("holders", format!("datanode {node} was not written to")),
        None => Ok(()),
    }
}
