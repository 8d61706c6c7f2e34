//! What must hold for any bytes at all: one function per parser of ours, run by libFuzzer (`tests/fuzz`) and,
//! over the committed corpus and seeded mutations of it, by `cargo test` (`tests/replay`).
//!
//! A target panics when a property is broken and returns otherwise, whatever the bytes. It decodes what it is
//! given as it is, and once more with the checksums made right, because nothing that guesses gets past
//! those. Never touches a real disk or the network; nor a clock, but for [`requests`], which runs a whole broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a target fails by panicking"
)]

pub mod image;
pub mod journal;
pub mod kafka;
pub mod lists;
pub mod logs;
pub mod mutate;
pub mod peer;
pub mod raft;
pub mod records;
pub mod requests;
pub mod seeds;

/// One fuzz target.
pub struct Target {
    /// Name of the target, of its file in `fuzz_targets` and of its folder in `corpus`.
    pub name: &'static str,
    /// Panics when a property is broken.
    pub run: fn(&[u8]),
    /// Mutations of each corpus file in an ordinary test run: targets that open a log cost more.
    pub mutations: u32,
}

const fn target(name: &'static str, run: fn(&[u8]), mutations: u32) -> Target {
    Target {
        name,
        run,
        mutations,
    }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("batch", records::batch, 3_000),
    target("message_set", records::message_set, 3_000),
    target("recovery", logs::recovery, 150),
    target("inspect", logs::inspect, 300),
    target("index", logs::index, 300),
    target("timeindex", logs::time_index, 300),
    target("manifest", lists::manifest, 3_000),
    target("epochs", lists::epochs, 3_000),
    target("snapshot", lists::snapshot, 3_000),
    target("producers", lists::producers, 3_000),
    target("metadata", lists::metadata, 3_000),
    target("metadata_command", lists::metadata_command, 3_000),
    target("metadata_file", lists::metadata_file, 3_000),
    target("offsets", lists::offsets, 3_000),
    target("transactions", lists::transactions, 3_000),
    target("scrub_file", lists::scrub_file, 3_000),
    target("journal", journal::journal, 300),
    target("raft_message", raft::message, 1_000),
    target("raft_file", raft::file, 1_000),
    target("identity", lists::identity_file, 1_000),
    target("peer", peer::messages, 3_000),
    target("kafka_wire", kafka::wire, 3_000),
    target("kafka_requests", requests::requests, 100),
];

/// Runs one input through a target by name.
///
/// # Panics
/// When a property is broken, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS
        .iter()
        .find(|t| t.name == name)
        .unwrap_or_else(|| panic!("no fuzz target {name}"));
    (target.run)(data);
}
