//! The datanodes as the namenode sees them.
