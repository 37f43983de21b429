//! A deadline that costs nothing while the peer keeps up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Watches one direction of a connection.
///
/// The timer is made at the first wait and then left in place: if it fires on behalf of a wait that has long
/// ended, it is moved to the end of the present one. So a busy connection moves it about once per deadline
/// instead of twice per packet.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
}

impl Deadline {
    /// The peer did something, or a new wait begins.
    pub(super) fn restart(&mut self) {
        self.waiting_since = None;
    }

    /// To be called when the peer is not ready; ready itself when it has not been so for `after`.
    pub(super) fn poll_elapsed(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        let due = *self.waiting_since.get_or_insert_with(Instant::now) + after;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
