//! Every name on disk.
//!
//! ```text
//! DIR/VERSION                              identity of the folder
//! DIR/LOCK                                 held by the process that serves the folder
//! DIR/SCRUB                                how far the scrubber came
//! DIR/CHECK                                written now and then, to see whether the disk still works
//! DIR/blocks/<shard>/<name>.data           bytes of a replica
//! DIR/blocks/<shard>/<name>.side           its sidecar; .unsynced until both are on stable storage
//! DIR/writing/<block>_<generation>@<offset>.data   an open block: being received, or left by its writer
//! DIR/writing/<block>_<generation>.copy    a repair copy being received
//! DIR/writing/<name>.side                  its sidecar, for the moment until it is published
//! DIR/quarantine/<name>.*                  replicas known to be bad
//! DIR/trash/<name>.*                       replicas being removed
//! ```
//! `<name>` is `<block>_<generation>_<length>`: the block id as 16 hexadecimal digits, the others
//! decimal; `<shard>` the block id modulo 64 as two hexadecimal digits; `<offset>` where the block
//! starts in its file, in decimal, without which the bytes of an open block could not be verified. So a
//! name carries all that the inventory needs, and a start reads no file. That a replica is not synced yet is part of a
//! name too, since a rename is atomic and a changed byte is not.

use std::fmt;
use std::path::{Path, PathBuf};

use doldam_proto::id::BlockId;

use crate::engine::replica::{ReplicaKey, ReplicaState};
use crate::engine::startup_plan::Place;

/// Number of folders below `blocks`: enough that a hundred thousand replicas make folders of a few
/// thousand names, and few enough that setting up a data folder costs nothing.
pub(crate) const SHARDS: u32 = 64;

/// What a file of a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// Bytes of the block.
    Data,
    /// The same, of a repair copy being received.
    Copy,
    /// The tree over them.
    Side,
    /// The same, of a replica that is not on stable storage yet.
    UnsyncedSide,
}

impl FileKind {
    /// The sidecar of a replica in this state.
    pub(crate) fn side_of(state: ReplicaState) -> Self {
        match state {
            ReplicaState::Final | ReplicaState::Quarantined => Self::Side,
            ReplicaState::Unsynced => Self::UnsyncedSide,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Copy => "copy",
            Self::Side => "side",
            Self::UnsyncedSide => "unsynced",
        }
    }
}

/// Name of a replica's files, without their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplicaName {
    /// Whose files.
    pub(crate) key: ReplicaKey,
    /// Bytes of the block; `None` as long as it is being received.
    pub(crate) length: Option<u64>,
    /// Of an open block: where it starts in its file.
    pub(crate) file_offset: Option<u64>,
}

impl ReplicaName {
    /// Of a replica of `length` bytes.
    pub(crate) fn whole(key: ReplicaKey, length: u64) -> Self {
        Self { key, length: Some(length), file_offset: None }
    }

    /// Of a block that is open.
    pub(crate) fn open(key: ReplicaKey, file_offset: u64) -> Self {
        Self { key, length: None, file_offset: Some(file_offset) }
    }

    /// Of a repair copy being received.
    pub(crate) fn copy(key: ReplicaKey) -> Self {
        Self { key, length: None, file_offset: None }
    }

    /// The name of one of its files.
    pub(crate) fn file(&self, kind: FileKind) -> String {
        format!("{self}.{}", kind.extension())
    }

    /// Reads a file name; `None` if it is none of ours.
    pub(crate) fn parse(file: &str) -> Option<(Self, FileKind)> {
        let (stem, extension) = file.split_once('.')?;
        let kinds = [FileKind::Data, FileKind::Copy, FileKind::Side, FileKind::UnsyncedSide];
        let kind = kinds.into_iter().find(|kind| kind.extension() == extension)?;
        let (stem, file_offset) = match stem.split_once('@') {
            Some((stem, offset)) => (stem, Some(offset.parse().ok()?)),
            None => (stem, None),
        };
        let mut parts = stem.split('_');
        let block = parts.next()?;
        let block = u64::from_str_radix(block, 16).ok()?;
        let generation = parts.next()?.parse().ok()?;
        let length = parts.next().map(str::parse).transpose().ok()?;
        let name = Self { key: ReplicaKey::new(block, generation), length, file_offset };
        // Another spelling of the same numbers would be another file.
        (name.file(kind) == file).then_some((name, kind))
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}_{}", self.key.block.0, self.key.generation)?;
        self.length.map_or(Ok(()), |length| write!(formatter, "_{length}"))?;
        self.file_offset.map_or(Ok(()), |offset| write!(formatter, "@{offset}"))
    }
}

/// The paths below one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the data folder `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The data folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Its identity.
    pub(crate) fn version_file(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    /// How far the scrubber came.
    pub(crate) fn scrub_file(&self) -> PathBuf {
        self.root.join("SCRUB")
    }

    /// Written now and then to see whether the disk still works; its content means nothing.
    pub(crate) fn check_file(&self) -> PathBuf {
        self.root.join("CHECK")
    }

    /// The folder of a place; replicas lie in shards below it.
    pub(crate) fn place(&self, place: Place) -> PathBuf {
        self.root.join(match place {
            Place::Blocks => "blocks",
            Place::Quarantine => "quarantine",
            Place::Writing => "writing",
            Place::Trash => "trash",
        })
    }

    /// One of the folders of replicas.
    pub(crate) fn shard(&self, shard: u32) -> PathBuf {
        self.place(Place::Blocks).join(format!("{shard:02x}"))
    }

    /// The folder in which the files of a block lie in a place.
    pub(crate) fn folder(&self, place: Place, block: BlockId) -> PathBuf {
        match place {
            Place::Blocks => self.shard((block.0 % u64::from(SHARDS)) as u32),
            Place::Quarantine | Place::Writing | Place::Trash => self.place(place),
        }
    }

    /// A file of a replica.
    pub(crate) fn file(&self, place: Place, name: &ReplicaName, kind: FileKind) -> PathBuf {
        self.folder(place, name.key.block).join(name.file(kind))
    }

    /// Every folder that must exist, parents first.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let places = [Place::Blocks, Place::Quarantine, Place::Writing, Place::Trash];
        let places = places.map(|place| self.place(place)).into_iter();
        places.chain((0..SHARDS).map(|shard| self.shard(shard))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_what_the_formats_say() {
        let layout = Layout::new("/d".into());
        let name = ReplicaName::whole(ReplicaKey::new(0xabc, 3), 65_537);
        let data = layout.file(Place::Blocks, &name, FileKind::Data);
        assert_eq!(data, Path::new("/d/blocks/3c/0000000000000abc_3_65537.data"));
        let side = layout.file(Place::Quarantine, &name, FileKind::UnsyncedSide);
        assert_eq!(side, Path::new("/d/quarantine/0000000000000abc_3_65537.unsynced"));
        let open = ReplicaName::open(name.key, 131_072);
        let open = layout.file(Place::Writing, &open, FileKind::Data);
        assert_eq!(open, Path::new("/d/writing/0000000000000abc_3@131072.data"));
        let copy = layout.file(Place::Writing, &ReplicaName::copy(name.key), FileKind::Copy);
        assert_eq!(copy, Path::new("/d/writing/0000000000000abc_3.copy"));
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in [
            "",
            "lost+found",
            "0000000000000abc_3_5",
            "0000000000000abc_3_5.tmp",
            "0000000000000abc_3_5.data.new",
            "abc_3_5.data",
            "0000000000000ABC_3_5.data",
            "0000000000000abc_03_5.data",
            "0000000000000abc_3_+5.data",
            "0000000000000abc_3_5_6.data",
            "0000000000000abc.data",
            "0000000000000abc_3@+0.data",
            "0000000000000abc_3@00.data",
            "0000000000000abc_3@.data",
            "00000000000000abc_3_5.data",
        ] {
            assert_eq!(ReplicaName::parse(name), None, "{name}");
        }
    }

    const KINDS: [FileKind; 4] =
        [FileKind::Data, FileKind::Copy, FileKind::Side, FileKind::UnsyncedSide];

    proptest! {
        #[test]
        fn every_name_is_read_back(
            block: u64,
            generation: u64,
            length: Option<u64>,
            file_offset: Option<u64>,
            kind in prop::sample::select(KINDS.to_vec()),
        ) {
            let name = ReplicaName { key: ReplicaKey::new(block, generation), length, file_offset };
            prop_assert_eq!(ReplicaName::parse(&name.file(kind)), Some((name, kind)));
        }

        #[test]
        fn no_name_panics(name: String) {
            if let Some((parsed, kind)) = ReplicaName::parse(&name) {
                prop_assert_eq!(parsed.file(kind), name);
            }
        }
    }
}
