//! The library against a namenode and datanodes that speak the real protocols on real sockets and misbehave when
//! they are told to.

#![expect(clippy::unwrap_used, reason = "what cannot even start fails its test")]

mod admin;
mod append;
mod fakes;
mod hedged_reads;
mod listing;
mod metadata;
mod put_get;
mod read;
mod read_failures;
mod write;
mod write_failures;
mod write_flush;
mod write_random;
mod write_recovery;
