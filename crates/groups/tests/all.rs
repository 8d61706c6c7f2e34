//! The group coordinator: transcripts, random histories, and the two protocols side by side. One binary for all of it:
//! each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod classic;
mod classic_limits;
mod convergence;
mod migration;
mod transcripts;
mod txn;
