//! Real processes: a node that is killed, members that die, directories that belong to others. Everything
//! goes through the bundled commands, as a user has them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod any_node;
mod bad_nodes;
#[path = "../../crates/tls/tests/support/ca.rs"]
mod ca;
mod directories;
mod failover;
mod killed;
mod minimum;
mod secure;
mod takeover;
