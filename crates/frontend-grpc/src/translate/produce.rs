//! Produce: from a request to one checked batch per partition, and from receipts to results.

use std::collections::BTreeMap;

use varve_broker_api::{Appended, Error, Produce, TransactionVersion};
use varve_proto::v1;
use varve_record::{Batch, BatchBuilder, BatchError, Unverified, VerifyLimits};
use varve_types::{
    Acks, ErrorKind, Offset, PartitionId, ProducerId, Sequence, TopicName, TransactionalId, limits,
    partitioner,
};

use super::{missing, offset, partition_not_found, transactional_id, unknown_enum, writable_topic};
use crate::shared::TopicView;
use crate::status::truncate;

/// What a request asks for, apart from its records.
#[derive(Debug)]
pub struct Head {
    /// Topic.
    pub topic: TopicName,
    /// Partition, if the request names one.
    pub partition: Option<i32>,
    /// Durability.
    pub acks: Acks,
    /// Compare-and-append.
    pub expected_offset: Option<Offset>,
    session: Option<(ProducerId, Sequence)>,
    /// Whose transaction the records belong to.
    transaction: Option<TransactionalId>,
}

/// One partition's share of a request.
#[derive(Debug)]
pub struct Part {
    /// For the broker.
    pub produce: Produce,
    /// Indexes of the records that went here; empty: all.
    pub indexes: Vec<i32>,
}

/// Checks everything about a request that needs no topic and no payload.
///
/// # Errors
/// `InvalidRequest`, `BatchTooLarge` for too many records, `PolicyViolation` for internal topics.
pub fn head(request: &v1::ProduceRequest) -> Result<Head, Error> {
    let topic = writable_topic("topic", &request.topic)?;
    let given = (!request.records.is_empty(), request.batch.is_some());
    match given {
        (false, false) => return Err(missing("records")),
        (true, true) => {
            return Err(Error::invalid(
                "batch",
                "exactly one of records and batch must be set, but both are; nothing was appended",
            ));
        }
        _ => {}
    }
    if request.records.len() > limits::REQUEST_MAX_RECORDS {
        return Err(Error::new(
            ErrorKind::BatchTooLarge,
            format!(
                "the request has {} records; at most {} are allowed in the simple form; nothing \
                 was appended",
                request.records.len(),
                limits::REQUEST_MAX_RECORDS
            ),
        ));
    }
    for (field, set) in [
        ("batch", request.batch.is_some()),
        ("session", request.session.is_some()),
        ("expected_offset", request.expected_offset.is_some()),
        ("transactional_id", !request.transactional_id.is_empty()),
    ] {
        if set && request.partition.is_none() {
            return Err(Error::invalid(
                "partition",
                format!("field partition is required with {field}"),
            ));
        }
    }
    if request.batch.is_some() && request.session.is_some() {
        return Err(Error::invalid(
            "session",
            "session is only for records: an encoded batch has its producer in its own header",
        ));
    }
    let acks = acks(request.acks)?;
    Ok(Head {
        partition: request.partition,
        acks,
        expected_offset: request
            .expected_offset
            .map(|o| offset("expected_offset", o))
            .transpose()?,
        session: request.session.as_ref().map(session).transpose()?,
        transaction: transaction(request, acks)?,
        topic,
    })
}

/// The transaction that a request belongs to: what is appended in one has a session, and is acknowledged by all
/// in-sync replicas, because a commit that counts it must not lose it.
fn transaction(request: &v1::ProduceRequest, acks: Acks) -> Result<Option<TransactionalId>, Error> {
    if request.transactional_id.is_empty() {
        return Ok(None);
    }
    let id = transactional_id("transactional_id", &request.transactional_id)?;
    if request.batch.is_none() && request.session.is_none() {
        return Err(Error::invalid(
            "session",
            "transactional_id requires session: the one that InitTransactions returned; nothing \
             was appended",
        ));
    }
    if acks != Acks::All {
        return Err(Error::invalid(
            "acks",
            "records of a transaction must be appended with ACKS_ALL; nothing was appended",
        ));
    }
    Ok(Some(id))
}

fn acks(raw: i32) -> Result<Acks, Error> {
    match v1::Acks::try_from(raw) {
        Ok(v1::Acks::Unspecified | v1::Acks::All) => Ok(Acks::All),
        Ok(v1::Acks::Leader) => Ok(Acks::Leader),
        Ok(v1::Acks::None) => Ok(Acks::None),
        Err(_) => Err(unknown_enum("acks", raw)),
    }
}

fn session(session: &v1::ProducerSession) -> Result<(ProducerId, Sequence), Error> {
    let bad = |what: String| Error::invalid("session", what);
    if session.producer_id < 1 {
        return Err(bad(format!(
            "producer_id must be more than 0; found {}",
            session.producer_id
        )));
    }
    let epoch = i16::try_from(session.producer_epoch)
        .ok()
        .filter(|e| *e >= 0)
        .ok_or_else(|| {
            bad(format!(
                "producer_epoch must be 0 to 32767; found {}",
                session.producer_epoch
            ))
        })?;
    let sequence = Sequence::new(session.base_sequence).ok_or_else(|| {
        bad(format!(
            "base_sequence must not be negative; found {}",
            session.base_sequence
        ))
    })?;
    Ok((
        ProducerId {
            id: session.producer_id,
            epoch,
        },
        sequence,
    ))
}

/// Checks that the topic has the partition.
///
/// # Errors
/// `PartitionNotFound`.
pub fn check_partition(head: &Head, number: i32, count: i32) -> Result<PartitionId, Error> {
    if (0..count).contains(&number) {
        return Ok(PartitionId(number));
    }
    Err(partition_not_found(&head.topic, number, Some(count)))
}

/// Verifies an encoded batch. Costs a pass over the bytes, and a decompression when it is compressed.
///
/// # Errors
/// `InvalidRequest` for an unknown format, else what is wrong with the batch.
pub fn encoded(
    head: &Head,
    partition: PartitionId,
    batch: v1::EncodedBatch,
) -> Result<Part, Error> {
    if batch.format != 2 {
        return Err(Error::invalid(
            "batch.format",
            format!(
                "batch.format {} is not supported; only 2 (a record batch of magic 2) is; nothing \
                 was appended",
                batch.format
            ),
        )
        .with("format", batch.format));
    }
    let bounds = VerifyLimits {
        max_batch_bytes: limits::BUILT_BATCH_MAX_BYTES,
        transactional: head.transaction.is_some(),
        ..VerifyLimits::default()
    };
    let batch = Unverified(batch.data)
        .verify(&bounds)
        .map_err(|e| refused(head, partition, &e))?;
    if head.transaction.is_some() && !batch.header().is_transactional() {
        return Err(Error::invalid(
            "transactional_id",
            format!(
                "batch for {}:{partition}: the request names a transactional_id, but the batch has \
                 no transactional bit; set both or neither; nothing was appended",
                head.topic
            ),
        ));
    }
    Ok(part(head, partition, batch, Vec::new()))
}

/// Whether verifying this batch may take long enough to hold up other work of the thread: a compressed
/// payload may unpack to many times its size.
#[must_use]
pub fn is_heavy(batch: &v1::EncodedBatch) -> bool {
    const ATTRIBUTES_LOW_BYTE: usize = 22;
    const HEAVY_BYTES: usize = 16 * 1024;
    batch.data.len() > HEAVY_BYTES
        && batch
            .data
            .get(ATTRIBUTES_LOW_BYTE)
            .is_some_and(|attributes| attributes & 7 != 0)
}

/// Turns records in simple form into one batch per partition, ordered by partition. Records without
/// key go to the partition that `unkeyed` selects.
///
/// # Errors
/// The first fault found; nothing is appended then.
pub fn records(
    head: &Head,
    view: &TopicView,
    records: &[v1::Record],
    now_ms: i64,
    unkeyed: u32,
) -> Result<Vec<Part>, Error> {
    let shares = shares(head, view, records, unkeyed)?;
    let whole = shares.len() == 1;
    let mut parts = Vec::with_capacity(shares.len());
    for (partition, indexes) in shares {
        let partition = PartitionId(partition);
        let batch = build(head, view, partition, records, &indexes, now_ms)?;
        let indexes = if whole { Vec::new() } else { indexes };
        parts.push(part(head, partition, batch, indexes));
    }
    Ok(parts)
}

fn part(head: &Head, partition: PartitionId, batch: Batch, indexes: Vec<i32>) -> Part {
    Part {
        produce: Produce {
            transactional_id: head.transaction.clone(),
            transaction_version: TransactionVersion::V2,
            topic: head.topic.clone(),
            partition,
            acks: head.acks,
            batch,
            expected_offset: head.expected_offset,
        },
        indexes,
    }
}

fn shares(
    head: &Head,
    view: &TopicView,
    records: &[v1::Record],
    unkeyed: u32,
) -> Result<BTreeMap<i32, Vec<i32>>, Error> {
    let count = view.partitions;
    let chosen = i32::try_from(i64::from(unkeyed) % i64::from(count)).unwrap_or(0);
    let mut shares: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (index, record) in (0_i32..).zip(records) {
        let partition = match (head.partition, &record.key) {
            (Some(number), _) => check_partition(head, number, count)?.0,
            (None, Some(key)) => partitioner::partition_for_key(key, count).0,
            (None, None) => chosen,
        };
        shares.entry(partition).or_default().push(index);
    }
    Ok(shares)
}

fn build(
    head: &Head,
    view: &TopicView,
    partition: PartitionId,
    records: &[v1::Record],
    indexes: &[i32],
    now_ms: i64,
) -> Result<Batch, Error> {
    let picked = || {
        indexes
            .iter()
            .filter_map(|i| Some((*i, records.get(usize::try_from(*i).ok()?)?)))
    };
    let bytes = picked().map(|(_, r)| record_bytes(r) + 32).sum();
    let mut builder = BatchBuilder::with_capacity(view.compression, None, bytes);
    let mut headers: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
    for (index, record) in picked() {
        check_record(view, index, record)?;
        headers.clear();
        headers.extend(
            record
                .headers
                .iter()
                .map(|h| (header_name(h), h.value.as_deref())),
        );
        builder
            .append_raw(
                record.timestamp_ms.unwrap_or(now_ms),
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .map_err(|e| refused(head, partition, &e))?;
    }
    if let Some((producer, sequence)) = head.session {
        match head.transaction {
            Some(_) => builder.set_transaction(producer, sequence),
            None => builder.set_producer(producer, sequence),
        }
    }
    let batch = builder
        .build_batch()
        .map_err(|e| refused(head, partition, &e))?;
    if batch.size() > view.max_message_bytes {
        let (kind, what) = match batch.record_count() {
            1 => (ErrorKind::RecordTooLarge, "the record takes"),
            _ => (
                ErrorKind::BatchTooLarge,
                "the records of one partition take",
            ),
        };
        return Err(Error::new(
            kind,
            format!(
                "{what} {} bytes as one batch; max.message.bytes of topic {} is {}; nothing was \
                 appended",
                batch.size(),
                head.topic,
                view.max_message_bytes
            ),
        )
        .with("topic", &head.topic)
        .with("size", batch.size())
        .with("max.message.bytes", view.max_message_bytes));
    }
    Ok(batch)
}

/// The name that is stored: its bytes where the client gives them.
fn header_name(header: &v1::Header) -> &[u8] {
    let text = header.name.as_bytes();
    header.name_bytes.as_deref().unwrap_or(text)
}

fn record_bytes(record: &v1::Record) -> usize {
    let length = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|h| header_name(h).len() + length(&h.value))
        .sum();
    length(&record.key) + length(&record.value) + headers
}

fn check_record(view: &TopicView, index: i32, record: &v1::Record) -> Result<(), Error> {
    let bytes = record_bytes(record);
    if bytes > view.max_message_bytes {
        return Err(Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "record {index} has {bytes} bytes; max.message.bytes is {}; nothing was appended",
                view.max_message_bytes
            ),
        )
        .with("record", index)
        .with("size", bytes)
        .with("max.message.bytes", view.max_message_bytes));
    }
    if let Some(ms) = record.timestamp_ms.filter(|ms| *ms < 0) {
        return Err(invalid_record(
            index,
            &format!("its timestamp_ms is {ms}, before the Unix epoch"),
        ));
    }
    for header in &record.headers {
        let name = header_name(header);
        if name.is_empty() {
            let why = "a header has no name; give it one of at least 1 byte";
            return Err(invalid_record(index, why));
        }
        if name.starts_with(b"varve-") {
            let name = String::from_utf8_lossy(name);
            let name = truncate(&name, 64);
            let why = format!("header {name:?}: names that start with \"varve-\" are reserved");
            return Err(invalid_record(index, &why));
        }
    }
    Ok(())
}

fn invalid_record(index: i32, why: &str) -> Error {
    let mut error = Error::invalid(
        "records",
        format!("record {index}: {why}; nothing was appended"),
    )
    .with("record", index);
    error.kind = ErrorKind::InvalidRecord;
    error
}

fn refused(head: &Head, partition: PartitionId, error: &BatchError) -> Error {
    Error::new(
        error.kind(),
        format!(
            "batch for {}:{partition}: {error}; nothing was appended",
            head.topic
        ),
    )
    .with("topic", &head.topic)
    .with("partition", partition)
}

/// A successful append in the words of the API.
#[must_use]
pub fn to_appended(appended: &Appended) -> v1::Appended {
    v1::Appended {
        base_offset: appended.base_offset.map(Offset::get),
        record_count: i32::try_from(appended.record_count).unwrap_or(i32::MAX),
        append_time_ms: appended.append_time_ms,
        deduplicated: appended.deduplicated,
        leader_epoch: appended.leader_epoch.get().into(),
        replicas: i32::try_from(appended.replicas).unwrap_or(i32::MAX),
        flushed_replicas: i32::try_from(appended.flushed_replicas).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
#[path = "produce_tests.rs"]
mod tests;
