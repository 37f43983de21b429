//! gRPC over [`Net`]: servers and channels with the same keepalive, limits and trace ids everywhere.
//!
//! A partition swallows what is in flight without a word, so both sides ping: a dead peer is noticed within
//! [`KEEPALIVE_INTERVAL`] + [`KEEPALIVE_TIMEOUT`]. A deadline per call is the caller's (`Request::set_timeout`).
//!
//! tonic takes the limits on messages per generated client and service: call
//! `.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)` and `.max_encoding_message_size(..)` on each.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use tracing::{Instrument, Span, debug, warn};

use crate::net::{BoxStream, Listener, Net};
use crate::tasks::{BackgroundTasks, inline};
use crate::telemetry;

#[cfg(test)]
#[path = "grpc_test.rs"]
mod tests;

/// Time between two pings on a connection, idle or not.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time a ping may take before the connection counts as dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests in progress on one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Connections of one server.
pub const CONNECTIONS_MAX: usize = 16 << 10;
/// Longest list of headers, in bytes.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Flow-control window of one request: a page of a listing fits.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Pause after the system refused a connection (no file descriptors), which it will do again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(GRPC_MESSAGE_BYTES_MAX >= STREAM_WINDOW_BYTES as usize);

/// Serves `routes` to the connections that arrive at `listener`, at most [`CONNECTIONS_MAX`] at a time: later ones wait
/// in the system's queue. With keepalive and limits, and a span `request{trace}` around each request.
///
/// When `tasks` are to stop, the port is free at once and each connection has `grace` to finish the requests it is at.
/// Never fails; a refused connection is logged.
pub async fn serve(
    routes: Routes,
    listener: Box<dyn Listener>,
    grace: Duration,
    tasks: &BackgroundTasks,
) {
    serve_bounded(routes, listener, CONNECTIONS_MAX, grace, tasks).await;
}

/// [`serve`] with another bound.
async fn serve_bounded(
    routes: Routes,
    listener: Box<dyn Listener>,
    connections_max: usize,
    grace: Duration,
    tasks: &BackgroundTasks,
) {
    let (stopping, permits) = (tasks.stopping(), Arc::new(Semaphore::new(connections_max)));
    let routes = routes.prepare();
    while let Some(accepted) = stopping.run_until_cancelled(accept(&*listener, &permits)).await {
        let served = serve_connection(routes.clone(), accepted, grace, stopping.clone());
        tasks.spawn("grpc connection", served);
    }
}

/// As tonic's own server does it, which however decides by chance what it looks at first: a simulator must see the same
/// again.
async fn serve_connection(
    routes: Routes,
    Accepted { stream, peer, _permit }: Accepted,
    grace: Duration,
    stopping: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let asked = peer.clone();
    let service = tower::service_fn(move |mut request: http::Request<_>| {
        let span = request_span(request.headers());
        request.extensions_mut().insert(asked.clone());
        let mut routes = routes.clone();
        async move { routes.call(request).await.map(stamp) }.instrument(span)
    });
    let service = TowerToHyperService::new(service);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(grace, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(cause) = ended {
        debug!(peer = &*peer.0, %cause, "a connection ended");
    }
}

/// Under a simulator a response tells no date: hyper would take it from the system's clock.
fn stamp(mut response: http::Response<Body>) -> http::Response<Body> {
    if inline::is_entered() {
        let never = http::HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        response.headers_mut().insert(http::header::DATE, never);
    }
    response
}

fn request_span(headers: &http::HeaderMap) -> Span {
    let trace = telemetry::trace_of_headers(headers);
    if trace.as_str().is_empty() { Span::none() } else { telemetry::request_span(&trace) }
}

/// A connection that counts towards the bound until it is dropped.
struct Accepted {
    stream: BoxStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

async fn accept(listener: &dyn Listener, permits: &Arc<Semaphore>) -> Accepted {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            return std::future::pending().await; // Never closed.
        };
        let accepted = listener.accept().await;
        let registered = accepted.and_then(|incoming| {
            let peer = incoming.peer();
            Ok((incoming.register()?, peer))
        });
        match registered {
            Ok((stream, peer)) => {
                return Accepted { stream, peer: Peer(peer.into()), _permit: permit };
            }
            Err(cause) => {
                warn!(%cause, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who sent a request: `request.extensions().get::<Peer>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(pub Arc<str>);

/// A channel to the server at `address` (`HOST:PORT`), connected at the first call and again after each loss.
///
/// # Errors
/// If `address` is none.
pub fn channel(
    net: Arc<dyn Net>,
    address: &str,
    connect_timeout: Duration,
) -> Result<Channel, BadAddress> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .ok()
        .filter(|endpoint| names_host_and_port(endpoint.uri()))
        .ok_or_else(|| BadAddress { address: address.to_owned() })?
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connector = tower::service_fn(move |uri: Uri| {
        let net = Arc::clone(&net);
        async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            net.connect(&address).await.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// And nothing else.
fn names_host_and_port(uri: &Uri) -> bool {
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    has_host && uri.port_u16().is_some() && uri.path_and_query().is_none_or(|rest| rest == "/")
}

/// Not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no HOST:PORT")]
pub struct BadAddress {
    /// As given.
    pub address: String,
}
