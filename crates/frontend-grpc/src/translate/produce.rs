//! Produce: from a request to one checked batch per partition, and from receipts to results.

use std::collections::BTreeMap;

use varve_broker_api::{Appended, Error, Produce};
use varve_proto::v1;
use varve_record::{Batch, BatchBuilder, BatchError, Unverified, VerifyLimits};
use varve_types::{
    Acks, ErrorKind, Offset, PartitionId, ProducerId, Sequence, TopicName, limits, partitioner,
};

use super::{missing, offset, partition_not_found, unknown_enum, writable_topic};
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
                "exactly one of records and batch is set; both are: nothing was appended",
            ));
        }
        _ => {}
    }
    if request.records.len() > limits::REQUEST_MAX_RECORDS {
        return Err(Error::new(
            ErrorKind::BatchTooLarge,
            format!(
                "the request has {} records; at most {} are allowed in simple form: nothing was appended",
                request.records.len(),
                limits::REQUEST_MAX_RECORDS
            ),
        ));
    }
    for (field, set) in [
        ("batch", request.batch.is_some()),
        ("session", request.session.is_some()),
        ("expected_offset", request.expected_offset.is_some()),
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
            "field session goes with records: an encoded batch has its producer in its own header",
        ));
    }
    Ok(Head {
        partition: request.partition,
        acks: acks(request.acks)?,
        expected_offset: request
            .expected_offset
            .map(|o| offset("expected_offset", o))
            .transpose()?,
        session: request.session.as_ref().map(session).transpose()?,
        topic,
    })
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
            "producer_id is > 0; found {}",
            session.producer_id
        )));
    }
    let epoch = i16::try_from(session.producer_epoch)
        .ok()
        .filter(|e| *e >= 0)
        .ok_or_else(|| {
            bad(format!(
                "producer_epoch is 0 to 32767; found {}",
                session.producer_epoch
            ))
        })?;
    let sequence = Sequence::new(session.base_sequence).ok_or_else(|| {
        bad(format!(
            "base_sequence is >= 0; found {}",
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
                "batch.format {} is not known; only 2 (a record batch of magic 2) is: nothing was appended",
                batch.format
            ),
        )
        .with("format", batch.format));
    }
    let limits = VerifyLimits {
        max_batch_bytes: limits::BATCH_MAX_BYTES,
        max_records: limits::BATCH_MAX_RECORDS,
        ..VerifyLimits::default()
    };
    let batch = Unverified(batch.data)
        .verify(&limits)
        .map_err(|e| refused(head, partition, &e))?;
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
            transactional_id: None,
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
    let mut headers: Vec<(&str, Option<&[u8]>)> = Vec::new();
    for (index, record) in picked() {
        check_record(view, index, record)?;
        headers.clear();
        headers.extend(
            record
                .headers
                .iter()
                .map(|h| (h.name.as_str(), h.value.as_deref())),
        );
        builder
            .append(
                record.timestamp_ms.unwrap_or(now_ms),
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .map_err(|e| refused(head, partition, &e))?;
    }
    if let Some((producer, sequence)) = head.session {
        builder.set_producer(producer, sequence);
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
                "{what} {} bytes as one batch; max.message.bytes of topic {} is {}: nothing was appended",
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

fn record_bytes(record: &v1::Record) -> usize {
    let length = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|h| h.name.len() + length(&h.value))
        .sum();
    length(&record.key) + length(&record.value) + headers
}

fn check_record(view: &TopicView, index: i32, record: &v1::Record) -> Result<(), Error> {
    let bytes = record_bytes(record);
    if bytes > view.max_message_bytes {
        return Err(Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "record {index} has {bytes} bytes; max.message.bytes is {}: nothing was appended",
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
    if record.headers.len() > limits::RECORD_MAX_HEADERS {
        let (found, max) = (record.headers.len(), limits::RECORD_MAX_HEADERS);
        return Err(invalid_record(
            index,
            &format!("it has {found} headers, at most {max} are allowed"),
        ));
    }
    for header in &record.headers {
        let length = header.name.len();
        if !(1..=limits::HEADER_NAME_MAX_BYTES).contains(&length) {
            let max = limits::HEADER_NAME_MAX_BYTES;
            let why = format!("a header name has 1 to {max} bytes, one has {length}");
            return Err(invalid_record(index, &why));
        }
        if header.name.starts_with("varve-") {
            let name = truncate(&header.name, 64);
            let why = format!("header {name:?}: names that start with \"varve-\" are the server's");
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
            "batch for {}-{partition}: {error}; nothing was appended",
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
mod tests {
    use bytes::Bytes;
    use varve_record::Compression;

    use super::*;

    fn view(partitions: i32) -> TopicView {
        TopicView {
            partitions,
            max_message_bytes: 4096,
            compression: Compression::None,
        }
    }

    fn record(key: Option<&'static str>, value: &'static str) -> v1::Record {
        v1::Record {
            key: key.map(|k| Bytes::from_static(k.as_bytes())),
            value: Some(Bytes::from_static(value.as_bytes())),
            ..Default::default()
        }
    }

    fn request(records: Vec<v1::Record>) -> v1::ProduceRequest {
        v1::ProduceRequest {
            topic: "t".to_owned(),
            records,
            ..Default::default()
        }
    }

    #[test]
    fn the_form_of_a_request_is_checked() {
        let one = || request(vec![record(None, "v")]);
        let batch = || {
            Some(v1::EncodedBatch {
                format: 2,
                data: Bytes::new(),
            })
        };
        let session = |producer_id, producer_epoch, base_sequence| {
            Some(v1::ProducerSession {
                producer_id,
                producer_epoch,
                base_sequence,
            })
        };
        let rows: Vec<(v1::ProduceRequest, Option<&str>)> = vec![
            (request(Vec::new()), Some("records")),
            (
                v1::ProduceRequest {
                    batch: batch(),
                    ..one()
                },
                Some("batch"),
            ),
            (
                v1::ProduceRequest {
                    records: Vec::new(),
                    batch: batch(),
                    ..one()
                },
                Some("partition"),
            ),
            (
                v1::ProduceRequest {
                    session: session(1, 0, 0),
                    ..one()
                },
                Some("partition"),
            ),
            (
                v1::ProduceRequest {
                    expected_offset: Some(0),
                    ..one()
                },
                Some("partition"),
            ),
            (
                v1::ProduceRequest {
                    expected_offset: Some(-1),
                    partition: Some(0),
                    ..one()
                },
                Some("expected_offset"),
            ),
            (v1::ProduceRequest { acks: 17, ..one() }, Some("acks")),
            (
                v1::ProduceRequest {
                    session: session(0, 0, 0),
                    partition: Some(0),
                    ..one()
                },
                Some("session"),
            ),
            (
                v1::ProduceRequest {
                    session: session(1, -1, 0),
                    partition: Some(0),
                    ..one()
                },
                Some("session"),
            ),
            (
                v1::ProduceRequest {
                    session: session(1, 32768, 0),
                    partition: Some(0),
                    ..one()
                },
                Some("session"),
            ),
            (
                v1::ProduceRequest {
                    session: session(1, 0, -1),
                    partition: Some(0),
                    ..one()
                },
                Some("session"),
            ),
            (
                v1::ProduceRequest {
                    records: Vec::new(),
                    batch: batch(),
                    session: session(1, 0, 0),
                    partition: Some(0),
                    ..one()
                },
                Some("session"),
            ),
            (
                v1::ProduceRequest {
                    topic: "a/b".to_owned(),
                    ..one()
                },
                Some("topic"),
            ),
        ];
        for (request, field) in rows {
            let error = head(&request).unwrap_err();
            assert_eq!(
                (error.kind, error.field),
                (ErrorKind::InvalidRequest, field),
                "{error}"
            );
        }
        let many = request(vec![record(None, "v"); limits::REQUEST_MAX_RECORDS + 1]);
        assert_eq!(head(&many).unwrap_err().kind, ErrorKind::BatchTooLarge);
        assert!(head(&one()).is_ok());
    }

    #[test]
    fn keys_spread_and_records_without_key_stay_together() {
        let rows = vec![
            record(Some("a"), "1"),
            record(None, "2"),
            record(Some("b"), "3"),
            record(None, "4"),
            record(Some("a"), "5"),
        ];
        let request = request(rows);
        let parts = records(&head(&request).unwrap(), &view(16), &request.records, 7, 5).unwrap();
        let place = |key: &[u8]| partitioner::partition_for_key(key, 16).0;
        let of = |n: i32| {
            parts
                .iter()
                .find(|p| p.produce.partition.0 == n)
                .map(|p| p.indexes.clone())
                .unwrap_or_default()
        };
        assert!(place(b"a") != 5 && place(b"b") != 5 && place(b"a") != place(b"b"));
        assert_eq!(of(place(b"a")), [0, 4]);
        assert_eq!(of(place(b"b")), [2]);
        assert_eq!(of(5), [1, 3]);
        let total: u32 = parts.iter().map(|p| p.produce.batch.record_count()).sum();
        assert_eq!(total, 5);
        assert!(
            parts
                .windows(2)
                .all(|w| w[0].produce.partition < w[1].produce.partition)
        );
        let stamps = parts.iter().all(|p| p.produce.batch.max_timestamp() == 7);
        assert!(stamps, "records without a time get the broker's");
    }

    #[test]
    fn one_partition_reports_no_indexes() {
        let request = v1::ProduceRequest {
            partition: Some(1),
            ..request(vec![record(Some("a"), "1"), record(None, "2")])
        };
        let parts = records(&head(&request).unwrap(), &view(2), &request.records, 0, 0).unwrap();
        assert_eq!(parts.len(), 1);
        assert!(parts[0].indexes.is_empty());
        let request = v1::ProduceRequest {
            partition: Some(2),
            ..request
        };
        let error =
            records(&head(&request).unwrap(), &view(2), &request.records, 0, 0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PartitionNotFound);
    }

    #[test]
    fn records_that_break_a_rule_are_refused() {
        let header = |name: String| v1::Record {
            headers: vec![v1::Header { name, value: None }],
            ..record(None, "v")
        };
        let rows = vec![
            (header(String::new()), ErrorKind::InvalidRecord),
            (header("x".repeat(256)), ErrorKind::InvalidRecord),
            (header("varve-x".to_owned()), ErrorKind::InvalidRecord),
            (
                v1::Record {
                    timestamp_ms: Some(-1),
                    ..record(None, "v")
                },
                ErrorKind::InvalidRecord,
            ),
            (
                v1::Record {
                    headers: vec![
                        v1::Header {
                            name: "h".to_owned(),
                            value: None
                        };
                        65
                    ],
                    ..record(None, "v")
                },
                ErrorKind::InvalidRecord,
            ),
            (
                v1::Record {
                    value: Some(Bytes::from(vec![0; 5000])),
                    ..record(None, "v")
                },
                ErrorKind::RecordTooLarge,
            ),
            (
                v1::Record {
                    value: Some(Bytes::from(vec![0; 4090])),
                    ..record(None, "v")
                },
                ErrorKind::RecordTooLarge,
            ),
        ];
        for (bad, kind) in rows {
            let request = request(vec![bad]);
            let error =
                records(&head(&request).unwrap(), &view(1), &request.records, 0, 0).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
        }
        let two = request(vec![
            v1::Record {
                value: Some(Bytes::from(vec![0; 3000])),
                ..record(None, "")
            };
            2
        ]);
        let error = records(&head(&two).unwrap(), &view(1), &two.records, 0, 0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BatchTooLarge);
    }

    #[test]
    fn encoded_batches_are_verified() {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.append(1, None, Some(b"v"), &[]).unwrap();
        let good = builder.build().unwrap();
        let request = v1::ProduceRequest {
            topic: "t".to_owned(),
            partition: Some(0),
            batch: Some(v1::EncodedBatch {
                format: 2,
                data: good.clone(),
            }),
            ..Default::default()
        };
        let head = head(&request).unwrap();
        let check = |format, data: Vec<u8>| {
            encoded(
                &head,
                PartitionId(0),
                v1::EncodedBatch {
                    format,
                    data: data.into(),
                },
            )
        };
        assert!(check(2, good.to_vec()).is_ok());
        assert_eq!(
            check(3, good.to_vec()).unwrap_err().kind,
            ErrorKind::InvalidRequest
        );
        // Every single damaged byte after the leader epoch is found, and none panics.
        for at in 16..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x55;
            assert!(check(2, bad).is_err(), "byte {at}");
        }
        for cut in 0..good.len() {
            assert_eq!(
                check(2, good[..cut].to_vec()).unwrap_err().kind,
                ErrorKind::CorruptBatch
            );
        }
    }
}
