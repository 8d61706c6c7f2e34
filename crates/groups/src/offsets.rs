//! The table of committed offsets of one group. Changes only when a write is durable or replayed;
//! never decides whether a commit is allowed.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, Offset, TopicPartition};

/// A committed position without its partition: what a record's value holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset the group will read.
    pub offset: Offset,
    /// Leader epoch given with the commit.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Metadata given with the commit.
    pub metadata: String,
    /// When it was committed, milliseconds since the Unix epoch.
    pub commit_time_ms: i64,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Partition.
    pub partition: TopicPartition,
    /// The next offset the group will read.
    pub offset: Offset,
    /// Leader epoch given with the commit.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Metadata given with the commit.
    pub metadata: String,
    /// When it was committed, milliseconds since the Unix epoch.
    pub commit_time_ms: i64,
}

impl CommittedOffset {
    pub(crate) fn new(partition: TopicPartition, committed: &Committed) -> Self {
        Self {
            partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
            commit_time_ms: committed.commit_time_ms,
        }
    }
}

/// A change of the table: a new position, or its removal.
pub(crate) type Change = (TopicPartition, Option<Committed>);

/// Committed offsets of one group, ordered by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    table: BTreeMap<TopicPartition, Committed>,
}

impl Offsets {
    pub(crate) fn apply(&mut self, (partition, committed): Change) {
        match committed {
            Some(committed) => self.table.insert(partition, committed),
            None => self.table.remove(&partition),
        };
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The offsets of `partitions` (of all when that is empty) that exist, in the table's order.
    pub(crate) fn read(&self, partitions: &[TopicPartition]) -> Vec<CommittedOffset> {
        if partitions.is_empty() {
            return self
                .iter()
                .map(|(p, c)| CommittedOffset::new(p.clone(), c))
                .collect();
        }
        let mut wanted: Vec<_> = partitions.iter().collect();
        wanted.sort();
        wanted.dedup();
        wanted
            .into_iter()
            .filter_map(|p| {
                self.table
                    .get(p)
                    .map(|c| CommittedOffset::new(p.clone(), c))
            })
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.table.iter()
    }

    /// Partitions committed at least `retention_ms` before `wall_ms`.
    pub(crate) fn expired(&self, wall_ms: i64, retention_ms: i64) -> Vec<TopicPartition> {
        self.iter()
            .filter(|(_, c)| wall_ms.saturating_sub(c.commit_time_ms) >= retention_ms)
            .map(|(p, _)| p.clone())
            .collect()
    }
}
