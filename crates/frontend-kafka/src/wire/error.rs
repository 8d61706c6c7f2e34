//! What can be wrong with a message, as values that say which message, which field, and where.

use thiserror::Error;

/// Bytes that are not the message they should be. Nothing was done with them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} v{version}: field {field:?} at byte {offset}: {fault}")]
pub struct DecodeError {
    /// The message, such as `Produce request`.
    pub message: &'static str,
    /// Its version.
    pub version: i16,
    /// The path to the field, such as `topic_data.name`; empty for the message as a whole.
    pub field: String,
    /// Bytes of the body before the fault.
    pub offset: usize,
    /// The cause.
    pub fault: DecodeFault,
}

impl DecodeError {
    /// The same, found while reading a part of `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.field = join(field, &self.field);
        self
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeFault {
    /// The frame ends inside the field.
    #[error("it needs {needed} bytes, but {left} are left")]
    CutOff {
        /// Bytes that the field takes.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A length below the one that stands for null.
    #[error("length {0} is negative")]
    NegativeLength(i64),
    /// More elements than can be there in the bytes that are left.
    #[error("{count} elements of at least {least} bytes are announced, but {left} bytes are left")]
    CountTooLarge {
        /// Elements announced.
        count: usize,
        /// Fewest bytes of one element.
        least: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The message would take more memory than a frame of its length may.
    #[error("it needs {wanted} bytes of memory, but {left} are left for a frame of this length")]
    Memory {
        /// Bytes that the array would take in memory.
        wanted: usize,
        /// What is left of the frame's share.
        left: usize,
    },
    /// Null where this version has no null.
    #[error("null is not allowed here in this version")]
    Null,
    /// A varint that does not fit 32 bits.
    #[error("the varint does not fit in 32 bits")]
    Varint,
    /// Tags that do not ascend: one is there twice, or they are out of order.
    #[error("tag {tag} is not in ascending order")]
    TagOrder {
        /// The tag.
        tag: u32,
    },
    /// A tagged field that is shorter or longer than it said.
    #[error("tag {tag} announced {announced} bytes but has {read}")]
    TagLength {
        /// The tag.
        tag: u32,
        /// Bytes that it announced.
        announced: usize,
        /// Bytes that its value took.
        read: usize,
    },
    /// Neither null nor present.
    #[error("{0} is neither 1 (present) nor -1 (null)")]
    Presence(i8),
    /// Bytes after the end of the message.
    #[error("{0} bytes are left over")]
    Trailing(usize),
}

/// A message that its version cannot say. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} v{version}: field {field:?}: {fault}")]
pub struct EncodeError {
    /// The message, such as `Fetch response`.
    pub message: &'static str,
    /// Its version.
    pub version: i16,
    /// The path to the field.
    pub field: String,
    /// The cause.
    pub fault: EncodeFault,
}

impl EncodeError {
    /// The same, found while writing a part of `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.field = join(field, &self.field);
        self
    }
}

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeFault {
    /// The field has a value and this version does not have the field.
    #[error("it is set, but this version does not have it")]
    NotInVersion,
    /// Null where this version has no null.
    #[error("null is not allowed here in this version")]
    Null,
    /// Longer than its length can say.
    #[error("it has {length} bytes or elements; the limit is {most}")]
    TooLong {
        /// Bytes or elements.
        length: usize,
        /// The most that the field can hold.
        most: usize,
    },
    /// There is no such version.
    #[error("this version does not exist")]
    NoSuchVersion,
}

fn join(outer: &str, inner: &str) -> String {
    if inner.is_empty() {
        outer.to_owned()
    } else {
        format!("{outer}.{inner}")
    }
}
