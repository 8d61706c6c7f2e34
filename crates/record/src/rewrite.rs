//! Stored batches that lose records: what compaction does to them. A batch that loses none is left as it is;
//! one that loses some is built anew in its place: same offsets, same producer and sequence, same codec, the
//! records that stay byte for byte.
//!
//! Invariants: base offset and last offset delta never change, so no offset ever moves; the first record's
//! sequence and the number of offsets stay, so a producer's session can be told from the batch even when all
//! records are gone. A delete horizon takes the place of the base timestamp, as in Kafka: bit 6 of the
//! attributes says so, and timestamps of records come out the same.

use std::ops::Range;

use bytes::Bytes;
use varve_types::{Offset, limits};

use crate::batch::{Batch, Sequenced, payload_of};
use crate::compress::{self, Compression};
use crate::crc::crc32c;
use crate::error::{BatchError, RecordFault};
use crate::header::{
    ATTR_DELETE_HORIZON, BatchHeader, CRC_START, HEADER_BYTES, LENGTH_OVERHEAD, check_stored,
};
use crate::record::{RecordParser, RecordRef, Records};
use crate::stored::StoredBatch;
use crate::varint;

/// A batch and which of its records stay.
#[derive(Debug, Clone)]
pub struct Filtered {
    header: BatchHeader,
    payload: Bytes,
    /// Bytes of runs of records that stay.
    kept: Vec<Range<usize>>,
    count: i32,
    max_timestamp: i64,
}

impl BatchHeader {
    /// When tombstones and markers of this batch may go, in milliseconds since the epoch. `None` before the
    /// first compaction.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<i64> {
        if self.attributes & ATTR_DELETE_HORIZON == 0 {
            None
        } else {
            Some(self.base_timestamp)
        }
    }
}

impl StoredBatch {
    /// Asks `keep` about each record, in order.
    ///
    /// # Errors
    /// What is wrong with the payload or a record.
    pub fn filter(
        &self,
        mut keep: impl FnMut(&RecordRef<'_>) -> bool,
    ) -> Result<Filtered, BatchError> {
        let body = self.bytes.slice(HEADER_BYTES..);
        let payload = payload_of(&self.header, &body)?;
        let mut records = Records::new(&self.header, payload.clone());
        let mut kept: Vec<Range<usize>> = Vec::new();
        let (mut count, mut max_timestamp) = (0, i64::MIN);
        loop {
            let from = records.position();
            let Some(record) = records.next_ref() else {
                break;
            };
            let record = record?;
            if !keep(&record) {
                continue;
            }
            count += 1;
            max_timestamp = max_timestamp.max(record.timestamp);
            let to = records.position();
            match kept.last_mut() {
                Some(run) if run.end == from => run.end = to,
                _ => kept.push(from..to),
            }
        }
        Ok(Filtered {
            header: self.header,
            payload,
            kept,
            count,
            max_timestamp,
        })
    }

    /// The batch without any record: its offsets and its producer stay.
    #[must_use]
    pub fn emptied(&self) -> Bytes {
        let header = BatchHeader {
            record_count: 0,
            attributes: self.header.attributes & !crate::header::ATTR_COMPRESSION,
            ..self.header
        };
        seal(header, &[])
    }
}

impl Batch {
    /// The same records in another codec: times, producer, sequence and count stay. A batch that has the codec already
    /// is left as it came.
    ///
    /// # Errors
    /// [`BatchError::Compress`]; [`BatchError::TooLarge`] when it comes to more bytes than a batch may have.
    pub fn recompressed(self, codec: Compression, level: Option<i32>) -> Result<Self, BatchError> {
        if self.header().compression() == codec {
            return Ok(self);
        }
        let payload = payload_of(self.header(), self.body())?;
        let mut header = *self.header();
        header.attributes &= !crate::header::ATTR_COMPRESSION;
        header.attributes |= codec as i16;
        let bytes = match codec {
            Compression::None => fits(header, &payload)?,
            _ => {
                let mut packed = Vec::with_capacity(payload.len() / 2);
                compress::compress(codec, level, &payload, &mut packed)?;
                fits(header, &packed)?
            }
        };
        let header = check_stored(&bytes)?;
        Ok(Self::trusted(
            header,
            bytes,
            self.min_timestamp(),
            self.has_null_key(),
        ))
    }
}

impl Filtered {
    /// Records that stay.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count.unsigned_abs()
    }

    /// Whether every record stays.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.count == self.header.record_count
    }

    /// The batch with the records that stay, of which there must be one. `horizon` is its delete horizon from
    /// now on; `None` leaves what it has.
    ///
    /// # Errors
    /// [`BatchError::Compress`]; [`BatchError::TooLarge`] when the codec, at its best, makes more bytes of
    /// fewer records than a batch may have; [`RecordFault::Timestamp`] for a horizon out of range.
    pub fn build(&self, horizon: Option<i64>) -> Result<Bytes, BatchError> {
        let mut payload = Vec::new();
        for run in &self.kept {
            match horizon {
                None => payload.extend_from_slice(&self.payload[run.clone()]),
                Some(horizon) => self.shift(run.clone(), horizon, &mut payload)?,
            }
        }
        let mut header = BatchHeader {
            record_count: self.count,
            max_timestamp: self.max_timestamp,
            ..self.header
        };
        if let Some(horizon) = horizon {
            header.attributes |= ATTR_DELETE_HORIZON;
            header.base_timestamp = horizon;
        }
        let codec = header.compression();
        if codec == Compression::None {
            return fits(header, &payload);
        }
        let pack = |level| {
            let mut packed = Vec::with_capacity(payload.len() / 2);
            compress::compress(codec, level, &payload, &mut packed)?;
            fits(header, &packed)
        };
        match pack(None) {
            // The producer may have packed it tighter.
            Err(BatchError::TooLarge { .. }) => pack(Some(match codec {
                Compression::Gzip => 9,
                _ => 19,
            })),
            built => built,
        }
    }

    /// Copies a run of records with their times relative to `horizon`.
    fn shift(&self, run: Range<usize>, horizon: i64, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let wrong = |fault| BatchError::Record { index: 0, fault };
        let shift = self
            .header
            .base_timestamp
            .checked_sub(horizon)
            .ok_or(wrong(RecordFault::Timestamp))?;
        let mut parser = RecordParser::new(&self.payload[..run.end], run.start);
        while parser.remaining() > 0 {
            let mut at = parser.position();
            parser.next_record().map_err(wrong)?;
            let body_end = parser.position();
            // Length, attributes, timestamp delta: these three are written again.
            varint::get_i32(&self.payload, &mut at).ok_or(wrong(RecordFault::Truncated))?;
            at += 1;
            let delta = varint::get_i64(&self.payload, &mut at)
                .and_then(|delta| delta.checked_add(shift))
                .ok_or(wrong(RecordFault::Timestamp))?;
            let rest = &self.payload[at..body_end];
            varint::put(out, (1 + varint::size(delta) + rest.len()) as i64);
            out.push(0);
            varint::put(out, delta);
            out.extend_from_slice(rest);
        }
        Ok(())
    }
}

fn fits(header: BatchHeader, body: &[u8]) -> Result<Bytes, BatchError> {
    let (found, max) = (HEADER_BYTES + body.len(), limits::BATCH_MAX_BYTES);
    if found > max {
        return Err(BatchError::TooLarge { found, max });
    }
    Ok(seal(header, body))
}

/// The bytes of a batch with this header, but for its length and checksum, which are those of `body`: records,
/// compressed as the header says. `body` has at most `limits::BATCH_MAX_BYTES` with the header.
#[must_use]
pub fn seal(mut header: BatchHeader, body: &[u8]) -> Bytes {
    header.batch_length = (HEADER_BYTES + body.len() - LENGTH_OVERHEAD) as i32;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(body);
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// An empty batch for offsets that hold nothing any more, from `from` to `to` or as far as one batch reaches. It
/// stands before `next` in a log, and has its leader epoch and time.
///
/// # Panics
/// When `to` does not lie after `from`.
#[must_use]
pub fn filler(from: Offset, to: Offset, next: &BatchHeader) -> Sequenced {
    assert!(to > from, "a filler stands for at least one offset");
    let last = (to.since(from) - 1).min(i32::MAX as u64);
    let header = BatchHeader {
        base_offset: from,
        batch_length: 0,
        leader_epoch: next.leader_epoch,
        crc: 0,
        attributes: 0,
        last_offset_delta: last as i32,
        base_timestamp: next.base_timestamp,
        max_timestamp: next.max_timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    };
    match Sequenced::from_stored(&seal(header, &[])) {
        Ok(batch) => batch,
        Err(error) => unreachable!("what was just sealed is a batch: {error}"),
    }
}

impl Sequenced {
    /// A batch as some log has stored it, with the place it has there.
    ///
    /// # Errors
    /// [`BatchError`] when `bytes` is not exactly one batch with a right checksum.
    pub fn from_stored(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = check_stored(bytes)?;
        if bytes.len() > header.size() {
            return Err(BatchError::TrailingBytes(bytes.len() - header.size()));
        }
        Ok(Self::placed(header, bytes.slice(HEADER_BYTES..)))
    }
}
