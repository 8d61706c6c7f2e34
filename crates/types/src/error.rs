//! Why a request failed, as few kinds as callers can tell apart, each with what it means for the
//! request (did it happen?) and for the caller (may it be repeated?). Adapters map kinds to wire codes
//! in one table each; nothing here knows a wire.

/// Whether a failed mutation took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing was changed.
    NotApplied,
    /// It may have been applied. Only an idempotent repeat is safe.
    Unknown,
}

/// What a caller may do on its own after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// The same request may be repeated, unchanged, after a pause.
    Later,
    /// Refresh what is known about leaders, sessions or membership first, then repeat.
    AfterRefresh,
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $name:ident = $reason:literal, $retry:ident;)*) => {
        /// Why a request failed. The names are those of the public API's `ErrorReason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, in the order of declaration.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name,)*];

            /// Stable upper-case name, as the public API spells it.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(ErrorKind::$name => $reason,)* }
            }

            /// What a caller may do on its own.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(ErrorKind::$name => Retry::$retry,)* }
            }
        }
    };
}

error_kinds! {
    /// A field is missing or outside its range.
    InvalidRequest = "INVALID_REQUEST", Never;
    /// A config key is unknown, not supported, or its value is out of range.
    InvalidConfig = "INVALID_CONFIG", Never;
    /// One record exceeds `max.message.bytes`.
    RecordTooLarge = "RECORD_TOO_LARGE", Never;
    /// A batch exceeds the size or record limit of one batch.
    BatchTooLarge = "BATCH_TOO_LARGE", Never;
    /// CRC, count, size or timestamps of a batch do not match its payload.
    CorruptBatch = "CORRUPT_BATCH", Never;
    /// A record breaks a rule of its topic (null key on a compacted topic, timestamp too far off).
    InvalidRecord = "INVALID_RECORD", Never;
    /// A feature the caller requires is unknown here.
    UnsupportedFeature = "UNSUPPORTED_FEATURE", Never;
    /// No such topic.
    TopicNotFound = "TOPIC_NOT_FOUND", AfterRefresh;
    /// The topic has no such partition.
    PartitionNotFound = "PARTITION_NOT_FOUND", Never;
    /// No such group.
    GroupNotFound = "GROUP_NOT_FOUND", Never;
    /// No such node.
    NodeNotFound = "NODE_NOT_FOUND", Never;
    /// A topic with this name exists.
    TopicAlreadyExists = "TOPIC_ALREADY_EXISTS", Never;
    /// The offset is not in the log. Metadata: log_start_offset, high_watermark.
    OffsetOutOfRange = "OFFSET_OUT_OF_RANGE", Never;
    /// This node does not lead the partition.
    NotLeader = "NOT_LEADER", AfterRefresh;
    /// This node does not coordinate the group.
    NotCoordinator = "NOT_COORDINATOR", AfterRefresh;
    /// An election is in progress, or the partition is offline.
    LeaderNotAvailable = "LEADER_NOT_AVAILABLE", Later;
    /// The coordinator is replaying its state.
    CoordinatorLoading = "COORDINATOR_LOADING", Later;
    /// The caller's leader epoch is older than this leader's.
    FencedLeaderEpoch = "FENCED_LEADER_EPOCH", AfterRefresh;
    /// The caller knows a newer epoch than this node does.
    UnknownLeaderEpoch = "UNKNOWN_LEADER_EPOCH", Later;
    /// Fewer than `min.insync.replicas` in sync; nothing was appended.
    NotEnoughReplicas = "NOT_ENOUGH_REPLICAS", Later;
    /// Appended by the leader but not committed in time: the outcome is unknown.
    CommitTimeout = "COMMIT_TIMEOUT", Later;
    /// The node is draining or shutting down.
    ShuttingDown = "SHUTTING_DOWN", Later;
    /// `expected_offset` did not match. Metadata: actual_offset.
    ExpectedOffsetMismatch = "EXPECTED_OFFSET_MISMATCH", Never;
    /// A gap in a producer's sequence. Metadata: expected_sequence.
    OutOfOrderSequence = "OUT_OF_ORDER_SEQUENCE", AfterRefresh;
    /// A newer session of the same producer exists.
    ProducerFenced = "PRODUCER_FENCED", Never;
    /// The producer session has expired on this partition.
    UnknownProducer = "UNKNOWN_PRODUCER", AfterRefresh;
    /// The group does not know this member.
    UnknownMember = "UNKNOWN_MEMBER", AfterRefresh;
    /// The member's epoch is not one the group would accept: give up everything and rejoin.
    FencedMemberEpoch = "FENCED_MEMBER_EPOCH", AfterRefresh;
    /// The member's epoch is older than the group's: heartbeat first.
    StaleMemberEpoch = "STALE_MEMBER_EPOCH", AfterRefresh;
    /// Another live member holds this instance id.
    InstanceIdInUse = "INSTANCE_ID_IN_USE", Never;
    /// The operation needs a group without members.
    GroupNotEmpty = "GROUP_NOT_EMPTY", Never;
    /// `group.max.size` is reached.
    GroupFull = "GROUP_FULL", Never;
    /// A quota or a queue is full; try again later.
    Throttled = "THROTTLED", Later;
    /// Free space is below its reserve: writes are refused, reads are served.
    StorageFull = "STORAGE_FULL", Later;
    /// An I/O error; the partition is offline.
    StorageError = "STORAGE_ERROR", Never;
    /// A stored batch failed its checksum.
    CorruptLog = "CORRUPT_LOG", Never;
    /// An operator policy forbids it.
    PolicyViolation = "POLICY_VIOLATION", Never;
    /// A conflicting operation is in progress.
    OperationInProgress = "OPERATION_IN_PROGRESS", Later;
    /// The client broke a stream's credit or in-flight limit.
    FlowControl = "FLOW_CONTROL", Never;
    /// The group speaks the other of the two group protocols, or its members have none in common.
    GroupProtocolMismatch = "GROUP_PROTOCOL_MISMATCH", Never;
    /// No transaction of that name is known.
    TransactionNotFound = "TRANSACTION_NOT_FOUND", Never;
    /// The transaction is not in a state that allows the operation: nothing was begun, or it was decided otherwise.
    InvalidTransactionState = "INVALID_TRANSACTION_STATE", Never;
    /// The transaction was aborted by its timeout or by an operator; none of it will ever be visible.
    TransactionAborted = "TRANSACTION_ABORTED", AfterRefresh;
    /// The transaction before is still being completed.
    ConcurrentTransactions = "CONCURRENT_TRANSACTIONS", Later;
}

impl ErrorKind {
    /// Whether a mutation that failed with this kind may nevertheless have taken effect.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::CommitTimeout | Self::StorageError => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_and_upper_case() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in ErrorKind::ALL {
            assert!(seen.insert(kind.reason()), "{} twice", kind.reason());
            assert!(
                kind.reason()
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c == '_')
            );
        }
    }

    #[test]
    fn only_uncertain_kinds_are_unknown() {
        let unknown: Vec<_> = ErrorKind::ALL
            .iter()
            .filter(|k| k.outcome() == Outcome::Unknown)
            .collect();
        assert_eq!(
            unknown,
            [&ErrorKind::CommitTimeout, &ErrorKind::StorageError]
        );
    }
}
