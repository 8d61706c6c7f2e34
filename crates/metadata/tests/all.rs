//! The metadata core: commands, the controller, invariants under random commands, transcripts. One binary for all of
//! it: each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod commands;
mod controller;
mod invariants;
mod state;
mod support;
mod transcripts;
