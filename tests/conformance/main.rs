//! The public gRPC API on a real node: real files, real sockets, clients generated from `proto/`. What the
//! comments of the schema promise is checked here as any client in any language would see it.
//!
//! Every test has topics and groups of its own, so that all of them can share one node where nothing else
//! is said. A panic anywhere in the node fails the test that runs then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "a test that cannot go on ends"
)]

mod bad_batches;
mod bad_files;
mod bad_groups;
mod bad_input;
mod bad_produce;
mod bad_reads;
mod bad_transactions;
mod consume;
mod data_dir;
mod deadlines;
mod fetch_stream;
mod groups;
mod health;
mod metrics;
mod python;
mod raw;
mod raw_client;
mod reasons;
mod shutdown;
mod slow_readers;
mod streams;
mod support;
