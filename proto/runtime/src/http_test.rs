//! Tests of the pages over a real socket.
