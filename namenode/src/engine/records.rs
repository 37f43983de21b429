//! Typed access to the records of each table.
