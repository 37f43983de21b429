//! From what datanodes and readers say to orders, and from what is stored to a whole file again.

use std::time::Duration;

use doldam_proto::wire;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{BlockHealth, replica_event};
use tokio::time::timeout;

use super::fake_datanode::{FakeDatanode, LENGTH, VALUE};
use super::{Server, answer};

/// A file of one block on this node alone, with three replicas wanted.
async fn lonely_file(server: &Server, path: &str, node: &mut FakeDatanode) -> u64 {
    let created = server.create(path).await;
    let block = created.first.as_ref().unwrap().block_id;
    node.hold(block);
    server.complete(&created, &[node.id]).await;
    block
}

#[tokio::test]
async fn a_file_written_to_too_few_nodes_is_copied_when_more_join() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let block = lonely_file(&server, "/f", &mut first).await;
    let files = server.fsck(true).await;
    assert_eq!((files.len(), files[0].health()), (1, BlockHealth::UnderReplicated));
    assert_eq!(server.report().await.under_replicated, 1);

    let mut others = [FakeDatanode::join(&server, 2).await, FakeDatanode::join(&server, 3).await];
    for _ in 0..2 {
        let Kind::Copy(copy) = first.next_order().await else { panic!("not a copy") };
        assert_eq!((copy.block_id, copy.length, copy.file_offset), (block, LENGTH, 0));
        assert_eq!(copy.chaining_value, VALUE.to_bytes());
        let target = copy.targets[0].node_id;
        let target = others.iter_mut().find(|node| node.id == target).unwrap();
        target.stored(block).await;
    }
    server.until("the file is whole", |report| report.under_replicated == 0).await;
    assert_eq!(server.locate("/f").await.blocks[0].replicas.len(), 3);
    assert_eq!(server.fsck(true).await, []);
    assert_eq!(server.fsck(false).await[0].blocks[0].live, 3);
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_file_is_dropped_by_its_holders() {
    let server = Server::start().await;
    let mut node = FakeDatanode::join(&server, 1).await;
    let block = lonely_file(&server, "/f", &mut node).await;
    let request = wire::DeleteRequest {
        request: Some(server.request(1)),
        path: "/f".to_owned(),
        recursive: false,
    };
    answer(server.client().delete(request).await).unwrap();
    let dropped = Kind::Drop(wire::DropOrder { block_id: block, generation: 1, only_bad: false });
    assert_eq!(node.next_order().await, dropped);
    server.stop().await;
}

#[tokio::test]
async fn a_replica_that_a_reader_reports_is_checked_replaced_and_then_dropped() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    first.hold(block);
    second.hold(block);
    server.complete(&created, &[first.id, second.id]).await;
    let set = wire::SetReplicationRequest {
        request: Some(server.request(1)),
        path: "/f".to_owned(),
        replication: 2,
    };
    answer(server.client().set_replication(set).await).unwrap();

    let report = wire::ReportBadReplicaRequest {
        block_id: block,
        generation: 1,
        node_id: second.id,
        what: "group 0 does not verify".to_owned(),
    };
    answer(server.client().report_bad_replica(report).await).unwrap();
    let Kind::Verify(verify) = second.next_order().await else { panic!("not a check") };
    assert_eq!((verify.block_id, verify.chaining_value), (block, VALUE.to_bytes()));
    second.tell(replica_event::Kind::Bad, block).await;
    server.until("it is known", |report| report.corrupt == 1).await;
    let found = server.fsck(true).await;
    assert_eq!(found[0].health(), BlockHealth::Corrupt);
    assert_eq!(found[0].blocks[0].bad_replicas[0].node_id, second.id);
    let located = server.locate("/f").await.blocks.remove(0).replicas;
    assert_eq!(located.iter().map(|node| node.node_id).collect::<Vec<_>>(), [first.id]);

    // If the planner looked before the second node had answered all questions, it looks again after a while: time goes
    // on and heartbeats come until it did.
    let order = loop {
        server.clock.advance(Duration::from_secs(1));
        first.beat().await;
        second.beat().await;
        server.report().await;
        if let Ok(order) = timeout(Duration::from_millis(100), first.next_order()).await {
            break order;
        }
    };
    let Kind::Copy(copy) = order else { panic!("not a copy: {order:?}") };
    assert_eq!(copy.targets[0].node_id, second.id, "there is no other node");
    second.stored(block).await;
    server.until("it is whole", |report| report.corrupt + report.under_replicated == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn what_a_node_holds_is_compared_with_what_it_should_hold() {
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let block = lonely_file(&server, "/f", &mut first).await;
    // The second node has the block without being in its set, as after a copy whose confirmation was lost.
    let mut second = FakeDatanode::join_with(&server, 2, &[block]).await;
    let asked = async {
        loop {
            let located = server.locate("/f").await.blocks.remove(0).replicas;
            if located.len() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = asked => {}
        order = second.next_order() => panic!("not expected: {order:?}"),
    }
    // It loses the block without knowing.
    second.tell(replica_event::Kind::Dropped, block).await;
    server.until("it is noticed", |report| report.under_replicated == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn after_a_restart_blocks_are_neither_copied_nor_trimmed_before_their_holders_had_their_time()
{
    let server = Server::start().await;
    let mut first = FakeDatanode::join(&server, 1).await;
    let mut second = FakeDatanode::join(&server, 2).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    for node in [&mut first, &mut second] {
        node.hold(block);
    }
    server.complete(&created, &[first.id, second.id]).await;
    let set = wire::SetReplicationRequest {
        request: Some(server.request(1)),
        path: "/f".to_owned(),
        replication: 2,
    };
    answer(server.client().set_replication(set).await).unwrap();
    drop((first, second));

    let server = server.restart().await;
    assert_eq!(server.locate("/f").await.blocks[0].replicas.len(), 2, "served at once");
    let mut first = FakeDatanode::join_with(&server, 1, &[block]).await;
    let mut third = FakeDatanode::join(&server, 3).await;
    assert_eq!(server.report().await.repairs_running, 0);
    server.clock.advance(Duration::from_secs(9));
    first.beat().await;
    third.beat().await;
    assert_eq!(server.report().await.repairs_running, 0, "node 2 is still awaited");
    server.clock.advance(Duration::from_secs(1));
    let Kind::Copy(copy) = first.next_order().await else { panic!("not a copy") };
    assert_eq!((copy.block_id, copy.targets[0].node_id), (block, third.id));
    server.stop().await;
}
