//! Batches: golden bytes, hostile bytes, and message sets of old clients. One binary for all of it: each module is a
//! suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod batches;
mod golden;
mod message_sets;
