//! Real processes under faults, small enough for every change: one node that is killed and restarted under load.
//! The long histories are `cargo xtask long chaos`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod command;
mod disk;
mod ground;
mod kafka;
mod proxy;
mod smoke;
mod workloads;
