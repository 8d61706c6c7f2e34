//! The 61-byte header of a batch: parsed, encoded, and checked against the bytes that follow.
//!
//! The checksum covers everything from the attributes on. Base offset, length, leader epoch and magic
//! are outside it, so that a broker can give a batch its place without reading the payload again.

use varve_types::{LeaderEpoch, Offset, ProducerId, Sequence, limits};

use crate::compress::Compression;
use crate::crc::crc32c;
use crate::error::BatchError;

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 61;
/// Bytes in front of those that the length field counts.
pub(crate) const LENGTH_OVERHEAD: usize = 12;
/// First byte that the checksum covers.
pub(crate) const CRC_START: usize = 21;

const MAGIC: i8 = 2;
const MIN_LENGTH: i32 = (HEADER_BYTES - LENGTH_OVERHEAD) as i32;
const MAX_LENGTH: i32 = (limits::BATCH_MAX_BYTES - LENGTH_OVERHEAD) as i32;

pub(crate) const ATTR_COMPRESSION: i16 = 0x07;
pub(crate) const ATTR_LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const ATTR_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTR_CONTROL: i16 = 0x20;
pub(crate) const ATTR_DELETE_HORIZON: i16 = 0x40;

/// Which clock the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The leader's, at the moment of the append; it is that of every record of the batch.
    LogAppendTime,
}

/// The parsed header. Its fields are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the batch's first record. 0 from a producer.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch. Producers send -1 or anything else; a negative
    /// value reads as 0, because a leader always overwrites it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: u32,
    /// Bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon (by compaction only).
    pub attributes: i16,
    /// Offset of the last record, relative to the base offset. Kept when records are compacted away.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas refer to, in milliseconds since the epoch; with bit 6 also when
    /// tombstones and markers may go.
    pub base_timestamp: i64,
    /// Largest timestamp of the batch, in milliseconds since the epoch.
    pub max_timestamp: i64,
    /// Id of an idempotent producer, or -1.
    pub producer_id: i64,
    /// Epoch of an idempotent producer, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Records of the batch.
    pub record_count: i32,
}

fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`, which may end anywhere after it. The checksum is not
    /// checked here.
    ///
    /// # Errors
    /// [`BatchError`] when there are fewer than 61 bytes, or a field is outside its range.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                needed: HEADER_BYTES,
                found: bytes.len(),
            });
        };
        let magic = head[16] as i8;
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let batch_length = i32::from_be_bytes(array(head, 8));
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&batch_length) {
            return Err(BatchError::Length {
                found: batch_length,
                min: MIN_LENGTH,
                max: MAX_LENGTH,
            });
        }
        let base = i64::from_be_bytes(array(head, 0));
        let delta = i32::from_be_bytes(array(head, 23));
        let base_offset = Self::check_offsets(base, delta)?;
        let header = Self {
            base_offset,
            batch_length,
            leader_epoch: LeaderEpoch::new(i32::from_be_bytes(array(head, 12))).unwrap_or_default(),
            crc: u32::from_be_bytes(array(head, 17)),
            attributes: i16::from_be_bytes(array(head, 21)),
            last_offset_delta: delta,
            base_timestamp: i64::from_be_bytes(array(head, 27)),
            max_timestamp: i64::from_be_bytes(array(head, 35)),
            producer_id: i64::from_be_bytes(array(head, 43)),
            producer_epoch: i16::from_be_bytes(array(head, 51)),
            base_sequence: i32::from_be_bytes(array(head, 53)),
            record_count: i32::from_be_bytes(array(head, 57)),
        };
        header.check_fields()?;
        Ok(header)
    }

    fn check_offsets(base: i64, delta: i32) -> Result<Offset, BatchError> {
        let in_range = delta >= 0 && base.checked_add(i64::from(delta) + 1).is_some();
        Offset::new(base)
            .filter(|_| in_range)
            .ok_or(BatchError::OffsetRange { base, delta })
    }

    fn check_fields(&self) -> Result<(), BatchError> {
        // Fewer records than offsets is what compaction leaves behind; more is impossible.
        let most = i64::from(self.last_offset_delta) + 1;
        if self.record_count < 0 || i64::from(self.record_count) > most {
            return Err(BatchError::RecordCount {
                count: self.record_count,
                delta: self.last_offset_delta,
                expected: "between 0 and delta + 1 records",
            });
        }
        Compression::from_bits(self.attributes & ATTR_COMPRESSION)?;
        Ok(())
    }

    /// Checks that the producer's fields agree: without an id (-1) the others mean nothing, and clients of the field
    /// leave 0 there; with one none is negative. Markers of the log itself have a producer and no sequence, so this is
    /// for batches of clients only.
    pub(crate) fn check_producer(&self) -> Result<(), BatchError> {
        let absent = self.producer_id == -1;
        let present = self.producer_id >= 0 && self.producer_epoch >= 0 && self.base_sequence >= 0;
        if absent || present {
            return Ok(());
        }
        Err(BatchError::Producer {
            id: self.producer_id,
            epoch: self.producer_epoch,
            sequence: self.base_sequence,
        })
    }

    /// The 61 bytes of this header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        head[0..8].copy_from_slice(&self.base_offset.get().to_be_bytes());
        head[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        head[12..16].copy_from_slice(&self.leader_epoch.get().to_be_bytes());
        head[16] = MAGIC as u8;
        head[17..21].copy_from_slice(&self.crc.to_be_bytes());
        head[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        head[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        head[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        head[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        head[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        head[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        head[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        head
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.batch_length as usize + LENGTH_OVERHEAD
    }

    /// Offset of the record after this batch.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }

    /// Offset of the batch's last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64)
    }

    /// The idempotent producer's session and the sequence of the first record.
    #[must_use]
    pub fn producer(&self) -> Option<(ProducerId, Sequence)> {
        let sequence = Sequence::new(self.base_sequence)?;
        let id = ProducerId {
            id: self.producer_id,
            epoch: self.producer_epoch,
        };
        (id.id >= 0).then_some((id, sequence))
    }

    /// The producer's session, also of a control batch, which has no sequence.
    #[must_use]
    pub const fn session(&self) -> Option<ProducerId> {
        if self.producer_id < 0 || self.producer_epoch < 0 {
            return None;
        }
        Some(ProducerId {
            id: self.producer_id,
            epoch: self.producer_epoch,
        })
    }

    /// The session of a batch of a transaction that has no sequence, as coordinators write for producers. `None`
    /// for any other, and for one that compaction has emptied.
    #[must_use]
    pub fn transaction_without_sequence(&self) -> Option<ProducerId> {
        let unsequenced = self.is_transactional() && !self.is_control() && self.base_sequence < 0;
        self.session()
            .filter(|_| unsequenced && self.record_count > 0)
    }

    /// The payload's codec.
    #[must_use]
    pub fn compression(&self) -> Compression {
        Compression::from_bits(self.attributes & ATTR_COMPRESSION).unwrap_or(Compression::None)
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & ATTR_TRANSACTIONAL != 0
    }

    /// Whether the batch holds markers of the log itself and no user records.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & ATTR_CONTROL != 0
    }

    /// Which clock the timestamps come from.
    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTR_LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }
}

/// Checks the stored batch at the start of `bytes`: header, presence of all its bytes, checksum. More
/// batches may follow.
///
/// # Errors
/// [`BatchError`] says what does not fit; [`BatchError::Truncated`] is a torn tail.
pub fn check_stored(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let size = header.size();
    let Some(batch) = bytes.get(..size) else {
        return Err(BatchError::Truncated {
            needed: size,
            found: bytes.len(),
        });
    };
    let computed = crc32c(&batch[CRC_START..]);
    if computed != header.crc {
        return Err(BatchError::Crc {
            stated: header.crc,
            computed,
        });
    }
    Ok(header)
}
