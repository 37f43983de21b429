//! Where the replicas of a new block go.
