//! Cluster state as one pure apply(state, command).
