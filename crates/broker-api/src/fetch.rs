//! Reading. Bytes are whole batches as stored; the caller decodes them or passes them on.

use std::time::Duration;

use bytes::Bytes;
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicName, TopicPartition};

/// Which records of transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Those of committed transactions, up to the last stable offset.
    #[default]
    Committed,
    /// All of them, up to the high watermark.
    Uncommitted,
}

/// A read of any number of partitions.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What to read, in order of preference: bytes go to the first partitions first.
    pub partitions: Vec<FetchPartition>,
    /// Wait at most this long for `min_bytes`.
    pub max_wait: Duration,
    /// Answer as soon as this much is available in all.
    pub min_bytes: usize,
    /// Upper bound of the whole answer in bytes. At least one batch is returned even if it is larger; with 0 none is,
    /// and what is asked is only how things are.
    pub max_bytes: usize,
    /// Which records of transactions are wanted.
    pub isolation: Isolation,
    /// Batches as they are stored, for a reader that leaves out by itself what is not for it: with records of aborted
    /// transactions, which [`Fetched::aborted`] names, and with markers of the log itself. Otherwise neither is
    /// returned.
    pub raw: bool,
}

/// One partition of a [`Fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// First offset wanted. The first batch may begin before it.
    pub offset: Offset,
    /// Upper bound for this partition in bytes.
    pub max_bytes: usize,
    /// Epoch of the leader the caller believes in: checked and fenced when given.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What a [`Fetch`] found in one partition, in the order of the request.
#[derive(Debug, Clone)]
pub struct PartitionFetched {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// Data, or why there is none. `OffsetOutOfRange` carries the bounds in its metadata.
    pub result: crate::Result<Fetched>,
}

/// Data of one partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches back to back, possibly empty. Nothing at or above the high watermark.
    pub batches: Bytes,
    /// Where the next read begins: one past the last record in `batches`, or the offset asked for.
    pub next_offset: Offset,
    /// One past the last committed record.
    pub high_watermark: Offset,
    /// Where readers of committed records end: at most the high watermark.
    pub last_stable: Offset,
    /// Oldest readable offset.
    pub log_start: Offset,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
    /// In a raw read of committed records: transactions that were aborted and have offsets from the one asked for up to
    /// `next_offset`, by the offset of their marker.
    pub aborted: Vec<Aborted>,
}

/// An aborted transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Id of its producer.
    pub producer: i64,
    /// Its first offset. Its records end with the next marker of that producer.
    pub first: Offset,
}

/// Where the records of a leader's epoch end (KIP-320).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch that the log has, up to the one that was asked for.
    pub epoch: LeaderEpoch,
    /// One past its last record.
    pub end: Offset,
}

impl Fetched {
    /// Where readers of that isolation end.
    #[must_use]
    pub const fn end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.last_stable,
            Isolation::Uncommitted => self.high_watermark,
        }
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// This offset.
    Offset(Offset),
    /// The first record whose timestamp is at or after this time (ms); the end when none is.
    Timestamp(i64),
    /// This many records before the high watermark, at least the log start.
    Last(u64),
    /// The oldest retained record.
    Earliest,
    /// The high watermark, or the last stable offset for readers of committed records.
    Latest,
    /// The first record with the largest timestamp of the log; found as a record is by its time. Only its leader
    /// answers: it is not passed on.
    MaxTimestamp,
}

/// A question about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetQuery {
    /// Partition.
    pub partition: TopicPartition,
    /// Position to resolve; `None` asks for the bounds only.
    pub position: Option<Position>,
    /// Also look up the time of the first record at or behind the resolved offset, which costs a read.
    pub with_time: bool,
    /// Whose end `Latest` and `Last` mean.
    pub isolation: Isolation,
}

/// Answer to an [`OffsetQuery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetFound {
    /// Resolved offset, when a position was given. `Position::Offset` is returned as given.
    pub offset: Option<Offset>,
    /// Timestamp (ms) of the record found by time.
    pub timestamp_ms: Option<i64>,
    /// Oldest readable offset.
    pub log_start: Offset,
    /// One past the last committed record.
    pub high_watermark: Offset,
    /// Where readers of committed records end: at most the high watermark.
    pub last_stable: Offset,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
}

impl OffsetFound {
    /// Where readers of that isolation end.
    #[must_use]
    pub const fn end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.last_stable,
            Isolation::Uncommitted => self.high_watermark,
        }
    }
}
