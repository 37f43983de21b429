//! The first command: an empty namespace with its root.

use doldam_proto::FsError;
use doldam_proto::id::{ClusterId, ROOT_INODE};
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{CountersRecord, Done, FormatCommand, InodeRecord, Outcome};

use super::NamespaceError;
use crate::engine::records::{inodes, meta};
use crate::engine::tables::{Changes, Tables, WriteSet};

/// Makes the root directory and remembers which cluster this is. Refused if there is one already.
pub(super) fn format(
    tables: &dyn Tables,
    time_ms: u64,
    command: &FormatCommand,
) -> Result<(Outcome, Changes), NamespaceError> {
    let cluster = ClusterId::from_slice(&command.cluster_id).ok_or_else(|| {
        let why = format!("{} bytes, not 16", command.cluster_id.len());
        FsError::InvalidArgument { field: "cluster_id".to_owned(), why }
    })?;
    if let Some(existing) = meta::cluster_id(tables)? {
        let why = format!("holds the namespace of cluster {existing} already");
        return Err(FsError::NotAllowed { path: "/".to_owned(), why }.into());
    }
    let mut set = WriteSet::new(tables);
    meta::put_cluster_id(&mut set, cluster);
    let counters = CountersRecord {
        next_inode: ROOT_INODE.0 + 1,
        next_block: 1,
        next_node: 1,
        directories: 1,
        ..CountersRecord::default()
    };
    meta::put_counters(&mut set, &counters);
    let root = InodeRecord { modified_ms: time_ms, created_ms: time_ms, ..InodeRecord::default() };
    inodes::put(&mut set, ROOT_INODE, &root);
    let outcome = Outcome { kind: Some(Kind::Done(Done {})), ..Outcome::default() };
    Ok((outcome, set.into_changes()))
}
