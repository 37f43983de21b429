//! Tests of the life cycle of tasks and threads.
