//! Renaming: one key leaves, one appears, whatever is below moves with it.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::path::FsPath;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{Done, InodeRecord, RenameCommand};

use super::NamespaceError;
use super::delete::{is_empty, unlink};
use super::draft::Draft;
use super::resolve::{Place, already_exists, not_found, parse, place};
use crate::engine::records::{children, inodes};

/// Renames a file or directory.
///
/// Without `replace` the target must be free. With it, as in POSIX, a file replaces a file and a
/// directory an empty directory. Renaming something to its own path does nothing.
pub(super) fn rename(
    draft: &mut Draft<'_>,
    command: &RenameCommand,
) -> Result<Kind, NamespaceError> {
    let from_path = parse(&command.from)?;
    let to_path = parse(&command.to)?;
    let root = |why: &str| {
        NamespaceError::from(FsError::NotAllowed { path: "/".to_owned(), why: why.to_owned() })
    };
    let Some(from) = place(&draft.set, &from_path)? else {
        return Err(root("the root directory cannot be renamed"));
    };
    let inode =
        children::get(&draft.set, from.parent, from.name)?.ok_or_else(|| not_found(&from_path))?;
    if from_path == to_path {
        return Ok(Kind::Done(Done {}));
    }
    let mut record = inodes::require(&draft.set, inode)?;
    if record.file.is_none() && to_path.starts_with(&from_path) {
        let why = format!("a directory cannot be moved into itself, to {to_path}");
        return Err(FsError::NotAllowed { path: from_path.as_str().to_owned(), why }.into());
    }
    let Some(to) = place(&draft.set, &to_path)? else {
        return Err(root("the root directory cannot be replaced"));
    };
    if let Some(existing) = children::get(&draft.set, to.parent, to.name)? {
        if !command.replace {
            return Err(already_exists(&to_path).into());
        }
        make_way(draft, &record, &to_path, &to, existing)?;
    }
    children::delete(&mut draft.set, from.parent, from.name);
    children::put(&mut draft.set, to.parent, to.name, inode);
    record.parent_id = to.parent.0;
    to.name.clone_into(&mut record.name);
    inodes::put(&mut draft.set, inode, &record);
    draft.touch_directory(from.parent)?;
    draft.touch_directory(to.parent)?;
    Ok(Kind::Done(Done {}))
}

/// Unlinks what `moved` replaces, if it may.
fn make_way(
    draft: &mut Draft<'_>,
    moved: &InodeRecord,
    path: &FsPath,
    to: &Place<'_>,
    existing: InodeId,
) -> Result<(), NamespaceError> {
    let record = inodes::require(&draft.set, existing)?;
    let path = || path.as_str().to_owned();
    match (moved.file.is_some(), record.file.is_some()) {
        (true, false) => return Err(FsError::IsADirectory { path: path() }.into()),
        (false, true) => return Err(FsError::NotADirectory { path: path() }.into()),
        (false, false) if !is_empty(&draft.set, existing)? => {
            return Err(FsError::DirectoryNotEmpty { path: path() }.into());
        }
        (false, false) | (true, true) => {}
    }
    Ok(unlink(draft, to, existing, record)?)
}
