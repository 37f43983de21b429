//! What can be changed of a file without writing it anew.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    BlockRecord, Done, SetReplicationCommand, SetReplicationOutcome, SetTimesCommand,
};

use super::create::check_replication;
use super::draft::Draft;
use super::resolve::{lookup, parse};
use super::{NamespaceError, replica_index};
use crate::engine::records::{BREAK, CONTINUE, blocks, inodes};

/// Blocks read at a time.
const SLICE: usize = 1024;

/// Sets how many replicas each block of a file should have; the repair planner does the rest.
pub(super) fn set_replication(
    draft: &mut Draft<'_>,
    command: &SetReplicationCommand,
) -> Result<Kind, NamespaceError> {
    let path = parse(&command.path)?;
    check_replication(command.replication)?;
    let inode = lookup(&draft.set, &path)?;
    let mut record = inodes::require(&draft.set, inode)?;
    let Some(file) = &mut record.file else {
        return Err(FsError::IsADirectory { path: path.as_str().to_owned() }.into());
    };
    let previous = file.replication;
    if previous != command.replication {
        file.replication = command.replication;
        inodes::put(&mut draft.set, inode, &record);
        want(draft, inode, command.replication)?;
    }
    Ok(Kind::SetReplication(SetReplicationOutcome { previous }))
}

/// Sets how many replicas are wanted of each block of a file.
fn want(draft: &mut Draft<'_>, inode: InodeId, wanted: u32) -> Result<(), NamespaceError> {
    let mut from = 0;
    loop {
        let mut slice = Vec::new();
        blocks::scan(&draft.set, inode, from, &mut |index, block| {
            slice.push((index, block));
            if slice.len() == SLICE { BREAK } else { CONTINUE }
        })?;
        let Some((last, _)) = slice.last() else { return Ok(()) };
        from = last + 1;
        for (index, before) in slice {
            let after = BlockRecord { wanted, ..before.clone() };
            blocks::put(&mut draft.set, inode, index, &after);
            replica_index::update(draft, Some(&before), Some(&after))?;
        }
    }
}

/// Sets the time of the last change that is shown for a file or directory.
pub(super) fn set_times(
    draft: &mut Draft<'_>,
    command: &SetTimesCommand,
) -> Result<Kind, NamespaceError> {
    let path = parse(&command.path)?;
    let inode = lookup(&draft.set, &path)?;
    let mut record = inodes::require(&draft.set, inode)?;
    record.modified_ms = command.modified_ms;
    inodes::put(&mut draft.set, inode, &record);
    Ok(Kind::Done(Done {}))
}
