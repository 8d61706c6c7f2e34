//! Records of membership: one per group and one per member, under key versions of our own. They let the
//! next coordinator of a group go on where this one stopped.
//!
//! Invariant: epochs that are decoded leave room to count on. Never decides what is stored when.

use varve_types::{GroupName, MemberId, TopicName};

use crate::codec::CodecError;
use crate::codec::wire::{Reader, bad, put_optional_string, put_string};

/// Version of the key of a group's own record.
pub const GROUP_KEY_VERSION: i16 = 1000;
/// Version of the value of a group's own record.
pub const GROUP_VALUE_VERSION: i16 = 1;
/// Version of the key of a member's record.
pub const MEMBER_KEY_VERSION: i16 = 1001;
/// Version of the value of a member's record.
pub const MEMBER_VALUE_VERSION: i16 = 1;
/// Version of the value of the record of a member that speaks the classic protocol. Only those have it: a
/// program that does not know it reads the others.
pub const CLASSIC_MEMBER_VALUE_VERSION: i16 = 2;

/// Epochs in records are less than this, so that those to come can be counted.
const EPOCH_END: i32 = i32::MAX - 1_000_000;

/// What the log says of a group as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRecord {
    /// Epoch of the group, >= 0.
    pub epoch: i32,
}

/// What the log says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Epoch of the member, >= 0.
    pub epoch: i32,
    /// Epoch the member had when it was given this one, >= 0: it may not have heard.
    pub previous_epoch: i32,
    /// It has left and its partitions wait for its instance.
    pub departed: bool,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// Rack.
    pub rack: String,
    /// Name the client gives itself.
    pub client_id: String,
    /// Address of the client, for people; may be empty.
    pub peer: String,
    /// Session timeout, milliseconds, >= 0.
    pub session_timeout_ms: i64,
    /// Rebalance timeout, milliseconds, >= 0.
    pub rebalance_timeout_ms: i64,
    /// Assignor it prefers; may be empty.
    pub assignor: String,
    /// Topic pattern; empty: none.
    pub pattern: String,
    /// Topics by name.
    pub topics: Vec<TopicName>,
    /// Partitions it was granted and has not given back, by topic.
    pub granted: Vec<(TopicName, Vec<i32>)>,
    /// If it speaks the classic protocol: the ways to assign it knows, each with what it said with it.
    pub classic: Option<Vec<(String, Vec<u8>)>>,
}

/// Key of a group's own record.
#[must_use]
pub fn encode_group_key(group: &GroupName) -> Vec<u8> {
    let mut out = GROUP_KEY_VERSION.to_be_bytes().to_vec();
    put_string(&mut out, group.as_str());
    out
}

/// Value of a group's own record.
#[must_use]
pub fn encode_group(record: &GroupRecord) -> Vec<u8> {
    let mut out = GROUP_VALUE_VERSION.to_be_bytes().to_vec();
    out.extend_from_slice(&record.epoch.to_be_bytes());
    out
}

/// Key of a member's record.
#[must_use]
pub fn encode_member_key(group: &GroupName, member: &MemberId) -> Vec<u8> {
    let mut out = MEMBER_KEY_VERSION.to_be_bytes().to_vec();
    put_string(&mut out, group.as_str());
    put_string(&mut out, member.as_str());
    out
}

/// Value of a member's record. Strings have at most 32767 bytes.
#[must_use]
pub fn encode_member(record: &MemberRecord) -> Vec<u8> {
    let version = match record.classic {
        Some(_) => CLASSIC_MEMBER_VALUE_VERSION,
        None => MEMBER_VALUE_VERSION,
    };
    let mut out = version.to_be_bytes().to_vec();
    out.extend_from_slice(&record.epoch.to_be_bytes());
    out.extend_from_slice(&record.previous_epoch.to_be_bytes());
    out.push(u8::from(record.departed));
    put_optional_string(&mut out, record.instance.as_deref());
    put_string(&mut out, &record.rack);
    put_string(&mut out, &record.client_id);
    put_string(&mut out, &record.peer);
    out.extend_from_slice(&record.session_timeout_ms.to_be_bytes());
    out.extend_from_slice(&record.rebalance_timeout_ms.to_be_bytes());
    put_string(&mut out, &record.assignor);
    put_string(&mut out, &record.pattern);
    put_count(&mut out, record.topics.len());
    for topic in &record.topics {
        put_string(&mut out, topic.as_str());
    }
    put_count(&mut out, record.granted.len());
    for (topic, partitions) in &record.granted {
        put_string(&mut out, topic.as_str());
        put_count(&mut out, partitions.len());
        for partition in partitions {
            out.extend_from_slice(&partition.to_be_bytes());
        }
    }
    if let Some(protocols) = &record.classic {
        put_count(&mut out, protocols.len());
        for (name, metadata) in protocols {
            put_string(&mut out, name);
            put_count(&mut out, metadata.len());
            out.extend_from_slice(metadata);
        }
    }
    out
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    let Ok(count) = i32::try_from(count) else {
        unreachable!("a list of a record is bounded by limits")
    };
    out.extend_from_slice(&count.to_be_bytes());
}

/// Group of a key of its own record.
pub(super) fn decode_group_key(bytes: &[u8]) -> Result<GroupName, CodecError> {
    let mut reader = Reader::new("key of a group record", bytes);
    reader.version(GROUP_KEY_VERSION)?;
    let group = reader.string("group")?;
    reader.end()?;
    GroupName::new(group).map_err(|e| bad("group", &e))
}

/// Group and member of a key of a member's record.
pub(super) fn decode_member_key(bytes: &[u8]) -> Result<(GroupName, MemberId), CodecError> {
    let mut reader = Reader::new("key of a member record", bytes);
    reader.version(MEMBER_KEY_VERSION)?;
    let group = reader.string("group")?;
    let member = reader.string("member")?;
    reader.end()?;
    let group = GroupName::new(group).map_err(|e| bad("group", &e))?;
    let member = MemberId::new(member).map_err(|e| bad("member", &e))?;
    Ok((group, member))
}

/// A group's own record from its value.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_group`] does not write.
pub fn decode_group(bytes: &[u8]) -> Result<GroupRecord, CodecError> {
    let mut reader = Reader::new("value of a group record", bytes);
    reader.version(GROUP_VALUE_VERSION)?;
    let epoch = epoch(&mut reader, "group_epoch")?;
    reader.end()?;
    Ok(GroupRecord { epoch })
}

/// A member's record from its value.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_member`] does not write.
pub fn decode_member(bytes: &[u8]) -> Result<MemberRecord, CodecError> {
    let mut reader = Reader::new("value of a member record", bytes);
    let speaks_classic = bytes.starts_with(&CLASSIC_MEMBER_VALUE_VERSION.to_be_bytes());
    reader.version(match speaks_classic {
        true => CLASSIC_MEMBER_VALUE_VERSION,
        false => MEMBER_VALUE_VERSION,
    })?;
    let record = MemberRecord {
        epoch: epoch(&mut reader, "member_epoch")?,
        previous_epoch: epoch(&mut reader, "previous_epoch")?,
        departed: match reader.u8("departed")? {
            0 => false,
            1 => true,
            found => return Err(bad("departed", &format!("found {found}, not 0 or 1"))),
        },
        instance: reader.optional_string("instance")?.map(str::to_owned),
        rack: reader.string("rack")?.to_owned(),
        client_id: reader.string("client_id")?.to_owned(),
        peer: reader.string("peer")?.to_owned(),
        session_timeout_ms: duration(&mut reader, "session_timeout_ms")?,
        rebalance_timeout_ms: duration(&mut reader, "rebalance_timeout_ms")?,
        assignor: reader.string("assignor")?.to_owned(),
        pattern: reader.string("pattern")?.to_owned(),
        topics: topics(&mut reader)?,
        granted: granted(&mut reader)?,
        classic: match speaks_classic {
            true => Some(protocols(&mut reader)?),
            false => None,
        },
    };
    reader.end()?;
    Ok(record)
}

pub(super) fn epoch(reader: &mut Reader<'_>, field: &'static str) -> Result<i32, CodecError> {
    let epoch = reader.i32(field)?;
    if (0..EPOCH_END).contains(&epoch) {
        return Ok(epoch);
    }
    Err(bad(field, &format!("{epoch} is not in 0..{EPOCH_END}")))
}

fn duration(reader: &mut Reader<'_>, field: &'static str) -> Result<i64, CodecError> {
    let ms = reader.i64(field)?;
    if ms < 0 {
        return Err(bad(field, &format!("{ms} is negative")));
    }
    Ok(ms)
}

fn topic(reader: &mut Reader<'_>) -> Result<TopicName, CodecError> {
    TopicName::new(reader.string("topic")?).map_err(|e| bad("topic", &e))
}

fn topics(reader: &mut Reader<'_>) -> Result<Vec<TopicName>, CodecError> {
    let count = reader.count("topics")?;
    // Not sized by the count: it may be anything, the bytes that follow are what there is.
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(topic(reader)?);
    }
    Ok(topics)
}

fn protocols(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<u8>)>, CodecError> {
    let count = reader.count("protocols")?;
    let mut protocols = Vec::new();
    for _ in 0..count {
        let name = reader.string("protocol")?.to_owned();
        protocols.push((name, reader.bytes("metadata")?.to_vec()));
    }
    Ok(protocols)
}

fn granted(reader: &mut Reader<'_>) -> Result<Vec<(TopicName, Vec<i32>)>, CodecError> {
    let count = reader.count("granted")?;
    let mut granted = Vec::new();
    for _ in 0..count {
        let topic = topic(reader)?;
        let count = reader.count("partitions")?;
        let mut partitions = Vec::new();
        for _ in 0..count {
            let partition = reader.i32("partition")?;
            if partition < 0 {
                return Err(bad("partition", &partition));
            }
            partitions.push(partition);
        }
        granted.push((topic, partitions));
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Key, decode_any_key};
    use proptest::prelude::*;

    fn sample() -> MemberRecord {
        MemberRecord {
            epoch: 7,
            previous_epoch: 6,
            departed: false,
            instance: Some("one".to_owned()),
            rack: "r1".to_owned(),
            client_id: "app".to_owned(),
            peer: "10.0.0.9:4711".to_owned(),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 60_000,
            assignor: "range".to_owned(),
            pattern: "o.*".to_owned(),
            topics: vec![TopicName::new("orders").unwrap()],
            granted: vec![(TopicName::new("orders").unwrap(), vec![0, 2])],
            classic: None,
        }
    }

    fn classic_sample() -> MemberRecord {
        MemberRecord {
            classic: Some(vec![("range".to_owned(), vec![1, 2])]),
            ..sample()
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

    /// The documented examples are what the code writes; a change of either alone fails here.
    #[test]
    fn format_document_shows_the_bytes() {
        let document = include_str!("../../FORMAT.md");
        let group = GroupName::new("billing").unwrap();
        let member = MemberId::new("m-1").unwrap();
        for (name, bytes) in [
            ("gkey  ", encode_group_key(&group)),
            ("gvalue", encode_group(&GroupRecord { epoch: 7 })),
            ("mkey  ", encode_member_key(&group, &member)),
            ("mvalue", encode_member(&sample())),
            ("mclass", encode_member(&classic_sample())),
        ] {
            let line = format!("{name} {}\n", hex(&bytes));
            assert!(document.contains(&line), "{line}");
        }
    }

    #[test]
    fn round_trip() {
        let group = GroupName::new("billing").unwrap();
        let member = MemberId::new("m-1").unwrap();
        assert_eq!(
            decode_any_key(&encode_group_key(&group)),
            Ok(Key::Group(group.clone()))
        );
        assert_eq!(
            decode_any_key(&encode_member_key(&group, &member)),
            Ok(Key::Member(group, member))
        );
        let dynamic = MemberRecord {
            instance: None,
            departed: true,
            ..sample()
        };
        for record in [sample(), dynamic, classic_sample()] {
            assert_eq!(decode_member(&encode_member(&record)), Ok(record));
        }
    }

    #[test]
    fn epochs_that_leave_no_room_are_refused() {
        let record = MemberRecord {
            epoch: i32::MAX,
            ..sample()
        };
        assert!(decode_member(&encode_member(&record)).is_err());
        assert!(decode_group(&encode_group(&GroupRecord { epoch: -1 })).is_err());
    }

    proptest! {
        #[test]
        fn decoding_is_total(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..128,
            to in any::<u8>(),
            cut in 0_usize..128,
        ) {
            let _ = decode_any_key(&bytes);
            if let Ok(record) = decode_group(&bytes) {
                prop_assert_eq!(encode_group(&record), bytes);
            }
            // Near misses get further into the decoder than noise does.
            for mut value in [encode_member(&sample()), encode_member(&classic_sample())] {
                if let Some(byte) = value.get_mut(at) {
                    *byte = to;
                }
                value.truncate(cut.max(64));
                if let Ok(record) = decode_member(&value) {
                    prop_assert_eq!(encode_member(&record), value);
                }
            }
        }
    }
}
