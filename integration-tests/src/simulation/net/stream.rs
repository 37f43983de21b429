//! A connection as a program has it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use doldam_runtime::net::{BoxReadHalf, BoxWriteHalf, ByteStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::pipe::{Next, Pipe};

/// See the module.
#[derive(Debug)]
pub(super) struct SimStream {
    read: ReadHalf,
    write: WriteHalf,
}

impl SimStream {
    pub(super) fn new(incoming: Arc<Pipe>, outgoing: Arc<Pipe>) -> Self {
        Self { read: ReadHalf { pipe: incoming, sleep: None }, write: WriteHalf { pipe: outgoing } }
    }
}

impl ByteStream for SimStream {
    fn into_halves(self: Box<Self>) -> (BoxReadHalf, BoxWriteHalf) {
        (Box::new(self.read), Box::new(self.write))
    }
}

#[derive(Debug)]
struct ReadHalf {
    pipe: Arc<Pipe>,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct WriteHalf {
    pipe: Arc<Pipe>,
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.pipe.read(context, buffer) {
                Next::Done(result) => return Poll::Ready(result),
                Next::Wait => return Poll::Pending,
                Next::Until(arrives) => {
                    let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(arrives)));
                    if sleep.deadline() != arrives {
                        sleep.as_mut().reset(arrives);
                    }
                    if sleep.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.pipe.abandon();
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pipe.write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if self.pipe.from.is_alive() {
            self.pipe.close();
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
