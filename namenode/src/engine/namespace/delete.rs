//! Deleting: unlinked at once, collected later.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{DeleteCommand, Done, InodeRecord};

use super::NamespaceError;
use super::draft::Draft;
use super::resolve::{Place, not_found, parse, place};
use crate::engine::records::{BREAK, children, inodes, pending};
use crate::engine::tables::{StoreError, Tables};

/// Deletes a file, or a directory: an empty one, or with `recursive` all that is below it, in one
/// step.
pub(super) fn delete(
    draft: &mut Draft<'_>,
    command: &DeleteCommand,
) -> Result<Kind, NamespaceError> {
    let path = parse(&command.path)?;
    let Some(place) = place(&draft.set, &path)? else {
        let why = "the root directory cannot be deleted".to_owned();
        return Err(FsError::NotAllowed { path: "/".to_owned(), why }.into());
    };
    let inode =
        children::get(&draft.set, place.parent, place.name)?.ok_or_else(|| not_found(&path))?;
    let record = inodes::require(&draft.set, inode)?;
    if record.file.is_none() && !command.recursive && !is_empty(&draft.set, inode)? {
        return Err(FsError::DirectoryNotEmpty { path: path.as_str().to_owned() }.into());
    }
    draft.touch_directory(place.parent)?;
    unlink(draft, &place, inode, record)?;
    Ok(Kind::Done(Done {}))
}

/// Whether a directory has neither entries nor unfinished writes.
pub(super) fn is_empty(tables: &dyn Tables, directory: InodeId) -> Result<bool, StoreError> {
    let mut empty = true;
    children::scan(tables, directory, "", &mut |_, _| {
        empty = false;
        BREAK
    })?;
    if empty {
        pending::scan(tables, directory, "", &mut |_, _| {
            empty = false;
            BREAK
        })?;
    }
    Ok(empty)
}

/// Takes the name of a file or directory away and leaves the rest to the collector.
pub(super) fn unlink(
    draft: &mut Draft<'_>,
    place: &Place<'_>,
    id: InodeId,
    record: InodeRecord,
) -> Result<(), StoreError> {
    children::delete(&mut draft.set, place.parent, place.name);
    draft.count_unlinked(&record)?;
    draft.discard(id, record)
}
