//! Transactions of both kinds. Of the second (KIP-890) partitions are registered by their leaders, with the first
//! batch, and every transaction has an epoch of its own; of the first (KIP-98) the producer registers them and keeps
//! its epoch.
//!
//! Invariant: which kind a call is of is told by its version and by nothing else.

use std::collections::BTreeSet;

use varve_broker_api::{
    AddToTransaction, Broker, EndTransaction, Error, TransactionListing, TransactionState,
    TransactionVersion,
};
use varve_types::{ErrorKind, GroupName, PartitionId, ProducerId, TopicPartition, limits};

use super::Call;
use crate::shared::Shared;
use crate::translate::group::{by_topic, group_code, in_classic_terms};
use crate::translate::{code, mentioned, names, partition, topic_name};
use crate::wire::generated::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use crate::wire::generated::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
};
use crate::wire::generated::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::wire::generated::{describe_transactions as described, list_transactions as listed};
use crate::wire::{ErrorCode, Text};

/// From this version on an end is one of the second kind.
const ENDS_V2_FROM: i16 = 5;
/// From this version on a commit of offsets is.
pub(super) const COMMITS_V2_FROM: i16 = 5;
/// From this version on producers know a code of its own for a session that is over.
const FENCED_FROM: i16 = 2;

/// The kind of transaction that a call is about.
pub(super) fn version_of(call: &Call, second_from: i16) -> TransactionVersion {
    match call.version() >= second_from {
        true => TransactionVersion::V2,
        false => TransactionVersion::V1,
    }
}

fn transaction_code(error: &Error) -> ErrorCode {
    match error.kind {
        ErrorKind::UnknownProducer | ErrorKind::TransactionNotFound => {
            ErrorCode::InvalidProducerIdMapping
        }
        // That it is the coordinator's log that lacks replicas is none of the client's business: producers call again
        // upon this, and give their transaction up upon that.
        ErrorKind::LeaderNotAvailable
        | ErrorKind::Throttled
        | ErrorKind::StorageFull
        | ErrorKind::StorageError
        | ErrorKind::CommitTimeout
        | ErrorKind::NotEnoughReplicas => ErrorCode::CoordinatorNotAvailable,
        ErrorKind::ShuttingDown | ErrorKind::NotLeader => ErrorCode::NotCoordinator,
        kind => code(kind),
    }
}

/// The code of an error about a producer's own transaction, as far as its version has it. That it was aborted without
/// the producer's doing is the end of the session, as in Kafka: Java's client would hear of any other code for ever,
/// since it asks for the abort of what it cannot commit.
fn producers_code(call: &Call, producer: ProducerId, error: &Error) -> ErrorCode {
    let over = match call.version() {
        FENCED_FROM.. => ErrorCode::ProducerFenced,
        _ => ErrorCode::InvalidProducerEpoch,
    };
    let present = mentioned::<i64>(error, "current_producer");
    match error.kind {
        ErrorKind::ProducerFenced if present.is_some_and(|id| id != producer.id) => {
            ErrorCode::InvalidProducerIdMapping
        }
        ErrorKind::ProducerFenced | ErrorKind::TransactionAborted => over,
        _ => transaction_code(error),
    }
}

/// The code of an error about offsets in a transaction.
pub(super) fn offsets_code(error: &Error) -> ErrorCode {
    match error.kind {
        ErrorKind::TransactionAborted => ErrorCode::InvalidProducerEpoch,
        ErrorKind::ProducerFenced
        | ErrorKind::UnknownProducer
        | ErrorKind::TransactionNotFound
        | ErrorKind::InvalidTransactionState
        | ErrorKind::ConcurrentTransactions => transaction_code(error),
        _ if in_classic_terms(error) => group_code(error),
        ErrorKind::StaleMemberEpoch | ErrorKind::FencedMemberEpoch => ErrorCode::IllegalGeneration,
        _ => group_code(error),
    }
}

/// Registers partitions: all of them, or none if one cannot be.
pub(super) async fn add_partitions<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let topics = request.v3_and_below_topics;
    let unknown = unknown_places(shared, &topics);
    let failed = match unknown.is_empty() {
        false => Some(ErrorCode::OperationNotAttempted),
        true => {
            let session = ProducerId {
                id: request.v3_and_below_producer_id,
                epoch: request.v3_and_below_producer_epoch,
            };
            let id = &request.v3_and_below_transactional_id;
            add(shared, call, (id, session), places(&topics), None).await
        }
    };
    let result = |topic: &Text, partition: i32| {
        let unknown = unknown.contains(&(topic.as_str(), partition));
        let code = match (unknown, failed) {
            (true, _) => ErrorCode::UnknownTopicOrPartition,
            (false, Some(code)) => code,
            (false, None) => ErrorCode::None,
        };
        AddPartitionsToTxnPartitionResult {
            partition_index: partition,
            partition_error_code: code.code(),
        }
    };
    let topic = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        results_by_partition: topic
            .partitions
            .iter()
            .map(|p| result(&topic.name, *p))
            .collect(),
        name: topic.name.clone(),
    };
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: topics.iter().map(topic).collect(),
        ..AddPartitionsToTxnResponse::default()
    }
}

/// Those that there are not, and those that are the server's to write.
fn unknown_places<'a, B: Broker>(
    shared: &Shared<B>,
    topics: &'a [AddPartitionsToTxnTopic],
) -> BTreeSet<(&'a str, i32)> {
    let known = shared.topics().ok();
    let count = |name: &str| {
        let found = known.as_ref().and_then(|all| all.get(name));
        found
            .filter(|t| !t.name.is_internal())
            .map_or(0, |t| t.partitions)
    };
    let of = |topic: &'a AddPartitionsToTxnTopic| {
        let (name, count) = (topic.name.as_str(), count(topic.name.as_str()));
        let there = move |number: &i32| (0..count).contains(number);
        let numbers = topic.partitions.iter().copied();
        numbers
            .filter(move |number| !there(number))
            .map(move |number| (name, number))
    };
    topics.iter().flat_map(of).collect()
}

fn places(topics: &[AddPartitionsToTxnTopic]) -> Vec<TopicPartition> {
    let of = |topic: &AddPartitionsToTxnTopic| {
        let name = topic_name(&topic.name).ok();
        let numbers = topic.partitions.iter().filter_map(|n| partition(*n));
        let numbers: Vec<PartitionId> = numbers.collect();
        name.map(|name| {
            numbers
                .into_iter()
                .map(move |n| TopicPartition::new(name.clone(), n))
        })
    };
    topics.iter().filter_map(of).flatten().collect()
}

/// Registers partitions and a group; the code of what went wrong, if anything did.
async fn add<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    (id, producer): (&Text, ProducerId),
    partitions: Vec<TopicPartition>,
    group: Option<GroupName>,
) -> Option<ErrorCode> {
    let Ok(id) = names::transactional(id.as_str()) else {
        return Some(ErrorCode::InvalidProducerIdMapping);
    };
    if partitions.is_empty() && group.is_none() {
        return None;
    }
    let wanted = AddToTransaction {
        id,
        producer,
        partitions,
        group,
    };
    let added = shared.broker.add_to_transaction(&call.ctx, wanted).await;
    added.err().map(|error| {
        shared.count(&error);
        producers_code(call, producer, &error)
    })
}

/// Registers the partition that a group's offsets are in.
pub(super) async fn add_offsets<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let session = ProducerId {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let failed = match names::group_of_members(request.group_id.as_str()) {
        Err(_) => Some(ErrorCode::InvalidGroupId),
        Ok(group) => {
            let id = &request.transactional_id;
            add(shared, call, (id, session), Vec::new(), Some(group)).await
        }
    };
    AddOffsetsToTxnResponse {
        error_code: failed.unwrap_or(ErrorCode::None).code(),
        ..AddOffsetsToTxnResponse::default()
    }
}

pub(super) async fn end<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let refused = |error: ErrorCode| EndTxnResponse {
        error_code: error.code(),
        ..EndTxnResponse::default()
    };
    let Ok(id) = names::transactional(request.transactional_id.as_str()) else {
        return refused(ErrorCode::InvalidProducerIdMapping);
    };
    let producer = ProducerId {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let wanted = EndTransaction {
        id,
        producer,
        commit: request.committed,
        version: version_of(call, ENDS_V2_FROM),
    };
    match shared.broker.end_transaction(&call.ctx, wanted).await {
        Ok(next) => EndTxnResponse {
            producer_id: next.id,
            producer_epoch: next.epoch,
            ..EndTxnResponse::default()
        },
        Err(error) => {
            shared.count(&error);
            let late = error.kind == ErrorKind::TransactionAborted && request.committed;
            refused(match late && call.version() >= ENDS_V2_FROM {
                // What was aborted meanwhile cannot be committed (KIP-890).
                true => ErrorCode::InvalidTxnState,
                false => producers_code(call, producer, &error),
            })
        }
    }
}

/// Every state.
const STATES: [TransactionState; 6] = [
    TransactionState::Empty,
    TransactionState::Ongoing,
    TransactionState::PrepareCommit,
    TransactionState::PrepareAbort,
    TransactionState::CompleteCommit,
    TransactionState::CompleteAbort,
];

const fn state(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Empty => "Empty",
        TransactionState::Ongoing => "Ongoing",
        TransactionState::PrepareCommit => "PrepareCommit",
        TransactionState::PrepareAbort => "PrepareAbort",
        TransactionState::CompleteCommit => "CompleteCommit",
        TransactionState::CompleteAbort => "CompleteAbort",
    }
}

/// A pattern that whole names match (KIP-1152). It takes memory and time within bounds, whoever thought of it.
fn whole(pattern: Text) -> Option<regex::Regex> {
    let pattern = Some(pattern.as_str()).filter(|p| p.len() <= limits::TOPIC_PATTERN_MAX_BYTES)?;
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(256 * 1024)
        .dfa_size_limit(256 * 1024)
        .nest_limit(50)
        .build()
        .ok()
}

pub(super) async fn list<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: listed::ListTransactionsRequest,
) -> listed::ListTransactionsResponse {
    let mut response = listed::ListTransactionsResponse::default();
    let pattern = match request.transactional_id_pattern.map(whole) {
        None => None,
        Some(Some(pattern)) => Some(pattern),
        Some(None) => {
            response.error_code = ErrorCode::InvalidRegularExpression.code();
            return response;
        }
    };
    let all = match shared.broker.transactions(&call.ctx).await {
        Ok(all) => all,
        Err(error) => {
            shared.count(&error);
            response.error_code = transaction_code(&error).code();
            return response;
        }
    };
    let states: BTreeSet<&str> = request.state_filters.iter().map(Text::as_str).collect();
    let producers: BTreeSet<i64> = request.producer_id_filters.into_iter().collect();
    let unknown = states.iter().filter(|s| !STATES.map(state).contains(s));
    response.unknown_state_filters = unknown.map(|s| Text::from(*s)).collect();
    let now = shared.broker.node().now_ms;
    // KIP-994: by how long they are open, which those that are not open are not.
    let is_long = |t: &TransactionListing| match u64::try_from(request.duration_filter) {
        Err(_) => true,
        Ok(least) => t
            .started_ms
            .is_some_and(|started| u64::try_from(now.saturating_sub(started)).unwrap_or(0) > least),
    };
    let named = all.iter().map(|t| (names::decoded(t.id.as_str()), t));
    let wanted = named.filter(|(name, t)| {
        (states.is_empty() || states.contains(state(t.state)))
            && (producers.is_empty() || producers.contains(&t.producer.id))
            && pattern.as_ref().is_none_or(|p| p.is_match(name))
            && is_long(t)
    });
    response.transaction_states = wanted
        .map(|(name, t)| listed::TransactionState {
            transactional_id: Text::from(name),
            producer_id: t.producer.id,
            transaction_state: Text::from_static(state(t.state)),
        })
        .collect();
    response
}

pub(super) async fn describe<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: described::DescribeTransactionsRequest,
) -> described::DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for name in request.transactional_ids {
        let found = match names::transactional(name.as_str()) {
            Err(_) => Err(ErrorCode::TransactionalIdNotFound),
            Ok(id) => match shared.broker.transaction(&call.ctx, &id).await {
                Ok(found) => Ok(found),
                Err(error) => {
                    shared.count(&error);
                    Err(match error.kind {
                        ErrorKind::TransactionNotFound => ErrorCode::TransactionalIdNotFound,
                        _ => transaction_code(&error),
                    })
                }
            },
        };
        states.push(match found {
            Err(error) => described::TransactionState {
                error_code: error.code(),
                transactional_id: name,
                ..described::TransactionState::default()
            },
            Ok(found) => described::TransactionState {
                error_code: ErrorCode::None.code(),
                transactional_id: name,
                transaction_state: Text::from_static(state(found.state)),
                transaction_timeout_ms: i32::try_from(found.timeout.as_millis())
                    .unwrap_or(i32::MAX),
                transaction_start_time_ms: found.started_ms.unwrap_or(-1),
                producer_id: found.producer.id,
                producer_epoch: found.producer.epoch,
                topics: by_topic(&found.partitions)
                    .into_iter()
                    .map(|(topic, partitions)| described::TopicData {
                        topic: Text::from(topic.as_str()),
                        partitions,
                    })
                    .collect(),
            },
        });
    }
    described::DescribeTransactionsResponse {
        throttle_time_ms: 0,
        transaction_states: states,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_calls_again_when_the_coordinators_log_lacks_replicas() {
        let kinds = [
            ErrorKind::NotEnoughReplicas,
            ErrorKind::CommitTimeout,
            ErrorKind::LeaderNotAvailable,
        ];
        for kind in kinds {
            let code = transaction_code(&Error::new(kind, "the log"));
            assert_eq!(code, ErrorCode::CoordinatorNotAvailable, "{kind:?}");
        }
    }
}
