//! What can be wrong with a batch, with what was expected and what was found.

use varve_types::ErrorKind;

use crate::compress::Compression;

/// What is wrong with one record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The record runs past the end of the batch's payload.
    #[error("it runs past the end of the payload")]
    Truncated,
    /// A field runs past the end of the record, or a varint does not fit.
    #[error("its field `{0}` is cut off or out of range")]
    Field(&'static str),
    /// The record has bytes left after its last field.
    #[error("{0} bytes are left after its last field")]
    TrailingBytes(usize),
    /// Record attributes are unused and must be 0.
    #[error("its attributes are {0}, expected 0")]
    Attributes(u8),
    /// The offset delta is not the record's index.
    #[error("its offset delta is {found}, expected {expected}")]
    OffsetDelta {
        /// The record's index in the batch.
        expected: i32,
        /// What the record states.
        found: i32,
    },
    /// The timestamp passes the range of 64 bits.
    #[error("its timestamp is out of range")]
    Timestamp,
}

/// What is wrong with one message of a set of magic 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// Fewer bytes than its size field says, or than there are before that field ends.
    #[error("it is cut off: {needed} bytes needed, {found} found")]
    Truncated {
        /// Bytes needed, from its offset on.
        needed: usize,
        /// Bytes present.
        found: usize,
    },
    /// The size field says less than the fields take.
    #[error("its size field is {0}, which is less than its fields take")]
    Size(i32),
    /// The checksum does not match.
    #[error("its CRC-32 is {computed:#010x}, but it states {stated:#010x}")]
    Crc {
        /// What the message states.
        stated: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A format other than magic 0 and 1.
    #[error("it has magic {0}; a message set has messages of magic 0 or 1 only")]
    Magic(i8),
    /// A message within another is of another format than that.
    #[error("it has magic {found} inside a message of magic {outer}")]
    OtherMagic {
        /// The message's.
        found: u8,
        /// That of the message around it.
        outer: u8,
    },
    /// A codec that messages do not have.
    #[error("it names compression codec {0}; messages have 0 to 3")]
    Codec(u8),
    /// A compressed message within a compressed message.
    #[error("it is a compressed message inside a compressed message")]
    Nested,
    /// A compressed message wraps no message.
    #[error("it is compressed but contains no messages")]
    Wraps,
    /// A field runs past the end of the message.
    #[error("its field `{0}` is cut off or out of range")]
    Field(&'static str),
    /// The message has bytes left after its last field.
    #[error("{0} bytes are left after its last field")]
    TrailingBytes(usize),
    /// A time before the epoch that is not the word for none.
    #[error("its timestamp is {0}, before the Unix epoch")]
    Timestamp(i64),
    /// Only a leader stamps.
    #[error("a producer must not set its log append time bit")]
    LogAppendTime,
}

/// Why a batch is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the batch's length field says.
    #[error("the batch is cut off: {needed} bytes needed, {found} found")]
    Truncated {
        /// Bytes needed, header included.
        needed: usize,
        /// Bytes present.
        found: usize,
    },
    /// Bytes after the end of the batch where exactly one batch is expected.
    #[error("{0} bytes follow the batch; exactly one batch is expected")]
    TrailingBytes(usize),
    /// A format other than record batch v2.
    #[error("the batch has magic {0}; only magic 2 (record batch v2) is supported")]
    Magic(i8),
    /// The length field is outside its range.
    #[error("the batch length field is {found}, expected {min} to {max}")]
    Length {
        /// What the field says.
        found: i32,
        /// Least value.
        min: i32,
        /// Largest value.
        max: i32,
    },
    /// The batch exceeds the limit in bytes.
    #[error("the batch has {found} bytes, at most {max} are allowed")]
    TooLarge {
        /// Size in bytes, header included.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The batch exceeds the limit in records.
    #[error("the batch has {found} records, at most {max} are allowed")]
    TooManyRecords {
        /// Records stated.
        found: i32,
        /// The limit.
        max: u32,
    },
    /// The base offset or last offset delta is negative, or their sum overflows.
    #[error(
        "the batch has base offset {base} and last offset delta {delta}, which is out of range"
    )]
    OffsetRange {
        /// Base offset field.
        base: i64,
        /// Last offset delta field.
        delta: i32,
    },
    /// The record count does not match the last offset delta, or is not positive where it must be.
    #[error("the batch has {count} records and last offset delta {delta}; expected {expected}")]
    RecordCount {
        /// Record count field.
        count: i32,
        /// Last offset delta field.
        delta: i32,
        /// The rule that is broken.
        expected: &'static str,
    },
    /// The checksum does not match.
    #[error("the batch's CRC-32C is {computed:#010x}, but its header states {stated:#010x}")]
    Crc {
        /// What the header states.
        stated: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Attribute bits 0-2 name no codec.
    #[error("the batch has compression codec {0}, which does not exist")]
    UnknownCompression(u8),
    /// An attribute that a producer may not set (log append time, transactional, control, unknown).
    #[error("the batch has attributes {found:#06x}: a producer must not set {what}")]
    Attributes {
        /// The attribute bits.
        found: i16,
        /// The one that is not allowed.
        what: &'static str,
    },
    /// Producer id, epoch and sequence contradict each other.
    #[error(
        "producer id {id}, epoch {epoch} and sequence {sequence} do not match: either all are -1 \
         (the sequence may be 0) or none is negative"
    )]
    Producer {
        /// Producer id field.
        id: i64,
        /// Producer epoch field.
        epoch: i16,
        /// Base sequence field.
        sequence: i32,
    },
    /// A transaction is a producer's; this batch names none.
    #[error("the batch is transactional but has no producer id")]
    TransactionWithoutProducer,
    /// The payload does not decompress.
    #[error("the {codec} payload cannot be decompressed: {reason}")]
    Decompress {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The payload does not compress.
    #[error("the payload cannot be compressed with {codec}: {reason}")]
    Compress {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The payload decompresses to more than the limit.
    #[error("the {codec} payload decompresses to more than {max} bytes")]
    DecompressedTooLarge {
        /// The codec.
        codec: Compression,
        /// The limit.
        max: usize,
    },
    /// One record is wrong.
    #[error("record {index} of the batch is not valid: {fault}")]
    Record {
        /// Its index, from 0.
        index: u32,
        /// What is wrong.
        fault: RecordFault,
    },
    /// One message of a set of an old format is wrong.
    #[error("message {index} of the set is not valid: {fault}")]
    Message {
        /// Its index, from 0; of a message that wraps others, that of the first of them.
        index: u32,
        /// What is wrong.
        fault: MessageFault,
    },
    /// The payload has bytes after the last record.
    #[error("{0} bytes follow the last record of the batch")]
    PayloadTrailingBytes(usize),
    /// The header's largest timestamp is not that of the records.
    #[error("the batch has max timestamp {stated}, but the maximum of its records is {found}")]
    MaxTimestamp {
        /// What the header states.
        stated: i64,
        /// Largest timestamp of the records.
        found: i64,
    },
    /// There is no batch without records.
    #[error("a batch needs at least one record")]
    Empty,
}

impl BatchError {
    /// The kind a caller of the public API sees.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. }
            | Self::TooManyRecords { .. }
            | Self::DecompressedTooLarge { .. } => ErrorKind::BatchTooLarge,
            Self::Record {
                fault: RecordFault::Timestamp,
                ..
            }
            | Self::Message {
                fault: MessageFault::Timestamp(_) | MessageFault::LogAppendTime,
                ..
            } => ErrorKind::InvalidRecord,
            _ => ErrorKind::CorruptBatch,
        }
    }
}
