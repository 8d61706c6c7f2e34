//! What consumers that speak the classic protocol say of themselves and are told, inside the bytes that the
//! protocol itself does not look into: Kafka's `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment`, versions 0 to 3.
//!
//! Invariants: decoding is total and bounded, whatever a client sent; what is decoded in a version known here
//! encodes to the same bytes. A later version is read as version 3, since versions only add fields at the end.
//! Never decides who may own what.

use std::collections::BTreeSet;

use varve_types::{PartitionId, TopicName, TopicPartition, limits};

use crate::codec::CodecError;
use crate::codec::member::put_count;
use crate::codec::wire::{Reader, bad, put_optional_string, put_string};

/// Protocol type of consumers.
pub const CONSUMER_PROTOCOL: &str = "consumer";
/// Greatest version of subscription and assignment that is written.
pub const EMBEDDED_VERSION: i16 = 3;

/// Partitions by topic, as they are on the wire.
pub type ByTopic = Vec<(TopicName, Vec<i32>)>;

/// Partitions as they are on the wire, in the order of the set.
#[must_use]
pub fn by_topic(partitions: &BTreeSet<TopicPartition>) -> ByTopic {
    let mut all = ByTopic::new();
    for partition in partitions {
        match all.last_mut() {
            Some((topic, numbers)) if *topic == partition.topic => {
                numbers.push(partition.partition.0);
            }
            _ => all.push((partition.topic.clone(), vec![partition.partition.0])),
        }
    }
    all
}

/// The set of partitions that are on the wire so.
#[must_use]
pub fn partition_set(all: &ByTopic) -> BTreeSet<TopicPartition> {
    let of =
        |topic: &TopicName, number: &i32| TopicPartition::new(topic.clone(), PartitionId(*number));
    all.iter()
        .flat_map(|(topic, numbers)| numbers.iter().map(move |number| of(topic, number)))
        .collect()
}

/// What a consumer says with a protocol when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSubscription {
    /// Version, >= 0. Decides which of the fields below exist.
    pub version: i16,
    /// Topics it wants to read; none when a pattern matches nothing.
    pub topics: Vec<TopicName>,
    /// For the assignor on the other side; not looked into.
    pub user_data: Option<Vec<u8>>,
    /// Partitions it owns while it joins. Since version 1; before, it owns none.
    pub owned: ByTopic,
    /// Generation it was given those in; -1: not said. Since version 2.
    pub generation: i32,
    /// Rack. Since version 3.
    pub rack: Option<String>,
}

/// What a consumer is told to own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedAssignment {
    /// Version, >= 0.
    pub version: i16,
    /// Partitions.
    pub partitions: ByTopic,
    /// From the assignor on the other side; not looked into.
    pub user_data: Option<Vec<u8>>,
}

/// Bytes of a subscription. Strings have at most 32767 bytes.
#[must_use]
pub fn encode_subscription(subscription: &EmbeddedSubscription) -> Vec<u8> {
    let mut out = subscription.version.to_be_bytes().to_vec();
    put_count(&mut out, subscription.topics.len());
    for topic in &subscription.topics {
        put_string(&mut out, topic.as_str());
    }
    put_user_data(&mut out, subscription.user_data.as_deref());
    if subscription.version >= 1 {
        put_partitions(&mut out, &subscription.owned);
    }
    if subscription.version >= 2 {
        out.extend_from_slice(&subscription.generation.to_be_bytes());
    }
    if subscription.version >= 3 {
        put_optional_string(&mut out, subscription.rack.as_deref());
    }
    out
}

/// Bytes of an assignment.
#[must_use]
pub fn encode_assignment(assignment: &EmbeddedAssignment) -> Vec<u8> {
    let mut out = assignment.version.to_be_bytes().to_vec();
    put_partitions(&mut out, &assignment.partitions);
    put_user_data(&mut out, assignment.user_data.as_deref());
    out
}

/// Version to answer a consumer in that said this with a protocol.
pub(crate) fn answer_version(metadata: &[u8]) -> i16 {
    let version = metadata.first_chunk::<2>();
    let version = version.map_or(0, |v| i16::from_be_bytes(*v));
    version.clamp(0, EMBEDDED_VERSION)
}

fn put_user_data(out: &mut Vec<u8>, data: Option<&[u8]>) {
    let Some(data) = data else {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return;
    };
    put_count(out, data.len());
    out.extend_from_slice(data);
}

fn put_partitions(out: &mut Vec<u8>, all: &ByTopic) {
    put_count(out, all.len());
    for (topic, partitions) in all {
        put_string(out, topic.as_str());
        put_count(out, partitions.len());
        for partition in partitions {
            out.extend_from_slice(&partition.to_be_bytes());
        }
    }
}

/// A subscription from its bytes.
///
/// # Errors
/// [`CodecError`] for bytes that are no subscription, and for more than `PARTITIONS_PER_NODE_MAX` topics or
/// `PARTITIONS_PER_NODE_MAX` owned partitions.
pub fn decode_subscription(bytes: &[u8]) -> Result<EmbeddedSubscription, CodecError> {
    let mut reader = Reader::new("subscription of a consumer", bytes);
    let version = version(&mut reader)?;
    let mut topics = Vec::new();
    for _ in 0..topic_count(&mut reader)? {
        topics.push(topic(&mut reader)?);
    }
    let user_data = user_data(&mut reader)?;
    let mut subscription = EmbeddedSubscription {
        version,
        topics,
        user_data,
        owned: Vec::new(),
        generation: -1,
        rack: None,
    };
    if version >= 1 {
        subscription.owned = partitions(&mut reader)?;
    }
    if version >= 2 {
        subscription.generation = reader.i32("generation_id")?;
    }
    if version >= 3 {
        let rack = reader.optional_string("rack_id")?;
        if let Some(long) = rack.filter(|r| r.len() > limits::NAME_MAX_BYTES) {
            return Err(too_many("rack_id", long.len(), limits::NAME_MAX_BYTES));
        }
        subscription.rack = rack.map(str::to_owned);
    }
    end(reader, version)?;
    Ok(subscription)
}

/// An assignment from its bytes.
///
/// # Errors
/// [`CodecError`] for bytes that are no assignment, and for more than `PARTITIONS_PER_NODE_MAX` topics or
/// `PARTITIONS_PER_NODE_MAX` partitions.
pub fn decode_assignment(bytes: &[u8]) -> Result<EmbeddedAssignment, CodecError> {
    let mut reader = Reader::new("assignment of a consumer", bytes);
    let version = version(&mut reader)?;
    let partitions = partitions(&mut reader)?;
    let user_data = user_data(&mut reader)?;
    end(reader, version)?;
    Ok(EmbeddedAssignment {
        version,
        partitions,
        user_data,
    })
}

fn version(reader: &mut Reader<'_>) -> Result<i16, CodecError> {
    let version = reader.i16("version")?;
    if version < 0 {
        return Err(bad("version", &format!("{version} is negative")));
    }
    Ok(version)
}

/// What a later version adds is not looked at.
fn end(reader: Reader<'_>, version: i16) -> Result<(), CodecError> {
    if version > EMBEDDED_VERSION {
        return Ok(());
    }
    reader.end()
}

fn too_many(field: &'static str, found: usize, most: usize) -> CodecError {
    bad(field, &format!("it has {found}; at most {most} are read"))
}

fn topic_count(reader: &mut Reader<'_>) -> Result<i32, CodecError> {
    let count = reader.count("topics")?;
    let found = count.unsigned_abs() as usize;
    if found > limits::PARTITIONS_PER_NODE_MAX {
        return Err(too_many("topics", found, limits::PARTITIONS_PER_NODE_MAX));
    }
    Ok(count)
}

fn topic(reader: &mut Reader<'_>) -> Result<TopicName, CodecError> {
    TopicName::new(reader.string("topic")?).map_err(|e| bad("topic", &e))
}

fn user_data(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, CodecError> {
    let data = reader.optional_bytes("user_data")?;
    Ok(data.map(<[u8]>::to_vec))
}

fn partitions(reader: &mut Reader<'_>) -> Result<ByTopic, CodecError> {
    let mut all = Vec::new();
    let mut total = 0;
    for _ in 0..topic_count(reader)? {
        let topic = topic(reader)?;
        let count = reader.count("partitions")?;
        total += count.unsigned_abs() as usize;
        if total > limits::PARTITIONS_PER_NODE_MAX {
            let most = limits::PARTITIONS_PER_NODE_MAX;
            return Err(too_many("partitions", total, most));
        }
        // Not sized by the count: it may be anything, the bytes that follow are what there is.
        let mut partitions = Vec::new();
        for _ in 0..count {
            let partition = reader.i32("partition")?;
            if partition < 0 {
                return Err(bad("partition", &partition));
            }
            partitions.push(partition);
        }
        all.push((topic, partitions));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).unwrap()
    }

    fn sample(version: i16) -> EmbeddedSubscription {
        EmbeddedSubscription {
            version,
            topics: vec![name("orders"), name("users")],
            user_data: Some(vec![7]),
            owned: match version {
                0 => Vec::new(),
                _ => vec![(name("orders"), vec![0, 2])],
            },
            generation: if version < 2 { -1 } else { 5 },
            rack: (version >= 3).then(|| "r1".to_owned()),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .chunks(24)
            .map(|line| {
                let bytes: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
                bytes.join(" ")
            })
            .collect::<Vec<_>>()
            .join("\n       ")
    }

    fn assigned() -> EmbeddedAssignment {
        EmbeddedAssignment {
            version: 3,
            partitions: vec![(name("orders"), vec![0, 2])],
            user_data: None,
        }
    }

    /// The documented examples are what the code writes; a change of either alone fails here.
    #[test]
    fn format_document_shows_the_bytes() {
        let document = include_str!("../../FORMAT.md");
        for (name, bytes) in [
            ("subscr", encode_subscription(&sample(3))),
            ("assign", encode_assignment(&assigned())),
        ] {
            let line = format!("{name} {}\n", hex(&bytes));
            assert!(document.contains(&line), "{line}");
        }
    }

    #[test]
    fn every_version_comes_back() {
        for version in 0..=EMBEDDED_VERSION {
            let given = sample(version);
            assert_eq!(decode_subscription(&encode_subscription(&given)), Ok(given));
            let given = EmbeddedAssignment {
                version,
                ..assigned()
            };
            assert_eq!(decode_assignment(&encode_assignment(&given)), Ok(given));
        }
    }

    #[test]
    fn a_later_version_is_read_as_the_last_known() {
        let mut bytes = encode_subscription(&sample(3));
        bytes[1] = 4;
        bytes.extend_from_slice(b"more");
        let read = decode_subscription(&bytes).unwrap();
        assert_eq!(
            read,
            EmbeddedSubscription {
                version: 4,
                ..sample(3)
            }
        );
        bytes[1] = 3;
        assert!(matches!(
            decode_subscription(&bytes),
            Err(CodecError::Trailing { extra: 4, .. })
        ));
    }

    #[test]
    fn what_is_no_subscription_is_named() {
        let refused = |bytes: &[u8]| decode_subscription(bytes).unwrap_err().to_string();
        let whole = encode_subscription(&sample(3));
        for cut in 0..whole.len() {
            assert!(
                refused(&whole[..cut]).contains("ends inside"),
                "cut at {cut}"
            );
        }
        assert!(refused(b"\xff\xff").contains("-1 is negative"));
        assert!(refused(b"text").contains("ends inside"));
        assert!(refused(b"\0\0\0\0\0\x01\0\x01/\xff\xff\xff\xff").contains("topic"));
        assert!(refused(b"\0\0\0\0\x4e\x21").contains("20001"));
        assert!(refused(b"\0\0\xff\xff\xff\xff").contains("-1"));
        assert!(
            refused(b"\0\x01\0\0\0\0\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\x01\0\0").contains("65536")
        );
        let negative = b"\0\x01\0\0\0\0\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\xff\xff\xff\xff";
        assert!(refused(negative).contains("partition"));
        let mut long = sample(3);
        long.rack = Some("r".repeat(limits::NAME_MAX_BYTES + 1));
        assert!(refused(&encode_subscription(&long)).contains("rack_id"));
    }

    proptest! {
        #[test]
        fn decoding_is_total(
            noise in prop::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..64,
            to in any::<u8>(),
            cut in 0_usize..96,
        ) {
            let _ = decode_assignment(&noise);
            for mut bytes in [noise, encode_subscription(&sample(3))] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = to;
                }
                bytes.truncate(cut.max(24));
                if let Ok(read) = decode_subscription(&bytes)
                    && read.version <= EMBEDDED_VERSION
                {
                    prop_assert_eq!(encode_subscription(&read), bytes);
                }
            }
        }
    }
}
