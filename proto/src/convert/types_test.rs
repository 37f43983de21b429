//! What a sender wrote comes back whole; what breaks a rule is refused under the name of its field.

use proptest::prelude::*;

use super::BadMessage;
use super::types::short_text;
use crate::FsError;
use crate::block::{AllocatedBlock, BlockBytes, BlockCommit, LocatedBlock};
use crate::digest::{ChainingValue, FileDigest};
use crate::file::{Durability, FileKind, FileStatus};
use crate::id::{BlockId, Generation, InodeId, NodeId};
use crate::limits::{BLOCK_BYTES_MAX, REPLICATION_MAX, TEXT_BYTES_MAX};
use crate::node::{NodeAddress, NodeState};
use crate::wire;

fn durability() -> impl Strategy<Value = Durability> {
    prop::sample::select(&[Durability::All, Durability::One, Durability::Memory][..])
}

fn node() -> impl Strategy<Value = NodeAddress> {
    let states = &[NodeState::Live, NodeState::Suspect, NodeState::Dead][..];
    (1..=u32::MAX, "[a-z.]{1,20}:[0-9]{1,5}", "/r[0-9]{0,3}", prop::sample::select(states))
        .prop_map(|(id, address, rack, state)| NodeAddress { id: NodeId(id), address, rack, state })
}

fn nodes(least: usize) -> impl Strategy<Value = Vec<NodeAddress>> {
    prop::collection::vec(node(), least..5)
}

fn commit() -> impl Strategy<Value = BlockCommit> {
    let holders = prop::collection::btree_set(1..=u32::MAX, 1..=REPLICATION_MAX as usize);
    let values = (any::<[u8; 32]>(), any::<Option<[u8; 32]>>());
    (any::<u64>(), any::<u64>(), 1..=BLOCK_BYTES_MAX, values, holders).prop_map(
        |(id, generation, length, (value, root), holders)| BlockCommit {
            id: BlockId(id),
            generation: Generation(generation),
            length,
            chaining_value: ChainingValue(value),
            root_value: root.map(FileDigest),
            nodes: holders.into_iter().map(NodeId).collect(),
        },
    )
}

fn status() -> impl Strategy<Value = FileStatus> {
    let times = (any::<u64>(), any::<u64>());
    let file = (16..=30_u32, any::<[u8; 32]>(), durability(), any::<u64>(), 1..=REPLICATION_MAX);
    ("/[a-zü]{0,9}", any::<u64>(), times, prop::option::of(file)).prop_map(
        |(path, inode, (modified_ms, created_ms), file)| {
            let directory = FileStatus {
                path,
                inode: InodeId(inode),
                kind: FileKind::Directory,
                length: 0,
                replication: 0,
                block_bytes: 0,
                modified_ms,
                created_ms,
                being_written: file.is_some_and(|(_, _, _, length, _)| length % 2 == 1),
                digest: None,
                durability: None,
            };
            let Some((bits, digest, durability, length, replication)) = file else {
                return directory;
            };
            FileStatus {
                kind: FileKind::File,
                length,
                replication,
                block_bytes: 1 << bits,
                digest: Some(FileDigest(digest)),
                durability: Some(durability),
                ..directory
            }
        },
    )
}

fn wire_node() -> wire::NodeAddress {
    wire::NodeAddress { node_id: 1, address: "a:1".into(), rack: "/r".into(), state: 1 }
}

fn wire_commit() -> wire::BlockCommit {
    wire::BlockCommit {
        block_id: 1,
        generation: 1,
        length: 1,
        chaining_value: vec![1; 32].into(),
        root_value: bytes::Bytes::new(),
        node_ids: vec![1, 2],
    }
}

fn wire_located() -> wire::LocatedBlock {
    wire::LocatedBlock {
        block_id: 1,
        generation: 1,
        index: 0,
        offset: 0,
        length: 1,
        chaining_value: vec![1; 32].into(),
        replicas: vec![wire_node()],
    }
}

fn wire_status() -> wire::FileStatus {
    wire::FileStatus {
        path: "/a".into(),
        kind: wire::FileKind::File as i32,
        block_bytes: 1 << 20,
        digest: vec![1; 32].into(),
        ..wire::FileStatus::default()
    }
}

/// The field that a change breaks, and the change.
type Change<'a, W> = (&'a str, &'a dyn Fn(&mut W));

/// Asserts that each change to the good `message` is refused under the name of the field beside it.
fn refused<W: Clone, D: TryFrom<W, Error = BadMessage> + std::fmt::Debug>(
    message: &W,
    changes: &[Change<'_, W>],
) {
    D::try_from(message.clone()).unwrap();
    for (index, (field, change)) in changes.iter().enumerate() {
        let mut changed = message.clone();
        change(&mut changed);
        let error = D::try_from(changed).unwrap_err();
        assert_eq!(error.field, *field, "change {index}: {error}");
    }
}

#[test]
fn a_bad_node_address_is_refused() {
    refused::<_, NodeAddress>(
        &wire_node(),
        &[
            ("node_id", &|node| node.node_id = 0),
            ("address", &|node| node.address = "a".repeat(TEXT_BYTES_MAX + 1)),
            ("rack", &|node| node.rack = "a".repeat(TEXT_BYTES_MAX + 1)),
        ],
    );
}

#[test]
fn a_node_in_a_state_of_a_later_release_is_taken_for_suspect() {
    let node = NodeAddress::try_from(wire::NodeAddress { state: 99, ..wire_node() }).unwrap();
    assert_eq!(node.state, NodeState::Suspect);
}

#[test]
fn a_bad_allocation_is_refused() {
    let block =
        wire::AllocatedBlock { block_id: 1, generation: 1, index: 0, targets: vec![wire_node()] };
    refused::<_, AllocatedBlock>(
        &block,
        &[
            ("targets", &|block| block.targets.clear()),
            ("targets", &|block| block.targets = vec![wire_node(); REPLICATION_MAX as usize + 1]),
            ("node_id", &|block| block.targets[0].node_id = 0),
        ],
    );
}

#[test]
fn a_bad_commit_is_refused() {
    refused::<_, BlockCommit>(
        &wire_commit(),
        &[
            ("length", &|commit| commit.length = 0),
            ("length", &|commit| commit.length = BLOCK_BYTES_MAX + 1),
            ("node_ids", &|commit| commit.node_ids.clear()),
            ("node_ids", &|commit| commit.node_ids.push(0)),
            ("node_ids", &|commit| commit.node_ids = (1..=REPLICATION_MAX + 1).collect()),
            ("node_ids", &|commit| commit.node_ids.push(2)),
            ("chaining_value", &|commit| commit.chaining_value = vec![1; 31].into()),
            ("chaining_value", &|commit| commit.chaining_value.clear()),
            ("root_value", &|commit| commit.root_value = vec![1; 33].into()),
        ],
    );
}

#[test]
fn a_bad_location_is_refused() {
    refused::<_, LocatedBlock>(
        &wire_located(),
        &[
            ("length", &|block| block.length = 0),
            ("length", &|block| block.length = BLOCK_BYTES_MAX + 1),
            ("offset", &|block| block.offset = u64::MAX),
            ("chaining_value", &|block| block.chaining_value = vec![1; 16].into()),
            ("node_id", &|block| block.replicas[0].node_id = 0),
        ],
    );
}

#[test]
fn a_bad_status_is_refused() {
    refused::<_, FileStatus>(
        &wire_status(),
        &[
            ("kind", &|status| status.kind = 0),
            ("kind", &|status| status.kind = 77),
            ("block_bytes", &|status| status.block_bytes = 0),
            ("block_bytes", &|status| status.block_bytes = 3 << 20),
            ("digest", &|status| status.digest.clear()),
        ],
    );
}

#[test]
fn text_is_bounded_in_bytes() {
    assert!(short_text("holder", "ü".repeat(TEXT_BYTES_MAX / 2)).is_ok());
    let error = short_text("holder", "ü".repeat(TEXT_BYTES_MAX / 2 + 1)).unwrap_err();
    assert_eq!(error.to_string(), "holder: longer than 1024 bytes");
    let argument = FsError::from(error);
    assert!(matches!(argument, FsError::InvalidArgument { field, .. } if field == "holder"));
}

#[test]
fn a_block_size_is_a_power_of_two_within_the_limits() {
    for (bytes, good) in [
        (0, false),
        (1 << 15, false),
        (1 << 16, true),
        ((1 << 16) + 1, false),
        (3 << 20, false),
        (1 << 30, true),
        (1 << 31, false),
        (u64::MAX, false),
    ] {
        assert_eq!(BlockBytes::new(bytes).is_some(), good, "{bytes}");
    }
    let size = BlockBytes::new(1 << 20).unwrap();
    let counts = [0, 1, 1 << 20, (1 << 20) + 1].map(|length| size.blocks_of(length));
    assert_eq!(counts, [0, 1, 1, 2]);
}

#[test]
fn durability_says_who_syncs() {
    let syncs = |durability: Durability| [0, 1, 2].map(|position| durability.syncs_at(position));
    assert_eq!(syncs(Durability::All), [true, true, true]);
    assert_eq!(syncs(Durability::One), [true, false, false]);
    assert_eq!(syncs(Durability::Memory), [false, false, false]);
}

proptest! {
    #[test]
    fn nodes_survive_the_wire(node in node()) {
        let sent = wire::NodeAddress::from(node.clone());
        prop_assert_eq!(NodeAddress::try_from(sent), Ok(node));
    }

    #[test]
    fn allocations_survive_the_wire(id: u64, generation: u64, index: u32, targets in nodes(1)) {
        let block =
            AllocatedBlock { id: BlockId(id), generation: Generation(generation), index, targets };
        let sent = wire::AllocatedBlock::from(block.clone());
        prop_assert_eq!(AllocatedBlock::try_from(sent), Ok(block));
    }

    #[test]
    fn commits_survive_the_wire(commit in commit()) {
        let sent = wire::BlockCommit::from(commit.clone());
        prop_assert_eq!(BlockCommit::try_from(sent), Ok(commit));
    }

    #[test]
    fn locations_survive_the_wire(commit in commit(), index: u32, offset in 0..u64::MAX / 2, replicas in nodes(0)) {
        let BlockCommit { id, generation, length, chaining_value, .. } = commit;
        let block = LocatedBlock { id, generation, index, offset, length, chaining_value, replicas };
        let sent = wire::LocatedBlock::from(block.clone());
        prop_assert_eq!(LocatedBlock::try_from(sent), Ok(block));
    }

    #[test]
    fn statuses_survive_the_wire(status in status()) {
        let sent = wire::FileStatus::from(status.clone());
        prop_assert_eq!(FileStatus::try_from(sent), Ok(status));
    }

    #[test]
    fn durability_survives_the_wire(durability in durability()) {
        prop_assert_eq!(Durability::from(wire::Durability::from(durability)), durability);
    }
}
