//! Metadata calls end to end: writes, leases, retries, listing, and what survives a restart.

use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::limits::PROTOCOL_VERSION;
use doldam_proto::wire;

use super::fake_datanode::{FakeDatanode, LENGTH, registration};
use super::{Server, answer, commit};

#[tokio::test]
async fn hello_names_the_cluster_and_refuses_another_protocol() {
    let server = Server::start().await;
    let hello = |protocol_version| {
        let mut client = server.client();
        async move { answer(client.hello(wire::HelloRequest { protocol_version }).await) }
    };
    let welcome = hello(PROTOCOL_VERSION).await.unwrap();
    assert_eq!(welcome.cluster_id, server.handle.cluster_id().to_bytes());
    assert_eq!((welcome.default_replication, welcome.default_block_bytes), (3, 128 << 20));
    assert_eq!(welcome.lease_soft_ms, 60_000);
    let refused = hello(9).await.unwrap_err();
    assert_eq!(refused, FsError::WrongVersion { expected: PROTOCOL_VERSION, found: 9 });
    server.stop().await;
}

#[tokio::test]
async fn a_file_of_two_blocks_appears_whole_when_it_is_completed() {
    let server = Server::start().await;
    let node = FakeDatanode::join(&server, 1).await;
    let mut client = server.client();
    let block_bytes = 64 << 10;
    let create = wire::CreateRequest {
        block_bytes,
        parents: true,
        replication: 1,
        ..server.create_request(1, "/a/b/f")
    };
    let created = answer(client.create(create).await).unwrap();
    assert_eq!((created.replication, created.block_bytes), (1, block_bytes));
    let mut first = commit(created.first.as_ref().unwrap(), &[node.id]);
    first.length = block_bytes;

    let allocate = wire::AllocateBlockRequest {
        request: Some(server.request(1)),
        inode_id: created.inode_id,
        index: 1,
        commits: vec![first],
        ..Default::default()
    };
    let second = answer(client.allocate_block(allocate).await).unwrap().block.unwrap();
    assert_eq!((second.index, second.targets[0].node_id), (1, node.id));
    let stat = wire::StatRequest { path: "/a/b/f".to_owned() };
    let invisible = answer(client.stat(stat.clone()).await).unwrap_err();
    assert!(matches!(invisible, FsError::NotFound { .. }));

    let complete = wire::CompleteRequest {
        request: Some(server.request(1)),
        inode_id: created.inode_id,
        length: block_bytes + LENGTH,
        commits: vec![commit(&second, &[node.id])],
    };
    let completed = answer(client.complete(complete).await).unwrap();
    assert_eq!(completed.under_replicated_blocks, 0);
    assert_eq!(answer(client.stat(stat).await).unwrap().status, completed.status);

    let locate = |offset| wire::LocateRequest {
        path: "/a/b/f".to_owned(),
        offset,
        ..wire::LocateRequest::default()
    };
    let located = answer(client.locate(locate(0)).await).unwrap();
    let offsets: Vec<u64> = located.blocks.iter().map(|block| block.offset).collect();
    assert_eq!(offsets, [0, block_bytes]);
    let located = answer(client.locate(locate(block_bytes)).await).unwrap();
    assert_eq!(located.blocks.len(), 1);
    let server = server.restart().await;
    assert_eq!(server.locate("/a/b/f").await.blocks.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_also_after_a_restart() {
    let server = Server::start().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let request = server.create_request(1, "/f");
    let first = answer(server.client().create(request.clone()).await).unwrap();
    let again = answer(server.client().create(request.clone()).await).unwrap();
    assert_eq!(again, first);
    let server = server.restart().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let after = answer(server.client().create(request).await).unwrap();
    assert_eq!(after.inode_id, first.inode_id);
    let block_id = |created: wire::CreateResponse| created.first.unwrap().block_id;
    assert_eq!(block_id(after), block_id(first));
    server.stop().await;
}

#[tokio::test]
async fn a_path_that_is_being_written_can_be_taken_over_after_the_soft_limit() {
    let server = Server::start().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let first = server.create("/f").await;
    let try_it = || async {
        // Without a block: the node falls silent as the clock is moved.
        let request =
            wire::CreateRequest { allocate_first: false, ..server.create_request(2, "/f") };
        answer(server.client().create(request).await)
    };
    server.clock.advance(Duration::from_millis(59_500));
    let held = try_it().await.unwrap_err();
    let holder = "client 1".to_owned();
    assert_eq!(held, FsError::LeaseHeld { path: "/f".to_owned(), holder, ends_in_secs: 1 });
    let renew = wire::RenewLeaseRequest { client_id: vec![1; 16].into() };
    answer(server.client().renew_lease(renew).await).unwrap();
    server.clock.advance(Duration::from_millis(500));
    assert!(matches!(try_it().await, Err(FsError::LeaseHeld { ends_in_secs: 60, .. })));

    server.clock.advance(Duration::from_mins(1));
    let _node = FakeDatanode::join(&server, 1).await; // It was silent for as long.
    try_it().await.unwrap();
    let late = wire::CompleteRequest {
        request: Some(server.request(1)),
        inode_id: first.inode_id,
        ..wire::CompleteRequest::default()
    };
    let lost = answer(server.client().complete(late).await).unwrap_err();
    assert_eq!(lost, FsError::LeaseLost { inode: first.inode_id });
    server.stop().await;
}

#[tokio::test]
async fn what_a_silent_client_wrote_is_given_up_at_the_hard_limit() {
    let server = Server::start().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let first = server.create("/f").await;
    server.clock.advance(Duration::from_mins(5));
    let asking = async {
        loop {
            let allocate = wire::AllocateBlockRequest {
                request: Some(server.request(2)), // Another client's: it does not renew the lease.
                inode_id: first.inode_id,
                index: 1,
                ..Default::default()
            };
            match answer(server.client().allocate_block(allocate).await) {
                Err(FsError::LeaseLost { .. }) => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    super::in_time("the lease expires", asking).await;
    server.stop().await;
}

#[tokio::test]
async fn directories_are_listed_in_pages_renamed_and_deleted() {
    let server = Server::start().await;
    let mut client = server.client();
    for name in ["/d", "/d/b", "/d/a", "/d/c"] {
        let path = name.to_owned();
        let mkdir = wire::MkdirRequest { request: Some(server.request(1)), path, parents: false };
        assert!(answer(client.mkdir(mkdir).await).unwrap().created);
    }
    let page = |start_after: &str| wire::ListRequest {
        path: "/d".to_owned(),
        start_after: start_after.to_owned(),
        max_entries: 2,
    };
    let names = |page: &wire::ListResponse| -> Vec<String> {
        page.entries.iter().map(|entry| entry.path.clone()).collect()
    };
    let first = answer(client.list(page("")).await).unwrap();
    assert_eq!((names(&first), first.more), (vec!["a".to_owned(), "b".to_owned()], true));
    let second = answer(client.list(page("b")).await).unwrap();
    assert_eq!((names(&second), second.more), (vec!["c".to_owned()], false));

    let (from, to) = ("/d/a".to_owned(), "/e".to_owned());
    let rename = wire::RenameRequest { request: Some(server.request(1)), from, to, replace: false };
    answer(client.rename(rename).await).unwrap();
    let delete = |recursive| wire::DeleteRequest {
        request: Some(server.request(1)),
        path: "/d".to_owned(),
        recursive,
    };
    let refused = answer(client.delete(delete(false)).await).unwrap_err();
    assert!(matches!(refused, FsError::DirectoryNotEmpty { .. }));
    answer(client.delete(delete(true)).await).unwrap();
    let paths = ["/d", "/e"].map(str::to_owned).to_vec();
    let batch = answer(client.stat_batch(wire::StatBatchRequest { paths }).await).unwrap();
    let there: Vec<bool> = batch.entries.iter().map(|entry| entry.status.is_some()).collect();
    assert_eq!(there, [false, true]);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_request_is_told_so_even_while_there_are_no_datanodes() {
    let server = Server::start().await;
    let missing = answer(server.client().create(server.create_request(1, "/no/f")).await);
    assert!(matches!(missing, Err(FsError::NotFound { .. })), "{missing:?}");
    let nobody = answer(server.client().create(server.create_request(1, "/f")).await);
    assert_eq!(nobody, Err(FsError::NoDatanodes { path: "/f".to_owned(), refusals: Vec::new() }));
    server.stop().await;
}

#[tokio::test]
async fn the_reader_gets_its_own_host_first_and_suspect_nodes_last() {
    let server = Server::start().await;
    let nodes = [
        FakeDatanode::join(&server, 1).await,
        FakeDatanode::join(&server, 2).await,
        FakeDatanode::join(&server, 3).await,
    ];
    let ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
    let created = server.create("/f").await;
    server.complete(&created, &ids).await;
    let order = |host: &str| {
        let request = wire::LocateRequest {
            path: "/f".to_owned(),
            client_host: host.to_owned(),
            ..wire::LocateRequest::default()
        };
        let mut client = server.client();
        async move {
            let block = answer(client.locate(request).await).unwrap().blocks.remove(0);
            block.replicas.iter().map(|node| node.node_id).collect::<Vec<u32>>()
        }
    };
    let mut seen_first = std::collections::BTreeSet::new();
    for _ in 0..40 {
        assert_eq!(order("h2").await[0], ids[1]);
        seen_first.insert(order("elsewhere").await[0]);
    }
    assert_eq!(seen_first.len(), 3, "readers are spread");
    let [first, second, third] = nodes;
    drop(second);
    let is_suspect = |report: &wire::ReportResponse| {
        report.datanodes[1].node.as_ref().unwrap().state() == wire::NodeState::Suspect
    };
    server.until("the node is suspect", is_suspect).await;
    assert_eq!(order("h2").await[2], ids[1]);
    drop((first, third));
    server.stop().await;
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let server = Server::start().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let get = |path| server.page(path);
    let health = get("/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains(r#""state":"serving""#), "{health}");
    assert!(get("/").await.contains("h1:9000"));
    let metrics = get("/metrics").await;
    let line = r#"doldam_namenode_requests_total{method="Register",outcome="done"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn the_readers_rack_comes_next_and_is_that_of_a_datanode_on_its_host_unless_it_says() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for (number, rack) in [(1, "/a"), (2, "/b"), (3, "/b"), (4, "/a")] {
        let request = wire::RegisterRequest { rack: rack.to_owned(), ..registration(number) };
        nodes.push(FakeDatanode::join_as(&server, request).await);
    }
    let ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
    let created = server.create("/f").await;
    server.complete(&created, &ids[..3]).await;
    let locate = |host: &str, rack: &str| {
        let request = wire::LocateRequest {
            path: "/f".to_owned(),
            client_host: host.to_owned(),
            client_rack: rack.to_owned(),
            ..wire::LocateRequest::default()
        };
        let mut client = server.client();
        async move { answer(client.locate(request).await) }
    };
    let first = |located: &wire::LocateResponse| located.blocks[0].replicas[0].node_id;
    // At random it would come first every time in one of 3^20 runs.
    for _ in 0..20 {
        let located = locate("me,h4", "").await.unwrap();
        assert_eq!((first(&located), &*located.client_rack), (ids[0], "/a"));
        let located = locate("h3,me", "/a/").await.unwrap();
        assert_eq!((first(&located), &*located.client_rack), (ids[2], "/a"));
        assert_eq!(located.blocks[0].replicas[1].node_id, ids[0]);
    }
    assert_eq!(locate("nowhere", "").await.unwrap().client_rack, "");
    let refused = locate("", "no slash").await.unwrap_err();
    assert!(matches!(refused, FsError::InvalidArgument { field, .. } if field == "client_rack"));
    drop(nodes);
    server.stop().await;
}
