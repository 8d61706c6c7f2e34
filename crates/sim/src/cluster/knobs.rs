//! What differs from seed to seed beside what happens.

use varve_types::config::Durability;

use crate::rng::Rng;

/// The shape of a cluster and the violence of its world.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// Nodes, 3 to 5.
    pub nodes: i32,
    /// Partitions that producers write to.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication_factor: i32,
    /// `min.insync.replicas`.
    pub min_insync: usize,
    /// Durability of the topic.
    pub durability: Durability,
    /// Longest usual delay of a message, milliseconds.
    pub delay_ms: u64,
    /// Of 1,000 messages, how many are lost.
    pub loss: u64,
    /// Of 1,000 messages between nodes, how many come twice.
    pub duplicates: u64,
    /// Mean time between two faults, milliseconds.
    pub fault_every_ms: u64,
    /// Slowest write, milliseconds.
    pub write_ms: u64,
    /// Slowest usual flush, milliseconds.
    pub flush_ms: u64,
    /// How long faults go on, milliseconds.
    pub fault_phase_ms: u64,
    /// A node is given up for dead after this silence, milliseconds.
    pub session_ms: u64,
    /// The cluster works at the newest feature level.
    pub newest_level: bool,
    /// The controller moves replicas to nodes that hold fewer.
    pub balance: bool,
    /// What goes wrong most of all.
    pub theme: Theme,
    /// One of the producers begins a new session with every batch, many times a second: sessions give way to others.
    pub fresh_sessions: bool,
    /// There are transactions and a group, too, with the partitions that their coordinators keep.
    pub transactions: bool,
}

/// A kind of fault that a seed has more of than others: what takes several of a kind in a row hardly ever
/// happens among everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// No kind.
    Mixed,
    /// Replicas are left behind, then nobody else is there, and an operator makes them lead.
    Unclean,
    /// Disks fill up and fail.
    Disks,
    /// Replicas are moved, removed, added again; moves are given up; nodes are emptied.
    Moves,
    /// In-sync replicas die one after the other.
    Crashes,
}

impl Knobs {
    /// Those of a seed. One in three has transactions; it has no faults in which records are lost that were
    /// promised, for a transaction of which a part is lost is torn.
    #[must_use]
    pub fn draw(seed: u64, rng: &mut Rng) -> Self {
        let knobs = Self {
            fresh_sessions: seed % 8 == 6,
            ..Self::without_transactions(rng)
        };
        if !seed.is_multiple_of(3) {
            return knobs;
        }
        Self {
            transactions: true,
            durability: Durability::Fsync,
            theme: match knobs.theme {
                Theme::Unclean => Theme::Mixed,
                theme => theme,
            },
            ..knobs
        }
    }

    /// Partitions of the one topic: last those of coordinators.
    pub(super) const fn all_partitions(&self) -> i32 {
        self.partitions + 2 * self.transactions as i32
    }

    fn without_transactions(rng: &mut Rng) -> Self {
        let nodes = 3 + rng.below(3) as i32;
        let replication_factor = match rng.below(8) {
            0 => 1,
            1 => 2,
            2 => nodes,
            _ => 3,
        };
        let min_insync = match rng.below(4) {
            0 => 1,
            _ => 2.min(replication_factor as usize),
        };
        let theme = match rng.below(8) {
            0 | 1 => Theme::Unclean,
            2 => Theme::Disks,
            3 => Theme::Moves,
            4 => Theme::Crashes,
            _ => Theme::Mixed,
        };
        let unclean = theme == Theme::Unclean;
        Self {
            nodes,
            partitions: 1 + rng.below(2) as i32,
            replication_factor,
            min_insync,
            durability: if rng.below(5) == 0 && !unclean {
                Durability::Replicated
            } else {
                Durability::Fsync
            },
            delay_ms: [2, 10, 40][rng.below(3) as usize],
            loss: [0, 5, 50][rng.below(3) as usize],
            duplicates: [0, 20, 100][rng.below(3) as usize],
            fault_every_ms: [60, 200, 600][rng.below(3) as usize],
            write_ms: [2, 2, 20][rng.below(3) as usize],
            flush_ms: [2, 15, 60][rng.below(3) as usize],
            fault_phase_ms: 3_000 + rng.below(4_000) + u64::from(unclean) * 3_000,
            session_ms: [200, 600][rng.below(2) as usize],
            newest_level: rng.below(2) == 0,
            balance: rng.below(2) == 0,
            theme,
            fresh_sessions: false,
            transactions: false,
        }
    }
}
