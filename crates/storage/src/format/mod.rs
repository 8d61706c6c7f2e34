//! The byte layouts of every file beside the batches themselves: nothing but encoding and decoding. What
//! a change here must come with is in `FORMAT.md`, which records a checksum of these sources.
//!
//! All integers are little-endian. Every file starts with an 8-byte magic, a format version, the topic id
//! and the partition, so that a file that ends up in another directory is told from one that belongs there.

mod index;
mod journal;
mod lists;

pub use index::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, SegmentHeader, TIME_ENTRY_BYTES,
    TIME_INDEX_MAGIC, TimeEntry, chain_start, chain_step,
};
pub use journal::{
    GROUP_HEADER_BYTES, GROUP_MAGIC, Group, GroupPlace, JOURNAL_MAGIC, JournalFileHeader,
    PAGE_BYTES, ROW_BYTES, Row, RowKind,
};
pub use lists::{
    CompactedSegment, ListedSegment, Manifest, decode_epochs, decode_snapshot, encode_epochs,
    encode_snapshot,
};

use varve_types::{PartitionId, TopicId};

/// Version of every layout in this module, but for a manifest that knows of compaction.
pub const VERSION: u32 = 1;
/// Version of the manifest of a log that was compacted.
pub const MANIFEST_VERSION: u32 = 2;
/// Bytes in front of a file's own fields: magic, version, topic id, partition.
pub const PREFIX_BYTES: usize = 32;

/// Whose files these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogIdentity {
    /// The topic, by id: a topic that is deleted and created again is another one.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
}

impl std::fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {} partition {}", self.topic_id, self.partition)
    }
}

/// Why the bytes of a file were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the layout has.
    #[error("{found} bytes, but the layout has {needed}")]
    Length {
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
    /// Another kind of file.
    #[error("the magic is {found:02x?}, expected {expected:?}")]
    Magic {
        /// What the file should start with.
        expected: &'static str,
        /// What it starts with.
        found: Vec<u8>,
    },
    /// Written by a newer program.
    #[error("format version {found} is newer than this program can read")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// Damaged.
    #[error("the checksum is {computed:08x}, but the header states {stated:08x}")]
    Checksum {
        /// As the file says.
        stated: u32,
        /// As the bytes say.
        computed: u32,
    },
    /// A good file of another log.
    #[error("it belongs to {found}")]
    Foreign {
        /// Whose it is.
        found: LogIdentity,
    },
    /// A good checksum over a value that makes no sense.
    #[error("{0}")]
    Value(&'static str),
}

/// Appends fields to a buffer.
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// Starts a file.
    pub(crate) fn file(magic: [u8; 8], identity: &LogIdentity) -> Self {
        Self::file_of(VERSION, magic, identity)
    }

    /// Starts a file of another version.
    pub(crate) fn file_of(version: u32, magic: [u8; 8], identity: &LogIdentity) -> Self {
        let mut w = Self(Vec::with_capacity(128));
        w.0.extend_from_slice(&magic);
        w.u32(version);
        w.0.extend_from_slice(&identity.topic_id.0.to_be_bytes());
        w.i32(identity.partition.0);
        w
    }

    pub(crate) fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, v: i32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, v: i64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    /// Ends with the CRC-32 of all bytes before it.
    pub(crate) fn seal(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0);
        self.u32(crc);
        self.0
    }
}

/// Takes fields from the front of a slice. Each take is `None` past the end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

/// Magic as text for messages.
fn magic_text(magic: [u8; 8]) -> &'static str {
    match &magic {
        INDEX_MAGIC => "VARVEIDX",
        TIME_INDEX_MAGIC => "VARVETIX",
        lists::MANIFEST_MAGIC => "VARVEMAN",
        lists::EPOCHS_MAGIC => "VARVEEPO",
        _ => "VARVESNP",
    }
}

/// Checks checksum, magic, version and identity of a sealed file; returns its own fields.
pub(crate) fn unseal<'a>(
    magic: [u8; 8],
    identity: &LogIdentity,
    bytes: &'a [u8],
) -> Result<Reader<'a>, FormatError> {
    let short = FormatError::Length {
        needed: PREFIX_BYTES + 4,
        found: bytes.len(),
    };
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| short.clone())?;
    let mut reader = Reader(body);
    let found = reader.take(8).ok_or_else(|| short.clone())?;
    if found != magic {
        return Err(FormatError::Magic {
            expected: magic_text(magic),
            found: found.to_vec(),
        });
    }
    // The version comes before the checksum: a newer layout may place its checksum elsewhere.
    let found = reader.u32().ok_or_else(|| short.clone())?;
    let newest = if &magic == lists::MANIFEST_MAGIC {
        MANIFEST_VERSION
    } else {
        VERSION
    };
    if !(VERSION..=newest).contains(&found) {
        return Err(FormatError::Version { found });
    }
    let (stated, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
    if stated != computed {
        return Err(FormatError::Checksum { stated, computed });
    }
    let topic_id: [u8; 16] = reader.array().ok_or_else(|| short.clone())?;
    let partition = reader.i32().ok_or(short)?;
    let found = LogIdentity {
        topic_id: TopicId(u128::from_be_bytes(topic_id)),
        partition: PartitionId(partition),
    };
    if found != *identity {
        return Err(FormatError::Foreign { found });
    }
    Ok(reader)
}

/// The identity a sealed file states, without asking whose it should be. `None` when it is damaged.
#[must_use]
pub fn identity_of(bytes: &[u8]) -> Option<LogIdentity> {
    let magic: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let mut reader = Reader(bytes.get(12..PREFIX_BYTES)?);
    let topic_id: [u8; 16] = reader.array()?;
    let partition = PartitionId(reader.i32()?);
    let identity = LogIdentity {
        topic_id: TopicId(u128::from_be_bytes(topic_id)),
        partition,
    };
    unseal(magic, &identity, bytes).ok().map(|_| identity)
}
