//! Messages to broker API and back: total functions without waiting. What they refuse is refused with
//! the name of the field; what they accept needs no further check of its form.

pub mod cluster;
pub mod fetch;
pub mod group;
pub mod produce;
pub mod topic;
pub mod transaction;

use std::time::Duration;

use prost_types::Timestamp;
use varve_broker_api::{Error, Isolation, Position};
use varve_proto::v1;
use varve_types::{
    ErrorKind, GroupName, LeaderEpoch, MemberId, Offset, PartitionId, TopicName, TopicPartition,
    TransactionalId, limits,
};

pub use crate::status::to_duration;

/// A topic name.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn topic_name(field: &'static str, name: &str) -> Result<TopicName, Error> {
    TopicName::new(name).map_err(|e| Error::invalid(field, e.to_string()))
}

/// A topic name that a client may write to, create or change.
///
/// # Errors
/// `InvalidRequest`, or `PolicyViolation` for the server's own topics.
pub fn writable_topic(field: &'static str, name: &str) -> Result<TopicName, Error> {
    let topic = topic_name(field, name)?;
    if topic.is_internal() {
        return Err(Error::new(
            ErrorKind::PolicyViolation,
            format!("topic {topic} is internal: clients may only read it; nothing was changed"),
        )
        .with("topic", topic));
    }
    Ok(topic)
}

/// A group name.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn group_name(field: &'static str, name: &str) -> Result<GroupName, Error> {
    GroupName::new(name).map_err(|e| Error::invalid(field, e.to_string()))
}

/// A member id.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn member_id(field: &'static str, name: &str) -> Result<MemberId, Error> {
    MemberId::new(name).map_err(|e| Error::invalid(field, e.to_string()))
}

/// A transactional id. Required; it keeps the rule of topic names.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn transactional_id(field: &'static str, id: &str) -> Result<TransactionalId, Error> {
    TransactionalId::new(id).map_err(|e| Error::invalid(field, e.to_string()))
}

/// Which records of transactions a reader sees.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn isolation(field: &'static str, raw: i32) -> Result<Isolation, Error> {
    match v1::Isolation::try_from(raw) {
        Ok(v1::Isolation::Unspecified | v1::Isolation::ReadCommitted) => Ok(Isolation::Committed),
        Ok(v1::Isolation::ReadUncommitted) => Ok(Isolation::Uncommitted),
        Err(_) => Err(unknown_enum(field, raw)),
    }
}

/// A partition number. A negative one names no partition of any topic.
///
/// # Errors
/// `PartitionNotFound`.
pub fn partition(topic: &TopicName, number: i32) -> Result<PartitionId, Error> {
    if number < 0 {
        return Err(partition_not_found(topic, number, None));
    }
    Ok(PartitionId(number))
}

/// The error about a partition that a topic does not have.
#[must_use]
pub fn partition_not_found(topic: &TopicName, number: i32, count: Option<i32>) -> Error {
    let has = count.map_or_else(String::new, |n| format!(": it has {n}, counted from 0"));
    Error::new(
        ErrorKind::PartitionNotFound,
        format!("topic {topic} has no partition {number}{has}; nothing was changed"),
    )
    .with("topic", topic)
    .with("partition", number)
}

/// A partition of a topic.
///
/// # Errors
/// `InvalidRequest` when it is missing or the name is not legal; `PartitionNotFound`.
pub fn topic_partition(
    field: &'static str,
    value: Option<&v1::TopicPartition>,
) -> Result<TopicPartition, Error> {
    let value = value.ok_or_else(|| missing(field))?;
    let topic = topic_name(field, &value.topic)?;
    let partition = partition(&topic, value.partition)?;
    Ok(TopicPartition::new(topic, partition))
}

/// A list of partitions of at most [`limits::REQUEST_MAX_PARTITIONS`].
///
/// # Errors
/// As [`topic_partition`]; `InvalidRequest` when there are too many.
pub fn topic_partitions(
    field: &'static str,
    values: &[v1::TopicPartition],
) -> Result<Vec<TopicPartition>, Error> {
    at_most(field, values.len(), limits::REQUEST_MAX_PARTITIONS)?;
    all_partitions(field, values)
}

/// A list of partitions that only the size of the request bounds: what a member owns cannot be told in parts.
///
/// # Errors
/// As [`topic_partition`].
pub fn all_partitions(
    field: &'static str,
    values: &[v1::TopicPartition],
) -> Result<Vec<TopicPartition>, Error> {
    values
        .iter()
        .map(|v| topic_partition(field, Some(v)))
        .collect()
}

/// A partition in the words of the API.
#[must_use]
pub fn to_topic_partition(tp: &TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: tp.topic.to_string(),
        partition: tp.partition.0,
    }
}

/// The error about a required field that is missing.
#[must_use]
pub fn missing(field: &'static str) -> Error {
    Error::invalid(field, format!("field {field} is required"))
}

/// The error about an enum value that does not exist.
#[must_use]
pub fn unknown_enum(field: &'static str, value: i32) -> Error {
    Error::invalid(field, format!("field {field} has no value {value}"))
}

/// Bounds the length of a repeated field.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn at_most(field: &'static str, found: usize, max: usize) -> Result<(), Error> {
    if found > max {
        return Err(Error::invalid(
            field,
            format!("field {field} has {found} entries; at most {max} are allowed in one request"),
        ));
    }
    Ok(())
}

/// An offset.
///
/// # Errors
/// `InvalidRequest` naming `field` when it is negative.
pub fn offset(field: &'static str, value: i64) -> Result<Offset, Error> {
    Offset::new(value).ok_or_else(|| {
        Error::invalid(
            field,
            format!("{field} is {value}, but an offset must not be negative"),
        )
    })
}

/// A leader epoch.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn leader_epoch(field: &'static str, value: Option<i64>) -> Result<Option<LeaderEpoch>, Error> {
    value
        .map(|raw| {
            i32::try_from(raw)
                .ok()
                .and_then(LeaderEpoch::new)
                .ok_or_else(|| {
                    Error::invalid(
                        field,
                        format!("{field} is {raw}, but a leader epoch must be 0 to 2147483647"),
                    )
                })
        })
        .transpose()
}

/// A span of time. Absent stays absent.
///
/// # Errors
/// `InvalidRequest` naming `field` when it is negative or out of the range of the type.
pub fn duration(
    field: &'static str,
    value: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    let Some(value) = value else { return Ok(None) };
    let seconds = u64::try_from(value.seconds)
        .ok()
        .filter(|s| *s <= 315_576_000_000);
    let nanos = u32::try_from(value.nanos)
        .ok()
        .filter(|n| *n < 1_000_000_000);
    match (seconds, nanos) {
        (Some(s), Some(n)) => Ok(Some(Duration::new(s, n))),
        _ => Err(Error::invalid(
            field,
            format!(
                "{field} must be a duration of 0 or more; found {} s {} ns",
                value.seconds, value.nanos
            ),
        )),
    }
}

/// A time of the broker's clock in the words of the API.
#[must_use]
pub fn to_timestamp(ms: i64) -> Timestamp {
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
    }
}

/// Where reading begins, when the request says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A place that the partition knows.
    At(Position),
    /// What the group committed.
    Committed,
}

/// Reads a start position. `None` when absent.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn start(
    field: &'static str,
    value: Option<&v1::StartPosition>,
) -> Result<Option<Start>, Error> {
    use v1::start_position::Position as P;
    let Some(value) = value else { return Ok(None) };
    let position = match value.position {
        None => return Ok(None),
        Some(P::Offset(raw)) => Position::Offset(offset(field, raw)?),
        Some(P::TimestampMs(ms)) => Position::Timestamp(ms),
        Some(P::Last(n)) => Position::Last(u64::try_from(n).map_err(|_| {
            Error::invalid(
                field,
                format!("{field}.last must be a number of records, 0 or more; found {n}"),
            )
        })?),
        Some(P::Anchor(raw)) => match v1::StartAnchor::try_from(raw) {
            Ok(v1::StartAnchor::Unspecified | v1::StartAnchor::Earliest) => Position::Earliest,
            Ok(v1::StartAnchor::Latest) => Position::Latest,
            Ok(v1::StartAnchor::Committed) => return Ok(Some(Start::Committed)),
            Err(_) => return Err(unknown_enum(field, raw)),
        },
    };
    Ok(Some(Start::At(position)))
}

/// Reads a start position where no group is named: the oldest record when absent.
///
/// # Errors
/// `InvalidRequest` naming `field`, also for COMMITTED.
pub fn start_without_group(
    field: &'static str,
    value: Option<&v1::StartPosition>,
) -> Result<Position, Error> {
    match start(field, value)? {
        None => Ok(Position::Earliest),
        Some(Start::At(position)) => Ok(position),
        Some(Start::Committed) => Err(Error::invalid(
            field,
            format!("{field}: START_ANCHOR_COMMITTED needs a group, but this call names none"),
        )),
    }
}

/// Size of a page: 0 is the default, more than the maximum is the maximum.
///
/// # Errors
/// `InvalidRequest` when negative.
pub fn page_size(requested: i32, default: usize, max: usize) -> Result<usize, Error> {
    match usize::try_from(requested) {
        Ok(0) => Ok(default),
        Ok(n) => Ok(n.min(max)),
        Err(_) => Err(Error::invalid(
            "page_size",
            format!("page_size must not be negative; found {requested}"),
        )),
    }
}

/// Cuts one page out of `items`, which are ordered by `key`. The token is the key of the last item
/// given, so a page stays right when items come and go between two calls.
///
/// # Errors
/// `InvalidRequest` when the token is not one of ours.
pub fn page<T>(
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> String,
    token: &str,
    size: usize,
) -> Result<(Vec<T>, String), Error> {
    let after = read_token(token)?;
    let mut rest = items.skip_while(|item| after.as_ref().is_some_and(|a| key(item) <= *a));
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => write_token(&key(last)),
        _ => String::new(),
    };
    Ok((page, next))
}

fn write_token(key: &str) -> String {
    use std::fmt::Write;
    let mut token = String::from("1");
    for byte in key.as_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

fn read_token(token: &str) -> Result<Option<String>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || {
        Error::invalid(
            "page_token",
            "page_token is not one that this server issued; start again with an empty one",
        )
    };
    let digits = token
        .strip_prefix('1')
        .filter(|d| d.len() <= 4 * limits::NAME_MAX_BYTES)
        .ok_or_else(bad)?;
    let nibble = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut key = Vec::with_capacity(digits.len() / 2);
    for pair in digits.as_bytes().chunks(2) {
        match pair {
            [a, b] => key.push(
                nibble(*a)
                    .zip(nibble(*b))
                    .map(|(a, b)| a << 4 | b)
                    .ok_or_else(bad)?,
            ),
            _ => return Err(bad()),
        }
    }
    String::from_utf8(key).map(Some).map_err(|_| bad())
}

/// Compiles a pattern that is matched against whole names.
///
/// # Errors
/// `InvalidRequest` naming `field` when it does not compile or is too large.
pub fn pattern(field: &'static str, text: &str) -> Result<regex::Regex, Error> {
    const TEXT_MAX_BYTES: usize = 1024;
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::invalid(
            field,
            format!(
                "{field} may have at most {TEXT_MAX_BYTES} bytes; found {}",
                text.len()
            ),
        ));
    }
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(256 * 1024)
        .dfa_size_limit(256 * 1024)
        .nest_limit(50)
        .build()
        .map_err(|e| Error::invalid(field, format!("{field} is not a valid RE2 pattern: {e}")))
}

/// The error for a batch that cannot be read.
#[must_use]
pub fn corrupt_log(
    topic: &TopicName,
    partition: PartitionId,
    why: impl std::fmt::Display,
) -> Error {
    Error::new(
        ErrorKind::CorruptLog,
        format!("a stored batch of {topic}:{partition} cannot be read: {why}"),
    )
    .with("topic", topic)
    .with("partition", partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_with_their_field() {
        for bad in ["", ".", "..", "a/b", "a\0b", "ä", &"x".repeat(250)] {
            assert_eq!(
                topic_name("topic", bad).unwrap_err().field,
                Some("topic"),
                "{bad:?}"
            );
        }
        assert_eq!(
            writable_topic("topic", "__varve_x").unwrap_err().kind,
            ErrorKind::PolicyViolation
        );
        assert!(topic_name("topic", "__varve_x").is_ok());
    }

    #[test]
    fn spans_of_time_are_never_negative_and_never_panic() {
        let read = |seconds, nanos| duration("f", Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(read(1, 5).unwrap(), Some(Duration::new(1, 5)));
        for (s, n) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
        ] {
            assert!(read(s, n).is_err(), "{s} {n}");
        }
        assert_eq!(duration("f", None).unwrap(), None);
    }

    #[test]
    fn times_before_the_epoch_are_well_formed() {
        assert_eq!(
            to_timestamp(-1),
            Timestamp {
                seconds: -1,
                nanos: 999_000_000
            }
        );
        assert_eq!(
            to_timestamp(1500),
            Timestamp {
                seconds: 1,
                nanos: 500_000_000
            }
        );
        let _ = (to_timestamp(i64::MIN), to_timestamp(i64::MAX));
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let items = ["a", "b", "c", "d", "e"];
        let mut token = String::new();
        let mut seen: Vec<&&str> = Vec::new();
        for _ in 0..10 {
            let (page, next) = page(items.iter(), |i| (**i).to_owned(), &token, 2).unwrap();
            seen.extend(page);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.into_iter().copied().collect::<Vec<_>>(), items);
        for bad in [
            "x",
            "1f",
            "1zz",
            "2aa",
            "1ä",
            &format!("1{}", "61".repeat(5000)),
        ] {
            let result = page(items.iter(), |i| (**i).to_owned(), bad, 2);
            assert!(result.is_err() || bad == "1f", "{bad}");
        }
        assert!(page(items.iter(), |i| (**i).to_owned(), "1f", 2).is_err());
    }

    #[test]
    fn page_sizes_are_clamped() {
        assert_eq!(page_size(0, 100, 1000).unwrap(), 100);
        assert_eq!(page_size(5000, 100, 1000).unwrap(), 1000);
        assert_eq!(
            page_size(-1, 100, 1000).unwrap_err().field,
            Some("page_size")
        );
    }

    #[test]
    fn patterns_match_whole_names_and_are_bounded() {
        let p = pattern("name_pattern", "a|bc").unwrap();
        assert!(p.is_match("a") && p.is_match("bc") && !p.is_match("abc") && !p.is_match("xbc"));
        for bad in ["(", "a{1000}{1000}", &"a".repeat(2000), "\\p{L}{900}"] {
            assert!(pattern("name_pattern", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn start_positions() {
        use v1::start_position::Position as P;
        let read = |p| start("start", Some(&v1::StartPosition { position: p }));
        assert_eq!(read(None).unwrap(), None);
        assert_eq!(
            read(Some(P::Last(3))).unwrap(),
            Some(Start::At(Position::Last(3)))
        );
        assert_eq!(
            read(Some(P::Anchor(0))).unwrap(),
            Some(Start::At(Position::Earliest))
        );
        for bad in [P::Offset(-1), P::Last(-1), P::Anchor(99)] {
            assert_eq!(read(Some(bad)).unwrap_err().field, Some("start"));
        }
        let committed = v1::StartPosition {
            position: Some(P::Anchor(3)),
        };
        assert!(start_without_group("start", Some(&committed)).is_err());
        assert_eq!(
            start_without_group("start", None).unwrap(),
            Position::Earliest
        );
    }
}
