//! The pages of a server for people and monitors: `/metrics`, `/health` and `/`.
//!
//! HTTP/1 without keep-alive, a bounded number of connections, and a deadline for each: nothing here can hold
//! the server's memory or threads for long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::net::{Incoming, Listener};
use crate::tasks::BackgroundTasks;

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;

/// Connections served at a time; later ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time in which a request must have arrived.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a connection must be done, answer and all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request that are kept.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Pause after the system refused a connection (no file descriptors), which it will do again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server feels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// Whether it does its work: decides between 200 and 503.
    pub healthy: bool,
    /// What a monitor or a person wants to know besides.
    pub details: Map<String, Value>,
}

impl Health {
    /// Well, or not.
    pub fn new(healthy: bool) -> Self {
        Self { healthy, details: Map::new() }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

/// What the pages show. The functions are called for each request and must be quick.
pub struct Pages {
    /// Name of the server, for `/`.
    pub title: String,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// `/health`.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
    /// More for `/`, as HTML. See [`escape_html`].
    pub page: Option<Box<dyn Fn() -> String + Send + Sync>>,
}

/// Serves `pages` at `listener` until the server stops.
pub fn serve(listener: Box<dyn Listener>, pages: Pages, tasks: &BackgroundTasks) {
    let router = router(pages);
    let connections = tasks.clone();
    tasks.spawn("http", async move {
        let stopping = connections.stopping();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accept = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                accepted = accept => accepted,
                () = stopping.cancelled() => break,
            };
            match accepted {
                Ok(incoming) => {
                    let (router, stopping) = (router.clone(), stopping.clone());
                    connections.spawn("http connection", async move {
                        let _permit = permit;
                        tokio::select! {
                            biased;
                            () = serve_connection(incoming, router) => {}
                            () = stopping.cancelled() => {}
                        }
                    });
                }
                Err(cause) => {
                    warn!(%cause, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

async fn serve_connection(incoming: Box<dyn Incoming>, router: Router) {
    let peer = incoming.peer();
    let serve = async {
        let stream = incoming.register()?;
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(REQUEST_BYTES_MAX);
        let service = TowerToHyperService::new(router);
        let served = builder.serve_connection(TokioIo::new(stream), service).await;
        served.map_err(io::Error::other)
    };
    match tokio::time::timeout(CONNECTION_TIMEOUT, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => debug!(peer, %cause, "an HTTP connection failed"),
        Err(_elapsed) => debug!(peer, "an HTTP connection took too long"),
    }
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .with_state(Arc::new(pages))
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &pages.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(cause) => {
            warn!(%cause, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn health(State(pages): State<Arc<Pages>>) -> Response {
    let Health { healthy, details } = (pages.health)();
    let (status, word) = if healthy {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let mut object = Map::new();
    object.insert("status".to_owned(), word.into());
    object.extend(details);
    (status, axum::Json(Value::Object(object))).into_response()
}

async fn front(State(pages): State<Arc<Pages>>) -> Html<String> {
    let title = escape_html(&pages.title);
    let page = pages.page.as_ref().map(|page| page()).unwrap_or_default();
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n{page}\n\
         <p><a href=\"health\">health</a> <a href=\"metrics\">metrics</a></p></body></html>\n"
    ))
}

/// `text` as it may stand in a page.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
