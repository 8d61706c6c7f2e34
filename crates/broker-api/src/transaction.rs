//! Transactions over several partitions (KIP-98, with and without the second part of KIP-890).

use std::time::Duration;

use varve_types::{GroupName, MemberId, NodeId, ProducerId, TopicPartition, TransactionalId};

use crate::OffsetCommit;

/// How partitions come to be registered in a transaction, and what its end does to the producer's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TransactionVersion {
    /// The producer registers partitions by [`crate::Broker::add_to_transaction`] before it writes to them, and keeps
    /// its epoch from one transaction to the next (KIP-98). What it sent for one and comes late may touch the next: its
    /// last call repeated, but neither a batch nor a marker.
    V1,
    /// Leaders register their partitions with the first batch, and every end raises the epoch (KIP-890).
    #[default]
    V2,
}

/// Opens the session of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitTransactions {
    /// Transactional id.
    pub id: TransactionalId,
    /// A transaction that is open longer is aborted.
    pub timeout: Duration,
    /// The session that the caller leaves behind (KIP-360); `None`: it has just started.
    pub keep: Option<ProducerId>,
}

/// Registers partitions in a transaction, which begins with the first, for a producer of [`TransactionVersion::V1`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddToTransaction {
    /// Transactional id.
    pub id: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// Partitions.
    pub partitions: Vec<TopicPartition>,
    /// A group that offsets will be committed for.
    pub group: Option<GroupName>,
}

/// Commits offsets as part of a transaction.
#[derive(Debug, Clone)]
pub struct CommitTransactionOffsets {
    /// Transactional id.
    pub id: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// Group.
    pub group: GroupName,
    /// Member that read the records; `None`: not checked.
    pub member: Option<MemberId>,
    /// Its epoch.
    pub member_epoch: i32,
    /// Positions.
    pub offsets: Vec<OffsetCommit>,
    /// With [`TransactionVersion::V1`] the group must have been added.
    pub version: TransactionVersion,
}

/// Ends a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTransaction {
    /// Transactional id.
    pub id: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// Commit, or abort.
    pub commit: bool,
    /// With [`TransactionVersion::V1`] the session stays as it is.
    pub version: TransactionVersion,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// The session has begun none.
    Empty,
    /// It is open.
    Ongoing,
    /// It will be committed; partitions are being told.
    PrepareCommit,
    /// It will be aborted; partitions are being told.
    PrepareAbort,
    /// It is committed.
    CompleteCommit,
    /// It is aborted.
    CompleteAbort,
}

/// Who wanted what the state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionCause {
    /// The producer itself.
    Producer,
    /// The transaction's timeout.
    Timeout,
    /// An operator.
    Operator,
    /// A new producer with the same transactional id.
    Successor,
    /// The producer, which began a new session.
    Renewal,
}

/// A transactional id in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionListing {
    /// Transactional id.
    pub id: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// State of its present or last transaction.
    pub state: TransactionState,
    /// Node that coordinates it.
    pub coordinator: NodeId,
    /// When the open transaction began, milliseconds since the Unix epoch; `None` also where its coordinator does not
    /// say.
    pub started_ms: Option<i64>,
}

/// A transactional id in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionInfo {
    /// Transactional id.
    pub id: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// State of its present or last transaction.
    pub state: TransactionState,
    /// Who wanted it.
    pub cause: TransactionCause,
    /// Node that coordinates it.
    pub coordinator: NodeId,
    /// A transaction that is open longer is aborted.
    pub timeout: Duration,
    /// When the open transaction began, milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// When the state was reached, milliseconds since the Unix epoch.
    pub updated_ms: i64,
    /// Partitions of the open transaction.
    pub partitions: Vec<TopicPartition>,
    /// Of those, the ones that are not known to have been told its end yet.
    pub untold: Vec<TopicPartition>,
}
