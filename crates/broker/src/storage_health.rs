//! What is wrong with the disk, for health pages and operators: which partitions are offline and why, which
//! records are damaged, which flushes hang, and how the scrub stands. Tells; decides nothing.

use std::time::Duration;

use varve_types::{OffsetRange, TopicPartition};

use crate::start::Broker;

/// Damage in the files of a partition that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// Whose files.
    pub partition: TopicPartition,
    /// The file.
    pub file: String,
    /// First damaged byte of it.
    pub position: u64,
    /// Records that are not served; `None` when the file can be derived.
    pub offsets: Option<OffsetRange>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// How the scrub stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// A pass is under way.
    pub running: bool,
    /// Bytes that the pass, or the last one, has read.
    pub pass_bytes: u64,
    /// Damaged places that it has met, known ones included.
    pub pass_damage: u64,
    /// When the last whole pass ended, in milliseconds since 1970.
    pub last_pass_ms: Option<i64>,
}

/// Everything that is wrong with the disk as far as the node knows.
#[derive(Debug, Clone, Default)]
pub struct StorageHealth {
    /// Partitions that take no records, and why.
    pub offline: Vec<(TopicPartition, String)>,
    /// Damage in partitions that serve.
    pub damaged: Vec<DamagedRange>,
    /// Damaged replicas that were given up and are being copied again.
    pub repairing: Vec<TopicPartition>,
    /// Partitions with a flush that takes too long, and since when it runs.
    pub stalled: Vec<(TopicPartition, Duration)>,
    /// `None` when the scrub is off.
    pub scrub: Option<ScrubStatus>,
}

impl StorageHealth {
    /// Nothing is wrong.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.offline.is_empty() && self.damaged.is_empty() && self.stalled.is_empty()
    }
}

impl Broker {
    /// What is wrong with the disk.
    #[must_use]
    pub fn storage_health(&self) -> StorageHealth {
        let inner = &self.inner;
        let view = inner.registry.view();
        let mut health = StorageHealth {
            stalled: inner.watch.partitions(inner.clock.now(), &inner.registry),
            scrub: inner.scrub.as_ref().map(|standing| *standing.lock()),
            ..StorageHealth::default()
        };
        if let Some(cluster) = inner.registry.cluster() {
            let running = cluster.repairs.running().into_iter();
            let held = running.filter_map(|key| view.by_key.get(&key));
            health.repairing = held.map(|p| p.id.clone()).collect();
        }
        for partition in view.partitions() {
            if let Some(reason) = partition.offline() {
                let offline = (partition.id.clone(), reason.to_owned());
                health.offline.push(offline);
            }
            let damaged = partition.damaged().into_iter().map(|d| DamagedRange {
                partition: partition.id.clone(),
                file: d.file.display().to_string(),
                position: d.position,
                offsets: d.offsets,
                expected: d.expected,
                found: d.found,
            });
            health.damaged.extend(damaged);
        }
        health
    }
}
