//! Batches that have a sequence number and are not settled: sent, waiting to be sent again, or waiting
//! for a new session. No I/O, no clock: the time is an argument, counted from any fixed moment.
//!
//! Order and exactly-once: per partition, batches are sent in sequence order, and none is sent `max_in_flight` or more
//! batches behind one that is not settled. After a failure nothing more of the partition is sent until every
//! outstanding answer is in; then all that is unsettled goes again, in order, with the same sequences, and the leader
//! recognises what it has. Only a leader that lost the session (or was never given an earlier batch) refuses a
//! sequence; such a batch is not in that leader's log, so it moves to a new session.
//!
//! What is reported as refused was refused in every attempt. A refusal says nothing of an earlier attempt
//! that had no answer: such a batch fails as [`ClientError::Uncertain`], whatever the last answer was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use varve_record::{BatchError, with_producer};
use varve_types::{ErrorKind, Outcome, ProducerId, Sequence, TopicPartition};

use crate::backoff::{Backoff, Random};
use crate::batcher::{ClosedBatch, Slot};
use crate::delivery::{BatchAck, Delivery};
use crate::error::{ClientError, RpcError};

/// Settings of a [`Flight`].
#[derive(Debug, Clone)]
pub struct FlightConfig {
    /// Unsettled batches of one partition, at most 5 with an idempotent producer.
    pub max_in_flight: usize,
    /// Batches carry sequence numbers.
    pub idempotent: bool,
    /// Batches belong to transactions, whose sessions come from outside: one that a leader does not take fails its
    /// batch, and with it the transaction. Needs `idempotent`.
    pub transactional: bool,
    /// A batch fails when it is not settled this long after its first record.
    pub delivery_timeout: Duration,
    /// A sent batch without an answer makes its stream suspect after this long.
    pub request_timeout: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
}

/// Number of a stream. A stream that is opened again has another.
pub type StreamId = u64;

#[derive(Debug)]
struct Sent {
    stream: StreamId,
    request: i64,
    at: Duration,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// Batches of the partition's session before this one.
    ordinal: u64,
    bytes: Bytes,
    records: u32,
    delivery: Arc<Delivery>,
    charged: usize,
    created: Duration,
    sent: Option<Sent>,
    /// Some attempt's outcome is unknown: the batch may be in the log.
    uncertain: bool,
    last_error: Option<Arc<RpcError>>,
}

#[derive(Debug, Default)]
struct Partition {
    entries: VecDeque<Entry>,
    session: Option<ProducerId>,
    next_sequence: Sequence,
    next_ordinal: u64,
    retry_at: Duration,
    failures: u32,
    needs_session: bool,
}

/// A batch to put on a stream.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Number that the answer will carry.
    pub request_id: i64,
    /// The batch.
    pub bytes: Bytes,
}

/// A batch that is settled. Its delivery has been completed.
#[derive(Debug)]
pub struct Settled {
    /// Number of the batch.
    pub id: u64,
    /// Bytes to give back.
    pub charged: usize,
    /// Records.
    pub records: u32,
    /// Its fate, completed.
    pub delivery: Arc<Delivery>,
}

/// See the module.
#[derive(Debug)]
pub struct Flight {
    config: FlightConfig,
    partitions: BTreeMap<Slot, Partition>,
    requests: BTreeMap<i64, (Slot, u64)>,
    next_request: i64,
    session: Option<ProducerId>,
    fenced: Option<Arc<RpcError>>,
    random: Random,
}

impl Partition {
    /// Batches between the oldest unsettled one and the newest, both included, settled ones too. The
    /// leader remembers that many batches: were the oldest further back, its repeat would not be
    /// recognised.
    fn span(&self) -> u64 {
        self.entries
            .front()
            .map_or(0, |oldest| self.next_ordinal - oldest.ordinal)
    }
}

impl Flight {
    /// An empty table.
    #[must_use]
    pub const fn new(config: FlightConfig, seed: u64) -> Self {
        Self {
            config,
            partitions: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            session: None,
            fenced: None,
            random: Random::new(seed),
        }
    }

    /// Whether a session must be opened before anything (more) can be sent.
    #[must_use]
    pub fn wants_session(&self) -> bool {
        self.config.idempotent
            && self.fenced.is_none()
            && (self.session.is_none()
                || self
                    .partitions
                    .values()
                    .any(|p| p.needs_session && p.session == self.session))
    }

    /// A session was opened.
    pub const fn grant_session(&mut self, session: ProducerId) {
        self.session = Some(session);
    }

    /// The error that fenced this producer off, if one did. Nothing can be sent any more.
    #[must_use]
    pub const fn fenced(&self) -> Option<&Arc<RpcError>> {
        self.fenced.as_ref()
    }

    /// Whether the partition can take another batch.
    #[must_use]
    pub fn has_room(&self, now: Duration, slot: Slot) -> bool {
        if self.config.idempotent && self.session.is_none() || self.fenced.is_some() {
            return false;
        }
        self.partitions.get(&slot).is_none_or(|partition| {
            let taken = if self.config.idempotent {
                partition.span()
            } else {
                partition.entries.len() as u64
            };
            taken < self.config.max_in_flight as u64
                && partition.entries.iter().all(|entry| entry.sent.is_some())
                && partition.retry_at <= now
                && !partition.needs_session
        })
    }

    /// Takes over a batch: gives it its sequence and makes its bytes.
    ///
    /// # Errors
    /// The settled batch (failed), when its bytes cannot be made.
    pub fn push(&mut self, batch: ClosedBatch) -> Result<(), Settled> {
        let records = batch.builder.len();
        let partition = self.partitions.entry(batch.slot).or_default();
        let mut builder = batch.builder;
        if let (true, Some(session)) = (self.config.idempotent, self.session) {
            if partition.session.is_none()
                || partition.entries.is_empty() && partition.session != Some(session)
            {
                partition.session = Some(session);
                partition.next_sequence = Sequence::ZERO;
            }
            let (session, sequence) = (
                partition.session.unwrap_or(session),
                partition.next_sequence,
            );
            match self.config.transactional {
                true => builder.set_transaction(session, sequence),
                false => builder.set_producer(session, sequence),
            }
        }
        match builder.build() {
            Ok(bytes) => {
                partition.next_sequence = partition.next_sequence.plus(records);
                let ordinal = partition.next_ordinal;
                partition.next_ordinal += 1;
                partition.entries.push_back(Entry {
                    id: batch.id,
                    ordinal,
                    bytes,
                    records,
                    delivery: batch.delivery,
                    charged: batch.charged,
                    created: batch.created,
                    sent: None,
                    uncertain: false,
                    last_error: None,
                });
                Ok(())
            }
            Err(error) => {
                batch.delivery.complete(Err(ClientError::Record(error)));
                let (id, charged, delivery) = (batch.id, batch.charged, batch.delivery);
                Err(Settled {
                    id,
                    charged,
                    records,
                    delivery,
                })
            }
        }
    }

    /// Partitions with a batch that may be sent now.
    #[must_use]
    pub fn sendable(&self, now: Duration) -> Vec<Slot> {
        let slots = self.partitions.iter();
        slots
            .filter(|(_, p)| self.next_entry(now, p).is_some())
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// Bytes of the batch that [`Flight::send`] would send.
    #[must_use]
    pub fn next_size(&self, now: Duration, slot: Slot) -> Option<usize> {
        let partition = self.partitions.get(&slot)?;
        self.next_entry(now, partition)
            .map(|index| partition.entries[index].bytes.len())
    }

    fn next_entry(&self, now: Duration, partition: &Partition) -> Option<usize> {
        if now < partition.retry_at || partition.needs_session {
            return None;
        }
        let first = partition
            .entries
            .iter()
            .position(|entry| entry.sent.is_none())?;
        let behind_sent = partition
            .entries
            .iter()
            .skip(first)
            .any(|entry| entry.sent.is_some());
        // A later batch is still out: its answer comes first, or order would be lost.
        (!self.config.idempotent || !behind_sent).then_some(first)
    }

    /// Sends the partition's next batch on `stream`.
    pub fn send(&mut self, now: Duration, slot: Slot, stream: StreamId) -> Option<Outgoing> {
        let index = self.next_entry(now, self.partitions.get(&slot)?)?;
        let entry = self.partitions.get_mut(&slot)?.entries.get_mut(index)?;
        let request_id = self.next_request;
        self.next_request += 1;
        entry.sent = Some(Sent {
            stream,
            request: request_id,
            at: now,
        });
        self.requests.insert(request_id, (slot, entry.id));
        Some(Outgoing {
            request_id,
            bytes: entry.bytes.clone(),
        })
    }

    /// The partition a request is for, while it is outstanding.
    #[must_use]
    pub fn slot_of(&self, request_id: i64) -> Option<Slot> {
        self.requests.get(&request_id).map(|(slot, _)| *slot)
    }

    /// An answer came.
    pub fn answered(
        &mut self,
        now: Duration,
        request_id: i64,
        result: Result<BatchAck, RpcError>,
    ) -> Vec<Settled> {
        let Some((slot, id)) = self.requests.remove(&request_id) else {
            return Vec::new();
        };
        let mut settled = Vec::new();
        let Some(partition) = self.partitions.get_mut(&slot) else {
            return settled;
        };
        let Some(index) = partition.entries.iter().position(|entry| entry.id == id) else {
            return settled;
        };
        match result {
            Ok(ack) => {
                partition.failures = 0;
                settled.extend(take_entry(partition, index, Ok(ack)));
            }
            Err(error) => self.failed(now, slot, index, error, &mut settled),
        }
        self.renew(now, slot, &mut settled);
        settled
    }

    fn failed(
        &mut self,
        now: Duration,
        slot: Slot,
        index: usize,
        error: RpcError,
        settled: &mut Vec<Settled>,
    ) {
        let (idempotent, current) = (self.config.idempotent, self.session);
        let transactional = self.config.transactional && ends_transaction(error.kind);
        let Some(partition) = self.partitions.get_mut(&slot) else {
            return;
        };
        let entry = &mut partition.entries[index];
        entry.sent = None;
        if transactional {
            // Behind a batch that will go again a gap is expected: it closes, or the first one fails too.
            if index > 0 && error.kind == Some(ErrorKind::OutOfOrderSequence) {
                entry.last_error = Some(Arc::new(error));
            } else {
                settled.extend(refuse_entry(partition, index, &Arc::new(error)));
            }
            return;
        }
        let lost_session = idempotent
            && match error.kind {
                Some(ErrorKind::OutOfOrderSequence | ErrorKind::UnknownProducer) => true,
                // Our own newer session fenced the one this partition still had.
                Some(ErrorKind::ProducerFenced) => partition.session != current,
                _ => false,
            };
        if lost_session {
            // It goes on to be uncertain: the leader that refuses may have been replaced already.
            entry.last_error = Some(Arc::new(error));
            // Behind a batch that will go again, the gap is expected and closes by itself.
            if index == 0 {
                partition.needs_session = true;
            }
            return;
        }
        if error.kind == Some(ErrorKind::ProducerFenced) {
            self.fence(Arc::new(error), settled);
            return;
        }
        if !error.is_retryable() {
            settled.extend(refuse_entry(partition, index, &Arc::new(error)));
            return;
        }
        let redirected = error.kind == Some(ErrorKind::NotLeader) && error.leader.is_some();
        let delay = error.retry_delay;
        entry.uncertain |= error.outcome() == Outcome::Unknown;
        entry.last_error = Some(Arc::new(error));
        partition.failures += 1;
        let pause = self
            .config
            .backoff
            .pause(partition.failures, &mut self.random);
        let pause = if redirected && partition.failures <= 3 {
            Duration::ZERO
        } else {
            pause
        };
        partition.retry_at = partition.retry_at.max(now + delay.unwrap_or(pause));
    }

    /// Fails everything: another producer has taken over the name. What is on its way may still be appended.
    fn fence(&mut self, error: Arc<RpcError>, settled: &mut Vec<Settled>) {
        for partition in self.partitions.values_mut() {
            while !partition.entries.is_empty() {
                settled.extend(refuse_entry(partition, 0, &error));
            }
        }
        self.requests.clear();
        self.fenced = Some(error);
    }

    /// A stream ended. What was sent on it goes again.
    pub fn stream_lost(&mut self, now: Duration, stream: StreamId, error: &RpcError) {
        let error = Arc::new(error.clone());
        for partition in self.partitions.values_mut() {
            let mut lost = false;
            for entry in &mut partition.entries {
                if let Some(sent) = entry.sent.take_if(|sent| sent.stream == stream) {
                    self.requests.remove(&sent.request);
                    entry.uncertain = true;
                    entry.last_error = Some(error.clone());
                    lost = true;
                }
            }
            if lost {
                partition.failures += 1;
                let pause = self
                    .config
                    .backoff
                    .pause(partition.failures, &mut self.random);
                partition.retry_at = partition.retry_at.max(now + pause);
            }
        }
    }

    /// Streams on which a batch has waited for its answer longer than the request timeout.
    #[must_use]
    pub fn stalled(&self, now: Duration) -> Vec<StreamId> {
        let entries = self
            .partitions
            .values()
            .flat_map(|partition| &partition.entries);
        let late = |sent: &&Sent| now >= sent.at + self.config.request_timeout;
        let mut streams: Vec<_> = entries
            .filter_map(|entry| entry.sent.as_ref())
            .filter(late)
            .map(|s| s.stream)
            .collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// Moves partitions that wait for a session to the current one, and fails batches whose time is up.
    pub fn tick(&mut self, now: Duration) -> Vec<Settled> {
        let mut settled = Vec::new();
        // Most partitions of many are at rest.
        let busy = |(slot, partition): (&Slot, &Partition)| {
            let busy = partition.needs_session || !partition.entries.is_empty();
            busy.then_some(*slot)
        };
        let slots: Vec<_> = self.partitions.iter().filter_map(busy).collect();
        for slot in slots {
            self.expire(now, slot, &mut settled);
            self.renew(now, slot, &mut settled);
        }
        settled
    }

    fn expire(&mut self, now: Duration, slot: Slot, settled: &mut Vec<Settled>) {
        let after = self.config.delivery_timeout;
        let Some(partition) = self.partitions.get_mut(&slot) else {
            return;
        };
        while let Some(entry) = partition.entries.front() {
            if entry.sent.is_some() || now < entry.created + after {
                return;
            }
            let error = timeout_error(entry, after);
            settled.extend(take_entry(partition, 0, Err(error)));
        }
    }

    /// Puts the partition's batches under the current session, once no answer is outstanding.
    fn renew(&mut self, now: Duration, slot: Slot, settled: &mut Vec<Settled>) {
        let Some(session) = self.session else { return };
        let Some(partition) = self.partitions.get_mut(&slot) else {
            return;
        };
        let outstanding = partition.entries.iter().any(|entry| entry.sent.is_some());
        if !partition.needs_session || partition.session == Some(session) || outstanding {
            return;
        }
        partition.session = Some(session);
        partition.needs_session = false;
        partition.retry_at = now;
        let mut sequence = Sequence::ZERO;
        let mut index = 0;
        while let Some(entry) = partition.entries.get_mut(index) {
            match with_producer(&entry.bytes, session, sequence) {
                Ok(bytes) => {
                    entry.bytes = bytes;
                    entry.ordinal = index as u64;
                    sequence = sequence.plus(entry.records);
                    index += 1;
                }
                Err(error) => {
                    settled.extend(take_entry(
                        partition,
                        index,
                        Err(ClientError::Record(error)),
                    ));
                }
            }
        }
        partition.next_sequence = sequence;
        partition.next_ordinal = partition.entries.len() as u64;
    }

    /// Earliest moment after `now` at which something here changes by itself.
    #[must_use]
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let of_partition = |partition: &Partition| {
            let retry = (!partition.entries.is_empty()).then_some(partition.retry_at);
            let entries = partition.entries.iter().map(|entry| match &entry.sent {
                Some(sent) => sent.at + self.config.request_timeout,
                None => entry.created + self.config.delivery_timeout,
            });
            retry
                .into_iter()
                .chain(entries)
                .filter(|due| *due > now)
                .min()
        };
        self.partitions.values().filter_map(of_partition).min()
    }

    /// Fails everything that is left, because the producer ends.
    pub fn abandon(&mut self, error: &ClientError) -> Vec<Settled> {
        let mut settled = Vec::new();
        for partition in self.partitions.values_mut() {
            while !partition.entries.is_empty() {
                settled.extend(take_entry(partition, 0, Err(error.clone())));
            }
        }
        self.requests.clear();
        settled
    }

    /// Whether nothing is unsettled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions
            .values()
            .all(|partition| partition.entries.is_empty())
    }
}

/// Whether a leader has said that the session's transaction is over, or will never be whole.
const fn ends_transaction(kind: Option<ErrorKind>) -> bool {
    matches!(
        kind,
        Some(
            ErrorKind::OutOfOrderSequence
                | ErrorKind::UnknownProducer
                | ErrorKind::ProducerFenced
                | ErrorKind::TransactionAborted
                | ErrorKind::InvalidTransactionState
        )
    )
}

fn timeout_error(entry: &Entry, after: Duration) -> ClientError {
    let outcome = if entry.uncertain {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    };
    let none = || Arc::new(RpcError::transport("no leader could be reached"));
    ClientError::DeliveryTimeout {
        partition: TopicPartition::new(entry.delivery.topic().clone(), entry.delivery.partition()),
        after,
        outcome,
        last: entry.last_error.clone().unwrap_or_else(none),
    }
}

/// Fails a batch with what its last attempt was told, or as uncertain because of another attempt.
fn refuse_entry(partition: &mut Partition, index: usize, last: &Arc<RpcError>) -> Option<Settled> {
    let entry = partition.entries.get(index)?;
    let last = Arc::clone(last);
    let error = if entry.uncertain || entry.sent.is_some() {
        let (topic, at) = (entry.delivery.topic().clone(), entry.delivery.partition());
        ClientError::Uncertain {
            partition: TopicPartition::new(topic, at),
            last,
        }
    } else {
        ClientError::Rpc(last)
    };
    take_entry(partition, index, Err(error))
}

fn take_entry(
    partition: &mut Partition,
    index: usize,
    result: Result<BatchAck, ClientError>,
) -> Option<Settled> {
    let entry = partition.entries.remove(index)?;
    entry.delivery.complete(result);
    Some(Settled {
        id: entry.id,
        charged: entry.charged,
        records: entry.records,
        delivery: entry.delivery,
    })
}

/// A batch whose time was up before it could be sent at all.
#[must_use]
pub fn expired_unsent(batch: ClosedBatch, after: Duration) -> Settled {
    let entry = Entry {
        id: batch.id,
        ordinal: 0,
        bytes: Bytes::new(),
        records: batch.builder.len(),
        delivery: batch.delivery,
        charged: batch.charged,
        created: batch.created,
        sent: None,
        uncertain: false,
        last_error: None,
    };
    entry.delivery.complete(Err(timeout_error(&entry, after)));
    Settled {
        id: entry.id,
        charged: entry.charged,
        records: entry.records,
        delivery: entry.delivery,
    }
}

impl From<BatchError> for ClientError {
    fn from(error: BatchError) -> Self {
        Self::Record(error)
    }
}
