//! Identifiers. Each is a type of its own, so that a block id is never taken for an inode id.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number_id! {
    /// A file or directory, for ever; 1 is the root directory, 0 names none.
    InodeId(u64)
}
number_id! {
    /// A block, for ever; 0 names none.
    BlockId(u64)
}
number_id! {
    /// Generation stamp: counts the attempts to write one block; a replica of an older one is stale.
    Generation(u64)
}
number_id! {
    /// Short id of a datanode, given by the namenode when the node first registers and never reused;
    /// 0 names none.
    NodeId(u32)
}
number_id! {
    /// Place of a command in the journal, counted from 1 without gaps; 0 is before the first.
    JournalIndex(u64)
}
number_id! {
    /// Counts the runs and leaders of a namenode from 1; what an earlier one ordered is refused.
    Epoch(u64)
}

impl JournalIndex {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The root directory.
pub const ROOT_INODE: InodeId = InodeId(1);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the id from `bytes`; `None` unless there are exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes as a message field.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }

            /// Reads what [`Display`](fmt::Display) prints: 32 hexadecimal digits.
            pub fn from_hex(text: &str) -> Option<Self> {
                crate::digest::bytes_from_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }
    };
}

random_id! {
    /// A cluster: chosen when its namenode is formatted, kept by every datanode.
    ClusterId
}
random_id! {
    /// A datanode as it knows itself: chosen at its first start, kept in its data folders.
    NodeUuid
}
random_id! {
    /// A client process: chosen when it starts; holds leases and numbers requests.
    ClientId
}
