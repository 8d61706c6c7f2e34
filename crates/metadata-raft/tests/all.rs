//! The consensus on metadata: the storage suite of openraft, power cuts, formats, and nodes in one process. One binary
//! for all of it: each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod cluster;
mod durability;
mod golden;
mod snapshots;
mod suite;
