//! The block stream server, and the block streams this node opens to others. The conversation is in
//! `docs/protocol.md`.
//!
//! * [`listener`]: accepts connections and spreads them over the data runtimes.
//! * [`serve`]: one connection: request after request.
//! * [`write`]: receives a block, verifies and stores it; [`forward`]: the next datanode of its
//!   pipeline.
//! * [`resume`]: who goes on with a block, and what the nodes behind it lack; [`feed`]: sends them that.
//! * [`exchange`]: how far a write is, here and behind, and how long it took.
//! * [`read`]: sends a range of a replica with its proof.
//! * [`copy`]: sends a replica to other datanodes by order of the namenode.
//! * [`failure`]: what the other side is told when something goes wrong.
//! * [`buffers`]: the memory that all of this takes, used over and over.
//!
//! One thread carries a frame from socket to next hop to hash to page cache, inline; only a sync at
//! the end of a block goes to another thread. Nothing here queues a frame: memory is bounded by the
//! number of streams.

pub(crate) mod buffers;
pub(crate) mod copy;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod feed;
pub(crate) mod forward;
pub(crate) mod listener;
pub(crate) mod read;
pub(crate) mod resume;
pub(crate) mod serve;
pub(crate) mod write;
