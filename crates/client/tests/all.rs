//! The client against a scripted server, and models of its batches in flight. One binary for all of it: each module is
//! a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod end_to_end;
mod fake;
mod flight_model;
mod flight_transactional;
mod transactions;
