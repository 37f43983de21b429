//! Connections in memory, for tests that steer time: a paused clock jumps on as soon as nothing moves, and what is
//! under way between two sockets of the system does not count as moving.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::{BoxFuture, BoxStream, Incoming, Listener, Net};

/// Bytes under way in each direction.
const ROOM_BYTES: usize = 64 << 10;
/// Connections that nobody has accepted yet.
const BACKLOG: usize = 64;

/// A network of its own.
#[derive(Default)]
pub(crate) struct MemoryNet {
    listeners: Mutex<BTreeMap<String, mpsc::Sender<MemoryIncoming>>>,
}

impl Net for MemoryNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        let listener = self.listeners.lock().get(address).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        Box::pin(async move {
            let (stream, other) = duplex(ROOM_BYTES);
            let sent = listener.ok_or_else(refused)?.send(MemoryIncoming { stream: other }).await;
            sent.map_err(|_closed| refused())?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let (sender, waiting) = mpsc::channel(BACKLOG);
        self.listeners.lock().insert(address.to_owned(), sender);
        let listener = MemoryListener { address: address.to_owned(), waiting: waiting.into() };
        Box::pin(async move { Ok(Box::new(listener) as Box<dyn Listener>) })
    }
}

struct MemoryListener {
    address: String,
    waiting: tokio::sync::Mutex<mpsc::Receiver<MemoryIncoming>>,
}

impl Listener for MemoryListener {
    fn local_addr(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Incoming>>> {
        Box::pin(async move {
            let incoming = self.waiting.lock().await.recv().await;
            let incoming = incoming.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            Ok(Box::new(incoming) as Box<dyn Incoming>)
        })
    }
}

struct MemoryIncoming {
    stream: DuplexStream,
}

impl Incoming for MemoryIncoming {
    fn peer(&self) -> String {
        "memory:0".to_owned()
    }

    fn register(self: Box<Self>) -> io::Result<BoxStream> {
        Ok(Box::new(self.stream))
    }
}
