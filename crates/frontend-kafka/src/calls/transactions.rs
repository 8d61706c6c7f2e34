//! Transactions of the second kind (KIP-890): partitions are registered by their leaders, with the first batch of a
//! transaction, and every transaction has an epoch of its own. Producers of the first kind keep their epoch from one
//! transaction to the next, which here nobody may: they are told so when they begin.

use varve_broker_api::{Broker, EndTransaction, Error, TransactionState};
use varve_types::{ErrorKind, ProducerId, TransactionalId};

use super::Call;
use crate::shared::Shared;
use crate::translate::code;
use crate::translate::group::{by_topic, group_code, in_classic_terms};
use crate::wire::generated::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::wire::generated::{describe_transactions as described, list_transactions as listed};
use crate::wire::{ErrorCode, Text};

fn transaction_code(error: &Error) -> ErrorCode {
    match error.kind {
        ErrorKind::UnknownProducer | ErrorKind::TransactionNotFound => {
            ErrorCode::InvalidProducerIdMapping
        }
        // What was aborted without the producer's doing is lost to it; it aborts on its side and goes on.
        ErrorKind::TransactionAborted => ErrorCode::TransactionAbortable,
        ErrorKind::LeaderNotAvailable | ErrorKind::Throttled | ErrorKind::CommitTimeout => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorKind::ShuttingDown | ErrorKind::NotLeader => ErrorCode::NotCoordinator,
        kind => code(kind),
    }
}

/// The code of an error about offsets in a transaction.
pub(super) fn offsets_code(error: &Error) -> ErrorCode {
    match error.kind {
        ErrorKind::ProducerFenced
        | ErrorKind::UnknownProducer
        | ErrorKind::TransactionNotFound
        | ErrorKind::TransactionAborted
        | ErrorKind::ConcurrentTransactions => transaction_code(error),
        _ if in_classic_terms(error) => group_code(error),
        ErrorKind::StaleMemberEpoch | ErrorKind::FencedMemberEpoch => ErrorCode::IllegalGeneration,
        _ => group_code(error),
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
    let Ok(id) = TransactionalId::new(request.transactional_id.as_str()) else {
        return refused(ErrorCode::InvalidProducerIdMapping);
    };
    let wanted = EndTransaction {
        id,
        producer: ProducerId {
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
        commit: request.committed,
    };
    match shared.broker.end_transaction(&call.ctx, wanted).await {
        Ok(next) => EndTxnResponse {
            producer_id: next.id,
            producer_epoch: next.epoch,
            ..EndTxnResponse::default()
        },
        Err(error) => {
            shared.count(&error);
            refused(transaction_code(&error))
        }
    }
}

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

pub(super) async fn list<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: listed::ListTransactionsRequest,
) -> listed::ListTransactionsResponse {
    let mut response = listed::ListTransactionsResponse::default();
    if request.transactional_id_pattern.is_some() || request.duration_filter > 0 {
        // Better than to show what was not asked for.
        response.error_code = ErrorCode::InvalidRequest.code();
        return response;
    }
    let all = match shared.broker.transactions(&call.ctx).await {
        Ok(all) => all,
        Err(error) => {
            shared.count(&error);
            response.error_code = transaction_code(&error).code();
            return response;
        }
    };
    let (states, producers) = (&request.state_filters, &request.producer_id_filters);
    let wanted = all.iter().filter(|t| {
        let of_state = states.iter().any(|s| s.as_str() == state(t.state));
        (states.is_empty() || of_state)
            && (producers.is_empty() || producers.contains(&t.producer.id))
    });
    response.transaction_states = wanted
        .map(|t| listed::TransactionState {
            transactional_id: Text::from(t.id.as_str()),
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
        let found = match TransactionalId::new(name.as_str()) {
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
