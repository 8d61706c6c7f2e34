//! `.index` and `.timeindex`: a 64-byte header that ties the file to one segment of one log, then entries of
//! fixed size, each with its own checksum. An entry's checksum also covers the segment's id and the entry's
//! number, so an entry that was written to the wrong place or comes from an older segment is not valid.

use varve_record::BatchHeader;
use varve_types::{LeaderEpoch, Offset};

use super::{FormatError, LogIdentity, Reader, Writer, unseal};

/// First bytes of an `.index` file.
pub const INDEX_MAGIC: &[u8; 8] = b"VARVEIDX";
/// First bytes of a `.timeindex` file.
pub const TIME_INDEX_MAGIC: &[u8; 8] = b"VARVETIX";
/// Bytes of the header of both.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an `.index` entry.
pub const ENTRY_BYTES: usize = 64;
/// Bytes of a `.timeindex` entry.
pub const TIME_ENTRY_BYTES: usize = 24;

/// The header of an index file: which segment it describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Unique number of the segment in its log; never used twice.
    pub segment_id: u64,
    /// Offset of the segment's first record.
    pub base_offset: Offset,
    /// When the segment was begun, in milliseconds since 1970 by the server's clock.
    pub created_ms: i64,
}

impl SegmentHeader {
    /// The 64 bytes.
    #[must_use]
    pub fn encode(&self, magic: &[u8; 8], identity: &LogIdentity) -> Vec<u8> {
        let mut w = Writer::file(*magic, identity);
        w.u64(self.segment_id);
        w.i64(self.base_offset.get());
        w.i64(self.created_ms);
        w.u32(0);
        let bytes = w.seal();
        assert_eq!(
            bytes.len(),
            HEADER_BYTES,
            "an index header has {HEADER_BYTES} bytes"
        );
        bytes
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`FormatError`] says what does not fit.
    pub fn decode(
        magic: &[u8; 8],
        identity: &LogIdentity,
        bytes: &[u8],
    ) -> Result<Self, FormatError> {
        let short = FormatError::Length {
            needed: HEADER_BYTES,
            found: bytes.len(),
        };
        let head = bytes.get(..HEADER_BYTES).ok_or_else(|| short.clone())?;
        let mut r = unseal(*magic, identity, head)?;
        let fields = (|| Some((r.u64()?, r.i64()?, r.i64()?, r.u32()?)))();
        let (segment_id, base, created_ms, reserved) = fields.ok_or(short)?;
        if reserved != 0 {
            return Err(FormatError::Value("reserved bytes are not 0"));
        }
        let base_offset = Offset::new(base).ok_or(FormatError::Value("negative base offset"))?;
        Ok(Self {
            segment_id,
            base_offset,
            created_ms,
        })
    }
}

/// An `.index` entry: the companion of a run of batches. It lies beside them and says where they are, whose
/// they are, and, by being there, that they were flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Companion {
    /// Offset of the first record of the run.
    pub first: Offset,
    /// Offset after its last record.
    pub next: Offset,
    /// Byte position of the run in the `.log` file.
    pub position: u64,
    /// Byte position after the run.
    pub end: u64,
    /// Largest timestamp from the segment's start to `end`, in milliseconds.
    pub max_timestamp: i64,
    /// Largest leader epoch of the run.
    pub max_epoch: LeaderEpoch,
    /// Batches of the run.
    pub batches: u32,
    /// Running CRC over all batches from the segment's start to `end`: see [`chain_step`].
    pub chain: u32,
}

fn entry_crc(segment_id: u64, number: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment_id.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

impl Companion {
    /// The 64 bytes of entry `number` (from 0) of the segment.
    #[must_use]
    pub fn encode(&self, segment_id: u64, number: u32) -> [u8; ENTRY_BYTES] {
        let mut w = Writer(Vec::with_capacity(ENTRY_BYTES));
        w.i64(self.first.get());
        w.i64(self.next.get());
        w.u64(self.position);
        w.u64(self.end);
        w.i64(self.max_timestamp);
        w.i32(self.max_epoch.get());
        w.u32(self.batches);
        w.u32(self.chain);
        w.u64(0);
        let crc = entry_crc(segment_id, number, &w.0);
        w.u32(crc);
        let mut entry = [0; ENTRY_BYTES];
        entry.copy_from_slice(&w.0);
        entry
    }

    /// Reads entry `number`; `None` when it is damaged, misplaced or of another segment.
    #[must_use]
    pub fn decode(bytes: &[u8], segment_id: u64, number: u32) -> Option<Self> {
        let body = bytes.get(..ENTRY_BYTES - 4)?;
        let crc = Reader(bytes.get(ENTRY_BYTES - 4..)?).u32()?;
        if crc != entry_crc(segment_id, number, body) {
            return None;
        }
        let mut r = Reader(body);
        let entry = Self {
            first: Offset::new(r.i64()?)?,
            next: Offset::new(r.i64()?)?,
            position: r.u64()?,
            end: r.u64()?,
            max_timestamp: r.i64()?,
            max_epoch: LeaderEpoch::new(r.i32()?)?,
            batches: r.u32()?,
            chain: r.u32()?,
        };
        if r.u64()? != 0 {
            return None;
        }
        (entry.first < entry.next && entry.position < entry.end).then_some(entry)
    }
}

/// The running CRC before a segment's first batch. It already binds topic, partition and segment.
#[must_use]
pub fn chain_start(identity: &LogIdentity, segment_id: u64, base_offset: Offset) -> u32 {
    let header = SegmentHeader {
        segment_id,
        base_offset,
        created_ms: 0,
    };
    crc32fast::hash(&header.encode(INDEX_MAGIC, identity))
}

/// The running CRC after one more batch at `position`. It covers the batch's place, length, epoch and the
/// CRC-32C of its content, so any other batch in its place, even a good one, breaks the chain.
#[must_use]
pub fn chain_step(chain: u32, header: &BatchHeader, position: u64) -> u32 {
    let mut bytes = [0u8; 36];
    bytes[0..4].copy_from_slice(&chain.to_le_bytes());
    bytes[4..12].copy_from_slice(&position.to_le_bytes());
    bytes[12..20].copy_from_slice(&header.base_offset.get().to_le_bytes());
    bytes[20..24].copy_from_slice(&header.leader_epoch.get().to_le_bytes());
    bytes[24..28].copy_from_slice(&header.batch_length.to_le_bytes());
    bytes[28..32].copy_from_slice(&header.last_offset_delta.to_le_bytes());
    bytes[32..36].copy_from_slice(&header.crc.to_le_bytes());
    crc32fast::hash(&bytes)
}

/// A `.timeindex` entry. No record before `offset` in this segment has a timestamp of `timestamp` or more,
/// and the run that begins at `offset` has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    /// Largest timestamp from the segment's start to the end of the run at `offset`, in milliseconds.
    pub timestamp: i64,
    /// First offset of the run that raised it.
    pub offset: Offset,
    /// Byte position of that run in the `.log` file.
    pub position: u32,
}

impl TimeEntry {
    /// The 24 bytes of entry `number` (from 0) of the segment.
    #[must_use]
    pub fn encode(&self, segment_id: u64, number: u32) -> [u8; TIME_ENTRY_BYTES] {
        let mut w = Writer(Vec::with_capacity(TIME_ENTRY_BYTES));
        w.i64(self.timestamp);
        w.i64(self.offset.get());
        w.u32(self.position);
        let crc = entry_crc(segment_id, number, &w.0);
        w.u32(crc);
        let mut entry = [0; TIME_ENTRY_BYTES];
        entry.copy_from_slice(&w.0);
        entry
    }

    /// Reads entry `number`; `None` when it is damaged, misplaced or of another segment.
    #[must_use]
    pub fn decode(bytes: &[u8], segment_id: u64, number: u32) -> Option<Self> {
        let body = bytes.get(..TIME_ENTRY_BYTES - 4)?;
        let crc = Reader(bytes.get(TIME_ENTRY_BYTES - 4..)?).u32()?;
        if crc != entry_crc(segment_id, number, body) {
            return None;
        }
        let mut r = Reader(body);
        Some(Self {
            timestamp: r.i64()?,
            offset: Offset::new(r.i64()?)?,
            position: r.u32()?,
        })
    }
}
