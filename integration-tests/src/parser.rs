//! Every parser of bytes that come from a peer, a disk or a user, as a function of bytes alone.
//!
//! A parser is fed here as `fuzz/fuzz_targets/<name>.rs` feeds it, so the committed corpus and random changes of it
//! run as plain tests too (`tests/parsers.rs`). A function may panic only for a bug: when the parser panics, breaks
//! one of its limits, or does not get back what it wrote.

mod folder;
mod journal;
mod memory_folder;
mod message;
mod namespace;
mod settings;
mod sidecar;
mod stream;
mod tables;
mod text;

pub use folder::folder_file;
pub use journal::journal_segment;
pub use message::{error_status, wire_message};
pub use namespace::path;
pub use settings::config;
pub use sidecar::sidecar;
pub use stream::{frame_header, handshake, proof, stream_message};
pub use tables::{store_damage, table_records};
pub use text::{name_pattern, quantity};

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Parser {
    /// Name of its fuzz target and of its folder in the corpus.
    pub name: &'static str,
    /// Parses and checks what must hold of the result.
    pub feed: fn(&[u8]),
    /// Good input of every kind, from which the corpus starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "frame_header", feed: frame_header, seeds: stream::frame_header_seeds },
    Parser { name: "handshake", feed: handshake, seeds: stream::handshake_seeds },
    Parser { name: "stream_message", feed: stream_message, seeds: stream::stream_message_seeds },
    Parser { name: "proof", feed: proof, seeds: stream::proof_seeds },
    Parser { name: "path", feed: path, seeds: namespace::path_seeds },
    Parser { name: "error_status", feed: error_status, seeds: message::error_status_seeds },
    Parser {
        name: "journal_segment",
        feed: journal_segment,
        seeds: journal::journal_segment_seeds,
    },
    Parser { name: "sidecar", feed: sidecar, seeds: sidecar::sidecar_seeds },
    Parser { name: "config", feed: config, seeds: settings::config_seeds },
    Parser { name: "folder_file", feed: folder_file, seeds: folder::folder_file_seeds },
    Parser { name: "table_records", feed: table_records, seeds: tables::table_records_seeds },
    Parser { name: "store_damage", feed: store_damage, seeds: tables::store_damage_seeds },
    Parser { name: "quantity", feed: quantity, seeds: text::quantity_seeds },
    Parser { name: "name_pattern", feed: name_pattern, seeds: text::name_pattern_seeds },
    Parser { name: "wire_message", feed: wire_message, seeds: message::wire_message_seeds },
];
