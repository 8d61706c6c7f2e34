//! A server and clients on loopback sockets: replication, heartbeats, consensus, transactions, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../../../tls/tests/support/ca.rs"]
mod ca;
mod calls;
mod fake;
mod passed_on;
mod replication;
mod tls;
mod transactions;
