//! What decides, and nothing that does: no I/O, no clock, no async, no randomness, no locks.
//!
//! It has two shapes. What is journaled is [`namespace`]: a command and the state before it give an outcome and
//! changes. What plans ([`cluster`], [`repair`], [`recovery`]) takes events with their time and hands out actions.

// Tests may: what they leave out is not what they test.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod cluster;
pub mod invariant;
pub mod namespace;
pub mod placement;
pub mod records;
pub mod recovery;
pub mod repair;
pub mod tables;
