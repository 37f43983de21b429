//! Tests of servers and channels over loopback sockets, with a plain HTTP/2 route in place of a service.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http::{HeaderMap, Request, StatusCode};
use tonic::body::Body;
use tower::ServiceExt;

use super::*;
use crate::net::RealNet;
use crate::net::memory::MemoryNet;
use crate::random::SeededRandom;
use crate::tasks::BackgroundTasks;
use crate::telemetry::{TRACE_KEY, TraceId};

const TIMEOUT: Duration = Duration::from_secs(5);

struct TestServer {
    net: Arc<dyn Net>,
    address: String,
    tasks: BackgroundTasks,
}

impl TestServer {
    /// Answers `GET /echo` with the trace id it saw and the address of who asked.
    async fn start(net: Arc<dyn Net>, address: &str, connections_max: usize) -> Self {
        let listener = net.bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = get(|headers: HeaderMap, Extension(Peer(peer)): Extension<Peer>| async move {
            let trace = telemetry::trace_of_headers(&headers);
            ([(TRACE_KEY, trace.to_string())], peer.to_string())
        });
        let routes = Routes::from(Router::new().route("/echo", echo));
        let tasks = BackgroundTasks::default();
        let connections = tasks.clone();
        tasks.spawn_critical("grpc", async move {
            serve_bounded(routes, listener, connections_max, TIMEOUT, &connections).await;
            Ok::<_, Infallible>(())
        });
        Self { net, address, tasks }
    }

    /// Returns when its port is free again.
    async fn stop(self) {
        assert_eq!(self.tasks.shutdown(TIMEOUT).await, Ok(()));
    }

    fn channel(&self) -> Channel {
        channel(Arc::clone(&self.net), &self.address, TIMEOUT).unwrap()
    }
}

async fn echo(channel: &Channel, trace: &TraceId) -> Result<http::Response<Body>, tonic::Status> {
    let mut request = Request::get("/echo").body(Body::empty()).unwrap();
    let mut metadata = tonic::metadata::MetadataMap::new();
    telemetry::inject_trace(&mut metadata, trace);
    *request.headers_mut() = metadata.into_headers();
    channel.clone().oneshot(request).await.map_err(|cause| tonic::Status::from_error(cause.into()))
}

#[tokio::test]
async fn a_call_carries_its_trace_id_and_the_server_knows_who_asked() {
    let server = TestServer::start(Arc::new(RealNet), "127.0.0.1:0", 8).await;
    let trace = TraceId::new(&SeededRandom::new(1));
    let answer = echo(&server.channel(), &trace).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[TRACE_KEY], trace.as_str());
    let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 100).await.unwrap();
    assert!(body.starts_with(b"127.0.0.1:"), "{body:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_channel_outlives_its_server_and_finds_the_next_one() {
    let server = TestServer::start(Arc::new(RealNet), "127.0.0.1:0", 8).await;
    let (channel, address) = (server.channel(), server.address.clone());
    echo(&channel, &TraceId::default()).await.unwrap();
    server.stop().await;
    let refusal = echo(&channel, &TraceId::default()).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::Unavailable, "{refusal:?}");

    let server = TestServer::start(Arc::new(RealNet), &address, 8).await;
    let answer = loop {
        // The first call may still meet the end of the old connection.
        if let Ok(answer) = echo(&channel, &TraceId::default()).await {
            break answer;
        }
    };
    assert_eq!(answer.status(), StatusCode::OK);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_beyond_the_bound_waits_until_another_is_closed() {
    let server = TestServer::start(Arc::new(MemoryNet::default()), "server:1", 1).await;
    let (first, second) = (server.channel(), server.channel());
    let trace = TraceId::default();
    echo(&first, &trace).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_secs(1), echo(&second, &trace)).await;
    assert!(waiting.is_err(), "there was room for one");
    drop(first);
    let answer = echo(&second, &trace).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_address_is_refused_before_anybody_is_called() {
    for address in
        ["", "namenode", "namenode:", ":8020", "namenode:8020/x", "x:1?y", "a b:1", "x:99999"]
    {
        let refusal = channel(Arc::new(RealNet), address, TIMEOUT).err();
        let expected = BadAddress { address: address.to_owned() };
        assert_eq!(refusal, Some(expected), "{address}");
    }
    assert!(channel(Arc::new(RealNet), "[::1]:8020", TIMEOUT).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fell_silent_is_noticed_by_its_missing_pongs() {
    // The connection is made, to a process that never looks at it.
    let net = Arc::new(MemoryNet::default());
    let _listener = net.bind("silent:1").await.unwrap();
    let silent = channel(net, "silent:1", TIMEOUT).unwrap();
    let noticed_after = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT + Duration::from_secs(1);
    let trace = TraceId::default();
    let call = tokio::time::timeout(noticed_after, echo(&silent, &trace)).await;
    assert!(call.expect("it would wait for ever").is_err());
}
