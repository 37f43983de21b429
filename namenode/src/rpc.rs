//! Decode, ask the driver, encode.
