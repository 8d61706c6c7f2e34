//! Builds a batch from records. Records are encoded once, straight into the buffer that becomes the
//! batch; the header's place is kept free in front of them, so that an uncompressed batch is finished
//! without a copy.

use bytes::Bytes;
use varve_types::{LeaderEpoch, Offset, ProducerId, Sequence, limits};

use crate::batch::Batch;
use crate::compress::{self, Compression};
use crate::crc::crc32c;
use crate::error::{BatchError, RecordFault};
use crate::header::{
    ATTR_CONTROL, ATTR_TRANSACTIONAL, BatchHeader, CRC_START, HEADER_BYTES, LENGTH_OVERHEAD,
};
use crate::varint;

/// Collects records and makes a batch of them.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    compression: Compression,
    level: Option<i32>,
    count: u32,
    base_timestamp: i64,
    min_timestamp: i64,
    max_timestamp: i64,
    has_null_key: bool,
    /// The session; a marker of the log itself has one without a sequence.
    producer: Option<(ProducerId, Option<Sequence>)>,
    /// Attribute bits beside the codec's.
    attributes: i16,
}

/// Bytes of a nullable field: its length and itself.
fn field_size(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_field(buffer: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::put(buffer, -1),
        Some(bytes) => {
            varint::put(buffer, bytes.len() as i64);
            buffer.extend_from_slice(bytes);
        }
    }
}

/// Most bytes that a record of these fields adds to a batch, before compression. Headers are
/// (name length, value length).
#[must_use]
pub fn record_size_bound(
    key: Option<usize>,
    value: Option<usize>,
    headers: impl Iterator<Item = (usize, usize)>,
) -> usize {
    let headers: usize = headers.map(|(name, value)| name + value + 10).sum();
    // Length, attributes, timestamp delta, offset delta, two lengths, header count.
    5 + 1 + 10 + 5 + 5 + 5 + 5 + key.unwrap_or(0) + value.unwrap_or(0) + headers
}

impl BatchBuilder {
    /// An empty builder. `level` is on the codec's own scale; `None` takes its default.
    #[must_use]
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        Self::with_buffer(compression, level, Vec::new())
    }

    /// An empty builder that has room for `bytes` of records.
    #[must_use]
    pub fn with_capacity(compression: Compression, level: Option<i32>, bytes: usize) -> Self {
        Self::with_buffer(compression, level, Vec::with_capacity(HEADER_BYTES + bytes))
    }

    /// An empty builder that reuses `buffer`'s memory.
    #[must_use]
    pub fn with_buffer(compression: Compression, level: Option<i32>, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        Self {
            buffer,
            compression,
            level,
            count: 0,
            base_timestamp: 0,
            min_timestamp: i64::MAX,
            max_timestamp: i64::MIN,
            has_null_key: false,
            producer: None,
            attributes: 0,
        }
    }

    /// Adds a record. Nothing is added when it fails.
    ///
    /// # Errors
    /// [`BatchError`] when the record breaks a limit, or would make the batch pass one.
    #[inline]
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        self.append_raw(timestamp_ms, key, value, headers)
    }

    /// Adds a record whose headers may have names that are not UTF-8. Nothing is added when it fails.
    ///
    /// # Errors
    /// [`BatchError`] when the record breaks a limit, or would make the batch pass one.
    #[inline]
    pub fn append_raw<N: AsRef<[u8]>>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(N, Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        if self.count >= limits::BATCH_MAX_RECORDS {
            let max = limits::BATCH_MAX_RECORDS;
            return Err(BatchError::TooManyRecords {
                found: max as i32 + 1,
                max,
            });
        }
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        let fault = |fault| BatchError::Record {
            index: self.count,
            fault,
        };
        let delta = timestamp_ms
            .checked_sub(self.base_timestamp)
            .ok_or(fault(RecordFault::Timestamp))?;
        let headers_size = if headers.is_empty() {
            1
        } else {
            Self::headers_size(headers)
        };
        let size = 1
            + varint::size(delta)
            + varint::size(i64::from(self.count))
            + field_size(key)
            + field_size(value)
            + headers_size;
        let total = self.buffer.len() + varint::MAX_I32_BYTES + size;
        if total > limits::DECOMPRESSED_MAX_BYTES {
            let max = limits::DECOMPRESSED_MAX_BYTES;
            return Err(BatchError::TooLarge { found: total, max });
        }
        let buffer = &mut self.buffer;
        buffer.reserve(varint::MAX_I32_BYTES + size);
        varint::put(buffer, size as i64);
        buffer.push(0);
        varint::put(buffer, delta);
        varint::put(buffer, i64::from(self.count));
        put_field(buffer, key);
        put_field(buffer, value);
        varint::put(buffer, headers.len() as i64);
        for (name, value) in headers {
            put_field(buffer, Some(name.as_ref()));
            put_field(buffer, *value);
        }
        self.count += 1;
        self.min_timestamp = self.min_timestamp.min(timestamp_ms);
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.has_null_key |= key.is_none();
        Ok(())
    }

    fn headers_size<N: AsRef<[u8]>>(headers: &[(N, Option<&[u8]>)]) -> usize {
        let each = headers.iter();
        let each = each.map(|(name, value)| field_size(Some(name.as_ref())) + field_size(*value));
        varint::size(headers.len() as i64) + each.sum::<usize>()
    }

    /// Records so far.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, header included, before compression.
    #[must_use]
    pub const fn size_estimate(&self) -> usize {
        self.buffer.len()
    }

    /// Largest timestamp so far, in milliseconds since the epoch; `None` without a record.
    #[must_use]
    pub const fn max_timestamp(&self) -> Option<i64> {
        if self.count == 0 {
            None
        } else {
            Some(self.max_timestamp)
        }
    }

    /// Makes this a batch of an idempotent producer; `sequence` is that of the first record.
    pub const fn set_producer(&mut self, producer: ProducerId, sequence: Sequence) {
        self.producer = Some((producer, Some(sequence)));
    }

    /// Makes this a batch of a producer's transaction; `sequence` is that of the first record.
    pub const fn set_transaction(&mut self, producer: ProducerId, sequence: Sequence) {
        self.set_producer(producer, sequence);
        self.attributes |= ATTR_TRANSACTIONAL;
    }

    /// Makes this a batch of a producer's transaction that somebody else writes for it: it has no sequence.
    pub const fn set_transaction_of(&mut self, producer: ProducerId) {
        self.producer = Some((producer, None));
        self.attributes |= ATTR_TRANSACTIONAL;
    }

    /// Makes this a batch of the log itself that says something about a producer's transaction.
    pub(crate) const fn set_control(&mut self, producer: ProducerId) {
        self.producer = Some((producer, None));
        self.attributes |= ATTR_TRANSACTIONAL | ATTR_CONTROL;
    }

    /// The batch's bytes, as a client sends them: base offset 0, leader epoch -1.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without records; [`BatchError::TooLarge`] when the (compressed) batch passes
    /// `limits::BUILT_BATCH_MAX_BYTES`; [`BatchError::Compress`].
    pub fn build(self) -> Result<Bytes, BatchError> {
        self.finish().map(|(_, bytes)| bytes)
    }

    /// The batch, known to be right because it was made here.
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn build_batch(self) -> Result<Batch, BatchError> {
        let (min_timestamp, has_null_key) = (self.min_timestamp, self.has_null_key);
        let (header, bytes) = self.finish()?;
        Ok(Batch::trusted(header, bytes, min_timestamp, has_null_key))
    }

    fn finish(self) -> Result<(BatchHeader, Bytes), BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let mut buffer = if self.compression == Compression::None {
            self.buffer
        } else {
            let mut packed = Vec::with_capacity(HEADER_BYTES + self.buffer.len() / 2);
            packed.resize(HEADER_BYTES, 0);
            let payload = &self.buffer[HEADER_BYTES..];
            compress::compress(self.compression, self.level, payload, &mut packed)?;
            packed
        };
        if buffer.len() > limits::BUILT_BATCH_MAX_BYTES {
            let max = limits::BUILT_BATCH_MAX_BYTES;
            return Err(BatchError::TooLarge {
                found: buffer.len(),
                max,
            });
        }
        let (producer_id, producer_epoch, base_sequence) = match self.producer {
            Some((producer, sequence)) => {
                let sequence = sequence.map_or(-1, Sequence::get);
                (producer.id, producer.epoch, sequence)
            }
            None => (-1, -1, -1),
        };
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: (buffer.len() - LENGTH_OVERHEAD) as i32,
            leader_epoch: LeaderEpoch::ZERO,
            crc: 0,
            attributes: self.compression as i16 | self.attributes,
            last_offset_delta: self.count as i32 - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.count as i32,
        };
        buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
        // A producer knows no epoch.
        buffer[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
        header.crc = crc32c(&buffer[CRC_START..]);
        buffer[17..21].copy_from_slice(&header.crc.to_be_bytes());
        Ok((header, buffer.into()))
    }
}

/// `batch` under another producer session: the producer's fields and the checksum are written again. A
/// copy; for the rare case that a session is replaced while batches wait.
///
/// # Errors
/// [`BatchError`] when `batch` is not exactly one batch.
pub fn with_producer(
    batch: &[u8],
    producer: ProducerId,
    sequence: Sequence,
) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() != header.size() {
        return Err(BatchError::Truncated {
            needed: header.size(),
            found: batch.len(),
        });
    }
    let mut copy = batch.to_vec();
    copy[43..51].copy_from_slice(&producer.id.to_be_bytes());
    copy[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
    copy[53..57].copy_from_slice(&sequence.get().to_be_bytes());
    let crc = crc32c(&copy[CRC_START..]);
    copy[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(copy.into())
}
