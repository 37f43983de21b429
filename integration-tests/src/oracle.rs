//! The oracle: what clients were promised, and whether it held.
//!
//! It knows nothing of servers, processes or time: it is told what a client is about to do, what it was answered,
//! and what it saw. A change whose answer never came counts as "may have happened", never as "did not".
//!
//! Each path has one actor at a time that changes it, and that waits for one answer before it does the next; any
//! number of others may read. That is what makes every verdict certain: of all that a path could hold, only what
//! that actor was doing is ever open.
//!
//! * [`history`]: changes and their answers; what each path may hold, and from when to when.
//! * [`visibility`]: what a reader may see while changes are under way.
//! * [`durability`]: what must be there at the end, whole; nothing else.

pub mod durability;
pub mod history;
pub mod visibility;

#[cfg(test)]
mod oracle_test;

pub use history::{Change, Content, History, Ticket};

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub path: String,
    /// What was promised and what was seen instead.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.path, self.what)
    }
}

impl std::error::Error for Violation {}
