//! What all processes of Doldam must agree on, and nothing that runs: wire types, identifiers, paths,
//! the digest tree, block-stream frames, protocol limits and typed errors.
//!
//! Everything here is pure: no I/O, no clock, no async. Messages from peers are checked once, by the
//! receiver, on their way from [`wire`] to the domain types ([`convert`]).

pub mod block;
pub mod convert;
pub mod digest;
pub mod error;
pub mod file;
pub mod fingerprint;
pub mod frame;
pub mod id;
pub mod limits;
pub mod node;
pub mod path;
pub mod wire;

pub use error::FsError;
