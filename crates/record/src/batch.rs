//! The states of a batch on its way into a log: unverified bytes of a client, a verified batch, a batch
//! with its place in a log. Each state is a type, so that no unchecked byte can be appended and no
//! checked byte is checked again.
//!
//! The payload is never copied: giving a batch its offset changes a 61-byte header beside it.

use std::cell::RefCell;

use bytes::Bytes;
use varve_types::{LeaderEpoch, Offset, limits};

use crate::compress::{self, Compression};
use crate::crc::crc32c_of_two;
use crate::error::{BatchError, RecordFault};
use crate::header::{
    ATTR_COMPRESSION, ATTR_CONTROL, ATTR_LOG_APPEND_TIME, ATTR_TRANSACTIONAL, BatchHeader,
    CRC_START, HEADER_BYTES, check_stored,
};
use crate::record::{RecordParser, Records};

/// What a client's batch must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyLimits {
    /// Largest batch in bytes, header included, as sent (compressed).
    pub max_batch_bytes: usize,
    /// Most records.
    pub max_records: u32,
    /// Bytes that its payload may unpack to, at most `limits::DECOMPRESSED_MAX_BYTES`. A caller that has no time may
    /// take less at first.
    pub max_unpacked_bytes: usize,
    /// Whether the batch may belong to a transaction. Only where the caller goes on to ask whether the
    /// transaction's coordinator knows of the partition; a control batch is never a client's to send.
    pub transactional: bool,
    /// Whether a largest timestamp that is not that of the records is put right, instead of refused: clients of the
    /// Kafka protocol leave it out or state another.
    pub mend_max_timestamp: bool,
}

impl Default for VerifyLimits {
    fn default() -> Self {
        Self {
            max_batch_bytes: limits::BATCH_MAX_BYTES,
            max_records: limits::BATCH_MAX_RECORDS,
            max_unpacked_bytes: limits::DECOMPRESSED_MAX_BYTES,
            transactional: false,
            mend_max_timestamp: false,
        }
    }
}

/// Most bytes that a thread keeps to unpack into.
const SCRATCH_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that a client says are one batch.
#[derive(Debug, Clone)]
pub struct Unverified(pub Bytes);

/// What the walk over the records learned.
struct Walk {
    min_timestamp: i64,
    max_timestamp: i64,
    has_null_key: bool,
}

impl Unverified {
    /// Checks everything there is to check: exactly one batch, its checksum, its attributes, and every
    /// record of its payload (decompressed within bounds and thrown away).
    ///
    /// # Errors
    /// [`BatchError`] with what was expected and what was found.
    pub fn verify(self, limits: &VerifyLimits) -> Result<Batch, BatchError> {
        let bytes = self.0;
        if bytes.len() > limits.max_batch_bytes {
            return Err(BatchError::TooLarge {
                found: bytes.len(),
                max: limits.max_batch_bytes,
            });
        }
        let header = BatchHeader::parse(&bytes)?;
        if bytes.len() > header.size() {
            return Err(BatchError::TrailingBytes(bytes.len() - header.size()));
        }
        check_client_header(&header, limits)?;
        check_stored(&bytes)?;
        let body = bytes.slice(HEADER_BYTES..);
        let walk = walk_payload(&header, &body, limits.max_unpacked_bytes)?;
        let stated = header.max_timestamp;
        let batch = Batch {
            head: header.encode(),
            header,
            original: Some(bytes),
            body,
            min_timestamp: walk.min_timestamp,
            has_null_key: walk.has_null_key,
        };
        let found = walk.max_timestamp;
        match stated == found {
            true => Ok(batch),
            false if limits.mend_max_timestamp => Ok(batch.with_max_timestamp(found)),
            false => Err(BatchError::MaxTimestamp { stated, found }),
        }
    }
}

fn check_client_header(header: &BatchHeader, limits: &VerifyLimits) -> Result<(), BatchError> {
    let found = header.attributes;
    let transactional = match limits.transactional {
        true => 0,
        false => ATTR_TRANSACTIONAL,
    };
    for (bits, what) in [
        (
            transactional,
            "the transactional bit (no transaction is expected here)",
        ),
        (ATTR_CONTROL, "the control bit"),
        (ATTR_LOG_APPEND_TIME, "the log append time bit"),
        (!(ATTR_COMPRESSION | 0x38), "an unknown bit"),
    ] {
        if found & bits != 0 {
            return Err(BatchError::Attributes { found, what });
        }
    }
    let (count, delta) = (header.record_count, header.last_offset_delta);
    if count < 1 || i64::from(count) != i64::from(delta) + 1 {
        let expected = "delta + 1 records, at least one";
        return Err(BatchError::RecordCount {
            count,
            delta,
            expected,
        });
    }
    if count as u32 > limits.max_records {
        return Err(BatchError::TooManyRecords {
            found: count,
            max: limits.max_records,
        });
    }
    header.check_producer()?;
    if header.is_transactional() && header.producer().is_none() {
        return Err(BatchError::TransactionWithoutProducer);
    }
    Ok(())
}

/// Walks the payload, decompressing it into a buffer that is reused.
fn walk_payload(header: &BatchHeader, body: &[u8], max: usize) -> Result<Walk, BatchError> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let codec = header.compression();
    if codec == Compression::None {
        return walk_records(header, body);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let unpacked = compress::decompress(codec, body, max, scratch);
        let walk = unpacked.and_then(|()| walk_records(header, scratch));
        // One huge payload must not pin its memory to this thread, least of all one that is refused.
        if scratch.capacity() > SCRATCH_MAX_BYTES {
            *scratch = Vec::new();
        }
        walk
    })
}

fn walk_records(header: &BatchHeader, payload: &[u8]) -> Result<Walk, BatchError> {
    let mut parser = RecordParser::new(payload, 0);
    let (mut min, mut max) = (i64::MAX, i64::MIN);
    let mut has_null_key = false;
    for index in 0..header.record_count {
        let fault = |fault| BatchError::Record {
            index: index as u32,
            fault,
        };
        let record = parser.next_record().map_err(fault)?;
        if record.offset_delta != index {
            let found = record.offset_delta;
            return Err(fault(RecordFault::OffsetDelta {
                expected: index,
                found,
            }));
        }
        let timestamp = header
            .base_timestamp
            .checked_add(record.timestamp_delta)
            .ok_or(fault(RecordFault::Timestamp))?;
        min = min.min(timestamp);
        max = max.max(timestamp);
        has_null_key |= record.key.is_none();
    }
    if parser.remaining() != 0 {
        return Err(BatchError::PayloadTrailingBytes(parser.remaining()));
    }
    Ok(Walk {
        min_timestamp: min,
        max_timestamp: max,
        has_null_key,
    })
}

/// A batch that is known to be whole and right. It has no place in a log yet.
#[derive(Debug, Clone)]
pub struct Batch {
    header: BatchHeader,
    head: [u8; HEADER_BYTES],
    /// The bytes as received, while the header is unchanged.
    original: Option<Bytes>,
    body: Bytes,
    min_timestamp: i64,
    has_null_key: bool,
}

impl Batch {
    /// A batch that the builder of this crate has just made.
    pub(crate) fn trusted(
        header: BatchHeader,
        bytes: Bytes,
        min_timestamp: i64,
        has_null_key: bool,
    ) -> Self {
        let body = bytes.slice(HEADER_BYTES..);
        let head = header.encode();
        Self {
            header,
            head,
            original: Some(bytes),
            body,
            min_timestamp,
            has_null_key,
        }
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.header.size()
    }

    /// Number of records, at least 1.
    #[must_use]
    pub const fn record_count(&self) -> u32 {
        self.header.record_count as u32
    }

    /// Whether any record has a null key. Compacted topics refuse those.
    #[must_use]
    pub const fn has_null_key(&self) -> bool {
        self.has_null_key
    }

    /// Smallest timestamp of the records, in milliseconds since the epoch.
    #[must_use]
    pub const fn min_timestamp(&self) -> i64 {
        self.min_timestamp
    }

    /// Largest timestamp of the records, in milliseconds since the epoch.
    #[must_use]
    pub const fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The payload after the header: records, compressed or not.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The whole batch. Shared while the header is as received; a copy after
    /// [`Batch::with_log_append_time`], or when its largest timestamp was not that of its records.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.original
            .clone()
            .unwrap_or_else(|| join(&self.head, &self.body))
    }

    /// The whole batch, as [`Batch::bytes`].
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes()
    }

    /// The records, with their index as offset.
    ///
    /// # Errors
    /// [`BatchError::Decompress`] cannot happen to a verified batch unless memory changed under it.
    pub fn records(&self) -> Result<Records, BatchError> {
        payload_of(&self.header, &self.body).map(|payload| Records::new(&self.header, payload))
    }

    /// Marks the batch as stamped by the leader at `ms` (milliseconds since the epoch): one timestamp
    /// for all its records. The checksum is computed again; the payload stays shared.
    #[must_use]
    pub fn with_log_append_time(mut self, ms: i64) -> Self {
        self.header.attributes |= ATTR_LOG_APPEND_TIME;
        self.min_timestamp = ms;
        self.with_max_timestamp(ms)
    }

    /// With another largest timestamp in its header, and the checksum that goes with it.
    fn with_max_timestamp(mut self, ms: i64) -> Self {
        self.header.max_timestamp = ms;
        let head = self.header.encode();
        self.header.crc = crc32c_of_two(&head[CRC_START..], &self.body);
        self.head = self.header.encode();
        self.original = None;
        self
    }

    /// Gives the batch its place in a log.
    ///
    /// # Panics
    /// When the batch would pass the largest offset.
    #[must_use]
    pub fn sequence(mut self, base: Offset, epoch: LeaderEpoch) -> Sequenced {
        self.header.base_offset = base;
        self.header.leader_epoch = epoch;
        assert!(
            self.header.next_offset() > base,
            "a batch moves its log forward"
        );
        self.head[0..8].copy_from_slice(&base.get().to_be_bytes());
        self.head[12..16].copy_from_slice(&epoch.get().to_be_bytes());
        Sequenced {
            header: self.header,
            head: self.head,
            body: self.body,
        }
    }
}

/// A verified batch with its base offset and leader epoch: ready to be written.
#[derive(Debug, Clone)]
pub struct Sequenced {
    header: BatchHeader,
    head: [u8; HEADER_BYTES],
    body: Bytes,
}

impl Sequenced {
    /// A batch that has its place already.
    pub(crate) fn placed(header: BatchHeader, body: Bytes) -> Self {
        let head = header.encode();
        Self { header, head, body }
    }

    /// The header, with its place.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as two slices, for a vectored write.
    #[must_use]
    pub fn slices(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }

    /// The 61 bytes of the header.
    #[must_use]
    pub const fn head(&self) -> &[u8; HEADER_BYTES] {
        &self.head
    }

    /// The payload after the header.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.header.size()
    }

    /// The whole batch in one buffer: a copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        join(&self.head, &self.body)
    }
}

fn join(head: &[u8], body: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(head.len() + body.len());
    whole.extend_from_slice(head);
    whole.extend_from_slice(body);
    whole.into()
}

/// The payload with its records as they are: shared when stored so, decompressed otherwise.
pub(crate) fn payload_of(header: &BatchHeader, body: &Bytes) -> Result<Bytes, BatchError> {
    let codec = header.compression();
    if codec == Compression::None {
        return Ok(body.clone());
    }
    let mut payload = Vec::new();
    compress::decompress(codec, body, limits::DECOMPRESSED_MAX_BYTES, &mut payload)?;
    Ok(payload.into())
}
