//! Calls over loopback that a server answers from nothing: what any gRPC service costs at the least here.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use doldam_proto::wire::{FileStatus, StatRequest, StatResponse};
use doldam_runtime::grpc::{channel, serve};
use doldam_runtime::tasks::{BackgroundTasks, spawn_detached};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::{Bench, Outcome};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn one(bench: &Bench) -> Outcome<()> {
    calls(bench, 1, 1)
}

pub(crate) fn many(bench: &Bench) -> Outcome<()> {
    calls(bench, 32, 1)
}

pub(crate) fn many_on_two(bench: &Bench) -> Outcome<()> {
    calls(bench, 32, 2)
}

fn calls(bench: &Bench, in_flight: usize, connections: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = BackgroundTasks::default();
        let listener = bench.seams.net.bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connected = tasks.clone();
        tasks.spawn("server", async move {
            serve(Routes::new(Answers), listener, TIMEOUT, &connected).await;
        });
        let channels = (0..connections)
            .map(|_| channel(Arc::clone(&bench.seams.net), &address, TIMEOUT))
            .collect::<Result<Vec<_>, _>>()?;
        let (next, calls) = (Arc::new(AtomicU64::new(0)), bench.calls);
        let callers: Vec<_> = (0..in_flight)
            .map(|caller| {
                let (next, channel) = (Arc::clone(&next), channels[caller % connections].clone());
                spawn_detached("caller", async move {
                    while next.fetch_add(1, Ordering::Relaxed) < calls {
                        call(channel.clone()).await?;
                    }
                    Ok::<_, Status>(())
                })
            })
            .collect();
        for caller in callers {
            caller.await??;
        }
        drop(channels);
        tasks.shutdown(TIMEOUT).await?;
        Ok(())
    })
}

async fn call(channel: Channel) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|cause| Status::from_error(cause.into()))?;
    let path = http::uri::PathAndQuery::from_static("/bench.Answers/Stat");
    let codec = ProstCodec::<StatRequest, StatResponse>::default();
    let request = Request::new(StatRequest { path: "/some/directory/with/a/file".to_owned() });
    client.unary(request, path, codec).await.map(drop)
}

/// A service of one method.
#[derive(Debug, Clone)]
struct Answers;

impl NamedService for Answers {
    const NAME: &'static str = "bench.Answers";
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = ProstCodec::<StatResponse, StatRequest>::default();
        Box::pin(async { Ok(tonic::server::Grpc::new(codec).unary(Stat, request).await) })
    }
}

struct Stat;

impl UnaryService<StatRequest> for Stat {
    type Response = StatResponse;
    type Future = Ready<Result<Response<StatResponse>, Status>>;

    fn call(&mut self, request: Request<StatRequest>) -> Self::Future {
        let status = FileStatus {
            path: request.into_inner().path,
            inode_id: 1 << 20,
            length: 1 << 30,
            replication: 3,
            block_bytes: 128 << 20,
            modified_ms: 1 << 40,
            digest: vec![7; 32].into(),
            ..FileStatus::default()
        };
        ready(Ok(Response::new(StatResponse { status: Some(status) })))
    }
}
