//! The end of a write: a file appears under its path, whole, in one step; or, if it was visible before, is closed.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{CompleteCommand, CompleteOutcome, FileRecord, InodeRecord};

use super::NamespaceError;
use super::block::commit_all;
use super::content::{Content, Purpose, settle};
use super::draft::Draft;
use super::lease::{Write, release, require_write};
use super::resolve::{Ascent, ascend};
use super::view::status_of;
use crate::engine::records::{children, inodes, pending};

/// Commits the last blocks, checks that they make up exactly `length` bytes, and links the file if it has no name yet.
///
/// Blocks allocated beyond the end and never committed are removed; their targets drop what they
/// have.
pub(super) fn complete(
    draft: &mut Draft<'_>,
    command: &CompleteCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    commit_all(draft, &write, &command.commits)?;
    check_length(&write, command.length)?;
    let content = settle(draft, &write, command.length, Purpose::Close)?;
    let path = path_of_write(draft, &write)?;
    if !write.pending.visible {
        link(draft, &write, &path)?;
    }
    let under_replicated_blocks = content.under_replicated;
    let record = close(draft, write, command.length, &content)?;
    let status = status_of(path, InodeId(command.inode_id), &record)?;
    Ok(Kind::Complete(CompleteOutcome { status: Some(status.into()), under_replicated_blocks }))
}

/// Ends a write with the file as its blocks are. Answers its record.
pub(super) fn close(
    draft: &mut Draft<'_>,
    write: Write,
    length: u64,
    content: &Content,
) -> Result<InodeRecord, NamespaceError> {
    release(draft, write.id, &write.inode)?;
    let record = InodeRecord {
        modified_ms: draft.time_ms,
        file: Some(FileRecord {
            length,
            digest: content.digest.to_bytes(),
            block_count: content.block_count,
            pending: None,
            ..write.file
        }),
        ..write.inode
    };
    inodes::put(&mut draft.set, write.id, &record);
    Ok(record)
}

/// What readers see never becomes shorter, except by the first flush behind a cut.
pub(super) fn check_length(write: &Write, length: u64) -> Result<(), FsError> {
    let least = write.pending.least_length;
    if length >= least {
        return Ok(());
    }
    let why = format!("{length} bytes are fewer than the {least} the file has already");
    Err(FsError::InvalidArgument { field: "length".to_owned(), why })
}

/// Where the file of a write is, or will be.
pub(super) fn path_of_write(draft: &Draft<'_>, write: &Write) -> Result<String, NamespaceError> {
    match ascend(&draft.set, write.id, &write.inode)? {
        Ascent::Path(path) => Ok(path),
        unlinked @ Ascent::Unlinked(_) => {
            Err(FsError::NotFound { path: unlinked.for_people() }.into())
        }
        too_deep @ Ascent::BeyondLimits(_) => {
            let why = "a directory above was moved, and no path is as long any more".to_owned();
            Err(FsError::InvalidPath { path: too_deep.for_people(), why }.into())
        }
    }
}

/// Gives a file its name, in the place of another if its writer asked for that.
pub(super) fn link(draft: &mut Draft<'_>, write: &Write, path: &str) -> Result<(), NamespaceError> {
    let parent = InodeId(write.inode.parent_id);
    if let Some(existing) = children::get(&draft.set, parent, &write.inode.name)? {
        replace_file(draft, existing, path, write.pending.overwrite)?;
    }
    pending::delete(&mut draft.set, parent, &write.inode.name);
    children::put(&mut draft.set, parent, &write.inode.name, write.id);
    draft.counters.files += 1;
    draft.touch_directory(parent)
}

/// Unlinks the file that the new one replaces.
fn replace_file(
    draft: &mut Draft<'_>,
    existing: InodeId,
    path: &str,
    overwrite: bool,
) -> Result<(), NamespaceError> {
    let record = inodes::require(&draft.set, existing)?;
    if record.file.is_none() {
        return Err(FsError::IsADirectory { path: path.to_owned() }.into());
    }
    if !overwrite {
        return Err(FsError::AlreadyExists { path: path.to_owned() }.into());
    }
    draft.count_unlinked(&record)?;
    Ok(draft.discard(existing, record)?)
}
