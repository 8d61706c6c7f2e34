//! The way of an append from a front end to its lane: checks against the topic's configuration, a byte
//! permit, one message in; the answer comes back through a [`Receipt`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::sync::oneshot;
use varve_broker_api::{Appended, Error};
use varve_partition::{TransactionEnd, Verified};
use varve_record::Batch;
use varve_types::config::TimestampType;
use varve_types::{Acks, ErrorKind, LeaderEpoch, Offset, TopicConfig, TopicPartition};
use varve_vfs::Tick;

use crate::admission::Permit;
use crate::lane::{Arrival, Command};
use crate::partition::Partition;
use crate::registry::Registry;

/// Resolves to the outcome of an append. Dropping it does not undo the append.
pub struct Receipt {
    answer: oneshot::Receiver<Result<Appended, Error>>,
    /// Who knows where to go instead.
    hints: Option<(Arc<Registry>, TopicPartition)>,
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

impl Receipt {
    /// One that names the leader when this node turns out not to be it.
    pub(crate) fn hinted(self, registry: Arc<Registry>, id: TopicPartition) -> Self {
        Self {
            hints: Some((registry, id)),
            ..self
        }
    }
}

impl Future for Receipt {
    type Output = Result<Appended, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| match answer {
            Ok(Err(error)) => Err(match &self.hints {
                Some((registry, id)) => registry.with_hint(error, id),
                None => error,
            }),
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                ErrorKind::CommitTimeout,
                "the broker stopped before it answered the append; the records may or may not be \
                 in the log",
            )),
        })
    }
}

/// Checks a batch against its topic's configuration; stamps it with the append time where the topic
/// asks for that.
pub(crate) fn check(
    partition: &Partition,
    config: &TopicConfig,
    batch: Batch,
    now_ms: i64,
) -> Result<Batch, Error> {
    check_size(partition, config, &batch)?;
    let header = batch.header();
    let id = &partition.id;
    if config.cleanup.compact && batch.has_null_key() {
        let text = format!(
            "topic {:?} is compacted, so every record needs a key; nothing was appended",
            id.topic.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidRecord, text));
    }
    if config.timestamp_type == TimestampType::LogAppendTime {
        return Ok(batch.with_log_append_time(now_ms));
    }
    let oldest = now_ms.saturating_sub(config.timestamp_before_max_ms);
    let newest = now_ms.saturating_add(config.timestamp_after_max_ms);
    let (min, max) = (batch.min_timestamp(), header.max_timestamp);
    if min < oldest || max > newest {
        let bad = if min < oldest { min } else { max };
        let text = format!(
            "record timestamp {bad} is outside {oldest} to {newest}, the range that topic {:?} \
             allows now; nothing was appended",
            id.topic.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidRecord, text).with("timestamp", bad));
    }
    Ok(batch)
}

/// Refuses a batch that is larger than its topic allows.
pub(crate) fn check_size(
    partition: &Partition,
    config: &TopicConfig,
    batch: &Batch,
) -> Result<(), Error> {
    let header = batch.header();
    let size = header.size();
    let id = &partition.id;
    if size > config.max_message_bytes {
        let kind = if header.record_count == 1 {
            ErrorKind::RecordTooLarge
        } else {
            ErrorKind::BatchTooLarge
        };
        let max = config.max_message_bytes;
        let text = format!(
            "a batch of {size} bytes is larger than max.message.bytes={max} of topic {:?}; nothing was appended",
            id.topic.as_str()
        );
        return Err(Error::new(kind, text).with("size", size).with("max", max));
    }
    Ok(())
}

/// What an append waits for, and what it is refused without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) acks: Acks,
    /// Append only at this offset.
    pub(crate) expected_offset: Option<Offset>,
    /// Append only in this epoch of the leader.
    pub(crate) leader_epoch: Option<LeaderEpoch>,
    /// What is known of the partition's registration in the producer's transaction.
    pub(crate) verified: Verified,
    /// The batch is a marker that ends a transaction.
    pub(crate) marker: Option<TransactionEnd>,
}

impl Terms {
    pub(crate) const fn new(acks: Acks) -> Self {
        Self {
            acks,
            expected_offset: None,
            leader_epoch: None,
            verified: Verified::No,
            marker: None,
        }
    }
}

/// The other end of a [`Receipt`].
#[derive(Debug)]
pub(crate) struct Promise(oneshot::Sender<Result<Appended, Error>>);

impl Promise {
    pub(crate) fn new() -> (Self, Receipt) {
        let (reply, answer) = oneshot::channel();
        let receipt = Receipt {
            answer,
            hints: None,
        };
        (Self(reply), receipt)
    }

    /// Answers. Whoever waited may have gone.
    pub(crate) fn keep(self, result: Result<Appended, Error>) {
        let _ = self.0.send(result);
    }
}

/// Sends a checked batch to its lane.
pub(crate) fn enqueue(
    partition: &Arc<Partition>,
    batch: Batch,
    terms: Terms,
    permit: Permit,
    arrived: Tick,
) -> Result<Receipt, Error> {
    if partition.offline().is_some() {
        return Err(partition.offline_error());
    }
    let (promise, receipt) = Promise::new();
    match push(partition, batch, terms, (permit, arrived), promise) {
        Ok(()) => Ok(receipt),
        Err(_) => Err(shutting_down()),
    }
}

/// As [`enqueue`], for a receipt that somebody holds already.
pub(crate) fn enqueue_for(
    partition: &Arc<Partition>,
    batch: Batch,
    terms: Terms,
    held: (Permit, Tick),
    promise: Promise,
) {
    if partition.offline().is_some() {
        return promise.keep(Err(partition.offline_error()));
    }
    if let Err(promise) = push(partition, batch, terms, held, promise) {
        promise.keep(Err(shutting_down()));
    }
}

fn push(
    partition: &Arc<Partition>,
    batch: Batch,
    terms: Terms,
    (permit, arrived): (Permit, Tick),
    promise: Promise,
) -> Result<(), Promise> {
    let arrival = Arrival {
        batch,
        terms,
        arrived,
        reply: promise.0,
        permit,
    };
    let slot = partition.slot;
    match partition.lane.push(Command::Produce { slot, arrival }) {
        Err(Command::Produce { arrival, .. }) => Err(Promise(arrival.reply)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn shutting_down() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the broker is shutting down; nothing was appended; use another node or try again later",
    )
}
