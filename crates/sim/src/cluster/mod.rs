//! A whole cluster in one thread: real partition and metadata cores, simulated disks, network, clocks and
//! processes. First everything that can go wrong does, and the invariants hold after every step; then all
//! of it is healed, and the cluster must come back to full strength.
//!
//! Everything is a function of the seed. The metadata are one committed state, changed by real commands
//! that real controllers decide on; consensus itself is tested elsewhere.

mod clients;
mod clock;
mod controller;
mod coverage;
mod disk;
mod groups;
mod history;
pub mod invariants;
mod knobs;
mod nemesis;
mod node;
mod oracle;
#[cfg(feature = "planted")]
pub mod planted;
mod txn;
mod world;

use std::collections::BTreeMap;

pub use coverage::{SEEDS, SOMETIMES, missing};
pub use knobs::{Knobs, Theme};

/// What became of one seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not happen and did, with the simulated time in milliseconds.
    pub violation: Option<String>,
    /// Number that any difference in what happened changes.
    pub trace: u64,
    /// Steps taken.
    pub events: u64,
    /// Records that were shown to consumers.
    pub records: u64,
    /// How often each interesting thing happened.
    pub coverage: BTreeMap<&'static str, u64>,
    /// What happened, for people; empty unless asked for.
    pub story: Vec<String>,
}

/// Runs one seed to its end, or to the first violation.
#[must_use]
pub fn run(seed: u64, story: bool) -> Report {
    world::World::new(seed, story).run()
}
