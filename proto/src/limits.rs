//! Every limit of the protocol, by unit. Peers refuse what exceeds them before they allocate for it.

use std::time::Duration;

/// Version of every protocol and message in `wire/`; both sides must name the same.
pub const PROTOCOL_VERSION: u32 = 2;

/// Bytes of one checksum group: the unit of verification.
pub const GROUP_BYTES: u64 = 64 * 1024;
/// Smallest block size; one group.
pub const BLOCK_BYTES_MIN: u64 = GROUP_BYTES;
/// Largest block size. Its chaining values (512 KiB) still fit one frame.
pub const BLOCK_BYTES_MAX: u64 = 1 << 30;
/// Block size of a file whose creator does not choose one.
pub const BLOCK_BYTES_DEFAULT: u64 = 128 << 20;

/// Most replicas one may ask for.
pub const REPLICATION_MAX: u32 = 16;
/// Replicas of a file whose creator does not choose.
pub const REPLICATION_DEFAULT: u32 = 3;

/// Payload of a frame on the bulk path; measured best (docs/benchmarks.md).
pub const FRAME_PAYLOAD_BYTES: usize = 1 << 20;
/// Largest payload of a frame that is accepted.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Largest protobuf message on a block stream.
pub const STREAM_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Most unacknowledged bytes a writer keeps in flight on one pipeline.
pub const WRITE_WINDOW_BYTES: u64 = 8 << 20;

/// Longest path, in bytes of UTF-8.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest component of a path, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest path, in components.
pub const PATH_DEPTH_MAX: usize = 256;

/// Most entries of one page of a listing.
pub const LIST_ENTRIES_MAX: u32 = 1000;
/// Most blocks in one answer to `Locate`, and most commits in one request.
pub const LOCATE_BLOCKS_MAX: u32 = 1000;
/// Most paths in one `StatBatch`.
pub const STAT_BATCH_MAX: usize = 1000;
/// Most blocks of one file.
pub const FILE_BLOCKS_MAX: u32 = 1 << 24;
/// Largest gRPC message either side accepts.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Longest free text (holder, reason) a peer may send, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Buckets of a datanode's replica report (power of two).
pub const REPORT_BUCKETS: u32 = 1024;

/// Silence of a writing client after which another writer may take its path.
pub const LEASE_SOFT: Duration = Duration::from_mins(1);
/// Silence of a writing client after which its unfinished files are collected.
pub const LEASE_HARD: Duration = Duration::from_mins(5);

const _: () = assert!(REPORT_BUCKETS.is_power_of_two());
const _: () = assert!(BLOCK_BYTES_MIN.is_power_of_two() && BLOCK_BYTES_MAX.is_power_of_two());
const _: () = assert!(
    BLOCK_BYTES_MAX / GROUP_BYTES * 32 * 2 <= FRAME_PAYLOAD_BYTES_MAX as u64,
    "a proof fits a frame"
);
const _: () = assert!((FRAME_PAYLOAD_BYTES as u64).is_multiple_of(GROUP_BYTES));
