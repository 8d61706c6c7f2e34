//! The checker: legal histories pass, and every planted fault is found. One binary for all of it: each module is a
//! suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod legal;
mod model;
mod planted;
mod transactions;
