//! A wire that is slow or silent, without any privilege: a port that passes everything on to another.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use doldam_runtime::tasks::spawn_detached;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces on the wire at once; each is at most [`PIECE_BYTES`].
const PIECES_MAX: usize = 1024;
const PIECE_BYTES: usize = 16 << 10;

/// Passes bytes on, as late as it is told, or not at all.
#[derive(Debug)]
pub struct Relay {
    address: String,
    silent: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay to `target`; each byte takes `delay` in either direction.
    pub fn start(target: &str, delay: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = Arc::new(watch::Sender::new(false));
        let serve = serve(listener, target.to_owned(), delay, Arc::clone(&silent));
        Self { address, silent, task: spawn_detached("relay", serve) }
    }

    /// `HOST:PORT` of this end of the wire.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on nothing arrives, in either direction, and no connection ends.
    pub fn silence(&self) {
        self.silent.send_replace(true);
    }

    /// What is on the wire goes on.
    pub fn resume(&self) {
        self.silent.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: StdListener,
    target: String,
    delay: Duration,
    silent: Arc<watch::Sender<bool>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(&target).await else { continue };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        spawn_detached("relay", pass(near_in, far_out, delay, silent.subscribe()));
        spawn_detached("relay", pass(far_in, near_out, delay, silent.subscribe()));
    }
}

/// One direction of one connection, until either end closes it.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut silent: watch::Receiver<bool>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, BytesMut)>(PIECES_MAX);
    let take = async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send((Instant::now() + delay, piece)).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    let give = async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            let speaks = silent.wait_for(|silent| !silent).await.is_ok();
            if !speaks || to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(take, give);
}
