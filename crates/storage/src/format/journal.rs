//! The layout of a journal file: a header page, then groups of records, each group padded to whole pages.
//! Encoding and decoding only. What a change here must come with is in `FORMAT.md`.

use varve_types::{Offset, PartitionId, TopicId};

use super::{FormatError, LogIdentity, Reader, VERSION, Writer};

/// First bytes of a journal file.
pub const JOURNAL_MAGIC: [u8; 8] = *b"VARVEJNL";
/// First bytes of a group.
pub const GROUP_MAGIC: [u8; 4] = *b"VJG1";
/// Groups begin at multiples of this many bytes, so that a write never has to read what is around it.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a group's own fields.
pub const GROUP_HEADER_BYTES: usize = 48;
/// Bytes of one record's row in the table of a group.
pub const ROW_BYTES: usize = 72;
/// Bytes of a file header, its checksum included.
const FILE_HEADER_BYTES: usize = 48;

/// Whose journal a file is part of, and which file of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFileHeader {
    /// Identity of the data directory.
    pub owner: u128,
    /// Number of the file, as in its name.
    pub file: u32,
    /// Length of the file in bytes.
    pub file_bytes: u64,
}

impl JournalFileHeader {
    /// The first page of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(PAGE_BYTES as usize));
        w.0.extend_from_slice(&JOURNAL_MAGIC);
        w.u32(VERSION);
        w.0.extend_from_slice(&self.owner.to_be_bytes());
        w.u32(self.file);
        w.u64(self.file_bytes);
        w.u32(0);
        let mut page = w.seal();
        debug_assert_eq!(page.len(), FILE_HEADER_BYTES);
        page.resize(PAGE_BYTES as usize, 0);
        page
    }

    /// Reads the first page of a file.
    ///
    /// # Errors
    /// [`FormatError`] for anything that [`JournalFileHeader::encode`] did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let short = FormatError::Length {
            needed: FILE_HEADER_BYTES,
            found: bytes.len(),
        };
        let header = bytes.get(..FILE_HEADER_BYTES).ok_or(short.clone())?;
        let (body, crc) = header.split_last_chunk::<4>().ok_or(short.clone())?;
        let mut r = Reader(body);
        let found = r.take(8).ok_or(short.clone())?;
        if found != JOURNAL_MAGIC {
            return Err(FormatError::Magic {
                expected: "VARVEJNL",
                found: found.to_vec(),
            });
        }
        let found = r.u32().ok_or(short.clone())?;
        if found != VERSION {
            return Err(FormatError::Version { found });
        }
        let (stated, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
        if stated != computed {
            return Err(FormatError::Checksum { stated, computed });
        }
        let owner: [u8; 16] = r.array().ok_or(short.clone())?;
        Ok(Self {
            owner: u128::from_be_bytes(owner),
            file: r.u32().ok_or(short.clone())?,
            file_bytes: r.u64().ok_or(short)?,
        })
    }
}

/// Where a group is: its checksum covers this, so a group in another place or of another journal is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// Identity of the data directory.
    pub owner: u128,
    /// Number of the file.
    pub file: u32,
    /// Byte position in the file.
    pub position: u64,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// Batches of one segment, back to back.
    Batches,
    /// The segment file is synced up to the position, and acknowledgements past it follow the journal alone.
    Follows,
    /// Acknowledgements may follow syncs of the segment files too, until the next record of the log.
    Leaves,
    /// All records of the log before this one are void.
    Void,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What the record says.
    pub kind: RowKind,
    /// The log.
    pub identity: LogIdentity,
    /// The segment.
    pub segment_id: u64,
    /// Its first offset.
    pub segment_base: Offset,
    /// Where the batches belong in its `.log` file.
    pub position: u64,
    /// Offset of the first record.
    pub first: Offset,
    /// Bytes of the batches.
    pub bytes: u32,
    /// Number of batches.
    pub batches: u32,
    /// The running CRC of `.index` entries, begun anew for this record: it covers each batch's place, offset,
    /// leader epoch, length and CRC-32C.
    pub chain: u32,
}

/// A group without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Counted up by one. A group is written only after the one before was synced.
    pub number: u64,
    /// The lowest number that is still needed: what is below is in the segment files, synced.
    pub live_from: u64,
    /// The records; their batches follow each other in this order.
    pub rows: Vec<Row>,
}

impl Group {
    /// Bytes of the batches.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.rows.iter().map(|r| u64::from(r.bytes)).sum()
    }

    /// Bytes before the batches.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        (GROUP_HEADER_BYTES + self.rows.len() * ROW_BYTES) as u64
    }

    /// Bytes in the file, padding included.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.head_bytes() + self.payload_bytes()).next_multiple_of(PAGE_BYTES)
    }

    /// Header and table.
    #[must_use]
    pub fn encode(&self, place: GroupPlace) -> Vec<u8> {
        let mut table = Writer(Vec::with_capacity(self.rows.len() * ROW_BYTES));
        for row in &self.rows {
            let topic = row.identity.topic_id.0.to_be_bytes();
            table.0.extend_from_slice(&topic);
            table.i32(row.identity.partition.0);
            table.u32(row.batches);
            table.u64(row.segment_id);
            table.i64(row.segment_base.get());
            table.u64(row.position);
            table.i64(row.first.get());
            table.u32(row.bytes);
            table.u32(row.chain);
            table.u32(match row.kind {
                RowKind::Batches => 1,
                RowKind::Follows => 2,
                RowKind::Leaves => 3,
                RowKind::Void => 4,
            });
            table.u32(0);
        }
        let mut w = Writer(Vec::with_capacity(self.head_bytes() as usize));
        w.0.extend_from_slice(&GROUP_MAGIC);
        w.u32(self.rows.len() as u32);
        w.u64(self.number);
        w.u64(self.live_from);
        w.u64(self.payload_bytes());
        w.u64(0);
        w.u32(0);
        let crc = group_crc(place, &w.0, &table.0);
        w.u32(crc);
        w.0.extend_from_slice(&table.0);
        w.0
    }

    /// Number of records that the header at the start of `bytes` states; `None` if it is no header. Nothing
    /// is verified yet: it says how many bytes [`Group::decode`] needs.
    #[must_use]
    pub fn rows_stated(bytes: &[u8]) -> Option<u32> {
        let mut r = Reader(bytes.get(..GROUP_HEADER_BYTES)?);
        (r.take(4)? == GROUP_MAGIC).then_some(())?;
        r.u32()
    }

    /// Reads header and table; `None` when they are damaged, or of another place or journal.
    #[must_use]
    pub fn decode(bytes: &[u8], place: GroupPlace) -> Option<Self> {
        let count = Self::rows_stated(bytes)? as usize;
        let (header, rest) = bytes.split_at_checked(GROUP_HEADER_BYTES)?;
        let table = rest.get(..count.checked_mul(ROW_BYTES)?)?;
        let (body, crc) = header.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != group_crc(place, body, table) {
            return None;
        }
        let mut r = Reader(body.get(8..)?);
        let (number, live_from, payload) = (r.u64()?, r.u64()?, r.u64()?);
        let mut rows = Vec::with_capacity(count);
        let mut r = Reader(table);
        for _ in 0..count {
            rows.push(decode_row(&mut r)?);
        }
        let group = Self {
            number,
            live_from,
            rows,
        };
        (group.payload_bytes() == payload && live_from <= number).then_some(group)
    }
}

fn decode_row(r: &mut Reader<'_>) -> Option<Row> {
    let topic_id = TopicId(u128::from_be_bytes(r.array()?));
    let partition = PartitionId(r.i32()?);
    let batches = r.u32()?;
    let mut row = Row {
        kind: RowKind::Batches,
        identity: LogIdentity {
            topic_id,
            partition,
        },
        segment_id: r.u64()?,
        segment_base: Offset::new(r.i64()?)?,
        position: r.u64()?,
        first: Offset::new(r.i64()?)?,
        bytes: r.u32()?,
        batches,
        chain: r.u32()?,
    };
    row.kind = match r.u32()? {
        1 => RowKind::Batches,
        2 => RowKind::Follows,
        3 => RowKind::Leaves,
        4 => RowKind::Void,
        _ => return None,
    };
    r.u32()?;
    let empty = row.bytes == 0 && row.batches == 0;
    (empty == (row.kind != RowKind::Batches)).then_some(row)
}

fn group_crc(place: GroupPlace, header: &[u8], table: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place.owner.to_be_bytes());
    crc.update(&place.file.to_le_bytes());
    crc.update(&place.position.to_le_bytes());
    crc.update(header);
    crc.update(table);
    crc.finalize()
}
