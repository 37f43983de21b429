//! Connections: the only door to the network.
//!
//! A stream is bound to the reactor of the runtime that polls it, so accepting has two steps: the accept loop
//! takes an [`Incoming`] and hands it to whichever runtime is to serve it, and that one calls
//! [`register`](Incoming::register).

#[cfg(test)]
pub(crate) mod memory;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A connection of any kind.
pub type BoxStream = Box<dyn ByteStream>;
/// What is read from a connection.
pub type BoxReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// What is written to a connection.
pub type BoxWriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection: bytes in order each way.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Two halves to be used side by side. Override where it needs no lock, as for TCP.
    fn into_halves(self: Box<Self>) -> (BoxReadHalf, BoxWriteHalf);
}

impl ByteStream for TcpStream {
    fn into_halves(self: Box<Self>) -> (BoxReadHalf, BoxWriteHalf) {
        let (read, write) = (*self).into_split();
        (Box::new(read), Box::new(write))
    }
}

impl ByteStream for tokio::io::DuplexStream {
    fn into_halves(self: Box<Self>) -> (BoxReadHalf, BoxWriteHalf) {
        split_with_lock(*self)
    }
}

/// [`into_halves`](ByteStream::into_halves) for streams that cannot do better, such as simulated ones.
pub fn split_with_lock<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
) -> (BoxReadHalf, BoxWriteHalf) {
    let (read, write) = tokio::io::split(stream);
    (Box::new(read), Box::new(write))
}

/// Opens connections, and ports for others to connect to.
pub trait Net: Send + Sync + 'static {
    /// Connects to `address` (`HOST:PORT`), from and for the current runtime. The caller sets a deadline.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>>;

    /// Listens at `address`; port 0 takes any free one.
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// What others may call this machine: its name, and its address on the way to `peer` (`HOST:PORT`). Nothing is
    /// sent to the peer; what cannot be found out is left out. The caller sets a deadline.
    fn local_names<'a>(&'a self, _peer: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
}

/// A port that others connect to; closed when dropped.
pub trait Listener: Send + Sync + 'static {
    /// Where it listens, `HOST:PORT` with the port that was really taken.
    ///
    /// # Errors
    /// If the system does not say.
    fn local_addr(&self) -> io::Result<String>;

    /// Waits for the next connection. Cancel-safe. An error concerns one connection, not the listener.
    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Incoming>>>;
}

/// A connection that was accepted and is not yet bound to a runtime.
pub trait Incoming: Send {
    /// Who connected, `HOST:PORT`.
    fn peer(&self) -> String;

    /// Binds it to the current runtime.
    ///
    /// # Errors
    /// If the system refuses, or there is no runtime here.
    fn register(self: Box<Self>) -> io::Result<BoxStream>;
}

/// TCP, without Nagle's delay: every write here is a whole message or frame.
///
/// A peer whose machine or wire is gone is noticed by the systems themselves within seconds while nothing is under way,
/// so also by who waits for an answer that may take long, such as that of a disk. One whose process only stands still
/// is not: its system goes on answering. (`TCP_USER_TIMEOUT`, which would notice it while bytes are under way too, also
/// ends connections to peers that read nothing for as long, such as a reader that pauses or a node whose disk is slow.)
#[derive(Debug, Default, Clone, Copy)]
pub struct RealNet;

/// Quiet time after which the other side's system is asked whether it is there.
const PEER_ASKED_AFTER: Duration = Duration::from_secs(2);
/// Time between two such questions.
const PEER_ASKED_EVERY: Duration = Duration::from_secs(1);
/// Questions without an answer after which the connection counts as broken.
const PEER_ASKED_TIMES: u32 = 2;

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let questions = TcpKeepalive::new()
        .with_time(PEER_ASKED_AFTER)
        .with_interval(PEER_ASKED_EVERY)
        .with_retries(PEER_ASKED_TIMES);
    SockRef::from(stream).set_tcp_keepalive(&questions)
}

impl Net for RealNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            set_up(&stream)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // SO_REUSEADDR is set by tokio: a restarted server gets its port back at once.
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(RealListener { listener }) as Box<dyn Listener>)
        })
    }

    fn local_names<'a>(&'a self, peer: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            // The name of every machine's own loopback is nobody's name.
            let mut names = vec![name];
            names.retain(|name| !name.is_empty() && name != "localhost" && !name.contains(','));
            names.extend(address_towards(peer).await.ok().map(|address| address.to_string()));
            names
        })
    }
}

/// The address the system would use towards `peer`: connecting a datagram socket chooses it and sends nothing.
async fn address_towards(peer: &str) -> io::Result<IpAddr> {
    let mut found = tokio::net::lookup_host(peer).await?;
    let peer = found.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}

struct RealListener {
    listener: TcpListener,
}

impl Listener for RealListener {
    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Incoming>>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            set_up(&stream)?;
            // Off this runtime's reactor, so that any other may take it; stays non-blocking.
            let stream = stream.into_std()?;
            Ok(Box::new(RealIncoming { stream, peer: peer.to_string() }) as Box<dyn Incoming>)
        })
    }
}

struct RealIncoming {
    stream: std::net::TcpStream,
    peer: String,
}

impl Incoming for RealIncoming {
    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn register(self: Box<Self>) -> io::Result<BoxStream> {
        Ok(Box::new(TcpStream::from_std(self.stream)?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_is_served_by_another_runtime_than_the_one_that_accepted_it() {
        let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, incoming) = tokio::join!(RealNet.connect(&address), listener.accept());
        let (mut client, incoming) = (client.unwrap(), incoming.unwrap());
        assert!(incoming.peer().starts_with("127.0.0.1:"));

        let served = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let (mut read, mut write) = incoming.register().unwrap().into_halves();
                let mut question = [0; 4];
                read.read_exact(&mut question).await.unwrap();
                write.write_all(&question).await.unwrap();
            });
        });
        client.write_all(b"ping").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"ping");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn this_machine_is_called_by_the_address_it_uses_towards_the_peer() {
        for (peer, address) in [("127.0.0.1:9", "127.0.0.1"), ("127.0.0.7:9", "127.0.0.1")] {
            let names = RealNet.local_names(peer).await;
            assert_eq!(names.last().unwrap(), address, "{names:?}");
            assert!(names.iter().all(|name| name != "localhost"), "{names:?}");
        }
        assert!(RealNet.local_names("no port").await.iter().all(|name| name != "127.0.0.1"));
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error_and_not_a_wait() {
        let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = RealNet.connect(&address).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
