//! The protocol's error codes, and whether a client tries again by itself when it gets one.

/// One row for each code.
macro_rules! codes {
    ($($name:ident = $code:literal, $retry:ident;)*) => {
        /// What went wrong, as clients know it. The names are the protocol's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "the names are the protocol's and say it")]
        pub enum ErrorCode {
            $($name = $code,)*
        }

        impl ErrorCode {
            /// All of them, by code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> i16 {
                self as i16
            }

            /// The error of a code; `None` when the code is not known.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                Some(match code {
                    $($code => Self::$name,)*
                    _ => return None,
                })
            }

            /// Whether clients repeat the request, perhaps after they have asked for metadata anew.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$name => codes!(@ $retry),)*
                }
            }
        }
    };
    (@ retriable) => { true };
    (@ permanent) => { false };
}

codes! {
    UnknownServerError = -1, permanent;
    None = 0, permanent;
    OffsetOutOfRange = 1, permanent;
    CorruptMessage = 2, retriable;
    UnknownTopicOrPartition = 3, retriable;
    InvalidFetchSize = 4, permanent;
    LeaderNotAvailable = 5, retriable;
    NotLeaderOrFollower = 6, retriable;
    RequestTimedOut = 7, retriable;
    BrokerNotAvailable = 8, permanent;
    ReplicaNotAvailable = 9, retriable;
    MessageTooLarge = 10, permanent;
    StaleControllerEpoch = 11, permanent;
    OffsetMetadataTooLarge = 12, permanent;
    NetworkException = 13, retriable;
    CoordinatorLoadInProgress = 14, retriable;
    CoordinatorNotAvailable = 15, retriable;
    NotCoordinator = 16, retriable;
    InvalidTopicException = 17, permanent;
    RecordListTooLarge = 18, permanent;
    NotEnoughReplicas = 19, retriable;
    NotEnoughReplicasAfterAppend = 20, retriable;
    InvalidRequiredAcks = 21, permanent;
    IllegalGeneration = 22, permanent;
    InconsistentGroupProtocol = 23, permanent;
    InvalidGroupId = 24, permanent;
    UnknownMemberId = 25, permanent;
    InvalidSessionTimeout = 26, permanent;
    RebalanceInProgress = 27, permanent;
    InvalidCommitOffsetSize = 28, permanent;
    TopicAuthorizationFailed = 29, permanent;
    GroupAuthorizationFailed = 30, permanent;
    ClusterAuthorizationFailed = 31, permanent;
    InvalidTimestamp = 32, permanent;
    UnsupportedSaslMechanism = 33, permanent;
    IllegalSaslState = 34, permanent;
    UnsupportedVersion = 35, permanent;
    TopicAlreadyExists = 36, permanent;
    InvalidPartitions = 37, permanent;
    InvalidReplicationFactor = 38, permanent;
    InvalidReplicaAssignment = 39, permanent;
    InvalidConfig = 40, permanent;
    NotController = 41, retriable;
    InvalidRequest = 42, permanent;
    UnsupportedForMessageFormat = 43, permanent;
    PolicyViolation = 44, permanent;
    OutOfOrderSequenceNumber = 45, permanent;
    DuplicateSequenceNumber = 46, permanent;
    InvalidProducerEpoch = 47, permanent;
    InvalidTxnState = 48, permanent;
    InvalidProducerIdMapping = 49, permanent;
    InvalidTransactionTimeout = 50, permanent;
    ConcurrentTransactions = 51, retriable;
    TransactionCoordinatorFenced = 52, permanent;
    TransactionalIdAuthorizationFailed = 53, permanent;
    SecurityDisabled = 54, permanent;
    OperationNotAttempted = 55, permanent;
    KafkaStorageError = 56, retriable;
    LogDirNotFound = 57, permanent;
    SaslAuthenticationFailed = 58, permanent;
    UnknownProducerId = 59, permanent;
    ReassignmentInProgress = 60, permanent;
    DelegationTokenAuthDisabled = 61, permanent;
    DelegationTokenNotFound = 62, permanent;
    DelegationTokenOwnerMismatch = 63, permanent;
    DelegationTokenRequestNotAllowed = 64, permanent;
    DelegationTokenAuthorizationFailed = 65, permanent;
    DelegationTokenExpired = 66, permanent;
    InvalidPrincipalType = 67, permanent;
    NonEmptyGroup = 68, permanent;
    GroupIdNotFound = 69, permanent;
    FetchSessionIdNotFound = 70, retriable;
    InvalidFetchSessionEpoch = 71, retriable;
    ListenerNotFound = 72, retriable;
    TopicDeletionDisabled = 73, permanent;
    FencedLeaderEpoch = 74, retriable;
    UnknownLeaderEpoch = 75, retriable;
    UnsupportedCompressionType = 76, permanent;
    StaleBrokerEpoch = 77, permanent;
    OffsetNotAvailable = 78, retriable;
    MemberIdRequired = 79, permanent;
    PreferredLeaderNotAvailable = 80, retriable;
    GroupMaxSizeReached = 81, permanent;
    FencedInstanceId = 82, permanent;
    EligibleLeadersNotAvailable = 83, retriable;
    ElectionNotNeeded = 84, retriable;
    NoReassignmentInProgress = 85, permanent;
    GroupSubscribedToTopic = 86, permanent;
    InvalidRecord = 87, permanent;
    UnstableOffsetCommit = 88, retriable;
    ThrottlingQuotaExceeded = 89, retriable;
    ProducerFenced = 90, permanent;
    ResourceNotFound = 91, permanent;
    DuplicateResource = 92, permanent;
    UnacceptableCredential = 93, permanent;
    InconsistentVoterSet = 94, permanent;
    InvalidUpdateVersion = 95, permanent;
    FeatureUpdateFailed = 96, permanent;
    PrincipalDeserializationFailure = 97, permanent;
    SnapshotNotFound = 98, permanent;
    PositionOutOfRange = 99, permanent;
    UnknownTopicId = 100, retriable;
    DuplicateBrokerRegistration = 101, permanent;
    BrokerIdNotRegistered = 102, permanent;
    InconsistentTopicId = 103, retriable;
    InconsistentClusterId = 104, permanent;
    TransactionalIdNotFound = 105, permanent;
    FetchSessionTopicIdError = 106, retriable;
    IneligibleReplica = 107, permanent;
    NewLeaderElected = 108, permanent;
    OffsetMovedToTieredStorage = 109, permanent;
    FencedMemberEpoch = 110, permanent;
    UnreleasedInstanceId = 111, permanent;
    UnsupportedAssignor = 112, permanent;
    StaleMemberEpoch = 113, permanent;
    MismatchedEndpointType = 114, permanent;
    UnsupportedEndpointType = 115, permanent;
    UnknownControllerId = 116, permanent;
    UnknownSubscriptionId = 117, permanent;
    TelemetryTooLarge = 118, permanent;
    InvalidRegistration = 119, permanent;
    TransactionAbortable = 120, permanent;
    InvalidRecordState = 121, permanent;
    ShareSessionNotFound = 122, retriable;
    InvalidShareSessionEpoch = 123, retriable;
    FencedStateEpoch = 124, permanent;
    InvalidVoterKey = 125, permanent;
    DuplicateVoter = 126, permanent;
    VoterNotFound = 127, permanent;
    InvalidRegularExpression = 128, permanent;
    RebootstrapRequired = 129, permanent;
    StreamsInvalidTopology = 130, permanent;
    StreamsInvalidTopologyEpoch = 131, permanent;
    StreamsTopologyFenced = 132, permanent;
    ShareSessionLimitReached = 133, retriable;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_no_gaps_and_come_back() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(134), None);
        assert_eq!(ErrorCode::from_code(-2), None);
    }

    #[test]
    fn known_codes() {
        for (error, code, retriable) in [
            (ErrorCode::UnknownServerError, -1, false),
            (ErrorCode::None, 0, false),
            (ErrorCode::OffsetOutOfRange, 1, false),
            (ErrorCode::UnknownTopicOrPartition, 3, true),
            (ErrorCode::NotLeaderOrFollower, 6, true),
            (ErrorCode::NotCoordinator, 16, true),
            (ErrorCode::UnsupportedVersion, 35, false),
            (ErrorCode::OutOfOrderSequenceNumber, 45, false),
            (ErrorCode::ConcurrentTransactions, 51, true),
            (ErrorCode::FencedInstanceId, 82, false),
            (ErrorCode::ProducerFenced, 90, false),
            (ErrorCode::UnknownTopicId, 100, true),
            (ErrorCode::FencedMemberEpoch, 110, false),
            (ErrorCode::UnsupportedAssignor, 112, false),
        ] {
            assert_eq!(
                (error.code(), error.is_retriable()),
                (code, retriable),
                "{error:?}"
            );
        }
    }
}
