//! Progress on standard error: drawn only if that is a terminal, counted always.
//!
//! One bar for the whole, with rate and time left, and one for each large file in flight. Messages
//! go through [`Progress::around`], so that no bar is torn apart by a line of text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::size::{counted, human_bytes};

/// Smaller files get no bar of their own: they would only flicker.
const OWN_BAR_BYTES_MIN: u64 = 8 << 20;
/// Redraws a second.
const DRAWS_PER_SECOND: u8 = 10;
/// Longest name shown beside a bar, in characters.
const NAME_CHARS_MAX: usize = 30;

/// Gets told how many more bytes went through.
pub(crate) type Advance = Arc<dyn Fn(u64) + Send + Sync>;

/// The bars and counters of one command; clones share them.
#[derive(Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    total: ProgressBar,
    counts: Arc<Counts>,
    draws: bool,
}

/// What is known so far.
#[derive(Default)]
struct Counts {
    files_expected: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
}

/// One file in flight. Its bar goes away when it is dropped.
pub(crate) struct FileProgress {
    progress: Progress,
    bar: Option<ProgressBar>,
    /// Nobody knows its length: the bars grow with it.
    grows: bool,
}

impl Progress {
    /// Bars are drawn only if `draw`; what is counted does not depend on it.
    pub(crate) fn new(draw: bool) -> Self {
        let target = if draw {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        // Not drawn before it is among the bars.
        let total = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        Self { bars, total: total.with_style(style()), counts: Arc::default(), draws: draw }
    }

    /// Starts to draw, for all clones; `what` stands beside the bar of the whole.
    pub(crate) fn start(&self, what: &'static str) {
        if self.draws {
            // In this order: nothing is drawn before there is something to do.
            self.total.set_message(what);
            self.bars.add(self.total.clone());
        }
    }

    /// There is one file more to do.
    pub(crate) fn expect_file(&self, bytes: u64) {
        self.counts.files_expected.fetch_add(1, Ordering::Relaxed);
        self.total.inc_length(bytes);
    }

    /// A file of `bytes`, if known, is in flight now.
    pub(crate) fn start_file(&self, name: &str, bytes: Option<u64>) -> FileProgress {
        let several = self.counts.files_expected.load(Ordering::Relaxed) > 1;
        let large = bytes.is_none_or(|bytes| bytes >= OWN_BAR_BYTES_MIN);
        let bar = (self.draws && several && large).then(|| {
            let bar = ProgressBar::new(bytes.unwrap_or(0));
            let bar = bar.with_style(style()).with_message(shortened(name));
            self.bars.insert(0, bar)
        });
        FileProgress { progress: self.clone(), bar, grows: bytes.is_none() }
    }

    /// Runs `print` while no bar is on the screen.
    pub(crate) fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }

    /// Takes all bars off the screen.
    pub(crate) fn finish(&self) {
        self.total.finish_and_clear();
    }

    /// `3 of 7 files, 1.2 GiB`, or nothing if no file was ever in flight.
    pub(crate) fn what_is_done(&self) -> Option<String> {
        let expected = self.counts.files_expected.load(Ordering::Relaxed);
        let done = self.counts.files_done.load(Ordering::Relaxed);
        let bytes = human_bytes(self.counts.bytes_done.load(Ordering::Relaxed));
        (expected > 0).then(|| {
            format!("{done} of {} done, {bytes} sent or received", {
                counted(expected, "file", "files")
            })
        })
    }
}

impl FileProgress {
    /// What to call with each number of bytes that went through; cheap, from any thread.
    pub(crate) fn advance(&self) -> Advance {
        let bars: Vec<ProgressBar> =
            self.bar.iter().chain([&self.progress.total]).cloned().collect();
        let (counts, grows) = (Arc::clone(&self.progress.counts), self.grows);
        Arc::new(move |bytes| {
            counts.bytes_done.fetch_add(bytes, Ordering::Relaxed);
            for bar in &bars {
                if grows {
                    bar.inc_length(bytes);
                }
                bar.inc(bytes);
            }
        })
    }

    /// The file is complete.
    pub(crate) fn done(self) {
        self.progress.counts.files_done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.progress.bars.remove(bar);
        }
    }
}

/// The end of a name that is too long for its column.
fn shortened(name: &str) -> String {
    let chars = name.chars().count();
    if chars <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let kept: String = name.chars().skip(chars - NAME_CHARS_MAX + 1).collect();
    format!("…{kept}")
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:30} {bar:24} {binary_bytes:>11}/{binary_total_bytes:11} {decimal_bytes_per_sec:>12} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_counts_files_and_bytes_without_a_terminal() {
        let progress = Progress::new(false);
        assert_eq!(progress.what_is_done(), None);
        progress.start("put");
        progress.expect_file(10);
        progress.expect_file(3 << 20);
        let first = progress.start_file("a", Some(10));
        first.advance()(10);
        first.done();
        let second = progress.start_file("b", Some(3 << 20));
        second.advance()(1 << 20);
        drop(second);
        assert_eq!(
            progress.what_is_done().as_deref(),
            Some("1 of 2 files done, 1.0 MiB sent or received")
        );
    }

    #[test]
    fn files_may_be_in_flight_before_and_after_drawing_starts() {
        let progress = Progress::new(true);
        let clone = progress.clone();
        clone.expect_file(OWN_BAR_BYTES_MIN);
        clone.expect_file(OWN_BAR_BYTES_MIN);
        let early = clone.start_file("early", Some(OWN_BAR_BYTES_MIN));
        progress.start("put");
        let late = clone.start_file("late", None);
        late.advance()(5);
        assert_eq!(
            clone.total.length(),
            Some(2 * OWN_BAR_BYTES_MIN + 5),
            "an unknown length grows"
        );
        assert_eq!(progress.around(|| 7), 7);
        early.done();
        drop(late);
        progress.finish();
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("short"), "short");
        let name = shortened(&"ü".repeat(100));
        assert_eq!(name.chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn the_template_is_well_formed() {
        let template = ProgressStyle::with_template("{msg:30} {bar:24} {eta:>4}");
        assert!(template.is_ok());
    }
}
