//! Bytes of the records of `__consumer_offsets`: committed offsets in Kafka's layouts, so that the
//! field's own tools can read the topic, and membership in layouts of our own. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error value for anything else, never a panic), and what is
//! decoded encodes to the same bytes. Never knows where the bytes are kept.

mod classic;
mod embedded;
mod member;
mod offset;
mod wire;

use varve_types::{GroupName, MemberId, PartitionId, TopicPartition, partitioner};

pub use classic::{
    CLASSIC_KEY_VERSION, CLASSIC_VALUE_VERSION, ClassicMemberRecord, ClassicRecord, decode_classic,
    encode_classic, encode_classic_key,
};
pub(crate) use embedded::answer_version;
pub use embedded::{
    ByTopic, CONSUMER_PROTOCOL, EMBEDDED_VERSION, EmbeddedAssignment, EmbeddedSubscription,
    by_topic, decode_assignment, decode_subscription, encode_assignment, encode_subscription,
    partition_set,
};
pub use member::{
    CLASSIC_MEMBER_VALUE_VERSION, GROUP_KEY_VERSION, GROUP_VALUE_VERSION, GroupRecord,
    MEMBER_KEY_VERSION, MEMBER_VALUE_VERSION, MemberRecord, decode_group, decode_member,
    encode_group, encode_group_key, encode_member, encode_member_key,
};
pub(crate) use wire::cut;

pub use offset::{KEY_VERSION, VALUE_VERSION, decode_key, decode_value, encode_key, encode_value};

/// Why a record of `__consumer_offsets` was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early.
    #[error("the {what} ends inside {field}")]
    Short {
        /// Which part of which record.
        what: &'static str,
        /// Field that was being read.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("the {what} has {extra} bytes too many")]
    Trailing {
        /// Which part of which record.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A version this program does not know.
    #[error(
        "the {what} has version {found}, but this program reads version {known}; a newer program \
         wrote it, or it is a record of another kind"
    )]
    Version {
        /// Which part of which record.
        what: &'static str,
        /// Version found.
        found: i16,
        /// Version understood.
        known: i16,
    },
    /// A field holds what it cannot.
    #[error("the {field} of a record is not valid: {why}")]
    Field {
        /// Field.
        field: &'static str,
        /// Why.
        why: String,
    },
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A committed offset.
    Offset(GroupName, TopicPartition),
    /// A group that speaks the classic protocol.
    Classic(GroupName),
    /// A group as such.
    Group(GroupName),
    /// A member of a group.
    Member(GroupName, MemberId),
}

/// What the record of a key is about, by the version the key begins with.
///
/// # Errors
/// [`CodecError`] for anything that no `encode_..._key` writes.
pub fn decode_any_key(bytes: &[u8]) -> Result<Key, CodecError> {
    match bytes.first_chunk::<2>().map(|v| i16::from_be_bytes(*v)) {
        Some(CLASSIC_KEY_VERSION) => classic::decode_classic_key(bytes).map(Key::Classic),
        Some(GROUP_KEY_VERSION) => member::decode_group_key(bytes).map(Key::Group),
        Some(MEMBER_KEY_VERSION) => {
            member::decode_member_key(bytes).map(|(group, member)| Key::Member(group, member))
        }
        _ => decode_key(bytes).map(|(group, partition)| Key::Offset(group, partition)),
    }
}

/// Partition of `__consumer_offsets` that holds a group: Kafka's `abs(hash(group)) % partitions`, where
/// the hash is that of a Java string.
///
/// # Panics
/// When `partitions` is not positive.
#[must_use]
pub fn partition_of(group: &GroupName, partitions: i32) -> PartitionId {
    partitioner::coordinator_partition(group.as_str(), partitions)
}
