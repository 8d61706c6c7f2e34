//! Sentences for people about refused appends and failed reads: what happened, to which partition,
//! whether anything was changed, what to do next.

use varve_broker_api::Error;
use varve_partition::Rejection;
use varve_types::{ErrorKind, Offset, limits};

use crate::partition::Partition;

/// The error of a refused append.
pub(crate) fn error(partition: &Partition, rejection: Rejection) -> Error {
    let id = &partition.id;
    let text = match rejection {
        Rejection::Offline => return partition.offline_error(),
        Rejection::NotLeader {
            leader,
            leader_epoch,
        } => {
            format!(
                "node {leader} leads partition {id} in epoch {leader_epoch}, not this one; nothing \
                 was appended; ask that node"
            )
        }
        Rejection::LeadershipLost => {
            format!(
                "this node lost the leadership of partition {id} before the records were \
                 committed; they may or may not be in the log"
            )
        }
        Rejection::NotEnoughReplicas => {
            format!(
                "partition {id} has fewer in-sync replicas than min.insync.replicas; nothing was \
                 appended"
            )
        }
        Rejection::ExpectedOffset { actual } => {
            format!(
                "the log of {id} ends at {actual}, not at the expected offset; nothing was appended"
            )
        }
        Rejection::FencedLeaderEpoch { current } => {
            format!(
                "partition {id} is in leader epoch {current}, not the one that the records were \
                 made for; nothing was appended; read the log again, then retry"
            )
        }
        Rejection::ProducerFenced { current_epoch } => {
            format!(
                "a newer session of this producer (epoch {current_epoch}) writes to {id}, so this \
                 one is fenced; nothing was appended"
            )
        }
        Rejection::UnknownProducer => {
            format!(
                "partition {id} does not know this producer session; nothing was appended; open a new session"
            )
        }
        Rejection::OutOfOrderSequence { expected } => {
            format!(
                "partition {id} expects sequence {expected} of this producer; nothing was appended"
            )
        }
        Rejection::TransactionUnverified => {
            format!(
                "partition {id} is not part of this producer's transaction; nothing was appended; \
                 register it first"
            )
        }
        Rejection::TransactionOver => {
            format!(
                "this producer's transaction in {id} has ended; nothing was appended; retry with \
                 records of the next transaction"
            )
        }
        Rejection::InvalidTransactionState => {
            format!(
                "this producer has another open transaction in {id}; nothing was appended; end \
                 that one first"
            )
        }
        Rejection::CoordinatorFenced { current_epoch } => {
            format!(
                "this coordinator is fenced: a newer one (epoch {current_epoch}) ends this \
                 producer's transactions in {id}; nothing was appended"
            )
        }
        Rejection::TooManyTransactions => {
            format!(
                "partition {id} already tracks {} open and aborted transactions, the most that it may; \
                 nothing was appended; trim or delete old records, whose aborted transactions are forgotten then",
                limits::TRANSACTIONS_PER_PARTITION_MAX
            )
        }
        Rejection::StorageFull => {
            format!(
                "there is no disk space for partition {id}; nothing was appended; free disk space \
                 or reduce its retention"
            )
        }
        Rejection::StorageFailed => {
            let reason = partition.offline().unwrap_or("it was closed");
            format!("partition {id} failed ({reason}); the records may or may not be in the log")
        }
    };
    let error = Error::new(rejection.kind(), text)
        .with("topic", &id.topic)
        .with("partition", id.partition);
    match rejection {
        Rejection::ExpectedOffset { actual } => error.with("actual_offset", actual),
        Rejection::OutOfOrderSequence { expected } => error.with("expected_sequence", expected),
        Rejection::ProducerFenced { current_epoch } => error.with("current_epoch", current_epoch),
        _ => error,
    }
}

/// The error of an offset outside the log.
pub(crate) fn out_of_range(partition: &Partition, offset: Offset) -> Error {
    let (start, end) = (partition.log_start(), partition.high_watermark());
    let id = &partition.id;
    Error::new(
        ErrorKind::OffsetOutOfRange,
        format!(
            "offset {offset} of {id} is not in the log, which holds {start} to {end} (exclusive)"
        ),
    )
    .with("topic", &id.topic)
    .with("partition", id.partition)
    .with("offset", offset)
    .with("log_start_offset", start)
    .with("high_watermark", end)
}

/// The error of an I/O failure.
pub(crate) fn storage(partition: &Partition, error: &impl std::fmt::Display) -> Error {
    let id = &partition.id;
    Error::new(ErrorKind::StorageError, format!("partition {id}: {error}"))
        .with("topic", &id.topic)
        .with("partition", id.partition)
}
