//! Where work that blocks is done: in threads, or, under a simulator, in place.
//!
//! A simulator runs a whole cluster on one thread whose time it steers, so nothing may wait there. While it is
//! [entered](enter), threads are tasks, what blocks runs where it is asked for, and the time that a slow disk would
//! have taken is waited for afterwards, in simulated time. Only the feature `simulation` has this; a production build
//! has one way.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::task::JoinError;

#[cfg(feature = "simulation")]
pub use simulated::{Entered, Pace, enter};

/// Runs `work`, which waits for a disk or computes for long, where it holds nobody up: it begins at once, whether or
/// not this is awaited, and goes on if this is dropped. (Under a simulator it begins when this is awaited.)
///
/// # Errors
/// If it panicked.
pub fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> + Send {
    let begun = if is_entered() { Err(work) } else { Ok(tokio::task::spawn_blocking(work)) };
    async move {
        match begun {
            Ok(running) => running.await,
            Err(work) => {
                let result = work();
                pause().await;
                Ok(result)
            }
        }
    }
}

/// Runs a loop that may block, and that waits only by [`Signal`](super::Signal) and channels, on this thread.
///
/// # Panics
/// If the thread is a simulator's, where nothing may block.
pub fn block_on<F: Future>(work: F) -> F::Output {
    assert!(!is_entered(), "nothing may block in a simulation");
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = work.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Whether this thread is a simulator's.
#[cfg(not(feature = "simulation"))]
pub const fn is_entered() -> bool {
    false
}

/// Waits for the simulated time that the disk work before it takes; nothing where time is real, since that work has
/// taken it.
#[cfg(not(feature = "simulation"))]
pub fn pause() -> std::future::Ready<()> {
    std::future::ready(())
}

#[cfg(feature = "simulation")]
pub use simulated::{is_entered, pause};

#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    thread_local! {
        static PACE: RefCell<Option<Rc<dyn Pace>>> = const { RefCell::new(None) };
    }

    /// The simulator's measure of work that is done in place.
    pub trait Pace {
        /// Simulated time that the work done since the last call takes.
        fn take_owed(&self) -> Duration;
    }

    /// Makes this thread a simulator's until the guard is dropped.
    pub fn enter(pace: Rc<dyn Pace>) -> Entered {
        PACE.with_borrow_mut(|entered| *entered = Some(pace));
        Entered { _not_send: Rc::new(()) }
    }

    /// See [`enter`].
    pub struct Entered {
        _not_send: Rc<()>,
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            PACE.with_borrow_mut(|entered| *entered = None);
        }
    }

    /// Whether this thread is a simulator's.
    pub fn is_entered() -> bool {
        PACE.with_borrow(Option::is_some)
    }

    /// Waits for the simulated time that the disk work before it takes; nothing where time is real, since that work
    /// has taken it.
    pub async fn pause() {
        let owed = PACE.with_borrow(|entered| entered.as_ref().map(|pace| pace.take_owed()));
        match owed {
            None => {}
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            Some(owed) => tokio::time::sleep(owed).await,
        }
    }
}
