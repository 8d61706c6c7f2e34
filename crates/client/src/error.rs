//! Why a call of this library failed: what the server said, or what happened on the way to it.
//!
//! A reason of the public API is an [`ErrorKind`]; everything a retry needs (hint to the leader, delay) is
//! a field. Errors are shared between the records of a batch, so they are cheap to clone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;
use varve_proto::v1;
use varve_record::BatchError;
use varve_types::{ErrorKind, GroupName, Outcome, Retry, TopicPartition};

/// What the server answered, or the transport in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// Reason of the public API. `None`: the transport failed, or the server is newer than this client.
    pub kind: Option<ErrorKind>,
    /// gRPC code.
    pub code: Code,
    /// Text for people.
    pub message: String,
    /// Further values, with the keys that the API names for the reason.
    pub metadata: BTreeMap<String, String>,
    /// Who leads, with NOT_LEADER and NOT_COORDINATOR.
    pub leader: Option<v1::LeaderHint>,
    /// Wait this long before repeating.
    pub retry_delay: Option<Duration>,
    /// There was no connection to send the request on: nobody has seen it.
    pub unsent: bool,
    /// An earlier attempt of the same call had no answer: whatever this one says, that one may have arrived.
    pub unanswered_before: bool,
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = match self.kind {
            Some(kind) => format!(" ({}/{})", code_name(self.code), kind.reason()),
            None => format!(" ({})", code_name(self.code)),
        };
        f.write_str(&self.message)?;
        // A text that repeats another node's error ends with the code already.
        if !self.message.ends_with(&code) {
            f.write_str(&code)?;
        }
        if self.unanswered_before {
            f.write_str("; an earlier attempt had no answer and may have been carried out")?;
        }
        Ok(())
    }
}

impl std::error::Error for RpcError {}

/// Upper-case name of a gRPC code, as its specification spells it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn kind_of(reason: &str) -> Option<ErrorKind> {
    let reason = reason.strip_prefix("ERROR_REASON_").unwrap_or(reason);
    ErrorKind::ALL
        .iter()
        .copied()
        .find(|kind| kind.reason() == reason)
}

fn leader_of(details: &[u8]) -> Option<v1::LeaderHint> {
    let status = tonic_types::Status::decode(details).ok()?;
    let hint = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/varve.v1.LeaderHint"))?;
    v1::LeaderHint::decode(&hint.value[..]).ok()
}

impl RpcError {
    /// What a failed call said.
    #[must_use]
    pub fn from_status(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        // The transport's own timer ends a call this way; to callers it is the deadline.
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return Self {
                code: Code::DeadlineExceeded,
                ..Self::transport("no answer came in time")
            };
        }
        // What is wrong with a certificate is said by the cause alone.
        if let Some(error) = varve_tls::ConnectError::within(status) {
            return Self {
                unsent: error.is_unread() || never_left(status),
                ..Self::transport(error.to_string())
            };
        }
        let message = if status.message().is_empty() {
            "the call failed without a message".to_owned()
        } else {
            status.message().to_owned()
        };
        Self {
            kind: info.and_then(|info| kind_of(&info.reason)),
            code: status.code(),
            message,
            metadata: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
            leader: leader_of(status.details()),
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
            unsent: never_left(status),
            unanswered_before: false,
        }
    }

    /// What a response body said about one partition.
    #[must_use]
    pub fn from_partition(error: v1::PartitionError) -> Self {
        let delay = error
            .retry_delay
            .and_then(|delay| Duration::try_from(delay).ok());
        Self {
            kind: kind_of(error.reason().as_str_name()),
            code: Code::from(error.code),
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
            leader: error.leader,
            retry_delay: delay,
            unsent: false,
            unanswered_before: false,
        }
    }

    /// A failure of the transport that is not a status.
    #[must_use]
    pub fn transport(message: impl Into<String>) -> Self {
        Self {
            kind: None,
            code: Code::Unavailable,
            message: message.into(),
            metadata: BTreeMap::new(),
            leader: None,
            retry_delay: None,
            unsent: false,
            unanswered_before: false,
        }
    }

    /// What a response body says about one partition: the way back of [`RpcError::from_partition`].
    #[must_use]
    pub fn to_partition(&self) -> v1::PartitionError {
        let reason = self
            .kind
            .map(|kind| format!("ERROR_REASON_{}", kind.reason()));
        let reason = reason.and_then(|name| v1::ErrorReason::from_str_name(&name));
        v1::PartitionError {
            reason: reason.unwrap_or_default().into(),
            code: self.code as i32,
            message: self.message.clone(),
            retryable: self.is_retryable(),
            retry_delay: self
                .retry_delay
                .and_then(|delay| prost_types::Duration::try_from(delay).ok()),
            leader: self.leader.clone(),
            metadata: self.metadata.clone().into_iter().collect(),
        }
    }

    /// Whether repeating the same request may help, for a request that is harmless to repeat.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            Some(ErrorKind::TopicNotFound) => false,
            Some(kind) => kind.retry() != Retry::Never,
            // INTERNAL and UNKNOWN without a reason come from a connection that broke inside a call.
            None => matches!(
                self.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Aborted
                    | Code::Unknown
                    | Code::Internal
            ),
        }
    }

    /// Whether a mutation may have taken effect although it failed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            _ if self.unanswered_before => Outcome::Unknown,
            Some(kind) => kind.outcome(),
            None if self.unsent => Outcome::NotApplied,
            None => Outcome::Unknown,
        }
    }

    /// Whether the node was not there, or not there any more: another may answer.
    pub(crate) const fn is_transport(&self) -> bool {
        self.kind.is_none()
            && matches!(
                self.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
            )
    }
}

/// Whether a call failed because no connection could be opened for it.
fn never_left(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error of this library.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused, or could not be reached.
    #[error("{0}")]
    Rpc(Arc<RpcError>),
    /// None of the addresses answered.
    #[error("no broker answered at {addresses}: {last}")]
    NoBroker {
        /// The addresses tried.
        addresses: String,
        /// What the last one said.
        last: Arc<RpcError>,
    },
    /// A topic is unknown to the cluster.
    #[error("topic \"{0}\" not found")]
    TopicNotFound(String),
    /// The topic has fewer partitions.
    #[error("topic \"{topic}\" has {count} partitions; there is no partition {partition}")]
    PartitionNotFound {
        /// Topic.
        topic: String,
        /// Partition asked for.
        partition: i32,
        /// Partitions it has.
        count: i32,
    },
    /// A batch was not acknowledged in time.
    #[error(
        "records for {partition} were not acknowledged within {after:?}; {}; last error: {last}",
        match outcome {
            Outcome::NotApplied => "they are not in the log",
            Outcome::Unknown => "they may be in the log",
        }
    )]
    DeliveryTimeout {
        /// Partition.
        partition: TopicPartition,
        /// The delivery timeout.
        after: Duration,
        /// Whether the records may be in the log.
        outcome: Outcome,
        /// The last attempt's error.
        last: Arc<RpcError>,
    },
    /// A batch was refused, and an earlier attempt to append it had no answer.
    #[error(
        "records for {partition} may be in the log: an earlier attempt had no answer; the last was refused: {last}"
    )]
    Uncertain {
        /// Partition.
        partition: TopicPartition,
        /// The last attempt's error.
        last: Arc<RpcError>,
    },
    /// The producer's buffer is full. Wait, or send fewer bytes at once.
    #[error("the producer's buffer of {0} bytes is full")]
    BufferFull(usize),
    /// The producer or consumer has been closed.
    #[error("the client is closed")]
    Closed,
    /// A record or batch breaks a limit of the format.
    #[error("the record was not sent: {0}")]
    Record(BatchError),
    /// A fetched batch is damaged. Nothing after it was returned.
    #[error("batch at offset {offset} of {partition} is damaged: {source}")]
    Corrupt {
        /// Partition.
        partition: TopicPartition,
        /// Base offset of the batch, or where it was expected.
        offset: i64,
        /// What is wrong.
        source: BatchError,
    },
    /// A consumer was asked about a partition that it does not read, or is just giving up.
    #[error("partition {0} is not assigned to this consumer; nothing was changed")]
    NotAssigned(TopicPartition),
    /// An offset or a count of records that cannot be one.
    #[error(
        "{offset} is no offset for partition {partition}: offsets begin at 0; nothing was changed"
    )]
    InvalidOffset {
        /// Partition.
        partition: TopicPartition,
        /// What was given.
        offset: i64,
    },
    /// A member of a group committed for partitions that were taken from it. Nothing of them was committed: they
    /// may belong to others, who begin at the last commit.
    #[error(
        "nothing was committed for partitions that group \"{group}\" has taken from this member; what it \
         processed since its last commit will be processed again by their next owner{}",
        match last {
            Some(last) => format!(": {last}"),
            None => String::new(),
        }
    )]
    Fenced {
        /// Group.
        group: GroupName,
        /// What the coordinator said. `None`: this member knew by itself, and did not ask.
        last: Option<Arc<RpcError>>,
    },
    /// A setting is not usable.
    #[error("{0}")]
    Config(String),
    /// The server answered something that the API does not allow.
    #[error("the server's answer breaks the API: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The API's reason, where there is one.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Rpc(error) => error.kind,
            Self::TopicNotFound(_) => Some(ErrorKind::TopicNotFound),
            Self::PartitionNotFound { .. } => Some(ErrorKind::PartitionNotFound),
            Self::Record(error) => Some(error.kind()),
            Self::Corrupt { .. } => Some(ErrorKind::CorruptLog),
            Self::Fenced { last, .. } => {
                let said = last.as_ref().and_then(|last| last.kind);
                said.or(Some(ErrorKind::FencedMemberEpoch))
            }
            _ => None,
        }
    }

    /// Whether repeating the call may help, for a call that is harmless to repeat.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rpc(error) => error.is_retryable(),
            Self::NoBroker { .. } | Self::BufferFull(_) => true,
            _ => false,
        }
    }

    /// Whether it is certain that the call changed nothing, so that repeating it repeats nothing.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        match self {
            Self::Rpc(last) | Self::NoBroker { last, .. } => last.outcome() == Outcome::NotApplied,
            _ => false,
        }
    }

    /// The error of the last of several attempts. `unanswered` says of the attempts before this one, and
    /// afterwards of this one as well, whether any may have been carried out.
    pub(crate) fn after(mut self, unanswered: &mut bool) -> Self {
        if let Self::Rpc(last) | Self::NoBroker { last, .. } = &mut self {
            if *unanswered {
                Arc::make_mut(last).unanswered_before = true;
            }
            *unanswered |= last.outcome() == Outcome::Unknown;
        }
        self
    }

    /// The server's words, or what stands in their place.
    #[must_use]
    pub fn to_rpc(&self) -> RpcError {
        match self {
            Self::Rpc(error) => (**error).clone(),
            Self::NoBroker { last, .. } => (**last).clone(),
            other => RpcError {
                kind: other.kind(),
                code: Code::Unknown,
                ..RpcError::transport(other.to_string())
            },
        }
    }

    /// Whether time ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Rpc(error) => error.code == Code::DeadlineExceeded,
            Self::DeliveryTimeout { .. } => true,
            Self::NoBroker { last, .. } => last.code == Code::DeadlineExceeded,
            _ => false,
        }
    }
}

impl From<RpcError> for ClientError {
    fn from(error: RpcError) -> Self {
        Self::Rpc(Arc::new(error))
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        RpcError::from_status(&status).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_status_with_details_is_read_back() {
        let mut details = ErrorDetails::new();
        let metadata = [("actual_offset".to_owned(), "7".to_owned())];
        details.set_error_info("EXPECTED_OFFSET_MISMATCH", "varve", metadata);
        details.set_retry_info(Some(Duration::from_millis(250)));
        let status = tonic::Status::with_error_details(Code::Aborted, "no", details);
        let error = RpcError::from_status(&status);
        assert_eq!(error.kind, Some(ErrorKind::ExpectedOffsetMismatch));
        assert_eq!(error.metadata["actual_offset"], "7");
        assert_eq!(error.retry_delay, Some(Duration::from_millis(250)));
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "no (ABORTED/EXPECTED_OFFSET_MISMATCH)");
    }

    #[test]
    fn a_code_is_printed_once() {
        let opening = RpcError {
            kind: Some(ErrorKind::LeaderNotAvailable),
            ..RpcError::transport("topic \"orders\" is being opened")
        };
        let once = "topic \"orders\" is being opened (UNAVAILABLE/LEADER_NOT_AVAILABLE)";
        assert_eq!(opening.to_string(), once);
        let repeated = RpcError {
            message: format!("node 3 cannot be asked: {opening}"),
            ..opening
        };
        assert_eq!(
            repeated.to_string(),
            format!("node 3 cannot be asked: {once}")
        );
    }

    #[test]
    fn a_refusal_says_nothing_of_an_earlier_attempt_without_answer() {
        let refused = || {
            ClientError::from(RpcError {
                unsent: true,
                ..RpcError::transport("refused")
            })
        };
        let mut unanswered = false;
        assert!(refused().after(&mut unanswered).was_refused());
        let lost = ClientError::from(RpcError::transport("reset"));
        assert!(!lost.after(&mut unanswered).was_refused());
        let last = refused().after(&mut unanswered);
        assert!(!last.was_refused());
        assert!(last.to_string().contains("an earlier attempt"), "{last}");
    }

    #[test]
    fn every_kind_is_known_by_its_wire_name() {
        for kind in ErrorKind::ALL {
            let name = format!("ERROR_REASON_{}", kind.reason());
            let reason = v1::ErrorReason::from_str_name(&name).unwrap();
            let error = v1::PartitionError {
                reason: reason.into(),
                ..Default::default()
            };
            assert_eq!(RpcError::from_partition(error).kind, Some(*kind));
        }
    }

    #[test]
    fn the_leader_hint_is_found_among_the_details() {
        let hint = v1::LeaderHint {
            node_id: 3,
            address: "a:1".to_owned(),
            leader_epoch: 9,
        };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/varve.v1.LeaderHint".to_owned(),
            value: hint.encode_to_vec(),
        };
        let status = tonic_types::Status {
            code: 9,
            message: String::new(),
            details: vec![any],
        };
        let status = tonic::Status::with_details(
            Code::FailedPrecondition,
            "not leader",
            status.encode_to_vec().into(),
        );
        assert_eq!(RpcError::from_status(&status).leader, Some(hint));
    }

    #[test]
    fn transport_errors_are_retryable_and_uncertain() {
        let error = RpcError::transport("connection reset");
        assert!(error.is_retryable());
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
}
