//! What happened, line by line with simulated time: the same for the same seed, byte for byte.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines kept for the report of a failure, where not all are.
const LINES_KEPT: usize = 400;

/// The record of one run.
#[derive(Debug)]
pub struct Trace {
    inner: Mutex<Inner>,
    whole: bool,
}

#[derive(Debug)]
struct Inner {
    started: Option<Instant>,
    lines: VecDeque<String>,
    hash: blake3::Hasher,
    count: u64,
}

impl Trace {
    /// Keeps `whole`, or only the end and a hash of it all.
    pub fn new(whole: bool) -> Arc<Self> {
        let hash = blake3::Hasher::new();
        let inner = Inner { started: None, lines: VecDeque::new(), hash, count: 0 };
        Arc::new(Self { inner: Mutex::new(inner), whole })
    }

    /// Time begins now.
    pub fn start(&self) {
        self.inner.lock().started = Some(Instant::now());
    }

    /// Adds a line about `who`.
    pub fn line(&self, who: &str, what: fmt::Arguments<'_>) {
        let mut inner = self.inner.lock();
        let now = inner.started.map(|started| started.elapsed()).unwrap_or_default();
        inner.count += 1;
        let mut line = String::with_capacity(96);
        let _ = write!(line, "{:>9.3} {:>6} {who:<4} {what}", now.as_secs_f64(), inner.count);
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        if !self.whole && inner.lines.len() == LINES_KEPT {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    /// The lines that were kept.
    pub fn text(&self) -> String {
        let inner = self.inner.lock();
        inner.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Of every line there was.
    pub fn hash(&self) -> String {
        self.inner.lock().hash.finalize().to_hex()[..16].to_owned()
    }
}
