//! Repair copies between real datanodes.

use doldam_proto::block::BlockBytes;
use doldam_proto::digest::ChainingValue;
use doldam_proto::id::Generation;

use super::*;
use crate::engine::outbox::ReplicaEvent;
use crate::testing::cluster::{TestNode, key};
use crate::testing::{bytes, store_block, tree_of};

const MIB: usize = 1 << 20;

fn order(block: &[u8], targets: &[&TestNode]) -> CopyOrder {
    CopyOrder {
        block: key(1).block,
        generation: Generation(1),
        length: block.len() as u64,
        chaining_value: tree_of(0, block).1.chaining_value,
        file_offset: 0,
        block_bytes: BlockBytes::new(8 << 20).unwrap(),
        targets: targets.iter().map(|target| target.address()).collect(),
    }
}

async fn copy(source: &TestNode, order: CopyOrder) -> Result<(), Failure> {
    copy_replica(&source.node, order, &TraceId::default()).await
}

fn events(node: &TestNode) -> Vec<(ReplicaKey, ReplicaEvent)> {
    node.store.news().take(std::time::Duration::ZERO, 100).events
}

#[tokio::test]
async fn a_replica_of_any_size_is_copied_to_all_targets_which_report_it() {
    for length in [1, MIB - 1, MIB, MIB + 1, 3 * MIB + 70_000] {
        let (source, one, two) =
            (TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await);
        let block = bytes(length);
        store_block(&source.store, key(1), &block, true);
        let order = order(&block, &[&one, &two]);
        copy(&source, order.clone()).await.unwrap();
        for target in [&one, &two] {
            target.store.verify(key(1), None).unwrap();
            let value = order.chaining_value;
            let stored = ReplicaEvent::Stored { length: length as u64, value };
            assert_eq!(events(target), [(key(1), stored)]);
        }
        assert!(events(&source).is_empty());
    }
}

#[tokio::test]
async fn a_source_that_fails_its_own_check_copies_nothing_and_reports_itself() {
    let block = bytes(3 * MIB);
    let (data, side) = ("0000000000000001_1_3145728.data", "0000000000000001_1_3145728.side");
    // A byte of the last frame, a leaf of the tree, the block's value.
    for (file, at) in [(data, 3 * MIB - 1), (side, 128 + 64), (side, 50)] {
        let (source, target) = (TestNode::start(1).await, TestNode::start(2).await);
        store_block(&source.store, key(1), &block, true);
        let path = source.dir.path().join("blocks/01").join(file);
        let mut content = std::fs::read(&path).unwrap();
        content[at] ^= 1;
        std::fs::write(&path, content).unwrap();
        let failure = copy(&source, order(&block, &[&target])).await.unwrap_err();
        assert_eq!(failure.code, Code::Corrupt, "{file} {at}");
        target.until_empty().await;
        assert!(events(&target).is_empty());
        assert!(matches!(&events(&source)[..], [(_, ReplicaEvent::Bad { .. })]), "{file} {at}");
        let state = source.store.state().inventory.get(key(1)).unwrap();
        assert!(!state.is_good());
    }
}

#[tokio::test]
async fn a_replica_that_is_not_what_was_committed_is_bad_however_consistent() {
    let (source, target) = (TestNode::start(1).await, TestNode::start(2).await);
    let block = bytes(100);
    store_block(&source.store, key(1), &block, true);
    let other = CopyOrder { chaining_value: ChainingValue([1; 32]), ..order(&block, &[&target]) };
    assert_eq!(copy(&source, other).await.unwrap_err().code, Code::Corrupt);
    assert!(matches!(&events(&source)[..], [(_, ReplicaEvent::Bad { .. })]));
}

#[tokio::test]
async fn a_target_that_cannot_take_it_is_named_and_the_source_stays_good() {
    let (source, target) = (TestNode::start(1).await, TestNode::start(2).await);
    let block = bytes(100);
    store_block(&source.store, key(1), &block, true);
    target.disk.set_available(10);
    let failure = copy(&source, order(&block, &[&target])).await.unwrap_err();
    assert_eq!(failure.code, Code::Downstream);
    assert_eq!(failure.elsewhere.map(|(id, _)| id), Some(2));
    assert!(source.store.find(key(1)).is_ok());
    let nobody = CopyOrder { block: key(5).block, ..order(&block, &[&target]) };
    assert_eq!(copy(&source, nobody).await.unwrap_err().code, Code::NotFound);
}
