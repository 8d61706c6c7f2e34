//! Words of groups: states, and what members of the classic protocol say to each other.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use varve_broker_api::{ClassicGroup, Error, GroupProtocol, GroupState};
use varve_types::{ErrorKind, TopicName, TopicPartition};

use super::classic::classic_state;
use super::{code, mentioned};
use crate::wire::{ErrorCode, Text};

/// The state of a group as clients show it.
#[must_use]
pub fn state(state: GroupState, classic: Option<&ClassicGroup>) -> &'static str {
    match (state, classic) {
        (_, Some(classic)) => classic_state(classic.state),
        (GroupState::Empty, None) => "Empty",
        (GroupState::Stable, None) => "Stable",
        (GroupState::Reconciling, None) => "Reconciling",
    }
}

/// What members of a group do together, as they call it.
#[must_use]
pub fn protocol_type(classic: Option<&ClassicGroup>, simple: bool) -> Text {
    match classic {
        Some(classic) => Text::from(classic.protocol_type.as_str()),
        None if simple => Text::default(),
        None => Text::from_static("consumer"),
    }
}

/// The protocol of a group as clients show it. One that never had members (`simple`) is a classic group without a
/// protocol.
#[must_use]
pub const fn kind(protocol: GroupProtocol, simple: bool) -> &'static str {
    match protocol {
        GroupProtocol::Consumer if !simple => "consumer",
        GroupProtocol::Classic | GroupProtocol::Consumer => "classic",
    }
}

/// Whether a member of the classic protocol was refused, which knows codes of its own.
#[must_use]
pub fn in_classic_terms(error: &Error) -> bool {
    mentioned::<String>(error, "protocol").is_some_and(|p| p == "classic")
}

/// The code of an error about a group.
#[must_use]
pub fn group_code(error: &Error) -> ErrorCode {
    let classic = in_classic_terms(error);
    match (error.kind, error.field) {
        // What members of the classic protocol know.
        (ErrorKind::StaleMemberEpoch, _) if classic => ErrorCode::IllegalGeneration,
        (ErrorKind::FencedMemberEpoch, _) if classic => ErrorCode::FencedInstanceId,
        (ErrorKind::OperationInProgress, _) if classic => ErrorCode::RebalanceInProgress,
        (ErrorKind::InvalidRequest, Some("offsets.metadata" | "metadata")) => {
            ErrorCode::OffsetMetadataTooLarge
        }
        (ErrorKind::InvalidRequest, Some("subscription.assignor")) => {
            ErrorCode::UnsupportedAssignor
        }
        (ErrorKind::InvalidRequest, Some("subscription.topic_pattern")) => {
            ErrorCode::InvalidRegularExpression
        }
        // There is nobody to ask at present.
        (ErrorKind::LeaderNotAvailable, _) => ErrorCode::CoordinatorNotAvailable,
        (ErrorKind::ShuttingDown | ErrorKind::NotLeader, _) => ErrorCode::NotCoordinator,
        // What the coordinator's log lacks is none of the client's business: it calls again upon this.
        (
            ErrorKind::Throttled
            | ErrorKind::StorageFull
            | ErrorKind::StorageError
            | ErrorKind::CommitTimeout
            | ErrorKind::NotEnoughReplicas,
            _,
        ) => ErrorCode::CoordinatorNotAvailable,
        (ErrorKind::ConcurrentTransactions, _) => ErrorCode::UnstableOffsetCommit,
        (kind, _) => code(kind),
    }
}

/// Partitions by topic, in order.
#[must_use]
pub fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&TopicName, Vec<i32>> {
    let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
    for place in partitions {
        let numbers = topics.entry(&place.topic).or_default();
        numbers.push(place.partition.0);
    }
    topics
}

fn string(out: &mut BytesMut, text: &str) {
    // Names of topics are short.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

/// A member's subscription as members of the classic protocol encode it, version 0.
#[must_use]
pub fn subscription(topics: &[TopicName]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(i32::try_from(topics.len()).unwrap_or(i32::MAX));
    for topic in topics {
        string(&mut out, topic.as_str());
    }
    out.put_i32(-1);
    out.freeze()
}

/// A member's partitions as leaders of the classic protocol encode them, version 0.
#[must_use]
pub fn assignment(partitions: &[TopicPartition]) -> Bytes {
    let topics = by_topic(partitions);
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(i32::try_from(topics.len()).unwrap_or(i32::MAX));
    for (topic, numbers) in topics {
        string(&mut out, topic.as_str());
        out.put_i32(i32::try_from(numbers.len()).unwrap_or(i32::MAX));
        for number in numbers {
            out.put_i32(number);
        }
    }
    out.put_i32(-1);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use varve_types::PartitionId;

    use super::*;

    #[test]
    fn what_members_say_is_as_the_classic_protocol_has_it() {
        let place =
            |topic: &str, number| TopicPartition::new(topic.parse().unwrap(), PartitionId(number));
        assert_eq!(
            subscription(&["ab".parse().unwrap()])[..],
            [0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(
            assignment(&[place("a", 1), place("a", 2)])[..],
            [
                0, 0, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff,
                0xff
            ]
        );
    }
}
