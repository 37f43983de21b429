//! Settings of the namenode.
