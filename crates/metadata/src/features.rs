//! Feature levels (KIP-584): which commands and which behaviour the cluster has agreed on.
//!
//! The level is part of the state and only grows. Everything in `apply` that gives another result than
//! an older program asks for the level first, so that programs of different versions that apply the same
//! commands have the same state. What a program does not know stops it; it is never skipped.
//!
//! A level is raised by an operator, once every registered node can work at it ([`highest`]); until then the
//! programs before are still good for every node.

use crate::state::State;

/// Level of a new cluster, and of the state of a node that was alone before there were levels.
pub const FIRST_LEVEL: u16 = 1;
/// From this level on nodes compare checksums of their states ([`crate::Command::CheckState`]).
pub const STATE_CHECKS: u16 = 2;
/// From this level on a move ends only when one of its targets can lead.
pub const MOVES_END_LED: u16 = 3;
/// From this level on every node can read markers of transactions, and there are transactions (KIP-98).
pub const TRANSACTIONS: u16 = 4;
/// From this level on every node can read what is written of members that speak the classic group protocol, and groups
/// of that protocol are served.
pub const CLASSIC_GROUPS: u16 = 5;
/// From this level on every node can read numbered markers and numbered records of transactional ids, and there are
/// transactions of producers that keep their epoch.
pub const KEPT_EPOCHS: u16 = 6;
/// From this level on every node takes topic configs that only Kafka gives a meaning, and the wider ranges and larger
/// batches that came with them.
pub const KEPT_CONFIGS: u16 = 7;
/// Highest level that this program knows.
pub const KNOWN_LEVEL: u16 = KEPT_CONFIGS;

/// The highest level that every registered node can work at; `None`: there is none, or no node.
#[must_use]
pub fn highest(state: &State) -> Option<u16> {
    let ranges = || state.nodes().values().map(|node| node.features);
    let level = ranges().map(|range| range.max).min()?;
    ranges().all(|range| range.contains(level)).then_some(level)
}

/// Levels that a program can work at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRange {
    /// Lowest.
    pub min: u16,
    /// Highest.
    pub max: u16,
}

impl FeatureRange {
    /// Levels of this program.
    pub const THIS_PROGRAM: Self = Self {
        min: FIRST_LEVEL,
        max: KNOWN_LEVEL,
    };

    /// Whether a program of this range works at `level`.
    #[must_use]
    pub const fn contains(self, level: u16) -> bool {
        self.min <= level && level <= self.max
    }
}
