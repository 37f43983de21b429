//! What every process of Doldam needs to run, and the seams that a simulator replaces.
//!
//! * [`clock`], [`random`], [`disk`], [`net`]: traits, the real ones behind them, and the only callers
//!   of the system's own; [`seams`] carries all four.
//! * [`connection`], [`pool`]: one block stream with its deadlines; used by client and datanode.
//! * [`grpc`], [`http`]: the servers' other two protocols over the same [`net`].
//! * [`leader`], [`retry`]: which namenode leads; budget and backoff. Pure.
//! * [`tasks`], [`config`], [`telemetry`]: life cycle, settings, logs and traces.
//! * [`planted`]: bugs by which a simulator is tested; not in a production build.

pub mod clock;
pub mod config;
pub mod connection;
pub mod disk;
pub mod grpc;
pub mod http;
pub mod leader;
pub mod net;
pub mod planted;
pub mod pool;
pub mod random;
pub mod retry;
pub mod seams;
pub mod tasks;
pub mod telemetry;

pub use seams::Seams;
