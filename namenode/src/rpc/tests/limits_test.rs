//! What is out of range is refused with the field named, and the server goes on.

use doldam_proto::FsError;
use doldam_proto::limits::{PATH_BYTES_MAX, STAT_BATCH_MAX, TEXT_BYTES_MAX};
use doldam_proto::wire;

use super::fake_datanode::{FakeDatanode, register, registration};
use super::{Server, answer};

/// Makes one field of a good request bad.
type Break<R> = fn(&mut R);

fn field<T: std::fmt::Debug>(result: Result<T, FsError>) -> String {
    match result {
        Err(FsError::InvalidArgument { field, .. }) => field,
        other => panic!("not refused as it should be: {other:?}"),
    }
}

#[tokio::test]
async fn every_field_of_a_create_is_checked() {
    let server = Server::start().await;
    let _node = FakeDatanode::join(&server, 1).await;
    let breaks: [(&str, Break<wire::CreateRequest>); 7] = [
        ("replication", |request| request.replication = 17),
        ("block_bytes", |request| request.block_bytes = 100_000),
        ("block_bytes", |request| request.block_bytes = 1 << 40),
        ("holder", |request| request.holder = "x".repeat(TEXT_BYTES_MAX + 1)),
        ("client_host", |request| request.client_host = "x".repeat(TEXT_BYTES_MAX + 1)),
        ("excluded_nodes", |request| request.excluded_nodes = vec![1; 1001]),
        ("request", |request| request.request = None),
    ];
    for (name, break_it) in breaks {
        let mut request = server.create_request(1, "/f");
        break_it(&mut request);
        assert_eq!(field(answer(server.client().create(request).await)), name);
    }
    server.create("/f").await;
    server.stop().await;
}

#[tokio::test]
async fn paths_and_batches_are_bounded() {
    let server = Server::start().await;
    let mut client = server.client();
    for path in ["relative", "/a/../b", "/a\0b", &"/x".repeat(PATH_BYTES_MAX)] {
        let stat = wire::StatRequest { path: path.to_owned() };
        let refused = answer(client.stat(stat).await);
        assert!(matches!(refused, Err(FsError::InvalidPath { .. })), "{path:?}: {refused:?}");
    }
    let paths = vec!["/".to_owned(); STAT_BATCH_MAX + 1];
    let too_many = wire::StatBatchRequest { paths: paths.clone() };
    assert_eq!(field(answer(client.stat_batch(too_many).await)), "paths");
    let paths = paths[1..].to_vec();
    let all = answer(client.stat_batch(wire::StatBatchRequest { paths }).await).unwrap();
    assert!(all.entries.iter().all(|entry| entry.status.is_some()));
    server.stop().await;
}

#[tokio::test]
async fn changes_need_a_request_id_of_a_client() {
    let server = Server::start().await;
    let bad = wire::RequestId { client_id: vec![1; 15].into(), sequence: 1, answered_below: 0 };
    for request in [None, Some(bad)] {
        let mkdir = wire::MkdirRequest { request, path: "/d".to_owned(), parents: false };
        assert_eq!(field(answer(server.client().mkdir(mkdir).await)), "request");
    }
    let renew = wire::RenewLeaseRequest { client_id: vec![1; 17].into() };
    assert_eq!(field(answer(server.client().renew_lease(renew).await)), "client_id");
    server.stop().await;
}

#[tokio::test]
async fn registrations_are_checked() {
    let server = Server::start().await;
    let breaks: [(&str, Break<wire::RegisterRequest>); 6] = [
        ("node_uuid", |request| request.node_uuid = vec![1; 15].into()),
        ("cluster_id", |request| request.cluster_id = vec![1; 15].into()),
        ("address", |request| request.address = "nowhere".to_owned()),
        ("address", |request| request.address = format!("{}:1", "x".repeat(2000))),
        ("rack", |request| request.rack = "r1".to_owned()),
        ("version", |request| request.version = "x".repeat(2000)),
    ];
    for (name, break_it) in breaks {
        let mut request = registration(1);
        break_it(&mut request);
        assert_eq!(field(register(&server, request).await), name);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_server_goes_on() {
    let server = Server::start().await;
    let paths = vec!["x".repeat(1 << 20); 9];
    let refused = server.client().stat_batch(wire::StatBatchRequest { paths }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    server.report().await;
    server.stop().await;
}
