//! Whole-cluster tests of Doldam: what they share. See `docs/testing.md` for what runs where.
//!
//! * [`cluster`]: real processes to start, kill and damage.
//! * [`oracle`]: what clients were promised, and whether it held.
//! * [`workload`]: clients that write, read, rename and delete, and tell the oracle.
//! * `simulation`: a whole cluster in one process under one seed; `invariant`: what must hold in it (feature
//!   `simulation`).
//! * [`parser`]: every parser of bytes that come from outside, for the fuzz targets and for `tests/parsers.rs`.

#![expect(clippy::missing_panics_doc, reason = "in tests a panic is a finding")]
#![expect(clippy::unwrap_used, reason = "in tests a panic is a finding")]

pub mod cluster;
#[cfg(feature = "simulation")]
pub mod invariant;
pub mod oracle;
pub mod parser;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod workload;
