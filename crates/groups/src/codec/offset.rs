//! Records of committed offsets: Kafka's `OffsetCommitKey` version 1 and `OffsetCommitValue` version 3.
//! Never knows what a group is.

use varve_types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicName, TopicPartition};

use crate::codec::CodecError;
use crate::codec::wire::{Reader, bad, put_string};
use crate::offsets::Committed;

/// Version of the keys of committed offsets.
pub const KEY_VERSION: i16 = 1;
/// Version of the values of committed offsets that we write and read.
pub const VALUE_VERSION: i16 = 3;

/// Key of a committed offset.
#[must_use]
pub fn encode_key(group: &GroupName, partition: &TopicPartition) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.as_str().len() + partition.topic.as_str().len());
    out.extend_from_slice(&KEY_VERSION.to_be_bytes());
    put_string(&mut out, group.as_str());
    put_string(&mut out, partition.topic.as_str());
    out.extend_from_slice(&partition.partition.0.to_be_bytes());
    out
}

/// Value of a committed offset.
#[must_use]
pub fn encode_value(committed: &Committed) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + committed.metadata.len());
    out.extend_from_slice(&VALUE_VERSION.to_be_bytes());
    out.extend_from_slice(&committed.offset.get().to_be_bytes());
    out.extend_from_slice(
        &committed
            .leader_epoch
            .map_or(-1, LeaderEpoch::get)
            .to_be_bytes(),
    );
    put_string(&mut out, &committed.metadata);
    out.extend_from_slice(&committed.commit_time_ms.to_be_bytes());
    out
}

/// Group and partition of a key.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_key`] does not write.
pub fn decode_key(bytes: &[u8]) -> Result<(GroupName, TopicPartition), CodecError> {
    let mut reader = Reader::new("key of an offset record", bytes);
    reader.version(KEY_VERSION)?;
    let group = reader.string("group")?;
    let topic = reader.string("topic")?;
    let partition = reader.i32("partition")?;
    reader.end()?;
    let group = GroupName::new(group).map_err(|e| bad("group", &e))?;
    let topic = TopicName::new(topic).map_err(|e| bad("topic", &e))?;
    if partition < 0 {
        return Err(bad("partition", &partition));
    }
    Ok((group, TopicPartition::new(topic, PartitionId(partition))))
}

/// Committed offset of a value.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_value`] does not write.
pub fn decode_value(bytes: &[u8]) -> Result<Committed, CodecError> {
    let mut reader = Reader::new("value of an offset record", bytes);
    reader.version(VALUE_VERSION)?;
    let offset = reader.i64("offset")?;
    let leader_epoch = reader.i32("leader_epoch")?;
    let metadata = reader.string("metadata")?.to_owned();
    let commit_time_ms = reader.i64("commit_timestamp")?;
    reader.end()?;
    let offset = Offset::new(offset).ok_or_else(|| bad("offset", &offset))?;
    let leader_epoch = match leader_epoch {
        -1 => None,
        raw => Some(LeaderEpoch::new(raw).ok_or_else(|| bad("leader_epoch", &raw))?),
    };
    Ok(Committed {
        offset,
        leader_epoch,
        metadata,
        commit_time_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::partition_of;
    use proptest::prelude::*;

    fn sample() -> (GroupName, TopicPartition, Committed) {
        let topic = TopicName::new("orders").unwrap();
        (
            GroupName::new("billing").unwrap(),
            TopicPartition::new(topic, PartitionId(7)),
            Committed {
                offset: Offset::new(1_234).unwrap(),
                leader_epoch: LeaderEpoch::new(5),
                metadata: "ok".to_owned(),
                commit_time_ms: 1_700_000_000_000,
            },
        )
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The documented examples are what the code writes; a change of either alone fails here.
    #[test]
    fn format_document_shows_the_bytes() {
        let document = include_str!("../../FORMAT.md");
        let (group, partition, committed) = sample();
        let key = encode_key(&group, &partition);
        let value = encode_value(&committed);
        assert!(
            document.contains(&format!("key   {}\n", hex(&key))),
            "{}",
            hex(&key)
        );
        assert!(
            document.contains(&format!("value {}\n", hex(&value))),
            "{}",
            hex(&value)
        );
        let none = Committed {
            leader_epoch: None,
            metadata: String::new(),
            ..committed
        };
        let value = encode_value(&none);
        assert!(
            document.contains(&format!("bare  {}\n", hex(&value))),
            "{}",
            hex(&value)
        );
    }

    #[test]
    fn round_trip() {
        let (group, partition, committed) = sample();
        assert_eq!(
            decode_key(&encode_key(&group, &partition)),
            Ok((group, partition))
        );
        assert_eq!(decode_value(&encode_value(&committed)), Ok(committed));
    }

    #[test]
    fn other_versions_are_an_error_that_says_so() {
        let (group, partition, committed) = sample();
        let mut key = encode_key(&group, &partition);
        key[1] = 2;
        assert_eq!(
            decode_key(&key),
            Err(CodecError::Version {
                what: "key of an offset record",
                found: 2,
                known: 1
            })
        );
        let mut value = encode_value(&committed);
        value[1] = 4;
        assert!(
            decode_value(&value)
                .unwrap_err()
                .to_string()
                .contains("newer program")
        );
    }

    #[test]
    fn partitions_of_groups_are_those_of_kafka() {
        // "abc".hashCode() is 96354 and "polygenelubricants".hashCode() is i32::MIN in Java.
        let of = |name: &str| partition_of(&GroupName::new(name).unwrap(), 50).0;
        assert_eq!(of("abc"), 96_354 % 50);
        assert_eq!(of("polygenelubricants"), 0);
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((group, partition)) = decode_key(&bytes) {
                prop_assert_eq!(encode_key(&group, &partition), bytes.clone());
            }
            if let Ok(committed) = decode_value(&bytes) {
                prop_assert_eq!(encode_value(&committed), bytes);
            }
        }

        #[test]
        fn damage_is_found_or_reads_as_another_record(at in 0_usize..64, bit in 0_u8..8) {
            let (group, partition, committed) = sample();
            let mut key = encode_key(&group, &partition);
            let mut value = encode_value(&committed);
            if let Some(byte) = key.get_mut(at) {
                *byte ^= 1 << bit;
                prop_assert!(decode_key(&key).ok() != Some((group, partition)));
            }
            if let Some(byte) = value.get_mut(at) {
                *byte ^= 1 << bit;
                prop_assert!(decode_value(&value).ok() != Some(committed));
            }
        }
    }
}
