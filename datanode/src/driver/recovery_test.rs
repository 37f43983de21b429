//! Orders on blocks that writers left, or still write.

use doldam_proto::block::BlockBytes;
use doldam_proto::convert::block_stream::BlockOperation;
use doldam_proto::convert::datanode::BlockStart;
use doldam_proto::file::Durability;
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::wire::block_response::Kind;

use super::*;
use crate::stream::failure::Code;
use crate::testing::cluster::{
    TestNode, frames, key, of_generation, request, send_write, write_request,
};
use crate::testing::{bytes, tree_of};

const GROUP: usize = 64 << 10;

fn recover_order(generation: u64) -> RecoverOrder {
    RecoverOrder {
        block: BlockId(1),
        generation: Generation(generation),
        file_offset: 0,
        block_bytes: BlockBytes::new(8 << 20).unwrap(),
        shown: None,
        floor: None,
    }
}

fn finish_order(generation: u64, content: &[u8]) -> FinishOrder {
    FinishOrder {
        block: BlockId(1),
        generation: Generation(generation),
        file_offset: 0,
        length: content.len() as u64,
        chaining_value: tree_of(0, content).1.chaining_value,
    }
}

fn reported(node: &TestNode) -> wire::RecoveredReplica {
    match node.store.news().take(std::time::Duration::ZERO, 9).report {
        Some(Report::Recovered(recovered)) => recovered,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_writer_is_ended_its_bytes_reported_and_made_a_replica() {
    let node = TestNode::start(1).await;
    let block = bytes(2 * GROUP + 9);
    let frames = frames(0, &block, GROUP);
    let mut connection = node.connect().await;
    let write = write_request(key(1), &[&node], Durability::All);
    connection.send_message(&request(BlockOperation::Write(write.clone()))).await.unwrap();
    connection.write_all_vectored(&[&frames[0], &frames[1]]).await.unwrap();
    node.until(|node| node.store.open_to_read(key(1), 2 * GROUP as u64).is_ok()).await;

    let seen = &block[..GROUP + 5];
    let chaining_value = tree_of(0, seen).1.chaining_value;
    let shown = Some(BlockStart { length: seen.len() as u64, chaining_value });
    let order = RecoverOrder { shown, ..recover_order(3) };
    recover(Arc::clone(&node.node), 77, order).await.unwrap();
    let failure = loop {
        let response: wire::BlockResponse = connection.recv_message().await.unwrap();
        if let Some(Kind::Failure(failure)) = response.kind {
            break failure;
        }
    };
    assert_eq!(failure.code(), Code::StaleGeneration);
    let values: Vec<u8> =
        tree_of(0, &block[..2 * GROUP]).0.groups().iter().flat_map(|value| value.0).collect();
    let expected = wire::RecoveredReplica {
        order_id: 77,
        block_id: 1,
        generation: 1,
        length: 2 * GROUP as u64,
        group_values: values.into(),
        first_root: blake3::hash(&block[..GROUP]).as_bytes().to_vec().into(),
        starts: Some(wire::StartsFound { shown: true, ..Default::default() }),
    };
    assert_eq!(reported(&node), expected);
    // Nobody comes back under what the order fenced off.
    for late in [1, 2] {
        let write = write_request(of_generation(key(1), late), &[&node], Durability::All);
        let refused = send_write(&mut node.connect().await, write, &frames).await.1.unwrap_err();
        assert_eq!(refused.code(), Code::StaleGeneration);
    }

    let kept = &block[..GROUP + 5];
    let order = finish_order(3, kept);
    finish(Arc::clone(&node.node), order).await.unwrap();
    let (length, value) = (order.length, order.chaining_value);
    let stored = (of_generation(key(1), 3), ReplicaEvent::Stored { length, value });
    let events = node.store.news().take(std::time::Duration::ZERO, 9).events;
    assert_eq!(events, std::slice::from_ref(&stored));
    node.store.verify(of_generation(key(1), 3), None).unwrap();
    // The order may come again, and another one must not be taken for it.
    finish(Arc::clone(&node.node), order).await.unwrap();
    assert_eq!(node.store.news().take(std::time::Duration::ZERO, 9).events, [stored]);
    let other = finish(Arc::clone(&node.node), finish_order(3, &block[..GROUP])).await;
    assert!(matches!(other, Err(StoreError::OtherBytes { .. })), "{other:?}");
}

#[tokio::test]
async fn a_node_without_the_block_says_so_and_takes_no_late_writer() {
    let node = TestNode::start(1).await;
    recover(Arc::clone(&node.node), 5, recover_order(3)).await.unwrap();
    let nothing = wire::RecoveredReplica {
        order_id: 5,
        block_id: 1,
        starts: Some(wire::StartsFound::default()),
        ..Default::default()
    };
    assert_eq!(reported(&node), nothing);
    let write = write_request(of_generation(key(1), 2), &[&node], Durability::All);
    let frames = frames(0, &bytes(10), GROUP);
    let refused = send_write(&mut node.connect().await, write, &frames).await.1.unwrap_err();
    assert_eq!(refused.code(), Code::StaleGeneration);
    let older = recover(Arc::clone(&node.node), 6, recover_order(2)).await;
    assert!(matches!(older, Err(StoreError::OtherGeneration { .. })), "{older:?}");
}

#[tokio::test]
async fn a_block_of_one_group_at_the_start_of_its_file_is_reported_with_its_digest() {
    let node = TestNode::start(1).await;
    let block = bytes(100);
    crate::testing::store_block(&node.store, key(1), &block, true);
    recover(Arc::clone(&node.node), 5, recover_order(3)).await.unwrap();
    let found = reported(&node);
    assert_eq!((found.generation, found.length), (1, 100));
    assert_eq!(found.first_root[..], *blake3::hash(&block).as_bytes());
}

#[tokio::test]
async fn a_block_that_is_being_written_is_dropped_by_an_order_that_names_it() {
    let node = TestNode::start(1).await;
    let mut connection = node.connect().await;
    let write = write_request(key(1), &[&node], Durability::All);
    connection.send_message(&request(BlockOperation::Write(write))).await.unwrap();
    connection.write_all_vectored(&[&frames(0, &bytes(2 * GROUP), GROUP)[0]]).await.unwrap();
    node.until(|node| node.store.open_to_read(key(1), GROUP as u64).is_ok()).await;
    drop_replica(Arc::clone(&node.node), of_generation(key(1), 2)).await.unwrap();
    assert!(node.store.open_to_read(key(1), GROUP as u64).is_ok());
    drop_replica(Arc::clone(&node.node), key(1)).await.unwrap();
    node.until_empty().await;
}
