//! One life of one process: what it holds of the world is cut off with it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One run of a process, from its start to its kill.
#[derive(Debug)]
pub struct Incarnation {
    name: String,
    number: u64,
    dead: AtomicBool,
    died: Notify,
}

impl Incarnation {
    /// The `number`th of `name`.
    pub fn new(name: &str, number: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            number,
            dead: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    /// The machine it runs on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of its runs, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether what it does has an effect.
    pub fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// From now on nothing it does has an effect.
    pub fn die(&self) {
        self.dead.store(true, Ordering::Release);
        self.died.notify_one();
    }

    /// Waits until it died. For one who waits.
    pub async fn died(&self) {
        while self.is_alive() {
            self.died.notified().await;
        }
    }

    /// # Errors
    /// If it is dead.
    pub fn check(&self) -> io::Result<()> {
        if self.is_alive() { Ok(()) } else { Err(io::Error::other("this process is dead")) }
    }
}
