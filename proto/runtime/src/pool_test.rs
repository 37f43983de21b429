//! Tests of the pool over real loopback sockets.
