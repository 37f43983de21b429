//! State beyond RAM.
