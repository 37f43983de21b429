//! The namespace: commands to outcomes.
