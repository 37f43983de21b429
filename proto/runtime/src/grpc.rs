//! gRPC over [`Net`]: servers and channels with the same keepalive, limits and trace ids everywhere.
//!
//! A partition swallows what is in flight without a word, so both sides ping: a dead peer is noticed within
//! [`KEEPALIVE_INTERVAL`] + [`KEEPALIVE_TIMEOUT`]. A deadline per call is the caller's (`Request::set_timeout`).
//!
//! tonic takes the limits on messages per generated client and service: call
//! `.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)` and `.max_encoding_message_size(..)` on each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use doldam_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;
use tracing::{Span, warn};

use crate::net::{BoxFuture, BoxStream, Listener, Net};
use crate::tasks::inline;
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

/// A server with keepalive and limits, and a span `request{trace}` around each request. Add services to it, then
/// `serve_with_incoming_shutdown(incoming(listener), ..)`.
pub fn server() -> Server<Stamped> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .trace_fn(request_span)
        .layer(MapResponseLayer::new(stamp as Stamp))
}

/// What [`server`] puts around each service.
pub type Stamped = Stack<MapResponseLayer<Stamp>, Identity>;
/// What it does to a response.
pub type Stamp = fn(http::Response<Body>) -> http::Response<Body>;

/// Under a simulator a response tells no date: hyper would take it from the system's clock.
fn stamp(mut response: http::Response<Body>) -> http::Response<Body> {
    if inline::is_entered() {
        let never = http::HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        response.headers_mut().insert(http::header::DATE, never);
    }
    response
}

fn request_span(request: &http::Request<()>) -> Span {
    let trace = telemetry::trace_of_headers(request.headers());
    if trace.as_str().is_empty() { Span::none() } else { telemetry::request_span(&trace) }
}

/// The connections that arrive at `listener`, at most [`CONNECTIONS_MAX`] at a time: later ones wait in the
/// system's queue. Never ends and never fails; a refused connection is logged.
pub fn incoming(listener: Box<dyn Listener>) -> IncomingStreams {
    incoming_bounded(listener, CONNECTIONS_MAX)
}

/// [`incoming`] with another bound.
pub fn incoming_bounded(listener: Box<dyn Listener>, connections_max: usize) -> IncomingStreams {
    let shared =
        Arc::new(Accepting { listener, permits: Arc::new(Semaphore::new(connections_max)) });
    IncomingStreams { accept: accept(Arc::clone(&shared)), shared }
}

/// See [`incoming`].
pub struct IncomingStreams {
    shared: Arc<Accepting>,
    accept: BoxFuture<'static, GrpcStream>,
}

struct Accepting {
    listener: Box<dyn Listener>,
    permits: Arc<Semaphore>,
}

fn accept(shared: Arc<Accepting>) -> BoxFuture<'static, GrpcStream> {
    Box::pin(async move {
        loop {
            let Ok(permit) = Arc::clone(&shared.permits).acquire_owned().await else {
                return std::future::pending().await; // Never closed.
            };
            let accepted = shared.listener.accept().await;
            let registered = accepted.and_then(|incoming| {
                let peer = incoming.peer();
                Ok((incoming.register()?, peer))
            });
            match registered {
                Ok((stream, peer)) => {
                    return GrpcStream { stream, peer: Peer(peer.into()), _permit: permit };
                }
                Err(cause) => {
                    warn!(%cause, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl Stream for IncomingStreams {
    type Item = io::Result<GrpcStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = ready!(self.accept.as_mut().poll(cx));
        self.accept = accept(Arc::clone(&self.shared));
        Poll::Ready(Some(Ok(stream)))
    }
}

/// Who sent a request: `request.extensions().get::<Peer>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(pub Arc<str>);

/// A connection as tonic takes it.
pub struct GrpcStream {
    stream: BoxStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for GrpcStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for GrpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GrpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

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
