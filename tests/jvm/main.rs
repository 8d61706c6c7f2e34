//! Kafka's own programs on the JVM against a node: its clients from 0.11 on, the system test of Streams, Connect and
//! MirrorMaker beside a broker of Kafka's. Maven brings them.
//!
//! The short form runs with all other tests; `VARVE_TEST_JVM=long cargo test -p varve-tests --test jvm` runs all of
//! it. Without Java and Maven, or where Maven cannot get what is needed, a test says that it is skipped;
//! `VARVE_TEST_REQUIRE_JVM=1` makes that a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod clients;
mod connect;
mod java;
mod mirror;
mod streams;
