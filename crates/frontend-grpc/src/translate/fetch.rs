//! Reads: requests to plans, and stored batches to the messages that carry them.
//!
//! [`Decoder`] turns what one read found into chunks. In batch form it only slices: no payload is copied
//! or looked at. In record form a batch is decompressed once, however many chunks it fills. Either way a
//! chunk is never empty, and what is delivered plus [`Decoder::position`] is gapless.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use varve_broker_api::{Error, Isolation, OffsetFound, OffsetQuery, Position};
use varve_proto::v1;
use varve_record::{BatchError, BatchHeader, RecordView, Records, StoredBatch};
use varve_types::{ErrorKind, LeaderEpoch, Offset, TopicPartition, limits};

use super::{
    at_most, duration, isolation, leader_epoch, missing, partition, start_without_group,
    topic_name, topic_partition, unknown_enum,
};

/// Records of a Fetch that names no bound.
const FETCH_DEFAULT_RECORDS: u64 = 500;
/// Most records of a Fetch.
const FETCH_MAX_RECORDS: u64 = limits::FETCH_MAX_RECORDS;
/// Bytes of a Fetch that names no bound.
const FETCH_DEFAULT_BYTES: usize = 1024 * 1024;
/// What a record costs on the wire apart from its fields, about.
const RECORD_OVERHEAD: usize = 32;
/// What a header costs on the wire apart from its fields, about.
const HEADER_OVERHEAD: usize = 8;
/// Format number of record batches of magic 2.
pub const BATCH_FORMAT: i32 = 2;

/// How records are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One message per record.
    Records,
    /// Stored batches as they are.
    Batches,
}

/// What to do when a start lies outside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfRange {
    /// Fail.
    Fail,
    /// Go on from the oldest record.
    Earliest,
    /// Go on from the end.
    Latest,
}

impl OutOfRange {
    /// Where to go on; `None`: fail.
    #[must_use]
    pub const fn fallback(self) -> Option<Position> {
        match self {
            Self::Fail => None,
            Self::Earliest => Some(Position::Earliest),
            Self::Latest => Some(Position::Latest),
        }
    }
}

/// Reads a carrier.
///
/// # Errors
/// `InvalidRequest`.
pub fn encoding(raw: i32) -> Result<Encoding, Error> {
    match v1::ReadEncoding::try_from(raw) {
        Ok(v1::ReadEncoding::Unspecified | v1::ReadEncoding::Records) => Ok(Encoding::Records),
        Ok(v1::ReadEncoding::Batches) => Ok(Encoding::Batches),
        Err(_) => Err(unknown_enum("encoding", raw)),
    }
}

/// Reads a policy.
///
/// # Errors
/// `InvalidRequest`.
pub fn out_of_range(raw: i32) -> Result<OutOfRange, Error> {
    match v1::OutOfRangePolicy::try_from(raw) {
        Ok(v1::OutOfRangePolicy::Unspecified | v1::OutOfRangePolicy::Fail) => Ok(OutOfRange::Fail),
        Ok(v1::OutOfRangePolicy::Earliest) => Ok(OutOfRange::Earliest),
        Ok(v1::OutOfRangePolicy::Latest) => Ok(OutOfRange::Latest),
        Err(_) => Err(unknown_enum("out_of_range", raw)),
    }
}

/// A Fetch, checked.
#[derive(Debug, Clone)]
pub struct FetchPlan {
    /// Partition.
    pub partition: TopicPartition,
    /// Where to begin.
    pub start: Position,
    /// Most records of the answer.
    pub max_records: u64,
    /// Most bytes of the answer.
    pub max_bytes: usize,
    /// Answer as soon as this much is there.
    pub min_bytes: usize,
    /// Wait at most this long.
    pub max_wait: Duration,
    /// Carrier.
    pub encoding: Encoding,
    /// Policy.
    pub out_of_range: OutOfRange,
    /// Epoch to check.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Which records of transactions are wanted.
    pub isolation: Isolation,
}

/// Reads a Fetch.
///
/// # Errors
/// `InvalidRequest` naming the field, or `PartitionNotFound` for a negative number.
pub fn fetch(request: &v1::FetchRequest, max_fetch_bytes: usize) -> Result<FetchPlan, Error> {
    let topic = topic_name("topic", &request.topic)?;
    let partition = partition(&topic, request.partition)?;
    let bytes = |field, raw: i64, default: usize| match u64::try_from(raw) {
        Ok(0) => Ok(default),
        Ok(n) => Ok(usize::try_from(n)
            .unwrap_or(usize::MAX)
            .min(max_fetch_bytes)),
        Err(_) => Err(Error::invalid(
            field,
            format!("{field} must not be negative; found {raw}"),
        )),
    };
    let max_records = match u64::try_from(request.max_records) {
        Ok(0) => FETCH_DEFAULT_RECORDS,
        Ok(n) => n.min(FETCH_MAX_RECORDS),
        Err(_) => {
            let text = format!(
                "max_records must not be negative; found {}",
                request.max_records
            );
            return Err(Error::invalid("max_records", text));
        }
    };
    let max_bytes = bytes("max_bytes", request.max_bytes, FETCH_DEFAULT_BYTES)?;
    Ok(FetchPlan {
        partition: TopicPartition::new(topic, partition),
        start: start_without_group("start", request.start.as_ref())?,
        max_records,
        max_bytes,
        min_bytes: bytes("min_bytes", request.min_bytes, 1)?.min(max_bytes),
        max_wait: duration("max_wait", request.max_wait.as_ref())?.unwrap_or_default(),
        encoding: encoding(request.encoding)?,
        out_of_range: out_of_range(request.out_of_range)?,
        leader_epoch: leader_epoch("leader_epoch", request.leader_epoch)?,
        isolation: isolation("isolation", request.isolation)?,
    })
}

/// Reads the queries of ListOffsets.
///
/// # Errors
/// `InvalidRequest` when there are none or too many, or one is not well formed.
pub fn list_offsets(request: &v1::ListOffsetsRequest) -> Result<Vec<OffsetQuery>, Error> {
    if request.queries.is_empty() {
        return Err(missing("queries"));
    }
    at_most(
        "queries",
        request.queries.len(),
        limits::REQUEST_MAX_PARTITIONS,
    )?;
    request
        .queries
        .iter()
        .map(|q| {
            let partition = topic_partition("queries.topic_partition", q.topic_partition.as_ref())?;
            let position = match &q.position {
                Some(p) if p.position.is_some() => {
                    Some(start_without_group("queries.position", Some(p))?)
                }
                _ => None,
            };
            Ok(OffsetQuery {
                isolation: isolation("queries.isolation", q.isolation)?,
                partition,
                position,
                with_time: q.with_timestamp,
            })
        })
        .collect()
}

/// Bounds of a partition in the words of the API.
#[must_use]
pub fn to_offsets(found: &OffsetFound) -> v1::PartitionOffsets {
    v1::PartitionOffsets {
        last_stable_offset: Some(found.last_stable.get()),
        offset: found.offset.map(Offset::get),
        timestamp_ms: found.timestamp_ms,
        log_start_offset: found.log_start.get(),
        high_watermark: found.high_watermark.get(),
        leader_epoch: found.leader_epoch.get().into(),
    }
}

/// Where a read ends. Both bounds are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Until {
    /// Stop before this offset.
    pub offset: Option<Offset>,
    /// Stop before the first record whose timestamp (ms) is this or later.
    pub timestamp: Option<i64>,
}

/// A message's worth of records of one partition.
#[derive(Debug, Default)]
pub struct Chunk {
    /// In record form.
    pub records: Vec<v1::ConsumedRecord>,
    /// In batch form: at most one entry, which holds whole batches back to back.
    pub batches: Vec<v1::EncodedBatch>,
    /// Where what follows begins.
    pub next_offset: Offset,
    /// Keys, values and headers, or the batches: what flow control counts. At least 1.
    pub payload_bytes: i64,
    /// Records from the start on. Counted in batch form only when the caller bounds them.
    pub record_count: u64,
}

impl Chunk {
    /// Copies what it carries, so that it keeps nothing else in memory of what was read with it.
    pub fn detach(&mut self) {
        let mut copy = BytesMut::with_capacity(self.bytes());
        self.each(|part| copy.extend_from_slice(part));
        let mut copy = copy.freeze();
        self.each(|part| *part = copy.split_to(part.len()));
    }

    fn each(&mut self, mut see: impl FnMut(&mut Bytes)) {
        for record in &mut self.records {
            record.key.iter_mut().for_each(&mut see);
            record.value.iter_mut().for_each(&mut see);
            record
                .headers
                .iter_mut()
                .filter_map(|h| h.value.as_mut())
                .for_each(&mut see);
        }
        self.batches
            .iter_mut()
            .for_each(|batch| see(&mut batch.data));
    }

    /// [`Self::payload_bytes`] as a size in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.payload_bytes).unwrap_or(0)
    }
}

/// The error about a record or a batch that is larger than a client takes.
#[must_use]
pub fn too_large(partition: &TopicPartition, chunk: &Chunk, max: usize) -> Error {
    let (kind, what) = match chunk.batches.len() {
        0 => (ErrorKind::RecordTooLarge, "record"),
        _ => (ErrorKind::BatchTooLarge, "batch"),
    };
    Error::new(
        kind,
        format!(
            "the next {what} of {partition} has {} bytes, more than the {max} bytes of \
             max_message_bytes; open a stream with a larger limit",
            chunk.payload_bytes
        ),
    )
    .with("topic", &partition.topic)
    .with("partition", partition.partition)
    .with("size", chunk.payload_bytes)
}

/// What one read found, chunk by chunk.
#[derive(Debug)]
pub struct Decoder {
    encoding: Encoding,
    rest: Bytes,
    open: Option<Records>,
    held: Option<RecordView>,
    position: Offset,
    end: Offset,
    until: Until,
    done: bool,
    /// Damage behind what was delivered, told once that is out.
    damage: Option<BatchError>,
}

impl Decoder {
    /// Reads `batches` from offset `from` on. `end` is where the next read begins once all is delivered.
    #[must_use]
    pub fn new(
        encoding: Encoding,
        batches: Bytes,
        from: Offset,
        end: Offset,
        until: Until,
    ) -> Self {
        let done = until.offset.is_some_and(|u| u <= from);
        Self {
            encoding,
            rest: batches,
            open: None,
            held: None,
            position: from,
            end,
            until,
            done,
            damage: None,
        }
    }

    /// The next offset to be delivered.
    #[must_use]
    pub const fn position(&self) -> Offset {
        self.position
    }

    /// Whether nothing is left of what was read, but for what is said at its end.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.done || self.position >= self.end
    }

    /// Whether an end position was reached.
    #[must_use]
    pub const fn reached_end(&self) -> bool {
        self.done
    }

    /// The next chunk of at most about `max_bytes` and `max_records` (`u64::MAX`: no bound); `None` when
    /// all that was read is delivered. One record, or one batch, is given even when it is larger.
    ///
    /// # Errors
    /// [`BatchError`] when a stored batch cannot be read.
    pub fn next_chunk(
        &mut self,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<Option<Chunk>, BatchError> {
        if self.done || max_records == 0 {
            return Ok(None);
        }
        let chunk = match self.encoding {
            Encoding::Records => self.next_records(max_bytes, max_records)?,
            Encoding::Batches => self.next_batches(max_bytes, max_records)?,
        };
        if chunk.is_none() && !self.done {
            // Offsets that hold nothing (removed by compaction) are passed over.
            self.position = self.position.max(self.end);
        }
        if self.until.offset.is_some_and(|u| u <= self.position) {
            self.done = true;
        }
        Ok(chunk)
    }

    fn next_records(
        &mut self,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<Option<Chunk>, BatchError> {
        if let Some(damage) = self.damage.take() {
            return Err(damage);
        }
        let mut chunk = Chunk::default();
        let (mut size, mut payload) = (0_usize, 0_usize);
        while chunk.record_count < max_records {
            let record = match self.take_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // What is sound in front of it is delivered first.
                Err(damage) if chunk.record_count > 0 => {
                    self.damage = Some(damage);
                    break;
                }
                Err(damage) => return Err(damage),
            };
            let ended = self.until.offset.is_some_and(|u| record.offset >= u)
                || self.until.timestamp.is_some_and(|t| record.timestamp >= t);
            if ended {
                self.position = self.position.max(
                    record
                        .offset
                        .min(self.until.offset.unwrap_or(record.offset)),
                );
                self.done = true;
                break;
            }
            let bytes = payload_bytes(&record);
            let cost = bytes + RECORD_OVERHEAD + record.headers.len() * HEADER_OVERHEAD;
            if chunk.record_count > 0 && size + cost > max_bytes {
                self.held = Some(record);
                break;
            }
            size += cost;
            payload += bytes;
            chunk.record_count += 1;
            self.position = record.offset.plus(1);
            chunk.records.push(to_record(record));
        }
        if chunk.record_count == 0 {
            return Ok(None);
        }
        let drained = self.held.is_none() && self.open.is_none() && self.rest.is_empty();
        if drained && self.damage.is_none() && !self.done {
            self.position = self.position.max(self.end);
        }
        chunk.next_offset = self.position;
        chunk.payload_bytes = i64::try_from(payload.max(1)).unwrap_or(i64::MAX);
        Ok(Some(chunk))
    }

    /// The next record at or after the position.
    fn take_record(&mut self) -> Result<Option<RecordView>, BatchError> {
        if let Some(record) = self.held.take() {
            return Ok(Some(record));
        }
        loop {
            if let Some(records) = &mut self.open {
                for record in records.by_ref() {
                    let record = record?;
                    if record.offset >= self.position {
                        if records.remaining() == 0 {
                            self.open = None;
                        }
                        return Ok(Some(record));
                    }
                }
                self.open = None;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let batch = StoredBatch::split_from(&self.rest)?;
            self.rest = self.rest.slice(batch.bytes.len()..);
            if !batch.header.is_control() && batch.header.last_offset() >= self.position {
                // Who gets records has no checksum to check; who gets batches does it himself.
                batch.verify_crc()?;
                self.open = Some(batch.records()?);
            }
        }
    }

    fn next_batches(
        &mut self,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<Option<Chunk>, BatchError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let bounded = self.until != Until::default() || max_records != u64::MAX;
        let (taken, record_count, next) = if !bounded && self.rest.len() <= max_bytes {
            (self.rest.len(), 0, self.end)
        } else {
            self.measure(max_bytes, max_records)?
        };
        if taken == 0 {
            return Ok(None);
        }
        let data = self.rest.split_to(taken);
        self.position = self.position.max(next);
        if self.rest.is_empty() && !self.done {
            self.position = self.position.max(self.end);
        }
        Ok(Some(Chunk {
            records: Vec::new(),
            payload_bytes: i64::try_from(data.len()).unwrap_or(i64::MAX),
            batches: vec![v1::EncodedBatch {
                format: BATCH_FORMAT,
                data,
            }],
            next_offset: self.position,
            record_count,
        }))
    }

    /// How many bytes of whole batches fit, how many records they have, and where they end.
    fn measure(
        &mut self,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<(usize, u64, Offset), BatchError> {
        let (mut taken, mut count, mut next) = (0_usize, 0_u64, self.position);
        while taken < self.rest.len() && count < max_records {
            let tail = self.rest.slice(taken..);
            let header = BatchHeader::parse(&tail)?;
            let size = header.size();
            if tail.len() < size {
                return Err(BatchError::Truncated {
                    needed: size,
                    found: tail.len(),
                });
            }
            if self.until.offset.is_some_and(|u| header.base_offset >= u) {
                self.done = true;
                break;
            }
            if taken > 0 && taken + size > max_bytes {
                break;
            }
            let end = header.next_offset();
            let stop = match self.until.timestamp {
                Some(t) if header.max_timestamp >= t => self.first_at_or_after(&tail, t)?,
                _ => None,
            };
            if let Some(stop) = stop {
                self.done = true;
                if stop > next.max(header.base_offset) {
                    taken += size;
                    next = stop;
                }
                break;
            }
            taken += size;
            count += end.since(next.max(header.base_offset));
            next = end.min(self.until.offset.unwrap_or(end));
        }
        Ok((taken, count, next))
    }

    fn first_at_or_after(
        &self,
        bytes: &Bytes,
        timestamp: i64,
    ) -> Result<Option<Offset>, BatchError> {
        for record in StoredBatch::split_from(bytes)?.records()? {
            let record = record?;
            if record.offset >= self.position && record.timestamp >= timestamp {
                return Ok(Some(record.offset));
            }
        }
        Ok(None)
    }
}

fn payload_bytes(record: &RecordView) -> usize {
    let length = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|(n, v)| n.len() + length(v))
        .sum();
    length(&record.key) + length(&record.value) + headers
}

/// A name that is not UTF-8 comes with its bytes: the text alone would lose some.
fn to_header(name: Bytes, value: Option<Bytes>) -> v1::Header {
    match std::str::from_utf8(&name) {
        Ok(text) => v1::Header {
            name: text.to_owned(),
            value,
            name_bytes: None,
        },
        Err(_) => v1::Header {
            name: String::from_utf8_lossy(&name).into_owned(),
            value,
            name_bytes: Some(name),
        },
    }
}

fn to_record(record: RecordView) -> v1::ConsumedRecord {
    v1::ConsumedRecord {
        offset: record.offset.get(),
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| to_header(name, value))
            .collect(),
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
