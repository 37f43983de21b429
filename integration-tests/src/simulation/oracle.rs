//! What clients were promised, and whether it held. It knows what a client knows and nothing of the cluster inside.
//!
//! * [`content`]: the bytes that were written, each made again from its number.
//! * [`tree`]: what an operation does to the names below a client's home.
//! * [`history`]: every state that the answers so far allow.
//! * [`stream`]: what may be seen of files that are flushed, written on and cut.

pub mod content;
pub mod history;
pub mod stream;
pub mod tree;
