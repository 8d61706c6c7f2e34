//! Sentences for people about refused appends and failed reads: what happened, to which partition,
//! whether anything was changed, what to do next.

use varve_broker_api::Error;
use varve_partition::Rejection;
use varve_types::{ErrorKind, Offset};

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
                "node {leader} leads partition {id} in epoch {leader_epoch}, not this one; nothing was appended; ask it"
            )
        }
        Rejection::LeadershipLost => {
            format!(
                "this node lost the leadership of partition {id} before the records were committed; whether they survive is unknown"
            )
        }
        Rejection::NotEnoughReplicas => {
            format!(
                "partition {id} has fewer replicas in sync than min.insync.replicas; nothing was appended"
            )
        }
        Rejection::ExpectedOffset { actual } => {
            format!(
                "the log of {id} ends at {actual}, not at the expected offset; nothing was appended"
            )
        }
        Rejection::FencedLeaderEpoch { current } => {
            format!(
                "partition {id} is led in epoch {current}, which is not the one the records were made for; nothing was appended; look again and repeat"
            )
        }
        Rejection::ProducerFenced { current_epoch } => {
            format!(
                "a newer session of this producer (epoch {current_epoch}) writes to {id}; nothing was appended"
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
        Rejection::TooManyProducers => {
            format!("partition {id} remembers as many producers as it may; nothing was appended")
        }
        Rejection::TransactionUnverified => {
            format!(
                "partition {id} takes no part in a transaction of this producer; nothing was appended; register it first"
            )
        }
        Rejection::TransactionOver => {
            format!(
                "the transaction that this producer had in {id} is over; nothing was appended; try again, and what is of the next one is taken"
            )
        }
        Rejection::InvalidTransactionState => {
            format!(
                "this producer has an open transaction in {id} that this is no part of; nothing was appended; end it first"
            )
        }
        Rejection::CoordinatorFenced { current_epoch } => {
            format!(
                "a newer coordinator (epoch {current_epoch}) ends this producer's transactions in {id}; nothing was appended"
            )
        }
        Rejection::TooManyTransactions => {
            format!(
                "partition {id} remembers as many open and aborted transactions as it may; nothing was appended"
            )
        }
        Rejection::StorageFull => {
            format!(
                "no space for partition {id}; nothing was appended; free space or lower its retention"
            )
        }
        Rejection::StorageFailed => {
            let reason = partition.offline().unwrap_or("it was closed");
            format!(
                "partition {id} failed ({reason}); whether the records were appended is unknown"
            )
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
