//! Connections in memory, and a clock that goes by the runtime's: with paused time a test takes as long as its bytes
//! need, and every delay in it is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use doldam_runtime::Seams;
use doldam_runtime::clock::{Clock, Uptime};
use doldam_runtime::net::{
    BoxFuture, BoxReadHalf, BoxStream, BoxWriteHalf, ByteStream, Incoming, Listener, Net,
    split_with_lock,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// Bytes under way in each direction.
const ROOM_BYTES: usize = 256 << 10;
/// Connections that nobody has accepted yet.
const BACKLOG: usize = 64;

/// A network of its own. Names of datanodes begin with `datanode`.
#[derive(Default)]
pub(crate) struct MemoryNet {
    listeners: Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>,
    black_holes: Mutex<BTreeSet<String>>,
    to_datanodes: Arc<Open>,
}

/// Connections that are open, and the most there were at a time.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl MemoryNet {
    /// Nobody answers at `address` any more, not even to refuse.
    pub(crate) fn swallow(&self, address: &str) {
        self.black_holes.lock().insert(address.to_owned());
    }

    /// Connections to datanodes, now and at the most.
    pub(crate) fn to_datanodes(&self) -> (usize, usize) {
        let Open { now, most } = &*self.to_datanodes;
        (now.load(Ordering::SeqCst), most.load(Ordering::SeqCst))
    }
}

impl Net for MemoryNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        let listener = self.listeners.lock().get(address).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        Box::pin(async move {
            if self.black_holes.lock().contains(address) {
                pending::<()>().await;
            }
            let (stream, other) = duplex(ROOM_BYTES);
            let listener = listener.ok_or_else(refused)?;
            listener.send(other).await.map_err(|_closed| refused())?;
            if !address.starts_with("datanode") {
                return Ok(Box::new(stream) as BoxStream);
            }
            let open = Arc::clone(&self.to_datanodes);
            let now = open.now.fetch_add(1, Ordering::SeqCst) + 1;
            open.most.fetch_max(now, Ordering::SeqCst);
            Ok(Box::new(Counted { stream, open }) as BoxStream)
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
    waiting: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
}

impl Listener for MemoryListener {
    fn local_addr(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Incoming>>> {
        Box::pin(async move {
            let stream = self.waiting.lock().await.recv().await;
            let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            Ok(Box::new(MemoryIncoming { stream }) as Box<dyn Incoming>)
        })
    }
}

struct MemoryIncoming {
    stream: DuplexStream,
}

impl Incoming for MemoryIncoming {
    fn peer(&self) -> String {
        "client:0".to_owned()
    }

    fn register(self: Box<Self>) -> io::Result<BoxStream> {
        Ok(Box::new(self.stream))
    }
}

/// A client's end of a connection to a datanode.
struct Counted {
    stream: DuplexStream,
    open: Arc<Open>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ByteStream for Counted {
    fn into_halves(self: Box<Self>) -> (BoxReadHalf, BoxWriteHalf) {
        split_with_lock(*self)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The runtime's time.
struct RuntimeClock {
    started: tokio::time::Instant,
}

impl Clock for RuntimeClock {
    fn now(&self) -> Uptime {
        self.started.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }
}

pub(super) fn virtual_seams(net: Arc<MemoryNet>) -> Seams {
    let clock = Arc::new(RuntimeClock { started: tokio::time::Instant::now() });
    Seams { clock, net, ..Seams::system() }
}
