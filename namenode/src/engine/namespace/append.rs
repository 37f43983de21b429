//! Opening a closed file to be written on, behind its end or behind a cut.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::path::FsPath;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AppendCommand, AppendOutcome, BlockRecord, FileRecord, InodeRecord, OpenBlock, PendingWrite,
};

use super::NamespaceError;
use super::aside::put_aside;
use super::block::{check_targets, mismatch};
use super::create::{free_the_path, lease_held};
use super::draft::Draft;
use super::open_block::newest;
use super::resolve::{not_found, parse, place};
use super::view::status_of;
use crate::engine::records::{blocks, children, damaged, inodes, leases, pending};
use crate::engine::tables::{StoreError, Table, Tables};

/// Gives the client the lease of a closed file. Readers see it as it is until the first flush, and it becomes so again
/// if the write is given up before.
///
/// A block that the new bytes fall into gets a generation beside the one it has.
pub(super) fn append(
    draft: &mut Draft<'_>,
    command: &AppendCommand,
) -> Result<Kind, NamespaceError> {
    let client = draft.client()?;
    let path = parse(&command.path)?;
    if command.holder.len() > TEXT_BYTES_MAX {
        let why = format!("{} bytes are more than {TEXT_BYTES_MAX}", command.holder.len());
        return Err(FsError::InvalidArgument { field: "holder".to_owned(), why }.into());
    }
    let (id, inode) = closed_file(draft, &path, command)?;
    let file = inode.file.clone().unwrap_or_default();
    let length = end_of(&file, command)?;
    let tail = tail_of(&draft.set, id, &file, length)?;
    let mut outcome = AppendOutcome { length, ..AppendOutcome::default() };
    if let Some((index, before)) = &tail {
        let generation = open_tail(draft, &path, command, before)?;
        let open = OpenBlock {
            generation,
            targets: command.tail_targets.clone(),
            start: length % file.block_bytes,
            commit: None,
        };
        let after = BlockRecord { open: Some(open), last_generation: generation, ..before.clone() };
        blocks::put(&mut draft.set, id, *index, &after);
        outcome.block_id = before.block_id;
        outcome.generation = generation;
        outcome.targets.clone_from(&command.tail_targets);
        outcome.holders.clone_from(&command.tail_holders);
    } else if command.tail_block_id != 0 {
        return Err(moved_on(command, "is not written on: nothing ends inside it").into());
    }
    let first_cut = length.div_ceil(file.block_bytes) as u32;
    let write = PendingWrite {
        client_id: client.to_bytes(),
        holder: command.holder.clone(),
        overwrite: false,
        visible: true,
        untouched: true,
        least_length: length,
        aside_count: put_aside(draft, id, first_cut)?,
    };
    let record = InodeRecord { file: Some(FileRecord { pending: Some(write), ..file }), ..inode };
    inodes::put(&mut draft.set, id, &record);
    leases::put(&mut draft.set, client, id);
    outcome.status = Some(status_of(path.as_str().to_owned(), id, &record)?.into());
    Ok(Kind::Append(outcome))
}

/// The file at `path`, if nobody writes it.
fn closed_file(
    draft: &mut Draft<'_>,
    path: &FsPath,
    command: &AppendCommand,
) -> Result<(InodeId, InodeRecord), NamespaceError> {
    let is_directory = || FsError::IsADirectory { path: path.as_str().to_owned() };
    let place = place(&draft.set, path)?.ok_or_else(is_directory)?;
    let found = children::get(&draft.set, place.parent, place.name)?;
    let id = found.ok_or_else(|| not_found(path))?;
    let expected = command.expected_inode_id;
    if expected != 0 && expected != id.0 {
        return Err(FsError::FileChanged { path: path.as_str().to_owned() }.into());
    }
    let record = inodes::require(&draft.set, id)?;
    let file = record.file.as_ref().ok_or_else(is_directory)?;
    if let Some(write) = &file.pending {
        return Err(lease_held(path, write).into());
    }
    if let Some(other) = pending::get(&draft.set, place.parent, place.name)? {
        free_the_path(draft, path, other, command.take_over)?;
    }
    Ok((id, record))
}

/// Where the write goes on.
fn end_of(file: &FileRecord, command: &AppendCommand) -> Result<u64, FsError> {
    let (cut, length) = (command.truncate_to, file.length);
    if !command.truncate {
        return Ok(length);
    }
    if cut > length {
        let why = format!("{cut} is behind the end of a file of {length} bytes");
        return Err(FsError::InvalidArgument { field: "truncate_to".to_owned(), why });
    }
    Ok(cut)
}

/// The block that `length` bytes end inside of, if they do.
pub(super) fn tail_of(
    tables: &dyn Tables,
    id: InodeId,
    file: &FileRecord,
    length: u64,
) -> Result<Option<(u32, BlockRecord)>, StoreError> {
    let no_size = || damaged(Table::Inodes, format!("inode {id} has blocks of no bytes"));
    let index = length.checked_div(file.block_bytes).ok_or_else(no_size)? as u32;
    if length.is_multiple_of(file.block_bytes) {
        return Ok(None);
    }
    let none = || damaged(Table::Blocks, format!("closed file {id} has no block {index}"));
    let block = blocks::get(tables, id, index)?.filter(|block| block.committed);
    Ok(Some((index, block.ok_or_else(none)?)))
}

/// Checks that the nodes were chosen for this very block; answers its new generation.
fn open_tail(
    draft: &Draft<'_>,
    path: &FsPath,
    command: &AppendCommand,
    before: &BlockRecord,
) -> Result<u64, NamespaceError> {
    if (command.tail_block_id, command.tail_generation) != (before.block_id, before.generation) {
        return Err(mismatch(before, "is what the file ends with by now").into());
    }
    let (targets, holders) = (&command.tail_targets, &command.tail_holders);
    if targets.is_empty() || holders.is_empty() {
        let path = path.as_str().to_owned();
        return Err(FsError::NoDatanodes { path, refusals: Vec::new() }.into());
    }
    check_targets(draft, "tail_targets", targets)?;
    let are_first = targets.starts_with(holders);
    if !are_first || !holders.iter().all(|node| before.replicas.contains(node)) {
        let why = "are not the first targets, or not all of them have the block".to_owned();
        return Err(FsError::InvalidArgument { field: "tail_holders".to_owned(), why }.into());
    }
    Ok(newest(before) + 1)
}

/// The state is another than the one the command was made for.
fn moved_on(command: &AppendCommand, why: &str) -> FsError {
    let (block, generation) = (command.tail_block_id, command.tail_generation);
    FsError::BlockMismatch { block, generation, why: why.to_owned() }
}
