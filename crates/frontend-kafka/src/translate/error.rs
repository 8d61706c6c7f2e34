//! The one table from the broker's errors to the protocol's codes.

use varve_types::{ErrorKind, NameError};

use crate::wire::ErrorCode;

/// The code of an error. What differs between APIs is decided where they are.
#[must_use]
pub const fn code(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::FlowControl => ErrorCode::InvalidRequest,
        ErrorKind::InvalidConfig => ErrorCode::InvalidConfig,
        // Clients split a batch that is refused so.
        ErrorKind::RecordTooLarge | ErrorKind::BatchTooLarge => ErrorCode::MessageTooLarge,
        ErrorKind::CorruptBatch => ErrorCode::CorruptMessage,
        ErrorKind::InvalidRecord => ErrorCode::InvalidRecord,
        ErrorKind::UnsupportedFeature => ErrorCode::UnsupportedVersion,
        ErrorKind::TopicNotFound | ErrorKind::PartitionNotFound => {
            ErrorCode::UnknownTopicOrPartition
        }
        ErrorKind::GroupNotFound => ErrorCode::GroupIdNotFound,
        ErrorKind::NodeNotFound => ErrorCode::BrokerIdNotRegistered,
        ErrorKind::TopicAlreadyExists => ErrorCode::TopicAlreadyExists,
        ErrorKind::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        ErrorKind::NotLeader => ErrorCode::NotLeaderOrFollower,
        ErrorKind::NotCoordinator => ErrorCode::NotCoordinator,
        ErrorKind::LeaderNotAvailable => ErrorCode::LeaderNotAvailable,
        ErrorKind::CoordinatorLoading => ErrorCode::CoordinatorLoadInProgress,
        ErrorKind::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        ErrorKind::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        ErrorKind::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
        ErrorKind::CommitTimeout => ErrorCode::RequestTimedOut,
        // Clients look for the leader anew, which is elsewhere by then.
        ErrorKind::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        ErrorKind::ExpectedOffsetMismatch => ErrorCode::InvalidRequest,
        ErrorKind::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        ErrorKind::ProducerFenced => ErrorCode::ProducerFenced,
        ErrorKind::UnknownProducer => ErrorCode::UnknownProducerId,
        ErrorKind::UnknownMember => ErrorCode::UnknownMemberId,
        ErrorKind::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        ErrorKind::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        ErrorKind::InstanceIdInUse => ErrorCode::UnreleasedInstanceId,
        ErrorKind::GroupNotEmpty => ErrorCode::NonEmptyGroup,
        ErrorKind::GroupFull => ErrorCode::GroupMaxSizeReached,
        ErrorKind::Throttled => ErrorCode::ThrottlingQuotaExceeded,
        ErrorKind::StorageFull | ErrorKind::StorageError => ErrorCode::KafkaStorageError,
        ErrorKind::CorruptLog => ErrorCode::CorruptMessage,
        ErrorKind::PolicyViolation => ErrorCode::PolicyViolation,
        ErrorKind::OperationInProgress => ErrorCode::ReassignmentInProgress,
        ErrorKind::GroupProtocolMismatch => ErrorCode::InconsistentGroupProtocol,
        ErrorKind::TransactionNotFound => ErrorCode::TransactionalIdNotFound,
        ErrorKind::InvalidTransactionState => ErrorCode::InvalidTxnState,
        ErrorKind::TransactionAborted => ErrorCode::InvalidProducerEpoch,
        ErrorKind::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
    }
}

/// The code of a group's name that cannot be one.
#[must_use]
pub const fn name_code(_: &NameError) -> ErrorCode {
    ErrorCode::InvalidGroupId
}

#[cfg(test)]
mod tests {
    use varve_types::Retry;

    use super::*;

    #[test]
    fn what_may_be_repeated_later_is_retriable_for_clients() {
        for kind in ErrorKind::ALL {
            // Clients stop at these by themselves, or wait in another way.
            let known = [ErrorKind::OperationInProgress];
            if kind.retry() == Retry::Later && !known.contains(kind) {
                assert!(code(*kind).is_retriable(), "{kind:?}");
            }
            assert_ne!(code(*kind), ErrorCode::None, "{kind:?}");
        }
    }
}
