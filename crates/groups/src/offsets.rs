//! The table of committed offsets of one group. Changes only when a write is durable or replayed;
//! never decides whether a commit is allowed.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{LeaderEpoch, Offset, ProducerId, TopicPartition};

use crate::txn::TxnEnd;

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

/// A position with the place of its record among those of the group in the log.
#[derive(Debug, Clone)]
struct Placed {
    place: u64,
    committed: Committed,
}

/// A position of an open transaction, and where the log ended at most when its batch was verified.
#[derive(Debug, Clone)]
struct Pending {
    placed: Placed,
    since: Offset,
}

/// Committed offsets of one group, ordered by topic and partition, and those of transactions that are open.
///
/// What a transaction committed counts from the place of its record in the log, not of its end: a later
/// record of the same partition wins, whichever is decided first.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    table: BTreeMap<TopicPartition, Placed>,
    /// By producer. Never empty maps.
    pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, Pending>>,
    places: u64,
}

impl Offsets {
    fn next_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    pub(crate) fn apply(&mut self, (partition, committed): Change) {
        let place = self.next_place();
        if let Some(committed) = committed {
            self.table.insert(partition, Placed { place, committed });
            return;
        }
        // What is removed does not come back with the end of a transaction that was open before.
        self.table.remove(&partition);
        self.pending.retain(|_, pending| {
            pending.remove(&partition);
            !pending.is_empty()
        });
    }

    /// A record of an open transaction. Removals are not made in transactions.
    pub(crate) fn apply_pending(
        &mut self,
        (producer, since): (ProducerId, Offset),
        (partition, committed): Change,
    ) {
        let place = self.next_place();
        if let Some(committed) = committed {
            let placed = Placed { place, committed };
            let pending = self.pending.entry(producer).or_default();
            pending.insert(partition, Pending { placed, since });
        }
    }

    /// The end of a producer's transaction.
    pub(crate) fn end(&mut self, end: TxnEnd) {
        let sessions: Vec<ProducerId> = self.of(end.producer.id).collect();
        for producer in sessions {
            let Some(pending) = self.pending.remove(&producer) else {
                continue;
            };
            let (ended, open): (BTreeMap<_, _>, BTreeMap<_, _>) = pending
                .into_iter()
                .partition(|(_, pending)| end.ends(producer, pending.since));
            if !open.is_empty() {
                self.pending.insert(producer, open);
            }
            for (partition, pending) in ended.into_iter().filter(|_| end.committed) {
                let newer = |held: &Placed| held.place > pending.placed.place;
                if !self.table.get(&partition).is_some_and(newer) {
                    self.table.insert(partition, pending.placed);
                }
            }
        }
    }

    /// Sessions of a producer that have offsets pending.
    fn of(&self, producer: i64) -> impl Iterator<Item = ProducerId> {
        let session = |epoch| ProducerId {
            id: producer,
            epoch,
        };
        let range = session(i16::MIN)..=session(i16::MAX);
        self.pending.range(range).map(|(producer, _)| *producer)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn has_pending_of(&self, producer: i64) -> bool {
        self.of(producer).next().is_some()
    }

    /// Partitions with offsets of open transactions, in order, perhaps more than once.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &TopicPartition> {
        self.pending.values().flat_map(BTreeMap::keys)
    }

    /// The offsets of `partitions` (of all when that is empty) that exist, in the table's order.
    pub(crate) fn read(&self, partitions: &[TopicPartition]) -> Vec<CommittedOffset> {
        let asked: BTreeSet<_> = partitions.iter().collect();
        let all = self.iter();
        if asked.is_empty() {
            return all
                .map(|(p, c)| CommittedOffset::new(p.clone(), c))
                .collect();
        }
        let held = |p: &&TopicPartition| self.table.get(*p).map(|h| ((*p).clone(), h));
        asked
            .iter()
            .filter_map(held)
            .map(|(p, h)| CommittedOffset::new(p, &h.committed))
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.table.iter().map(|(p, h)| (p, &h.committed))
    }

    /// Partitions committed at least `retention_ms` before `wall_ms`.
    pub(crate) fn expired(&self, wall_ms: i64, retention_ms: i64) -> Vec<TopicPartition> {
        self.iter()
            .filter(|(_, c)| wall_ms.saturating_sub(c.commit_time_ms) >= retention_ms)
            .map(|(p, _)| p.clone())
            .collect()
    }
}
