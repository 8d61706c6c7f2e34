//! The transaction coordinator: transcripts and failover. One binary for all of it: each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod failover;
mod transcripts;
