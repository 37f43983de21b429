//! What is copied, dropped and trimmed.
