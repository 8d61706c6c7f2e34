//! Storage against the real kernel: killed at every system call, power cut, failing fsync, full and hung disks.
//!
//! `cargo test` does a sample of each; `VARVE_TEST_POWER=full`, which is `cargo xtask long power`, does all of
//! it. Needs root, loop devices, and the programs that `machine` names; where one is missing the tests say
//! so and do nothing, or fail if `VARVE_TEST_REQUIRE_POWER` is set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod cut;
mod driver;
mod kill;
mod server;
