//! What the namenode counts.
