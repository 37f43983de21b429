//! The metadata server of Doldam: namespace, block map, placement and repair.
//!
//! [`engine`] decides and does nothing else; [`journal`] and [`store`] keep what was decided; [`rpc`] speaks with
//! clients and datanodes; the [`driver`] is the only loop between them.

pub mod config;
pub mod driver;
pub mod engine;
pub mod journal;
pub mod metrics;
pub mod rpc;
pub mod store;
