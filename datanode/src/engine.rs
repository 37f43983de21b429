//! What a datanode decides, apart from what it does.
//!
//! Nothing in here waits, reads a clock, touches a disk or a socket, or takes a lock: state and
//! events go in, decisions come out, and one history of inputs has one outcome.
//!
//! * [`replica`]: what a replica is and the states it goes through.
//! * [`inventory`]: all replicas of the node, with their running fingerprints.
//! * [`let_go`]: how long the replicas of a failed folder are left alone.
//! * [`receive`]: one block as it comes in: order, limits, verification, acknowledgement.
//! * [`open_blocks`]: blocks that are no replicas yet: who writes them, and who may go on with them.
//! * [`startup_plan`]: what to make of the files a crash left behind.
//! * [`orders`]: the namenode's orders, each carried out once, in time, and not too many at once.
//! * [`outbox`]: what the namenode has to be told, until it surely was.
//! * [`repair_share`]: how far repair copies yield to everybody else.
//! * [`scrub_plan`]: what to verify next, and how fast.
//! * [`volume_choice`]: which data folder takes a new block.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub(crate) mod inventory;
pub(crate) mod let_go;
pub(crate) mod open_blocks;
pub(crate) mod orders;
pub(crate) mod outbox;
pub(crate) mod receive;
pub(crate) mod repair_share;
pub(crate) mod replica;
pub(crate) mod scrub_plan;
pub(crate) mod startup_plan;
pub(crate) mod volume_choice;
