//! Words of the protocol to words of `broker-api` and back. Pure: no broker is asked here.

pub mod bulk;
pub mod classic;
pub mod error;
pub mod group;
pub mod names;
pub mod refusal;

use varve_broker_api::Error;
use varve_types::{ErrorKind, LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

pub use error::{code, name_code};

use crate::wire::{ErrorCode, Text, Uuid};

/// `host:port` in its parts; the host without the brackets of an IPv6 address.
#[must_use]
pub fn host_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// A topic's name.
///
/// # Errors
/// The protocol's error for names that no topic can have.
pub fn topic_name(name: &Text) -> Result<TopicName, ErrorCode> {
    TopicName::new(name.as_str()).map_err(|_| ErrorCode::InvalidTopicException)
}

/// A partition's number; `None`: none can have it.
#[must_use]
pub const fn partition(number: i32) -> Option<PartitionId> {
    if number < 0 {
        return None;
    }
    Some(PartitionId(number))
}

/// An epoch of a leader; `None`: the client does not say.
#[must_use]
pub const fn epoch(number: i32) -> Option<LeaderEpoch> {
    LeaderEpoch::new(number)
}

/// An id on the wire.
#[must_use]
pub const fn uuid(id: TopicId) -> Uuid {
    Uuid(id.0)
}

/// Bytes that a client asks for.
#[must_use]
pub fn size(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

/// A value that the broker's error mentions.
#[must_use]
pub fn mentioned<T: std::str::FromStr>(error: &Error, key: &str) -> Option<T> {
    let found = error.metadata.iter().find(|(k, _)| *k == key);
    found.and_then(|(_, value)| value.parse().ok())
}

/// An offset that an out-of-range error mentions.
#[must_use]
pub fn mentioned_offset(error: &Error, key: &str) -> Option<Offset> {
    mentioned::<i64>(error, key).and_then(Offset::new)
}

/// The sentence of an error, as a field that may be null.
#[must_use]
pub fn sentence(error: &Error) -> Option<Text> {
    // A string on the wire has at most 32,767 bytes.
    let text: String = error.message.chars().take(2_000).collect();
    Some(Text::from(text))
}

/// An error of ours about a topic that has no name here.
#[must_use]
pub fn unknown_topic(name: &str) -> Error {
    Error::new(
        ErrorKind::TopicNotFound,
        format!("topic {name:?} does not exist"),
    )
}

/// Operations that a client may do, as the bits that it is told when it asks: all there are. Who may do what is not
/// told apart on this listener.
pub mod operations {
    const fn bits(operations: &[u32]) -> i32 {
        let (mut bits, mut at) = (0, 0);
        while at < operations.len() {
            bits |= 1 << operations[at];
            at += 1;
        }
        bits
    }

    /// Of a topic: read, write, create, delete, alter, describe, describe and alter configs.
    pub const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
    /// Of the cluster: create, alter, describe, act, describe and alter configs, write idempotently.
    pub const CLUSTER: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
    /// Of a group: read, delete, describe.
    pub const GROUP: i32 = bits(&[3, 6, 8]);
    /// They were not asked for.
    pub const UNASKED: i32 = i32::MIN;

    /// `all` where the client asks.
    #[must_use]
    pub const fn told(asked: bool, all: i32) -> i32 {
        match asked {
            true => all,
            false => UNASKED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(host_port("a:1"), Some(("a".to_owned(), 1)));
        assert_eq!(host_port("[::1]:9092"), Some(("::1".to_owned(), 9092)));
        for bad in ["", "a", ":1", "a:", "a:70000", "a:-1"] {
            assert_eq!(host_port(bad), None, "{bad}");
        }
    }
}
