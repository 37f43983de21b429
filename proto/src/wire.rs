//! Generated code, and nothing else: see `wire/doldam/v1/*.proto` for units and rules.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto files"
)]

tonic::include_proto!("doldam.v1");
