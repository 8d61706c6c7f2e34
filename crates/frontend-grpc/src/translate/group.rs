//! Consumer groups: requests to broker API, and groups and committed offsets to messages.

use varve_broker_api::{
    CommitOffsets, CommittedOffset, Error, GetOffsets, GroupInfo, GroupListing, GroupProtocol,
    GroupState, Heartbeat, HeartbeatReply, MemberInfo, OffsetCommit, Position, ResetOffsets,
    ResetTarget, Subscription,
};
use varve_proto::v1;
use varve_types::{MemberId, Offset, limits};

use super::{
    Start, all_partitions, at_most, duration, group_name, leader_epoch, member_id, missing, offset,
    pattern, start, to_duration, to_timestamp, to_topic_partition, topic_name, topic_partition,
    topic_partitions,
};

/// Reads a Heartbeat.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn heartbeat(request: &v1::HeartbeatRequest) -> Result<Heartbeat, Error> {
    let joining = request.member_epoch == 0 && !request.leave;
    if request.member_epoch < 0 {
        let text = format!(
            "member_epoch must not be negative; found {}",
            request.member_epoch
        );
        return Err(Error::invalid("member_epoch", text));
    }
    let subscription = request
        .subscription
        .as_ref()
        .map(|s| subscription("subscription", &s.topics, &s.topic_pattern, &s.assignor))
        .transpose()?;
    if joining && subscription.is_none() {
        return Err(missing("subscription"));
    }
    let owned = match &request.owned {
        Some(owned) => Some(all_partitions("owned", &owned.partitions)?),
        None if joining => Some(Vec::new()),
        None => None,
    };
    Ok(Heartbeat {
        group: group_name("group", &request.group)?,
        member: member_id("member_id", &request.member_id)?,
        member_epoch: request.member_epoch,
        leave: request.leave,
        keep_assignment: request.keep_assignment,
        instance: instance(&request.instance_id)?,
        subscription,
        owned,
        rack: bounded("rack", &request.rack)?,
        session_timeout: None,
        rebalance_timeout: duration("rebalance_timeout", request.rebalance_timeout.as_ref())?,
        max_wait: duration("max_wait", request.max_wait.as_ref())?.unwrap_or_default(),
    })
}

/// Reads a subscription.
///
/// # Errors
/// `InvalidRequest` naming `field` when it names nothing, too much, or a pattern that does not compile.
pub fn subscription(
    field: &'static str,
    topics: &[String],
    topic_pattern: &str,
    assignor: &str,
) -> Result<Subscription, Error> {
    if topics.is_empty() && topic_pattern.is_empty() {
        let text = format!("{field} must name at least one topic or a topic_pattern");
        return Err(Error::invalid(field, text));
    }
    at_most(field, topics.len(), limits::PARTITIONS_PER_NODE_MAX)?;
    if !topic_pattern.is_empty() {
        pattern("topic_pattern", topic_pattern)?;
    }
    if !matches!(assignor, "" | "uniform" | "range") {
        return Err(Error::invalid(
            "assignor",
            "assignor must be \"uniform\", \"range\" or empty",
        ));
    }
    Ok(Subscription {
        topics: topics
            .iter()
            .map(|t| topic_name(field, t))
            .collect::<Result<_, _>>()?,
        pattern: topic_pattern.to_owned(),
        assignor: assignor.to_owned(),
    })
}

/// Reads an instance id; empty is none.
///
/// # Errors
/// `InvalidRequest`.
pub fn instance(text: &str) -> Result<Option<String>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    MemberId::new(text).map_err(|e| Error::invalid("instance_id", e.to_string()))?;
    Ok(Some(text.to_owned()))
}

/// Bounds a free text that is shown to people.
///
/// # Errors
/// `InvalidRequest` naming `field`.
pub fn bounded(field: &'static str, text: &str) -> Result<String, Error> {
    if text.len() > limits::NAME_MAX_BYTES {
        let text = format!(
            "{field} may have at most {} bytes; found {}",
            limits::NAME_MAX_BYTES,
            text.len()
        );
        return Err(Error::invalid(field, text));
    }
    Ok(text.to_owned())
}

/// The answer to a heartbeat.
#[must_use]
pub fn to_heartbeat(reply: &HeartbeatReply) -> v1::HeartbeatResponse {
    v1::HeartbeatResponse {
        member_epoch: reply.member_epoch,
        assignment: reply
            .assignment
            .as_ref()
            .map(|partitions| v1::OwnedPartitions {
                partitions: partitions.iter().map(to_topic_partition).collect(),
            }),
        heartbeat_interval: Some(to_duration(reply.heartbeat_interval)),
        session_timeout: Some(to_duration(reply.session_timeout)),
    }
}

/// Reads a CommitOffsets.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn commit(request: &v1::CommitOffsetsRequest) -> Result<CommitOffsets, Error> {
    if request.member_epoch < 0 {
        let text = format!(
            "member_epoch must not be negative; found {}",
            request.member_epoch
        );
        return Err(Error::invalid("member_epoch", text));
    }
    let member = match request.member_id.as_str() {
        "" => None,
        id => Some(member_id("member_id", id)?),
    };
    Ok(CommitOffsets {
        group: group_name("group", &request.group)?,
        member,
        member_epoch: request.member_epoch,
        offsets: commits(&request.offsets)?,
    })
}

/// Reads positions to commit.
///
/// # Errors
/// `InvalidRequest` naming the field when there are none, too many, or one is not well formed.
pub fn commits(offsets: &[v1::PartitionCommit]) -> Result<Vec<OffsetCommit>, Error> {
    if offsets.is_empty() {
        return Err(missing("offsets"));
    }
    at_most("offsets", offsets.len(), limits::REQUEST_MAX_PARTITIONS)?;
    offsets
        .iter()
        .map(|commit| {
            let found = commit.metadata.len();
            if found > limits::COMMIT_METADATA_MAX_BYTES {
                let max = limits::COMMIT_METADATA_MAX_BYTES;
                let text = format!("commit metadata may have at most {max} bytes; found {found}");
                return Err(Error::invalid("offsets.metadata", text));
            }
            let tp = commit.topic_partition.as_ref();
            Ok(OffsetCommit {
                partition: topic_partition("offsets.topic_partition", tp)?,
                offset: offset("offsets.offset", commit.offset)?,
                leader_epoch: leader_epoch("offsets.leader_epoch", commit.leader_epoch)?,
                metadata: commit.metadata.clone(),
            })
        })
        .collect()
}

/// Reads a GetOffsets.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn get_offsets(request: &v1::GetOffsetsRequest) -> Result<GetOffsets, Error> {
    Ok(GetOffsets {
        group: group_name("group", &request.group)?,
        partitions: topic_partitions("partitions", &request.partitions)?,
        include_lag: request.include_lag,
        require_stable: request.require_stable,
    })
}

/// A committed offset in the words of the API.
#[must_use]
pub fn to_committed(committed: &CommittedOffset) -> v1::CommittedOffset {
    let lag = committed
        .high_watermark
        .map(|hw| i64::try_from(hw.since(committed.offset)).unwrap_or(i64::MAX));
    v1::CommittedOffset {
        topic_partition: Some(to_topic_partition(&committed.partition)),
        offset: committed.offset.get(),
        leader_epoch: committed.leader_epoch.map(|e| e.get().into()),
        metadata: committed.metadata.clone(),
        commit_time: Some(to_timestamp(committed.commit_time_ms)),
        lag,
        high_watermark: committed.high_watermark.map(Offset::get),
        next_record_time: committed.next_time_ms.map(to_timestamp),
    }
}

/// Reads a ResetOffsets.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn reset(request: &v1::ResetOffsetsRequest) -> Result<ResetOffsets, Error> {
    use v1::reset_offsets_request::Target as T;
    let target = match &request.target {
        None => return Err(missing("target")),
        Some(T::Position(position)) => match start("position", Some(position))? {
            None => ResetTarget::Position(Position::Earliest),
            Some(Start::At(position)) => ResetTarget::Position(position),
            Some(Start::Committed) => ResetTarget::Committed,
        },
        Some(T::ShiftBy(n)) => ResetTarget::ShiftBy(*n),
        Some(T::FromGroup(group)) => ResetTarget::FromGroup(group_name("from_group", group)?),
    };
    at_most(
        "topics",
        request.topics.len(),
        limits::REQUEST_MAX_PARTITIONS,
    )?;
    Ok(ResetOffsets {
        group: group_name("group", &request.group)?,
        partitions: topic_partitions("partitions", &request.partitions)?,
        topics: request
            .topics
            .iter()
            .map(|t| topic_name("topics", t))
            .collect::<Result<_, _>>()?,
        target,
        validate_only: request.validate_only,
    })
}

const fn to_state(state: GroupState) -> v1::GroupState {
    match state {
        GroupState::Empty => v1::GroupState::Empty,
        GroupState::Stable => v1::GroupState::Stable,
        GroupState::Reconciling => v1::GroupState::Reconciling,
    }
}

const fn to_protocol(protocol: GroupProtocol) -> v1::GroupProtocol {
    match protocol {
        GroupProtocol::Classic => v1::GroupProtocol::Classic,
        GroupProtocol::Consumer => v1::GroupProtocol::Consumer,
    }
}

/// A group in a list, in the words of the API.
#[must_use]
pub fn to_listing(listing: &GroupListing) -> v1::GroupListing {
    v1::GroupListing {
        group: listing.group.to_string(),
        state: to_state(listing.state) as i32,
        kind: v1::GroupKind::Consumer as i32,
        coordinator_node_id: listing.coordinator.0,
        member_count: i32::try_from(listing.members).unwrap_or(i32::MAX),
        protocol: to_protocol(listing.protocol) as i32,
    }
}

/// A group in the words of the API.
#[must_use]
pub fn to_group(group: &GroupInfo) -> v1::Group {
    v1::Group {
        name: group.group.to_string(),
        state: to_state(group.state) as i32,
        kind: v1::GroupKind::Consumer as i32,
        coordinator_node_id: group.coordinator.0,
        group_epoch: group.group_epoch,
        assignment_epoch: group.assignment_epoch,
        assignor: group.assignor.clone(),
        members: group.members.iter().map(to_member).collect(),
        protocol: to_protocol(group.protocol) as i32,
    }
}

fn to_member(member: &MemberInfo) -> v1::GroupMember {
    v1::GroupMember {
        member_id: member.member.to_string(),
        instance_id: member.instance.clone().unwrap_or_default(),
        client_id: member.client_id.to_string(),
        client_address: member.peer.map(|p| p.to_string()).unwrap_or_default(),
        member_epoch: member.member_epoch,
        rack: member.rack.clone(),
        subscription: Some(v1::GroupSubscription {
            topics: member
                .subscription
                .topics
                .iter()
                .map(ToString::to_string)
                .collect(),
            topic_pattern: member.subscription.pattern.clone(),
            assignor: member.subscription.assignor.clone(),
        }),
        owned: member.owned.iter().map(to_topic_partition).collect(),
        target: member.target.iter().map(to_topic_partition).collect(),
        since_heartbeat: Some(to_duration(member.since_heartbeat)),
        protocol: to_protocol(member.protocol) as i32,
    }
}

/// What ListGroups keeps.
#[derive(Debug)]
pub struct GroupFilter {
    prefix: String,
    states: Vec<i32>,
    none: bool,
}

impl GroupFilter {
    /// Reads the filters of a ListGroups.
    ///
    /// # Errors
    /// `InvalidRequest` for unknown enum values.
    pub fn read(request: &v1::ListGroupsRequest) -> Result<Self, Error> {
        at_most("states", request.states.len(), 16)?;
        at_most("kinds", request.kinds.len(), 16)?;
        for raw in &request.states {
            v1::GroupState::try_from(*raw).map_err(|_| super::unknown_enum("states", *raw))?;
        }
        for raw in &request.kinds {
            v1::GroupKind::try_from(*raw).map_err(|_| super::unknown_enum("kinds", *raw))?;
        }
        let consumer = v1::GroupKind::Consumer as i32;
        Ok(Self {
            prefix: request.name_prefix.clone(),
            states: request.states.clone(),
            none: !request.kinds.is_empty() && !request.kinds.contains(&consumer),
        })
    }

    /// Whether a group is kept.
    #[must_use]
    pub fn keeps(&self, listing: &GroupListing) -> bool {
        let state = to_state(listing.state) as i32;
        !self.none
            && listing.group.as_str().starts_with(&self.prefix)
            && (self.states.is_empty() || self.states.contains(&state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            group: "g".to_owned(),
            member_id: "m".to_owned(),
            subscription: Some(v1::GroupSubscription {
                topics: vec!["t".to_owned()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn joining_needs_a_subscription_and_owns_nothing_by_default() {
        let beat = heartbeat(&request()).unwrap();
        assert_eq!(beat.owned, Some(Vec::new()));
        let later = heartbeat(&v1::HeartbeatRequest {
            member_epoch: 3,
            subscription: None,
            ..request()
        });
        assert_eq!(later.unwrap().owned, None);
        let none = heartbeat(&v1::HeartbeatRequest {
            subscription: None,
            ..request()
        });
        assert_eq!(none.unwrap_err().field, Some("subscription"));
    }

    #[test]
    fn heartbeats_are_checked() {
        let sub = |topics: &[&str], pattern: &str, assignor: &str| {
            Some(v1::GroupSubscription {
                topics: topics.iter().map(|t| (*t).to_owned()).collect(),
                topic_pattern: pattern.to_owned(),
                assignor: assignor.to_owned(),
            })
        };
        for (bad, field) in [
            (
                v1::HeartbeatRequest {
                    group: "../x".to_owned(),
                    ..request()
                },
                "group",
            ),
            (
                v1::HeartbeatRequest {
                    member_id: String::new(),
                    ..request()
                },
                "member_id",
            ),
            (
                v1::HeartbeatRequest {
                    member_epoch: -1,
                    ..request()
                },
                "member_epoch",
            ),
            (
                v1::HeartbeatRequest {
                    instance_id: "a b".to_owned(),
                    ..request()
                },
                "instance_id",
            ),
            (
                v1::HeartbeatRequest {
                    rack: "r".repeat(300),
                    ..request()
                },
                "rack",
            ),
            (
                v1::HeartbeatRequest {
                    subscription: sub(&[], "", ""),
                    ..request()
                },
                "subscription",
            ),
            (
                v1::HeartbeatRequest {
                    subscription: sub(&[], "(", ""),
                    ..request()
                },
                "topic_pattern",
            ),
            (
                v1::HeartbeatRequest {
                    subscription: sub(&["t"], "", "sticky"),
                    ..request()
                },
                "assignor",
            ),
            (
                v1::HeartbeatRequest {
                    subscription: sub(&["a/b"], "", ""),
                    ..request()
                },
                "subscription",
            ),
        ] {
            assert_eq!(heartbeat(&bad).unwrap_err().field, Some(field));
        }
    }

    #[test]
    fn commits_are_checked() {
        let good = || v1::PartitionCommit {
            topic_partition: Some(v1::TopicPartition {
                topic: "t".to_owned(),
                partition: 0,
            }),
            offset: 3,
            ..Default::default()
        };
        assert_eq!(commits(&[good()]).unwrap()[0].offset.get(), 3);
        assert!(commits(&[]).is_err());
        for bad in [
            v1::PartitionCommit {
                offset: -1,
                ..good()
            },
            v1::PartitionCommit {
                metadata: "x".repeat(4097),
                ..good()
            },
            v1::PartitionCommit {
                topic_partition: None,
                ..good()
            },
            v1::PartitionCommit {
                leader_epoch: Some(-2),
                ..good()
            },
        ] {
            assert!(commits(&[bad]).is_err());
        }
        assert!(commits(&vec![good(); 1001]).is_err());
    }

    #[test]
    fn reset_targets() {
        use v1::reset_offsets_request::Target as T;
        let with = |target| {
            reset(&v1::ResetOffsetsRequest {
                group: "g".to_owned(),
                target,
                ..Default::default()
            })
            .map(|r| r.target)
        };
        assert!(with(None).is_err());
        assert_eq!(
            with(Some(T::ShiftBy(-5))).unwrap(),
            ResetTarget::ShiftBy(-5)
        );
        let committed = v1::start_position::Position::Anchor(v1::StartAnchor::Committed as i32);
        let position = v1::StartPosition {
            position: Some(committed),
        };
        assert_eq!(
            with(Some(T::Position(position))).unwrap(),
            ResetTarget::Committed
        );
        assert!(with(Some(T::FromGroup("a b".to_owned()))).is_err());
    }
}
