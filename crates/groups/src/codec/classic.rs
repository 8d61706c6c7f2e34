//! Record of a group that speaks the classic protocol: Kafka's `GroupMetadataKey` version 2 and
//! `GroupMetadataValue` version 3. Never looks into metadata and assignments.

use varve_types::{GroupName, MemberId};

use crate::codec::CodecError;
use crate::codec::member::{epoch, put_count};
use crate::codec::wire::{Reader, bad, put_optional_string, put_string};

/// Version of the key of a classic group's record.
pub const CLASSIC_KEY_VERSION: i16 = 2;
/// Version of the value of a classic group's record.
pub const CLASSIC_VALUE_VERSION: i16 = 3;

/// What the log says of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicRecord {
    /// Protocol type.
    pub protocol_type: String,
    /// Generation, >= 0.
    pub generation: i32,
    /// Protocol; `None` without members.
    pub protocol: Option<String>,
    /// Leader; `None` without members, and while they join again.
    pub leader: Option<MemberId>,
    /// Since when the state is what it is, milliseconds since the Unix epoch; -1: not said.
    pub state_time_ms: i64,
    /// Members.
    pub members: Vec<ClassicMemberRecord>,
}

/// What the log says of a member of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMemberRecord {
    /// Id.
    pub member: MemberId,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// Name the client gives itself.
    pub client_id: String,
    /// Address of the client, for people.
    pub client_host: String,
    /// Rebalance timeout, milliseconds, >= 0.
    pub rebalance_timeout_ms: i32,
    /// Session timeout, milliseconds, >= 0.
    pub session_timeout_ms: i32,
    /// What it said with the protocol that was chosen.
    pub metadata: Vec<u8>,
    /// What the leader assigned to it.
    pub assignment: Vec<u8>,
}

/// Key of a classic group's record.
#[must_use]
pub fn encode_classic_key(group: &GroupName) -> Vec<u8> {
    let mut out = CLASSIC_KEY_VERSION.to_be_bytes().to_vec();
    put_string(&mut out, group.as_str());
    out
}

/// Value of a classic group's record. Strings have at most 32767 bytes.
#[must_use]
pub fn encode_classic(record: &ClassicRecord) -> Vec<u8> {
    let mut out = CLASSIC_VALUE_VERSION.to_be_bytes().to_vec();
    put_string(&mut out, &record.protocol_type);
    out.extend_from_slice(&record.generation.to_be_bytes());
    put_optional_string(&mut out, record.protocol.as_deref());
    put_optional_string(&mut out, record.leader.as_ref().map(MemberId::as_str));
    out.extend_from_slice(&record.state_time_ms.to_be_bytes());
    put_count(&mut out, record.members.len());
    for member in &record.members {
        put_string(&mut out, member.member.as_str());
        put_optional_string(&mut out, member.instance.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
        out.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
        put_bytes(&mut out, &member.metadata);
        put_bytes(&mut out, &member.assignment);
    }
    out
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Group of a key of a classic group's record.
pub(super) fn decode_classic_key(bytes: &[u8]) -> Result<GroupName, CodecError> {
    let mut reader = Reader::new("key of a classic group record", bytes);
    reader.version(CLASSIC_KEY_VERSION)?;
    let group = reader.string("group")?;
    reader.end()?;
    GroupName::new(group).map_err(|e| bad("group", &e))
}

/// A classic group's record from its value.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_classic`] does not write.
pub fn decode_classic(bytes: &[u8]) -> Result<ClassicRecord, CodecError> {
    let mut reader = Reader::new("value of a classic group record", bytes);
    reader.version(CLASSIC_VALUE_VERSION)?;
    let protocol_type = reader.string("protocol_type")?.to_owned();
    let generation = epoch(&mut reader, "generation")?;
    let protocol = reader.optional_string("protocol")?.map(str::to_owned);
    let leader = reader.optional_string("leader")?;
    let leader = leader
        .map(|id| MemberId::new(id).map_err(|e| bad("leader", &e)))
        .transpose()?;
    let state_time_ms = reader.i64("current_state_timestamp")?;
    let count = reader.count("members")?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(member(&mut reader)?);
    }
    reader.end()?;
    Ok(ClassicRecord {
        protocol_type,
        generation,
        protocol,
        leader,
        state_time_ms,
        members,
    })
}

fn member(reader: &mut Reader<'_>) -> Result<ClassicMemberRecord, CodecError> {
    let id = reader.string("member_id")?;
    Ok(ClassicMemberRecord {
        member: MemberId::new(id).map_err(|e| bad("member_id", &e))?,
        instance: reader
            .optional_string("group_instance_id")?
            .map(str::to_owned),
        client_id: reader.string("client_id")?.to_owned(),
        client_host: reader.string("client_host")?.to_owned(),
        rebalance_timeout_ms: timeout(reader, "rebalance_timeout")?,
        session_timeout_ms: timeout(reader, "session_timeout")?,
        metadata: reader.bytes("subscription")?.to_vec(),
        assignment: reader.bytes("assignment")?.to_vec(),
    })
}

fn timeout(reader: &mut Reader<'_>, field: &'static str) -> Result<i32, CodecError> {
    let ms = reader.i32(field)?;
    if ms < 0 {
        return Err(bad(field, &format!("{ms} is negative")));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Key, decode_any_key};
    use proptest::prelude::*;

    fn sample() -> ClassicRecord {
        ClassicRecord {
            protocol_type: "consumer".to_owned(),
            generation: 3,
            protocol: Some("range".to_owned()),
            leader: Some(MemberId::new("m-1").unwrap()),
            state_time_ms: -1,
            members: vec![ClassicMemberRecord {
                member: MemberId::new("m-1").unwrap(),
                instance: None,
                client_id: "app".to_owned(),
                client_host: "10.0.0.9".to_owned(),
                rebalance_timeout_ms: 60_000,
                session_timeout_ms: 45_000,
                metadata: vec![1, 2],
                assignment: vec![3],
            }],
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
        for (name, bytes) in [
            ("ckey  ", encode_classic_key(&group)),
            ("cvalue", encode_classic(&sample())),
        ] {
            let line = format!("{name} {}\n", hex(&bytes));
            assert!(document.contains(&line), "{line}");
        }
    }

    #[test]
    fn round_trip() {
        let group = GroupName::new("billing").unwrap();
        assert_eq!(
            decode_any_key(&encode_classic_key(&group)),
            Ok(Key::Classic(group))
        );
        let empty = ClassicRecord {
            protocol: None,
            leader: None,
            members: Vec::new(),
            ..sample()
        };
        for record in [sample(), empty] {
            assert_eq!(decode_classic(&encode_classic(&record)), Ok(record));
        }
    }

    proptest! {
        #[test]
        fn decoding_is_total(at in 0_usize..128, to in any::<u8>(), cut in 0_usize..128) {
            let mut value = encode_classic(&sample());
            if let Some(byte) = value.get_mut(at) {
                *byte = to;
            }
            value.truncate(cut.max(48));
            if let Ok(record) = decode_classic(&value) {
                prop_assert_eq!(encode_classic(&record), value);
            }
        }
    }
}
