//! Whole-cluster tests of Doldam: what they share. See `docs/testing.md` for what runs where.
//!
//! * [`parser`]: every parser of bytes that come from outside, for the fuzz targets and for `tests/parsers.rs`.

#![expect(clippy::missing_panics_doc, reason = "in tests a panic is a finding")]

pub mod parser;
