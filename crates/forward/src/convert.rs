//! Messages of the public API as this node sends them to others, and their answers in the broker's words.
//! Invariant: what another node sends is never trusted to be well formed; it becomes an error, not a panic.

use std::time::Duration;

use varve_broker_api as api;
use varve_broker_api::{Error, LeaderHint};
use varve_client::{RpcError, proto as v1};
use varve_types::{
    ErrorKind, GroupName, LeaderEpoch, MemberId, NodeId, Offset, PartitionId, TopicName,
    TopicPartition,
};

use crate::nodes::Failure;
use crate::{Result, missing};

/// An offset. One that is not, is the beginning.
pub(crate) fn offset(raw: i64) -> Offset {
    Offset::new(raw).unwrap_or(Offset::ZERO)
}

pub(crate) fn epoch(raw: i64) -> LeaderEpoch {
    i32::try_from(raw)
        .ok()
        .and_then(LeaderEpoch::new)
        .unwrap_or_default()
}

pub(crate) fn at(offset: i64) -> v1::StartPosition {
    v1::StartPosition {
        position: Some(v1::start_position::Position::Offset(offset)),
    }
}

pub(crate) fn partition(partition: &TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: partition.topic.to_string(),
        partition: partition.partition.0,
    }
}

pub(crate) fn from_partition(partition: Option<v1::TopicPartition>) -> Result<TopicPartition> {
    let partition = partition.ok_or_else(|| missing("a partition"))?;
    let topic = TopicName::new(&partition.topic).map_err(|_| missing("a topic's name"))?;
    Ok(TopicPartition::new(topic, PartitionId(partition.partition)))
}

fn hint(hint: v1::LeaderHint) -> LeaderHint {
    LeaderHint {
        node: NodeId(hint.node_id),
        epoch: epoch(hint.leader_epoch),
        address: hint.address,
    }
}

/// What the failure of a passed on call means.
pub(crate) fn failure(to: &LeaderHint, error: RpcError) -> Failure {
    let known = |error| Failure {
        error,
        unknown: false,
    };
    let LeaderHint { node, address, .. } = to;
    match error.kind {
        // It goes away: somebody else is asked next, as after an election.
        Some(ErrorKind::ShuttingDown) => known(Error::new(
            ErrorKind::LeaderNotAvailable,
            format!("node {node} is shutting down; nothing was changed; try again"),
        )),
        Some(kind) => known(Error {
            kind,
            message: error.message,
            field: None,
            metadata: error
                .metadata
                .into_iter()
                .filter_map(|(key, value)| Some((api::error::metadata_key(&key)?, value)))
                .collect(),
            leader: error.leader.map(|found| Box::new(hint(found))),
            retry_after: error.retry_delay,
        }),
        None if error.unsent => known(Error::new(
            ErrorKind::LeaderNotAvailable,
            format!(
                "node {node} is responsible but cannot be reached ({error}); nothing was changed; \
                 try again"
            ),
        )),
        None if error.is_retryable() => Failure {
            error: Error::new(
                ErrorKind::CommitTimeout,
                format!(
                    "the connection to node {node}, which is responsible, broke ({error}): the \
                     change may or may not have been made"
                ),
            ),
            unknown: true,
        },
        None => known(Error::new(
            ErrorKind::StorageError,
            format!("node {node} at {address} refused the call: {error}"),
        )),
    }
}

/// An error about one item of an answer.
pub(crate) fn partition_error(to: &LeaderHint, error: v1::PartitionError) -> Error {
    failure(to, RpcError::from_partition(error)).error
}

pub(crate) fn appended(appended: &v1::Appended) -> api::Appended {
    let count = |raw: i32| u32::try_from(raw).unwrap_or(0);
    api::Appended {
        base_offset: appended.base_offset.and_then(Offset::new),
        record_count: count(appended.record_count),
        append_time_ms: appended.append_time_ms,
        deduplicated: appended.deduplicated,
        leader_epoch: epoch(appended.leader_epoch),
        replicas: count(appended.replicas),
        flushed_replicas: count(appended.flushed_replicas),
        log_start: None,
    }
}

pub(crate) fn position(position: api::Position) -> v1::StartPosition {
    use v1::start_position::Position as P;
    let anchor = |anchor: v1::StartAnchor| P::Anchor(anchor.into());
    let position = match position {
        api::Position::Offset(offset) => P::Offset(offset.get()),
        api::Position::Timestamp(ms) => P::TimestampMs(ms),
        api::Position::Last(records) => P::Last(i64::try_from(records).unwrap_or(i64::MAX)),
        api::Position::Earliest => anchor(v1::StartAnchor::Earliest),
        // The largest time has no word in that protocol: its callers ask the leader themselves.
        api::Position::Latest | api::Position::MaxTimestamp => anchor(v1::StartAnchor::Latest),
    };
    v1::StartPosition {
        position: Some(position),
    }
}

pub(crate) fn isolation(isolation: api::Isolation) -> i32 {
    match isolation {
        api::Isolation::Committed => v1::Isolation::ReadCommitted.into(),
        api::Isolation::Uncommitted => v1::Isolation::ReadUncommitted.into(),
    }
}

/// Where readers of committed records end. A node of the version before says nothing of it, and has no transactions.
pub(crate) fn last_stable(said: Option<i64>, high_watermark: i64) -> Offset {
    offset(said.unwrap_or(high_watermark))
}

pub(crate) fn query(query: &api::OffsetQuery) -> v1::OffsetQuery {
    v1::OffsetQuery {
        isolation: isolation(query.isolation),
        topic_partition: Some(partition(&query.partition)),
        position: query.position.map(position),
        with_timestamp: query.with_time,
    }
}

pub(crate) fn offsets(found: &v1::PartitionOffsets) -> api::OffsetFound {
    api::OffsetFound {
        last_stable: last_stable(found.last_stable_offset, found.high_watermark),
        offset: found.offset.and_then(Offset::new),
        timestamp_ms: found.timestamp_ms,
        log_start: offset(found.log_start_offset),
        high_watermark: offset(found.high_watermark),
        leader_epoch: epoch(found.leader_epoch),
    }
}

pub(crate) fn delete(item: &api::DeleteBefore) -> v1::DeleteBefore {
    use v1::delete_before::Before;
    v1::DeleteBefore {
        topic_partition: Some(partition(&item.partition)),
        before: Some(match item.before {
            api::Before::Offset(offset) => Before::Offset(offset.get()),
            api::Before::Timestamp(ms) => Before::TimestampMs(ms),
            api::Before::End => Before::CurrentEnd(true),
        }),
    }
}

pub(crate) fn span(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default()
}

pub(crate) fn wire_span(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

fn subscription(subscription: &api::Subscription) -> v1::GroupSubscription {
    v1::GroupSubscription {
        topics: subscription
            .topics
            .iter()
            .map(ToString::to_string)
            .collect(),
        topic_pattern: subscription.pattern.clone(),
        assignor: subscription.assignor.clone(),
    }
}

pub(crate) fn heartbeat(beat: &api::Heartbeat) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        group: beat.group.to_string(),
        member_id: beat.member.to_string(),
        member_epoch: beat.member_epoch,
        leave: beat.leave,
        keep_assignment: beat.keep_assignment,
        instance_id: beat.instance.clone().unwrap_or_default(),
        subscription: beat.subscription.as_ref().map(subscription),
        owned: beat.owned.as_ref().map(|owned| v1::OwnedPartitions {
            partitions: owned.iter().map(partition).collect(),
        }),
        rack: beat.rack.clone(),
        rebalance_timeout: beat.rebalance_timeout.and_then(wire_span),
        max_wait: wire_span(beat.max_wait),
    }
}

pub(crate) fn reply(reply: v1::HeartbeatResponse) -> Result<api::HeartbeatReply> {
    let assignment = reply.assignment.map(|assignment| {
        let partitions = assignment.partitions.into_iter();
        partitions.map(|tp| from_partition(Some(tp))).collect()
    });
    Ok(api::HeartbeatReply {
        member_epoch: reply.member_epoch,
        assignment: assignment.transpose()?,
        heartbeat_interval: span(reply.heartbeat_interval),
        session_timeout: span(reply.session_timeout),
    })
}

pub(crate) fn offset_commit(commit: &api::OffsetCommit) -> v1::PartitionCommit {
    v1::PartitionCommit {
        topic_partition: Some(partition(&commit.partition)),
        offset: commit.offset.get(),
        leader_epoch: commit.leader_epoch.map(|epoch| epoch.get().into()),
        metadata: commit.metadata.clone(),
    }
}

pub(crate) fn commit(commit: &api::CommitOffsets) -> v1::CommitOffsetsRequest {
    v1::CommitOffsetsRequest {
        group: commit.group.to_string(),
        member_id: commit
            .member
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        member_epoch: commit.member_epoch,
        offsets: commit.offsets.iter().map(offset_commit).collect(),
    }
}

/// One result for each partition that was sent, of the failures that came back.
pub(crate) fn failures<'a>(
    to: &LeaderHint,
    sent: impl IntoIterator<Item = &'a TopicPartition>,
    failures: Vec<v1::CommitFailure>,
) -> Vec<Result<()>> {
    let failed = |id: &TopicPartition| {
        let wire = partition(id);
        let found = failures
            .iter()
            .find(|failure| failure.topic_partition.as_ref() == Some(&wire))?;
        Some(found.error.clone().unwrap_or_default())
    };
    sent.into_iter()
        .map(|id| match failed(id) {
            None => Ok(()),
            Some(error) => Err(partition_error(to, error)),
        })
        .collect()
}

pub(crate) fn millis(time: prost_types::Timestamp) -> i64 {
    let whole = time.seconds.saturating_mul(1000);
    whole.saturating_add(i64::from(time.nanos) / 1_000_000)
}

pub(crate) fn committed(found: v1::CommittedOffset) -> Result<api::CommittedOffset> {
    Ok(api::CommittedOffset {
        partition: from_partition(found.topic_partition)?,
        offset: offset(found.offset),
        leader_epoch: found.leader_epoch.map(epoch),
        metadata: found.metadata,
        commit_time_ms: found.commit_time.map_or(0, millis),
        high_watermark: found.high_watermark.and_then(Offset::new),
        next_time_ms: found.next_record_time.map(millis),
    })
}

pub(crate) fn reset(reset: &api::ResetOffsets) -> v1::ResetOffsetsRequest {
    use v1::reset_offsets_request::Target;
    let committed = v1::StartPosition {
        position: Some(v1::start_position::Position::Anchor(
            v1::StartAnchor::Committed.into(),
        )),
    };
    let target = match &reset.target {
        api::ResetTarget::Position(at) => Some(Target::Position(position(*at))),
        api::ResetTarget::Committed => Some(Target::Position(committed)),
        api::ResetTarget::ShiftBy(by) => Some(Target::ShiftBy(*by)),
        api::ResetTarget::FromGroup(group) => Some(Target::FromGroup(group.to_string())),
        // Made by the coordinator itself, never sent to it.
        api::ResetTarget::Exactly(_) => None,
    };
    v1::ResetOffsetsRequest {
        group: reset.group.to_string(),
        partitions: reset.partitions.iter().map(partition).collect(),
        topics: reset.topics.iter().map(ToString::to_string).collect(),
        target,
        validate_only: reset.validate_only,
    }
}

fn state(raw: i32) -> api::GroupState {
    match v1::GroupState::try_from(raw) {
        Ok(v1::GroupState::Stable) => api::GroupState::Stable,
        Ok(v1::GroupState::Reconciling) => api::GroupState::Reconciling,
        _ => api::GroupState::Empty,
    }
}

/// A node that does not say knows one protocol only.
fn protocol(raw: i32) -> api::GroupProtocol {
    match v1::GroupProtocol::try_from(raw) {
        Ok(v1::GroupProtocol::Classic) => api::GroupProtocol::Classic,
        _ => api::GroupProtocol::Consumer,
    }
}

fn group_name(text: &str) -> Result<GroupName> {
    GroupName::new(text).map_err(|_| missing("a group's name"))
}

pub(crate) fn member_id(text: &str) -> Result<MemberId> {
    MemberId::new(text).map_err(|_| missing("a member's id"))
}

pub(crate) fn listing(listing: &v1::GroupListing) -> Result<api::GroupListing> {
    Ok(api::GroupListing {
        group: group_name(&listing.group)?,
        state: state(listing.state),
        coordinator: NodeId(listing.coordinator_node_id),
        members: usize::try_from(listing.member_count).unwrap_or(0),
        simple: false,
        protocol: protocol(listing.protocol),
        classic: None,
    })
}

pub(crate) fn group(group: v1::Group) -> Result<api::GroupInfo> {
    Ok(api::GroupInfo {
        group: group_name(&group.name)?,
        state: state(group.state),
        coordinator: NodeId(group.coordinator_node_id),
        group_epoch: group.group_epoch,
        assignment_epoch: group.assignment_epoch,
        assignor: group.assignor,
        members: group
            .members
            .into_iter()
            .map(member)
            .collect::<Result<_>>()?,
        simple: false,
        protocol: protocol(group.protocol),
        classic: None,
    })
}

fn member(member: v1::GroupMember) -> Result<api::MemberInfo> {
    let wanted = member.subscription.unwrap_or_default();
    let topics = wanted.topics.iter().map(|topic| TopicName::new(topic));
    let partitions = |all: Vec<v1::TopicPartition>| {
        all.into_iter()
            .map(|tp| from_partition(Some(tp)))
            .collect::<Result<Vec<_>>>()
    };
    Ok(api::MemberInfo {
        member: member_id(&member.member_id)?,
        instance: Some(member.instance_id).filter(|id| !id.is_empty()),
        client_id: member.client_id.into(),
        peer: member.client_address.parse().ok(),
        member_epoch: member.member_epoch,
        rack: member.rack,
        subscription: api::Subscription {
            topics: topics
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| missing("a topic's name"))?,
            pattern: wanted.topic_pattern,
            assignor: wanted.assignor,
        },
        owned: partitions(member.owned)?,
        target: partitions(member.target)?,
        since_heartbeat: span(member.since_heartbeat),
        protocol: protocol(member.protocol),
        classic: None,
    })
}
