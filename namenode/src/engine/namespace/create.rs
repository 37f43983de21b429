//! Starting to write a file: an inode without a name, and a reserved path.

use doldam_proto::FsError;
use doldam_proto::block::BlockBytes;
use doldam_proto::id::InodeId;
use doldam_proto::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, REPLICATION_MAX, TEXT_BYTES_MAX};
use doldam_proto::path::FsPath;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    CreateCommand, CreateOutcome, Durability, FileRecord, InodeRecord, PendingWrite,
};

use super::NamespaceError;
use super::block::{check_targets, put_new_block};
use super::draft::Draft;
use super::lease::give_up;
use super::mkdir::make_missing;
use super::resolve::{Place, already_exists, not_a_directory, parse, place};
use crate::engine::records::{children, damaged, inodes, leases, pending};
use crate::engine::tables::Table;

/// Reserves the path and gives the write its inode, and with `allocate_first` its first block.
///
/// Whoever else writes this path keeps it (`LeaseHeld`, without the remaining time, which only the
/// leader's clock knows) unless it is the same client or `take_over` is set; then the older write
/// is given up. A file that is visible and being written must be recovered first, whoever asks.
pub(super) fn create(
    draft: &mut Draft<'_>,
    command: &CreateCommand,
) -> Result<Kind, NamespaceError> {
    let client = draft.client()?;
    let path = parse(&command.path)?;
    let durability = check(command)?;
    let place = place_of_new_file(draft, &path, command.parents)?;
    if let Some(existing) = children::get(&draft.set, place.parent, place.name)? {
        let Some(file) = inodes::require(&draft.set, existing)?.file else {
            return Err(FsError::IsADirectory { path: path.as_str().to_owned() }.into());
        };
        if !command.overwrite {
            return Err(already_exists(&path).into());
        }
        if let Some(write) = &file.pending {
            return Err(lease_held(&path, write).into());
        }
    }
    if let Some(other) = pending::get(&draft.set, place.parent, place.name)? {
        free_the_path(draft, &path, other, command.take_over)?;
    }

    let inode = draft.next_inode();
    let write = PendingWrite {
        client_id: client.to_bytes(),
        holder: command.holder.clone(),
        overwrite: command.overwrite,
        ..PendingWrite::default()
    };
    let record = InodeRecord {
        parent_id: place.parent.0,
        name: place.name.to_owned(),
        modified_ms: draft.time_ms,
        created_ms: draft.time_ms,
        file: Some(FileRecord {
            replication: command.replication,
            block_bytes: command.block_bytes,
            durability: durability.into(),
            pending: Some(write),
            ..FileRecord::default()
        }),
    };
    inodes::put(&mut draft.set, inode, &record);
    pending::put(&mut draft.set, place.parent, place.name, inode);
    leases::put(&mut draft.set, client, inode);
    let mut outcome = CreateOutcome { inode_id: inode.0, ..CreateOutcome::default() };
    if command.allocate_first {
        if command.first_targets.is_empty() {
            return Err(no_datanodes(&path).into());
        }
        check_targets(draft, "first_targets", &command.first_targets)?;
        let targets = command.first_targets.clone();
        let (block, generation) = put_new_block(draft, inode, 0, command.replication, targets);
        outcome.block_id = block.0;
        outcome.generation = generation.0;
        outcome.targets.clone_from(&command.first_targets);
    }
    Ok(Kind::Create(outcome))
}

fn no_datanodes(path: &FsPath) -> FsError {
    FsError::NoDatanodes { path: path.as_str().to_owned(), refusals: Vec::new() }
}

/// Checks what does not depend on the state.
fn check(command: &CreateCommand) -> Result<Durability, FsError> {
    check_replication(command.replication)?;
    if BlockBytes::new(command.block_bytes).is_none() {
        let why = format!(
            "{} is no power of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}",
            command.block_bytes
        );
        return Err(FsError::InvalidArgument { field: "block_bytes".to_owned(), why });
    }
    if command.holder.len() > TEXT_BYTES_MAX {
        let why = format!("{} bytes are more than {TEXT_BYTES_MAX}", command.holder.len());
        return Err(FsError::InvalidArgument { field: "holder".to_owned(), why });
    }
    if !command.allocate_first && !command.first_targets.is_empty() {
        let why = "targets without allocate_first".to_owned();
        return Err(FsError::InvalidArgument { field: "first_targets".to_owned(), why });
    }
    match Durability::try_from(command.durability) {
        Ok(Durability::Unspecified) => Ok(Durability::All),
        Ok(known @ (Durability::All | Durability::One | Durability::Memory)) => Ok(known),
        Err(_) => {
            let why = format!("{} is not known", command.durability);
            Err(FsError::InvalidArgument { field: "durability".to_owned(), why })
        }
    }
}

/// Refuses a number of replicas that nobody may ask for.
pub(super) fn check_replication(replication: u32) -> Result<(), FsError> {
    if (1..=REPLICATION_MAX).contains(&replication) {
        return Ok(());
    }
    let why = format!("{replication} is not from 1 to {REPLICATION_MAX}");
    Err(FsError::InvalidArgument { field: "replication".to_owned(), why })
}

fn place_of_new_file<'p>(
    draft: &mut Draft<'_>,
    path: &'p FsPath,
    parents: bool,
) -> Result<Place<'p>, NamespaceError> {
    let is_root = || FsError::IsADirectory { path: path.as_str().to_owned() };
    if !parents {
        return place(&draft.set, path)?.ok_or_else(|| is_root().into());
    }
    let mut names = path.components();
    let name = names.next_back().ok_or_else(is_root)?;
    let (parent, created) = make_missing(draft, path, names)?;
    if !created && inodes::require(&draft.set, parent)?.file.is_some() {
        return Err(not_a_directory(path, path.components().count() - 1).into());
    }
    Ok(Place { parent, name })
}

/// Gives up the write `other` of this path if it may be, and refuses otherwise.
pub(super) fn free_the_path(
    draft: &mut Draft<'_>,
    path: &FsPath,
    other: InodeId,
    take_over: bool,
) -> Result<(), NamespaceError> {
    let record = inodes::require(&draft.set, other)?;
    let write = record.file.as_ref().and_then(|file| file.pending.as_ref());
    let Some(write) = write else {
        let what = format!("inode {other} is reserved a path but not being written");
        return Err(damaged(Table::Pending, what).into());
    };
    if !take_over && write.client_id != draft.client()?.0.as_slice() {
        return Err(lease_held(path, write).into());
    }
    give_up(draft, other, record)
}

/// Somebody writes the file at `path`.
pub(super) fn lease_held(path: &FsPath, write: &PendingWrite) -> FsError {
    let (path, holder) = (path.as_str().to_owned(), write.holder.clone());
    FsError::LeaseHeld { path, holder, ends_in_secs: 0 }
}
