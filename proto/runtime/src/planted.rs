//! Bugs planted on purpose, so that the simulator can be shown to find them.
//!
//! Only the feature `simulation` can switch one on, on the thread that simulates; a release build refuses the
//! feature, and without it every question below is a constant `false` that the compiler removes.

#[cfg(all(feature = "simulation", not(debug_assertions)))]
compile_error!(
    "the feature `simulation` can plant bugs and must not be in a build without debug assertions"
);

/// A protection that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A datanode acknowledges the end of a block before it synced it.
    AckBeforeSync,
    /// A datanode that is to drop one generation of a block drops the one it has.
    ForgottenGeneration,
    /// A datanode removes at its start what by its name may be torn, and does not look.
    DeleteOnHint,
    /// A datanode does not send one acknowledgement in a while.
    DroppedAck,
    /// The namenode answers before its journal is synced.
    AnswerBeforeJournal,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AckBeforeSync,
        Self::ForgottenGeneration,
        Self::DeleteOnHint,
        Self::DroppedAck,
        Self::AnswerBeforeJournal,
    ];
}

/// Whether `bug` is to be made here.
#[cfg(not(feature = "simulation"))]
#[inline]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "simulation")]
pub use switch::{is_planted, plant};

#[cfg(feature = "simulation")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether `bug` is to be made here.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants `bug` on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
