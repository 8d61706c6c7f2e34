//! Transactions: requests checked, answers in the words of the API.

use std::time::Duration;

use varve_broker_api::{
    CommitTransactionOffsets, EndTransaction, Error, InitTransactions, TransactionCause,
    TransactionInfo, TransactionListing, TransactionState, TransactionVersion,
};
use varve_proto::v1;
use varve_types::{ProducerId, limits};

use super::group::commits;
use super::{
    at_most, duration, group_name, member_id, missing, to_duration, to_timestamp,
    to_topic_partition, transactional_id, unknown_enum,
};

/// Time after which an open transaction is aborted, when the client names none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// States in a filter, at most.
const STATES_MAX: usize = 16;

/// Reads the session of a transactional producer.
///
/// # Errors
/// `InvalidRequest` naming `field`.
fn session(field: &'static str, raw: Option<&v1::TransactionSession>) -> Result<ProducerId, Error> {
    let raw = raw.ok_or_else(|| missing(field))?;
    if raw.producer_id < 0 {
        let text = format!(
            "{field}.producer_id must not be negative; found {}",
            raw.producer_id
        );
        return Err(Error::invalid(field, text));
    }
    let epoch = i16::try_from(raw.producer_epoch).ok().filter(|e| *e >= 0);
    let Some(epoch) = epoch else {
        let found = raw.producer_epoch;
        let text = format!("{field}.producer_epoch must be 0 to 32767; found {found}");
        return Err(Error::invalid(field, text));
    };
    Ok(ProducerId {
        id: raw.producer_id,
        epoch,
    })
}

/// Reads an InitTransactions.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn init(request: &v1::InitTransactionsRequest) -> Result<InitTransactions, Error> {
    const FIELD: &str = "transaction_timeout";
    let timeout = duration(FIELD, request.transaction_timeout.as_ref())?;
    let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT);
    let (min, max) = (
        Duration::from_millis(limits::TRANSACTION_TIMEOUT_MIN_MS),
        Duration::from_millis(limits::TRANSACTION_TIMEOUT_MAX_MS),
    );
    if timeout < min || timeout > max {
        let text = format!("{FIELD} must be {min:?} to {max:?}; found {timeout:?}");
        return Err(Error::invalid(FIELD, text));
    }
    Ok(InitTransactions {
        id: transactional_id("transactional_id", &request.transactional_id)?,
        timeout,
        keep: match &request.current {
            None => None,
            current => Some(session("current", current.as_ref())?),
        },
    })
}

/// Reads a CommitTransactionOffsets.
///
/// # Errors
/// `InvalidRequest` naming the field; `PartitionNotFound` for a negative number.
pub fn commit_offsets(
    request: &v1::CommitTransactionOffsetsRequest,
) -> Result<CommitTransactionOffsets, Error> {
    if request.member_epoch < 0 {
        let found = request.member_epoch;
        let text = format!("member_epoch must not be negative; found {found}");
        return Err(Error::invalid("member_epoch", text));
    }
    Ok(CommitTransactionOffsets {
        id: transactional_id("transactional_id", &request.transactional_id)?,
        producer: session("session", request.session.as_ref())?,
        group: group_name("group", &request.group)?,
        member: match request.member_id.as_str() {
            "" => None,
            id => Some(member_id("member_id", id)?),
        },
        member_epoch: request.member_epoch,
        offsets: commits(&request.offsets)?,
        version: TransactionVersion::V2,
    })
}

/// Reads an EndTransaction.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn end(request: &v1::EndTransactionRequest) -> Result<EndTransaction, Error> {
    let commit = match v1::TransactionOutcome::try_from(request.outcome) {
        Ok(v1::TransactionOutcome::Commit) => true,
        Ok(v1::TransactionOutcome::Abort) => false,
        Ok(v1::TransactionOutcome::Unspecified) => return Err(missing("outcome")),
        Err(_) => return Err(unknown_enum("outcome", request.outcome)),
    };
    Ok(EndTransaction {
        id: transactional_id("transactional_id", &request.transactional_id)?,
        producer: session("session", request.session.as_ref())?,
        commit,
        version: TransactionVersion::V2,
    })
}

/// A session in the words of the API.
#[must_use]
pub fn to_session(producer: ProducerId) -> v1::TransactionSession {
    v1::TransactionSession {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    }
}

const fn to_state(state: TransactionState) -> v1::TransactionState {
    match state {
        TransactionState::Empty => v1::TransactionState::Empty,
        TransactionState::Ongoing => v1::TransactionState::Ongoing,
        TransactionState::PrepareCommit => v1::TransactionState::PrepareCommit,
        TransactionState::PrepareAbort => v1::TransactionState::PrepareAbort,
        TransactionState::CompleteCommit => v1::TransactionState::CompleteCommit,
        TransactionState::CompleteAbort => v1::TransactionState::CompleteAbort,
    }
}

const fn to_cause(cause: TransactionCause) -> v1::TransactionCause {
    match cause {
        TransactionCause::Producer => v1::TransactionCause::Producer,
        TransactionCause::Timeout => v1::TransactionCause::Timeout,
        TransactionCause::Operator => v1::TransactionCause::Operator,
        TransactionCause::Successor => v1::TransactionCause::Successor,
        TransactionCause::Renewal => v1::TransactionCause::Renewal,
    }
}

/// A transactional id in a list, in the words of the API.
#[must_use]
pub fn to_listing(listing: &TransactionListing) -> v1::TransactionListing {
    v1::TransactionListing {
        transactional_id: listing.id.to_string(),
        session: Some(to_session(listing.producer)),
        state: to_state(listing.state).into(),
        coordinator_id: listing.coordinator.0,
        started: listing.started_ms.map(to_timestamp),
    }
}

/// A transactional id in the words of the API.
#[must_use]
pub fn to_info(info: &TransactionInfo) -> v1::GetTransactionResponse {
    v1::GetTransactionResponse {
        transactional_id: info.id.to_string(),
        session: Some(to_session(info.producer)),
        state: to_state(info.state).into(),
        cause: to_cause(info.cause).into(),
        coordinator_id: info.coordinator.0,
        transaction_timeout: Some(to_duration(info.timeout)),
        started: info.started_ms.map(to_timestamp),
        updated: Some(to_timestamp(info.updated_ms)),
        partitions: info.partitions.iter().map(to_topic_partition).collect(),
        untold: info.untold.iter().map(to_topic_partition).collect(),
    }
}

/// What ListTransactions keeps.
#[derive(Debug)]
pub struct TransactionFilter {
    prefix: String,
    states: Vec<i32>,
}

impl TransactionFilter {
    /// Reads the filters of a ListTransactions.
    ///
    /// # Errors
    /// `InvalidRequest` for unknown states.
    pub fn read(request: &v1::ListTransactionsRequest) -> Result<Self, Error> {
        at_most("states", request.states.len(), STATES_MAX)?;
        for raw in &request.states {
            v1::TransactionState::try_from(*raw).map_err(|_| unknown_enum("states", *raw))?;
        }
        Ok(Self {
            prefix: request.id_prefix.clone(),
            states: request.states.clone(),
        })
    }

    /// Whether a transactional id is kept.
    #[must_use]
    pub fn keeps(&self, listing: &TransactionListing) -> bool {
        let state = i32::from(to_state(listing.state));
        listing.id.as_str().starts_with(&self.prefix)
            && (self.states.is_empty() || self.states.contains(&state))
    }
}

#[cfg(test)]
mod tests {
    use varve_types::{NodeId, TransactionalId};

    use super::*;

    fn some(producer_id: i64, producer_epoch: i32) -> Option<v1::TransactionSession> {
        Some(v1::TransactionSession {
            producer_id,
            producer_epoch,
        })
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn beginnings_are_checked() {
        let ok = || v1::InitTransactionsRequest {
            transactional_id: "billing-1".to_owned(),
            ..Default::default()
        };
        let read = init(&ok()).unwrap();
        assert_eq!(read.timeout, Duration::from_secs(60));
        assert_eq!((read.id.as_str(), read.keep), ("billing-1", None));
        let again = v1::InitTransactionsRequest {
            transaction_timeout: seconds(900),
            current: some(0, 32767),
            ..ok()
        };
        let read = init(&again).unwrap();
        assert_eq!(read.timeout, Duration::from_secs(900));
        let epoch = i16::MAX;
        assert_eq!(read.keep, Some(ProducerId { id: 0, epoch }));
        let field = |change: fn(&mut v1::InitTransactionsRequest)| {
            let mut bad = ok();
            change(&mut bad);
            init(&bad).unwrap_err().field
        };
        assert_eq!(
            field(|r| r.transactional_id.clear()),
            Some("transactional_id")
        );
        assert_eq!(
            field(|r| r.transactional_id = "a/b".to_owned()),
            Some("transactional_id")
        );
        for bad in [0, 901, -1] {
            let bad = v1::InitTransactionsRequest {
                transaction_timeout: seconds(bad),
                ..ok()
            };
            assert_eq!(init(&bad).unwrap_err().field, Some("transaction_timeout"));
        }
        assert_eq!(field(|r| r.current = some(-1, 0)), Some("current"));
        assert_eq!(field(|r| r.current = some(1, -1)), Some("current"));
        assert_eq!(field(|r| r.current = some(1, 32768)), Some("current"));
    }

    #[test]
    fn ends_are_checked() {
        let with = |outcome| v1::EndTransactionRequest {
            transactional_id: "t".to_owned(),
            session: some(1, 2),
            outcome,
        };
        assert!(end(&with(1)).unwrap().commit);
        assert!(!end(&with(2)).unwrap().commit);
        for outcome in [0, 3] {
            assert_eq!(end(&with(outcome)).unwrap_err().field, Some("outcome"));
        }
        let without = v1::EndTransactionRequest {
            session: None,
            ..with(1)
        };
        assert_eq!(end(&without).unwrap_err().field, Some("session"));
    }

    #[test]
    fn commits_of_offsets_are_checked() {
        let offset = || v1::PartitionCommit {
            topic_partition: Some(v1::TopicPartition {
                topic: "t".to_owned(),
                partition: 0,
            }),
            offset: 3,
            ..Default::default()
        };
        let ok = || v1::CommitTransactionOffsetsRequest {
            transactional_id: "t".to_owned(),
            session: some(1, 2),
            group: "g".to_owned(),
            offsets: vec![offset()],
            ..Default::default()
        };
        let read = commit_offsets(&ok()).unwrap();
        assert_eq!((read.member, read.offsets.len()), (None, 1));
        let field = |change: fn(&mut v1::CommitTransactionOffsetsRequest)| {
            let mut bad = ok();
            change(&mut bad);
            commit_offsets(&bad).unwrap_err().field
        };
        assert_eq!(field(|r| r.offsets.clear()), Some("offsets"));
        assert_eq!(
            field(|r| r.offsets = vec![r.offsets[0].clone(); 1001]),
            Some("offsets")
        );
        assert_eq!(field(|r| r.group.clear()), Some("group"));
        assert_eq!(field(|r| r.member_epoch = -1), Some("member_epoch"));
        assert_eq!(field(|r| r.member_id = "a b".to_owned()), Some("member_id"));
        assert_eq!(field(|r| r.session = None), Some("session"));
    }

    #[test]
    fn lists_keep_what_is_asked_for() {
        let listing = |id: &str, state| TransactionListing {
            id: TransactionalId::new(id).unwrap(),
            producer: ProducerId { id: 1, epoch: 0 },
            state,
            coordinator: NodeId(1),
            started_ms: None,
        };
        let filter = |states: &[v1::TransactionState], prefix: &str| {
            TransactionFilter::read(&v1::ListTransactionsRequest {
                states: states.iter().map(|s| i32::from(*s)).collect(),
                id_prefix: prefix.to_owned(),
                ..Default::default()
            })
            .unwrap()
        };
        let open = listing("billing-1", TransactionState::Ongoing);
        assert!(filter(&[], "").keeps(&open));
        assert!(filter(&[v1::TransactionState::Ongoing], "bill").keeps(&open));
        assert!(!filter(&[v1::TransactionState::Empty], "bill").keeps(&open));
        assert!(!filter(&[], "x").keeps(&open));
        let unknown = v1::ListTransactionsRequest {
            states: vec![77],
            ..Default::default()
        };
        let error = TransactionFilter::read(&unknown).unwrap_err();
        assert_eq!(error.field, Some("states"));
    }
}
