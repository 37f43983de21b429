//! Making directories.

use doldam_proto::id::{InodeId, ROOT_INODE};
use doldam_proto::path::FsPath;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{InodeRecord, MkdirCommand, MkdirOutcome};

use super::NamespaceError;
use super::draft::Draft;
use super::resolve::{already_exists, not_a_directory, parse, place};
use crate::engine::records::{children, inodes};

/// Makes one directory, or with `parents` all that are missing; then an existing directory is no
/// error.
pub(super) fn mkdir(draft: &mut Draft<'_>, command: &MkdirCommand) -> Result<Kind, NamespaceError> {
    let path = parse(&command.path)?;
    let created = if command.parents {
        let (inode, created) = make_missing(draft, &path, path.components())?;
        if !created && inodes::require(&draft.set, inode)?.file.is_some() {
            return Err(already_exists(&path).into());
        }
        created
    } else {
        let Some(place) = place(&draft.set, &path)? else {
            return Err(already_exists(&path).into());
        };
        if children::get(&draft.set, place.parent, place.name)?.is_some() {
            return Err(already_exists(&path).into());
        }
        draft.touch_directory(place.parent)?;
        make(draft, place.parent, place.name);
        true
    };
    Ok(Kind::Mkdir(MkdirOutcome { created }))
}

/// Makes what is missing of the directories `names`, which are the first of `path`; returns the
/// last one and whether it is new. If it is not, it may be a file.
pub(super) fn make_missing<'p>(
    draft: &mut Draft<'_>,
    path: &FsPath,
    names: impl Iterator<Item = &'p str>,
) -> Result<(InodeId, bool), NamespaceError> {
    let mut inode = ROOT_INODE;
    let mut created = false;
    for (depth, name) in names.enumerate() {
        let child = if created { None } else { children::get(&draft.set, inode, name)? };
        if let Some(child) = child {
            inode = child;
            continue;
        }
        if !created {
            if inodes::require(&draft.set, inode)?.file.is_some() {
                return Err(not_a_directory(path, depth).into());
            }
            draft.touch_directory(inode)?;
        }
        inode = make(draft, inode, name);
        created = true;
    }
    Ok((inode, created))
}

/// Makes the directory `name`, which is free, in `parent`.
fn make(draft: &mut Draft<'_>, parent: InodeId, name: &str) -> InodeId {
    let inode = draft.next_inode();
    let record = InodeRecord {
        parent_id: parent.0,
        name: name.to_owned(),
        modified_ms: draft.time_ms,
        created_ms: draft.time_ms,
        file: None,
    };
    inodes::put(&mut draft.set, inode, &record);
    children::put(&mut draft.set, parent, name, inode);
    draft.counters.directories += 1;
    inode
}
