//! The transaction coordinator: transcripts and failover. One binary for all of it: each module is a suite.

mod failover;
mod transcripts;
