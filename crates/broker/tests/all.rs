//! The broker over real files and simulated faults: alone, and as nodes of a cluster in one process. One binary for all
//! of it: each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod broker;
mod classic;
mod cluster;
mod compaction;
mod exactly_once;
mod groups;
mod journal;
mod kept_epochs;
mod operations;
mod removal;
mod repair;
mod retention;
mod standstill;
mod start;
mod storage;
mod support;
mod transactions;
mod unopened;
