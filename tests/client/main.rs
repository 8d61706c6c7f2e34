//! The client library against a whole node inside the test: what needs the real coordinator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod assigned;
mod groups;
mod rebalance;
mod transactions;
