//! Errors on the wire: ONE table from [`ErrorKind`] to a gRPC code and a reason of the public API, and
//! the two shapes an error travels in.
//!
//! Invariants: a status message is at most [`MESSAGE_MAX_BYTES`] and cut on a character boundary; the
//! encoded details, message included, are at most [`DETAILS_MAX_BYTES`], because they travel in HTTP/2
//! trailers that many clients cap at 8 KiB. A detail that does not fit is left out whole, least
//! important first; the ErrorInfo always fits.

use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;
use varve_broker_api::{Error, LeaderHint};
use varve_proto::v1;
use varve_types::{ErrorKind, Retry};

/// Longest status message, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 512;
/// Largest encoded `google.rpc.Status` of a failed call, in bytes.
pub const DETAILS_MAX_BYTES: usize = 2048;
/// Longest metadata value that an ErrorInfo carries, in bytes.
const VALUE_MAX_BYTES: usize = 128;
/// Most metadata entries of an ErrorInfo.
const VALUES_MAX: usize = 6;
/// Namespace of the reasons.
pub const DOMAIN: &str = "varve";

/// The table: what each kind is called and which gRPC code it fails with.
#[must_use]
pub const fn wire(kind: ErrorKind) -> (Code, v1::ErrorReason) {
    use Code as C;
    use ErrorKind as K;
    use v1::ErrorReason as R;
    match kind {
        K::InvalidRequest => (C::InvalidArgument, R::InvalidRequest),
        K::InvalidConfig => (C::InvalidArgument, R::InvalidConfig),
        K::RecordTooLarge => (C::InvalidArgument, R::RecordTooLarge),
        K::BatchTooLarge => (C::InvalidArgument, R::BatchTooLarge),
        K::CorruptBatch => (C::InvalidArgument, R::CorruptBatch),
        K::InvalidRecord => (C::InvalidArgument, R::InvalidRecord),
        K::UnsupportedFeature => (C::Unimplemented, R::UnsupportedFeature),
        K::TopicNotFound => (C::NotFound, R::TopicNotFound),
        K::PartitionNotFound => (C::NotFound, R::PartitionNotFound),
        K::GroupNotFound => (C::NotFound, R::GroupNotFound),
        K::NodeNotFound => (C::NotFound, R::NodeNotFound),
        K::TopicAlreadyExists => (C::AlreadyExists, R::TopicAlreadyExists),
        K::OffsetOutOfRange => (C::OutOfRange, R::OffsetOutOfRange),
        K::NotLeader => (C::FailedPrecondition, R::NotLeader),
        K::NotCoordinator => (C::FailedPrecondition, R::NotCoordinator),
        K::LeaderNotAvailable => (C::Unavailable, R::LeaderNotAvailable),
        K::CoordinatorLoading => (C::Unavailable, R::CoordinatorLoading),
        K::FencedLeaderEpoch => (C::FailedPrecondition, R::FencedLeaderEpoch),
        K::UnknownLeaderEpoch => (C::Unavailable, R::UnknownLeaderEpoch),
        K::NotEnoughReplicas => (C::Unavailable, R::NotEnoughReplicas),
        K::CommitTimeout => (C::DeadlineExceeded, R::CommitTimeout),
        K::ShuttingDown => (C::Unavailable, R::ShuttingDown),
        K::ExpectedOffsetMismatch => (C::Aborted, R::ExpectedOffsetMismatch),
        K::OutOfOrderSequence => (C::FailedPrecondition, R::OutOfOrderSequence),
        K::ProducerFenced => (C::FailedPrecondition, R::ProducerFenced),
        K::UnknownProducer => (C::FailedPrecondition, R::UnknownProducer),
        K::UnknownMember => (C::FailedPrecondition, R::UnknownMember),
        K::FencedMemberEpoch => (C::FailedPrecondition, R::FencedMemberEpoch),
        K::StaleMemberEpoch => (C::Aborted, R::StaleMemberEpoch),
        K::InstanceIdInUse => (C::AlreadyExists, R::InstanceIdInUse),
        K::GroupNotEmpty => (C::FailedPrecondition, R::GroupNotEmpty),
        K::GroupFull => (C::ResourceExhausted, R::GroupFull),
        K::Throttled => (C::ResourceExhausted, R::Throttled),
        K::StorageFull => (C::ResourceExhausted, R::StorageFull),
        K::StorageError => (C::Internal, R::StorageError),
        K::CorruptLog => (C::DataLoss, R::CorruptLog),
        K::PolicyViolation => (C::FailedPrecondition, R::PolicyViolation),
        K::OperationInProgress => (C::FailedPrecondition, R::OperationInProgress),
        K::FlowControl => (C::ResourceExhausted, R::FlowControl),
        K::GroupProtocolMismatch => (C::FailedPrecondition, R::GroupProtocolMismatch),
        K::TransactionNotFound => (C::NotFound, R::TransactionNotFound),
        K::InvalidTransactionState => (C::FailedPrecondition, R::InvalidTransactionState),
        K::TransactionAborted => (C::Aborted, R::TransactionAborted),
        K::ConcurrentTransactions => (C::Aborted, R::ConcurrentTransactions),
    }
}

/// The status a call fails with.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let (code, _) = wire(error.kind);
    let message = truncate(&error.message, MESSAGE_MAX_BYTES).to_owned();
    let mut body = pb::Status {
        code: code as i32,
        message,
        details: Vec::new(),
    };
    for detail in details(error) {
        body.details.push(detail);
        if body.encoded_len() > DETAILS_MAX_BYTES {
            body.details.pop();
        }
    }
    let encoded = body.encode_to_vec();
    let mut status = Status::with_details(code, body.message, encoded.into());
    if let (ErrorKind::Throttled, Some(wait)) = (error.kind, error.retry_after) {
        // Clients without our SDK understand this trailer (gRFC A6).
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", millis.into());
    }
    status
}

/// The error behind a status that the transport made because a message could not be read: too large, or
/// not a message. The client's fault, so it must not look like one of ours. `None` for other statuses.
#[must_use]
pub fn unreadable(status: &Status) -> Option<Error> {
    let ours = !status.details().is_empty();
    if ours || !matches!(status.code(), Code::OutOfRange | Code::Internal) {
        return None;
    }
    let text = format!("the request message cannot be read: {}", status.message());
    Some(Error::new(ErrorKind::InvalidRequest, text))
}

/// The error of one item in a response body.
#[must_use]
pub fn to_partition_error(error: &Error) -> v1::PartitionError {
    let (code, reason) = wire(error.kind);
    v1::PartitionError {
        reason: reason as i32,
        code: code as i32,
        message: truncate(&error.message, MESSAGE_MAX_BYTES).to_owned(),
        retryable: error.retry() == Retry::Later,
        retry_delay: error.retry_after.map(to_duration),
        leader: error.leader.as_deref().map(to_leader),
        metadata: error
            .metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), truncate(v, VALUE_MAX_BYTES).to_owned()))
            .collect(),
    }
}

/// A leader hint in the words of the API.
#[must_use]
pub fn to_leader(hint: &LeaderHint) -> v1::LeaderHint {
    v1::LeaderHint {
        node_id: hint.node.0,
        address: hint.address.clone(),
        leader_epoch: hint.epoch.get().into(),
    }
}

/// A span of time on the wire. Longer than the wire can say becomes the longest it can say.
#[must_use]
pub fn to_duration(span: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(315_576_000_000),
        nanos: span.subsec_nanos().cast_signed(),
    }
}

/// The longest prefix of `text` of at most `max` bytes that ends on a character boundary.
#[must_use]
pub fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let cut = (0..=max)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    &text[..cut]
}

/// Every detail of an error, most important first.
fn details(error: &Error) -> Vec<prost_types::Any> {
    let mut all = vec![any("google.rpc.ErrorInfo", &error_info(error))];
    if let Some(leader) = &error.leader {
        let mut hint = to_leader(leader);
        hint.address = truncate(&hint.address, 255).to_owned();
        all.push(any("varve.v1.LeaderHint", &hint));
    }
    if let Some(wait) = error.retry_after {
        let info = tonic_types::pb::RetryInfo {
            retry_delay: Some(to_duration(wait)),
        };
        all.push(any("google.rpc.RetryInfo", &info));
    }
    if let Some(field) = error.field {
        let violation = pb::bad_request::FieldViolation {
            field: field.to_owned(),
            description: truncate(&error.message, 256).to_owned(),
            ..Default::default()
        };
        all.push(any(
            "google.rpc.BadRequest",
            &pb::BadRequest {
                field_violations: vec![violation],
            },
        ));
    }
    if let Some((kind, key)) = resource(error.kind) {
        let name = lookup(error, key).unwrap_or_default();
        let info = pb::ResourceInfo {
            resource_type: kind.to_owned(),
            resource_name: truncate(name, 256).to_owned(),
            ..Default::default()
        };
        all.push(any("google.rpc.ResourceInfo", &info));
    }
    if error.kind == ErrorKind::Throttled {
        let violation = pb::quota_failure::Violation {
            subject: truncate(lookup(error, "quota").unwrap_or("broker"), 64).to_owned(),
            description: truncate(&error.message, 128).to_owned(),
            ..Default::default()
        };
        all.push(any(
            "google.rpc.QuotaFailure",
            &pb::QuotaFailure {
                violations: vec![violation],
            },
        ));
    }
    all
}

fn error_info(error: &Error) -> pb::ErrorInfo {
    pb::ErrorInfo {
        reason: error.kind.reason().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: error
            .metadata
            .iter()
            .take(VALUES_MAX)
            .map(|(k, v)| {
                (
                    truncate(k, 32).to_owned(),
                    truncate(v, VALUE_MAX_BYTES).to_owned(),
                )
            })
            .collect(),
    }
}

/// Kind of the missing or clashing resource, and the metadata key that holds its name.
const fn resource(kind: ErrorKind) -> Option<(&'static str, &'static str)> {
    match kind {
        ErrorKind::TopicNotFound | ErrorKind::TopicAlreadyExists => Some(("topic", "topic")),
        ErrorKind::PartitionNotFound => Some(("partition", "partition")),
        ErrorKind::GroupNotFound => Some(("group", "group")),
        ErrorKind::NodeNotFound => Some(("node", "node")),
        _ => None,
    }
}

fn lookup<'a>(error: &'a Error, key: &str) -> Option<&'a str> {
    error
        .metadata
        .iter()
        .find(|(k, _)| *k == key)
        .map(|(_, v)| v.as_str())
}

fn any<M: Message>(name: &str, message: &M) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::StatusExt;
    use varve_types::{LeaderEpoch, NodeId};

    use super::*;

    #[test]
    fn every_kind_has_the_reason_of_its_name_and_every_reason_has_a_kind() {
        let mut reasons = std::collections::BTreeSet::new();
        for kind in ErrorKind::ALL {
            let (code, reason) = wire(*kind);
            assert_ne!(code, Code::Ok, "{kind:?}");
            assert_eq!(
                reason.as_str_name(),
                format!("ERROR_REASON_{}", kind.reason())
            );
            assert!(reasons.insert(reason as i32), "{kind:?} shares a reason");
        }
        for number in 1..=200 {
            if let Ok(reason) = v1::ErrorReason::try_from(number) {
                assert!(
                    reasons.contains(&number),
                    "{} has no kind",
                    reason.as_str_name()
                );
            }
        }
    }

    /// The codes are part of the API: the schema's comments name them, so they are read from there.
    #[test]
    fn codes_are_those_the_schema_promises() {
        let schema = include_str!("../../../proto/varve/v1/errors.proto");
        let mut comment = String::new();
        let mut checked = 0;
        for line in schema.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("// ") {
                if comment.is_empty() {
                    comment = text.to_owned();
                }
                continue;
            }
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            let reason = v1::ErrorReason::from_str_name(name);
            let kind = ErrorKind::ALL.iter().find(|k| Some(wire(**k).1) == reason);
            if let Some(kind) = kind {
                let promised: String = comment
                    .chars()
                    .take_while(|c| c.is_ascii_uppercase() || *c == '_')
                    .filter(|c| *c != '_')
                    .collect();
                let code = format!("{:?}", wire(*kind).0).to_uppercase();
                assert_eq!(promised, code, "{name}");
                checked += 1;
            }
            comment.clear();
        }
        assert_eq!(checked, ErrorKind::ALL.len());
    }

    fn worst(kind: ErrorKind) -> Error {
        let mut error = Error::new(kind, "ä".repeat(4000)).after(Duration::from_millis(250));
        for key in [
            "topic",
            "partition",
            "group",
            "quota",
            "a",
            "b",
            "c",
            "d",
            "e",
            "f",
            "g",
            "h",
        ] {
            error = error.with(key, "ö".repeat(3000));
        }
        error.field = Some("records");
        error.leader = Some(Box::new(LeaderHint {
            node: NodeId(7),
            address: "x".repeat(900),
            epoch: LeaderEpoch::ZERO,
        }));
        error
    }

    #[test]
    fn details_and_message_stay_within_their_bounds() {
        for kind in ErrorKind::ALL {
            let status = to_status(&worst(*kind));
            assert!(status.message().len() <= MESSAGE_MAX_BYTES, "{kind:?}");
            assert!(status.details().len() <= DETAILS_MAX_BYTES, "{kind:?}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (kind.reason(), DOMAIN)
            );
        }
    }

    #[test]
    fn a_client_reads_back_what_an_error_carries() {
        let mut error = Error::new(ErrorKind::NotLeader, "node 1 does not lead orders:0")
            .with("topic", "orders")
            .after(Duration::from_secs(2));
        error.leader = Some(Box::new(LeaderHint {
            node: NodeId(2),
            address: "n2:8278".to_owned(),
            epoch: LeaderEpoch::ZERO.next(),
        }));
        let status = to_status(&error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(2)));
        let body = pb::Status::decode(status.details()).unwrap();
        let hint = body
            .details
            .iter()
            .find(|a| a.type_url.ends_with("varve.v1.LeaderHint"))
            .unwrap();
        let hint = v1::LeaderHint::decode(hint.value.as_slice()).unwrap();
        assert_eq!((hint.node_id, hint.leader_epoch), (2, 1));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            info.metadata.get("topic").map(String::as_str),
            Some("orders")
        );
    }

    #[test]
    fn field_errors_name_the_field_and_missing_things_are_named() {
        let status = to_status(&Error::invalid("topic", "a topic name must not be empty"));
        let bad = status.get_details_bad_request().unwrap();
        assert_eq!(bad.field_violations[0].field, "topic");
        let status =
            to_status(&Error::new(ErrorKind::TopicNotFound, "no topic x").with("topic", "x"));
        assert_eq!(
            status.get_details_resource_info().unwrap().resource_name,
            "x"
        );
        let status =
            to_status(&Error::new(ErrorKind::Throttled, "full").after(Duration::from_millis(40)));
        assert!(status.get_details_quota_failure().is_some());
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            "40"
        );
    }

    #[test]
    fn partition_errors_say_whether_a_repeat_helps() {
        let body = to_partition_error(&Error::new(ErrorKind::NotEnoughReplicas, "1 of 2"));
        assert!(body.retryable);
        assert_eq!(body.code, Code::Unavailable as i32);
        assert!(!to_partition_error(&Error::new(ErrorKind::CorruptBatch, "crc")).retryable);
    }

    #[test]
    fn truncation_respects_characters() {
        assert_eq!(truncate("aäb", 2), "a");
        assert_eq!(truncate("aäb", 3), "aä");
        assert_eq!(truncate("aäb", 10), "aäb");
    }
}
