//! Chaos on real processes: nodes on disks of their own in networks of their own, faults drawn from a seed, a
//! workload that writes down what its clients saw, and the verdict of the independent checker.
//!
//! Whatever the machine cannot do is said loudly and left out; nothing that is left out counts as passed.

mod cluster;
mod ground;
mod history;
mod kafka;
mod nemesis;
mod work;

pub use cluster::Cluster;
pub use ground::Ground;
pub use history::{Options, Report, run};
pub use nemesis::{Fault, parse_faults};
pub use work::{Work, parse_works};

/// Numbers that follow from a seed (xorshift).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11).checked_rem(limit).unwrap_or(0)
    }

    /// An index below `limit`.
    pub fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or(0)
    }
}

/// Says something where it is seen, past the capture of the test runner.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
