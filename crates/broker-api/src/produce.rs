//! Appending.

use varve_record::Batch;
use varve_types::{Acks, LeaderEpoch, Offset, PartitionId, ProducerId, TopicName, TransactionalId};

use crate::TransactionVersion;

/// One verified batch for one partition. A producer session, if any, is in the batch's header.
#[derive(Debug)]
pub struct Produce {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// Durability to wait for.
    pub acks: Acks,
    /// The batch. Its type proves that it was checked.
    pub batch: Batch,
    /// Append only if the first record would get exactly this offset.
    pub expected_offset: Option<Offset>,
    /// Whose transaction the batch belongs to. Set exactly for batches with the transactional bit.
    pub transactional_id: Option<TransactionalId>,
    /// Of which kind that transaction is.
    pub transaction_version: TransactionVersion,
}

/// A successful append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record; the others follow without gaps. `None` with `Acks::None`.
    pub base_offset: Option<Offset>,
    /// Number of records.
    pub record_count: u32,
    /// Broker clock at the append, milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// The batch was already in the log; `base_offset` is the original one.
    pub deduplicated: bool,
    /// Epoch of the leader that appended.
    pub leader_epoch: LeaderEpoch,
    /// Replicas that held the records when the answer was given.
    pub replicas: u32,
    /// Of those, how many had flushed them to stable storage.
    pub flushed_replicas: u32,
    /// Oldest readable offset; `None` where another node appended.
    pub log_start: Option<Offset>,
}

/// Opens a producer session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducer {
    /// Stable name; opening it again raises the epoch and fences the older session. `None`: anonymous.
    pub name: Option<String>,
}

/// An open producer session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSession {
    /// Id and epoch.
    pub producer: ProducerId,
    /// A partition forgets the session after this long without an append, in milliseconds.
    pub idle_expiry_ms: i64,
}
