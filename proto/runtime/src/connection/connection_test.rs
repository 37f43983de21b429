//! Tests of a block stream between two ends of a pipe.
