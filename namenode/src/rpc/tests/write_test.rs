//! Writes that survive, end to end: flushed and seen, gone on with after a broken pipeline, taken over, recovered,
//! appended to and cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::wire;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{DropOrder, replica_event};

use super::fake_datanode::{FakeDatanode, LENGTH};
use super::{Server, answer, commit, in_time};

impl Server {
    async fn stat(&self, path: &str) -> wire::FileStatus {
        let request = wire::StatRequest { path: path.to_owned() };
        answer(self.client().stat(request).await).unwrap().status.unwrap()
    }

    /// Makes the first block visible as far as it is.
    async fn flush(&self, created: &wire::CreateResponse, nodes: &[u32]) -> wire::FileStatus {
        let request = wire::FlushRequest {
            request: Some(self.request(1)),
            inode_id: created.inode_id,
            length: LENGTH,
            commits: vec![],
            open: Some(commit(created.first.as_ref().unwrap(), nodes)),
            synced: false,
        };
        answer(self.client().flush(request).await).unwrap().status.unwrap()
    }

    async fn try_complete(
        &self,
        client: u8,
        inode_id: u64,
        length: u64,
        commits: Vec<wire::BlockCommit>,
    ) -> Result<wire::CompleteResponse, FsError> {
        let request = Some(self.request(client));
        let request = wire::CompleteRequest { request, inode_id, length, commits };
        answer(self.client().complete(request).await)
    }

    async fn recover_block(
        &self,
        created: &wire::CreateResponse,
        generation: u64,
        (survivors, acknowledged): (&[u32], u64),
        excluded: &[u32],
    ) -> Result<wire::RecoverBlockResponse, FsError> {
        let request = wire::RecoverBlockRequest {
            request: Some(self.request(1)),
            inode_id: created.inode_id,
            block_id: created.first.as_ref().unwrap().block_id,
            generation,
            acknowledged,
            survivors: survivors.to_vec(),
            excluded_nodes: excluded.to_vec(),
            client_host: String::new(),
        };
        answer(self.client().recover_block(request).await)
    }

    fn append_request(&self, client: u8, path: &str) -> wire::AppendRequest {
        wire::AppendRequest {
            request: Some(self.request(client)),
            path: path.to_owned(),
            holder: format!("client {client}"),
            ..wire::AppendRequest::default()
        }
    }

    async fn until_closed(&self, path: &str) {
        let asking = async {
            while self.stat(path).await.being_written {
                tokio::task::yield_now().await;
            }
        };
        in_time("the file is closed", asking).await;
    }
}

fn targets(block: &wire::AllocatedBlock) -> Vec<u32> {
    block.targets.iter().map(|node| node.node_id).collect()
}

#[tokio::test]
async fn a_flush_shows_the_file_to_new_readers_and_who_has_it() {
    let server = Server::start().await;
    let node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let status = server.flush(&created, &[node.id]).await;
    assert_eq!((status.length, status.being_written), (LENGTH, true));
    assert_eq!(server.stat("/f").await, status);
    let located = server.locate("/f").await;
    assert_eq!(located.status, Some(status));
    let block = &located.blocks[0];
    assert_eq!((block.length, block.generation, block.replicas[0].node_id), (LENGTH, 1, node.id));
    let files = server.fsck(false).await;
    assert_eq!((files.len(), files[0].block_count), (1, 1));

    let server = server.restart().await;
    server.sequence.store(100, Ordering::Relaxed);
    let _node = FakeDatanode::join(&server, 1).await;
    let last = vec![commit(created.first.as_ref().unwrap(), &[node.id])];
    let done = server.try_complete(1, created.inode_id, LENGTH, last).await.unwrap();
    assert!(!done.status.unwrap().being_written);
    server.stop().await;
}

#[tokio::test]
async fn a_broken_pipeline_is_gone_on_with_by_survivors_and_a_replacement() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for number in 1..=4 {
        nodes.push(FakeDatanode::join(&server, number).await);
    }
    let created = server.create("/f").await;
    let first = created.first.as_ref().unwrap();
    let before = targets(first);
    let (survivors, lost) = (&before[1..], before[0]);
    let recovered = server.recover_block(&created, 1, (survivors, 500), &[lost]).await.unwrap();
    assert_eq!((recovered.length, recovered.holders.as_slice()), (500, survivors));
    let block = recovered.block.unwrap();
    assert_eq!((block.block_id, block.generation), (first.block_id, 2));
    let after = targets(&block);
    assert_eq!((&after[..2], after.len()), (survivors, 3));
    assert!(!after.contains(&lost));
    let expected = DropOrder { block_id: first.block_id, generation: 1, only_bad: false };
    let lost_node = nodes.iter_mut().find(|node| node.id == lost).unwrap();
    assert_eq!(lost_node.next_order().await, Kind::Drop(expected));

    let late = server.try_complete(1, created.inode_id, LENGTH, vec![commit(first, &before)]).await;
    assert!(matches!(late, Err(FsError::BlockMismatch { generation: 1, .. })));
    let done = server.try_complete(1, created.inode_id, LENGTH, vec![commit(&block, &after)]).await;
    assert_eq!(done.unwrap().under_replicated_blocks, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_block_that_lost_all_its_nodes_goes_back_to_what_was_flushed() {
    let server = Server::start().await;
    let first = FakeDatanode::join(&server, 1).await;
    let second = FakeDatanode::join(&server, 2).await;
    let created = server.create("/f").await;
    server.flush(&created, &[first.id, second.id]).await;
    let back = server.recover_block(&created, 1, (&[], 0), &[second.id]).await.unwrap();
    assert_eq!((back.length, back.holders), (LENGTH, vec![first.id]));
    let nobody = server.recover_block(&created, 1, (&[], 0), &[first.id, second.id]).await;
    let Err(FsError::NoDatanodes { path, refusals }) = nobody else { panic!("{nobody:?}") };
    assert_eq!((path.as_str(), refusals.len()), ("/f", 2));
    let unheard = server.recover_block(&created, 9, (&[first.id], 2000), &[]).await;
    assert!(matches!(unheard, Err(FsError::BlockMismatch { .. })));
    let invisible = server.create("/g").await;
    let anew = server.recover_block(&invisible, 1, (&[], 0), &[]).await.unwrap();
    assert_eq!((anew.length, anew.holders.len(), anew.block.unwrap().generation), (0, 0, 2));
    server.stop().await;
}

#[tokio::test]
async fn a_second_writer_gets_a_visible_file_once_it_is_recovered_and_the_first_is_fenced_off() {
    let server = Server::start().await;
    let node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    server.flush(&created, &[node.id]).await;
    let take = || async {
        let request = wire::CreateRequest { overwrite: true, ..server.create_request(2, "/f") };
        answer(server.client().create(request).await)
    };
    assert!(matches!(take().await, Err(FsError::LeaseHeld { ends_in_secs: 60, .. })));
    server.clock.advance(Duration::from_mins(1));
    drop(node);
    let mut node = FakeDatanode::join(&server, 1).await;
    assert!(matches!(take().await, Err(FsError::LeaseHeld { ends_in_secs: 1, .. })), "not yet");
    let held = answer(server.client().append(server.append_request(2, "/f")).await);
    assert!(matches!(held, Err(FsError::LeaseHeld { ends_in_secs: 1, .. })));
    let last = vec![commit(created.first.as_ref().unwrap(), &[node.id])];
    let lost = server.try_complete(1, created.inode_id, LENGTH, last).await.unwrap_err();
    assert_eq!(lost, FsError::LeaseLost { inode: created.inode_id });

    server.clock.advance(Duration::from_secs(1));
    let generation = node.recover(block).await;
    assert_eq!(generation, 3);
    node.finish(block, generation).await;
    server.until_closed("/f").await;
    assert_eq!(server.locate("/f").await.blocks[0].generation, generation);
    take().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_abandoned_file_is_closed_even_if_the_namenode_restarts_in_between() {
    let server = Server::start().await;
    let node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    server.flush(&created, &[node.id]).await;
    server.clock.advance(Duration::from_mins(5));
    drop(node);
    let mut node = FakeDatanode::join(&server, 1).await;
    server.clock.advance(Duration::from_secs(1));
    let first = node.recover(block).await;
    let late = node.next_whole_order().await;
    assert!(matches!(late.kind, Some(Kind::Finish(_))), "{late:?}");
    drop(node);

    let server = server.restart().await;
    let mut node = FakeDatanode::join(&server, 1).await;
    server.clock.advance(Duration::from_secs(1));
    let second = node.recover(block).await;
    assert!(second > first, "nobody who was told of the first attempt can spoil the second");
    node.finish(block, second).await;
    server.until_closed("/f").await;
    assert_eq!(server.stat("/f").await.length, LENGTH);
    server.stop().await;
}

#[tokio::test]
async fn what_was_flushed_is_given_up_only_once_every_node_that_may_have_it_has_answered() {
    let server = Server::start().await;
    let (first, second) =
        (FakeDatanode::join(&server, 1).await, FakeDatanode::join(&server, 2).await);
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    server.flush(&created, &[first.id, second.id]).await;
    server.clock.advance(Duration::from_mins(5));
    drop((first, second));
    let mut first = FakeDatanode::join(&server, 1).await;
    server.clock.advance(Duration::from_secs(1));
    first.lost(block).await;
    let asking = async {
        loop {
            let request = wire::RepairRequest { blocks_max: 9, copies_max: 9 };
            let report = answer(server.admin().repair(request).await).unwrap();
            if let [file] = &report.stuck_files[..] {
                break (report.stuck, file.clone());
            }
            tokio::task::yield_now().await;
        }
    };
    let (count, file) = in_time("it is shown", asking).await;
    assert_eq!((count, file.path.as_str(), file.missing.len()), (1, "/f", 1));
    assert_eq!(server.stat("/f").await.length, LENGTH, "the second may have it");

    let mut second = FakeDatanode::join(&server, 2).await;
    first.lost(block).await;
    second.lost(block).await;
    server.until_closed("/f").await;
    assert_eq!(server.stat("/f").await.length, 0);
    server.stop().await;
}

#[tokio::test]
async fn an_append_and_a_cut_go_on_with_the_last_block_beside_what_readers_see() {
    let server = Server::start().await;
    let node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    server.complete(&created, &[node.id]).await;
    let opened = answer(server.client().append(server.append_request(2, "/f")).await).unwrap();
    let tail = opened.tail.unwrap();
    assert_eq!((opened.length, tail.length, tail.holders), (LENGTH, LENGTH, vec![node.id]));
    let open = tail.block.unwrap();
    assert_eq!((open.block_id, open.generation, targets(&open)), (block, 2, vec![node.id]));
    assert_eq!(tail.before.as_ref(), server.locate("/f").await.blocks.first());
    assert!(opened.status.unwrap().being_written);
    let held = answer(server.client().append(server.append_request(3, "/f")).await).unwrap_err();
    assert!(matches!(held, FsError::LeaseHeld { ends_in_secs: 60, .. }));
    let longer = wire::BlockCommit { length: 1500, ..commit(&open, &[node.id]) };
    server.try_complete(2, created.inode_id, 1500, vec![longer]).await.unwrap();

    let cut =
        wire::AppendRequest { truncate: true, truncate_to: 400, ..server.append_request(3, "/f") };
    let opened = answer(server.client().append(cut.clone()).await).unwrap();
    let again = answer(server.client().append(cut).await).unwrap();
    assert_eq!(again, opened, "a retry");
    let tail = opened.tail.unwrap();
    assert_eq!((opened.length, tail.length, tail.before.unwrap().length), (400, 400, 1500));
    assert_eq!(server.stat("/f").await.length, 1500);
    let shorter = wire::BlockCommit { length: 400, ..commit(&tail.block.unwrap(), &[node.id]) };
    server.try_complete(3, created.inode_id, 400, vec![shorter]).await.unwrap();
    let located = server.locate("/f").await;
    assert_eq!((located.blocks[0].length, located.blocks[0].generation), (400, 3));

    let too_long =
        wire::AppendRequest { truncate: true, truncate_to: 401, ..server.append_request(3, "/f") };
    let refused = answer(server.client().append(too_long).await).unwrap_err();
    assert!(matches!(refused, FsError::InvalidArgument { field, .. } if field == "truncate_to"));
    server.stop().await;
}

#[tokio::test]
async fn a_part_of_a_block_is_dropped_when_nobody_has_a_use_for_it_and_not_before() {
    let server = Server::start().await;
    let mut node = FakeDatanode::join(&server, 1).await;
    let created = server.create("/f").await;
    let block = created.first.as_ref().unwrap().block_id;
    node.tell_of(replica_event::Kind::Open, block, 1, 10).await; // It may be gone on with.
    server.recover_block(&created, 1, (&[node.id], 10), &[]).await.unwrap();
    node.tell_of(replica_event::Kind::Open, block, 1, 10).await; // It is to be taken over.
    let abandon =
        wire::AbandonRequest { request: Some(server.request(1)), inode_id: created.inode_id };
    answer(server.client().abandon(abandon).await).unwrap();
    let mut dropped = Vec::new();
    for _ in 0..2 {
        match node.next_order().await {
            Kind::Drop(drop) => dropped.push((drop.block_id, drop.generation)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dropped, [(block, 2), (block, 1)]);
    let mut other = FakeDatanode::join(&server, 2).await;
    other.tell_of(replica_event::Kind::Open, block, 1, 10).await; // Its order was lost.
    let expected = DropOrder { block_id: block, generation: 1, only_bad: false };
    assert_eq!(other.next_order().await, Kind::Drop(expected));
    server.stop().await;
}

#[tokio::test]
async fn nobody_writes_in_the_name_of_the_namenode() {
    let server = Server::start().await;
    let request = server.append_request(0, "/f");
    let refused = answer(server.client().append(request).await).unwrap_err();
    assert!(matches!(refused, FsError::InvalidArgument { field, .. } if field == "request"));
    server.stop().await;
}
