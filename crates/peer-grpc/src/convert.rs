//! The messages of replication and heartbeats, to the wire and back.
//!
//! Invariants: conversion to the wire is total; conversion from it either gives legal values or says which
//! part is not legal, and never panics. Batches are passed on as they are: whoever takes them checks them.

use varve_broker::peer::{Answer, Records, ToLeader};
use varve_metadata::{Heartbeat, NodeState, Output, PartitionKey};
use varve_partition::{FetchId, FetchRefusal, Position};
use varve_proto::peer::v1 as pb;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionId, TopicId, limits};

/// A message that a sound peer does not send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

pub(crate) type Result<T> = std::result::Result<T, Invalid>;

pub(crate) fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Invalid(what.into()))
}

pub(crate) fn missing(what: &str) -> Invalid {
    Invalid(format!("{what} is missing"))
}

pub(crate) fn node(raw: i32) -> Result<NodeId> {
    if raw < 0 {
        return invalid(format!("node_id is {raw}; it must not be negative"));
    }
    Ok(NodeId(raw))
}

fn offset(what: &str, raw: i64) -> Result<Offset> {
    Offset::new(raw)
        .ok_or_else(|| Invalid(format!("{what} is {raw}; an offset must not be negative")))
}

pub(crate) fn leader_epoch(what: &str, raw: i32) -> Result<LeaderEpoch> {
    LeaderEpoch::new(raw)
        .ok_or_else(|| Invalid(format!("{what} is {raw}; an epoch must not be negative")))
}

fn broker_epoch(what: &str, raw: i64) -> Result<BrokerEpoch> {
    BrokerEpoch::new(raw)
        .ok_or_else(|| Invalid(format!("{what} is {raw}; an epoch must not be negative")))
}

pub(crate) const fn to_partition(key: PartitionKey) -> pb::Partition {
    pb::Partition {
        topic_id_high: (key.topic.0 >> 64) as u64,
        topic_id_low: key.topic.0 as u64,
        partition: key.partition.0,
    }
}

pub(crate) fn partition(raw: Option<pb::Partition>) -> Result<PartitionKey> {
    let raw = raw.ok_or_else(|| missing("partition"))?;
    if raw.partition < 0 {
        return invalid(format!(
            "partition is {}; it must not be negative",
            raw.partition
        ));
    }
    let topic = (u128::from(raw.topic_id_high) << 64) | u128::from(raw.topic_id_low);
    Ok(PartitionKey {
        topic: TopicId(topic),
        partition: PartitionId(raw.partition),
    })
}

fn to_position(position: &Position) -> pb::Position {
    pb::Position {
        node_id: position.from.0,
        broker_epoch: position.broker_epoch.get(),
        leader_epoch: position.leader_epoch.get(),
        partition_epoch: position.partition_epoch,
        sequence: position.sequence,
        log_end: position.log_end.get(),
        last_epoch: position.last_epoch.map(LeaderEpoch::get),
        flushed: position.flushed.get(),
    }
}

fn position(follower: NodeId, raw: Option<pb::Position>) -> Result<Position> {
    let raw = raw.ok_or_else(|| missing("position"))?;
    let from = node(raw.node_id)?;
    if from != follower {
        return invalid(format!("node {follower} sent a position of node {from}"));
    }
    Ok(Position {
        from,
        broker_epoch: broker_epoch("broker_epoch", raw.broker_epoch)?,
        leader_epoch: leader_epoch("leader_epoch", raw.leader_epoch)?,
        partition_epoch: raw.partition_epoch,
        sequence: raw.sequence,
        log_end: offset("log_end", raw.log_end)?,
        last_epoch: raw
            .last_epoch
            .map(|epoch| leader_epoch("last_epoch", epoch))
            .transpose()?,
        flushed: offset("flushed", raw.flushed)?,
    })
}

/// What a follower says, for the wire.
#[must_use]
pub fn to_replicate_request(messages: &[ToLeader]) -> pb::ReplicateRequest {
    let message = |message: &ToLeader| match message {
        ToLeader::Fetch {
            partition,
            id,
            position,
        } => pb::FollowerMessage {
            partition: Some(to_partition(*partition)),
            position: Some(to_position(position)),
            fetch_id: Some(id.0),
        },
        ToLeader::Progress {
            partition,
            position,
        } => pb::FollowerMessage {
            partition: Some(to_partition(*partition)),
            position: Some(to_position(position)),
            fetch_id: None,
        },
    };
    pb::ReplicateRequest {
        messages: messages.iter().map(message).collect(),
    }
}

/// What `follower` says.
///
/// # Errors
/// [`Invalid`]; nothing of the message counts then.
pub fn replicate_request(follower: NodeId, raw: pb::ReplicateRequest) -> Result<Vec<ToLeader>> {
    let count = raw.messages.len();
    if count > limits::PEER_MESSAGES_MAX {
        return invalid(format!(
            "{count} messages in one; at most {} are allowed",
            limits::PEER_MESSAGES_MAX
        ));
    }
    let message = |raw: pb::FollowerMessage| {
        let partition = partition(raw.partition)?;
        let position = position(follower, raw.position)?;
        Ok(match raw.fetch_id {
            Some(id) => ToLeader::Fetch {
                partition,
                id: FetchId(id),
                position,
            },
            None => ToLeader::Progress {
                partition,
                position,
            },
        })
    };
    raw.messages.into_iter().map(message).collect()
}

fn to_refused(refusal: FetchRefusal) -> pb::FetchRefused {
    use pb::FetchRefusalReason as Reason;
    let (reason, epoch, offset) = match refusal {
        FetchRefusal::NotLeader => (Reason::NotLeader, None, None),
        FetchRefusal::FencedLeaderEpoch(epoch) => (Reason::FencedLeaderEpoch, Some(epoch), None),
        FetchRefusal::UnknownLeaderEpoch(epoch) => (Reason::UnknownLeaderEpoch, Some(epoch), None),
        FetchRefusal::NotReplica => (Reason::NotReplica, None, None),
        FetchRefusal::Stale => (Reason::Stale, None, None),
        FetchRefusal::Diverging { epoch, end_offset } => {
            (Reason::Diverging, Some(epoch), Some(end_offset))
        }
        FetchRefusal::OutOfRange { log_start } => (Reason::OutOfRange, None, Some(log_start)),
    };
    pb::FetchRefused {
        reason: reason.into(),
        leader_epoch: epoch.map(LeaderEpoch::get),
        offset: offset.map(Offset::get),
    }
}

fn refusal(raw: pb::FetchRefused) -> Result<FetchRefusal> {
    use pb::FetchRefusalReason as Reason;
    let epoch = || {
        let raw = raw.leader_epoch.ok_or_else(|| missing("leader_epoch"))?;
        leader_epoch("leader_epoch", raw)
    };
    let place = || offset("offset", raw.offset.ok_or_else(|| missing("offset"))?);
    let reason = Reason::try_from(raw.reason)
        .map_err(|_| Invalid(format!("{} is not a known refusal", raw.reason)))?;
    Ok(match reason {
        Reason::Unspecified => return Err(missing("reason")),
        Reason::NotLeader => FetchRefusal::NotLeader,
        Reason::FencedLeaderEpoch => FetchRefusal::FencedLeaderEpoch(epoch()?),
        Reason::UnknownLeaderEpoch => FetchRefusal::UnknownLeaderEpoch(epoch()?),
        Reason::NotReplica => FetchRefusal::NotReplica,
        Reason::Stale => FetchRefusal::Stale,
        Reason::Diverging => FetchRefusal::Diverging {
            epoch: epoch()?,
            end_offset: place()?,
        },
        Reason::OutOfRange => FetchRefusal::OutOfRange {
            log_start: place()?,
        },
    })
}

/// Bytes of records in an answer.
#[must_use]
pub fn record_bytes(answer: &Answer) -> usize {
    answer.result.as_ref().map_or(0, |r| r.batches.len())
}

/// What a leader answers, for the wire.
#[must_use]
pub fn to_replicate_response(answers: Vec<Answer>) -> pb::ReplicateResponse {
    use pb::fetch_answer::Result as Wire;
    let answer = |answer: Answer| pb::FetchAnswer {
        partition: Some(to_partition(answer.partition)),
        fetch_id: answer.id.0,
        result: Some(match answer.result {
            Ok(records) => Wire::Records(pb::FetchedRecords {
                batches: records.batches,
                high_watermark: records.high_watermark.get(),
                log_start: records.log_start.get(),
            }),
            Err(refusal) => Wire::Refused(to_refused(refusal)),
        }),
    };
    pb::ReplicateResponse {
        answers: answers.into_iter().map(answer).collect(),
    }
}

/// What a leader answers.
///
/// # Errors
/// [`Invalid`]; nothing of the message counts then.
pub fn replicate_response(raw: pb::ReplicateResponse) -> Result<Vec<Answer>> {
    use pb::fetch_answer::Result as Wire;
    let answer = |raw: pb::FetchAnswer| {
        let result = match raw.result.ok_or_else(|| missing("result"))? {
            Wire::Records(records) => Ok(Records {
                batches: records.batches,
                high_watermark: offset("high_watermark", records.high_watermark)?,
                log_start: offset("log_start", records.log_start)?,
            }),
            Wire::Refused(refused) => Err(refusal(refused)?),
        };
        Ok(Answer {
            partition: partition(raw.partition)?,
            id: FetchId(raw.fetch_id),
            result,
        })
    };
    raw.answers.into_iter().map(answer).collect()
}

/// A sign of life, for the wire.
#[must_use]
pub const fn to_heartbeat_request(beat: &Heartbeat) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest {
        node_id: beat.node.0,
        broker_epoch: beat.epoch.get(),
        metadata_version_applied: beat.metadata_version_applied,
        wants_shutdown: beat.wants_shutdown,
    }
}

/// A sign of life of `caller`.
///
/// # Errors
/// [`Invalid`]; the node was not heard then.
pub fn heartbeat_request(caller: NodeId, raw: &pb::HeartbeatRequest) -> Result<Heartbeat> {
    let node = node(raw.node_id)?;
    if node != caller {
        return invalid(format!("node {caller} sent a heartbeat of node {node}"));
    }
    Ok(Heartbeat {
        node,
        epoch: broker_epoch("broker_epoch", raw.broker_epoch)?,
        metadata_version_applied: raw.metadata_version_applied,
        wants_shutdown: raw.wants_shutdown,
    })
}

/// What the controller says, for the wire.
#[must_use]
pub fn to_heartbeat_response(output: &Output) -> pb::HeartbeatResponse {
    use pb::heartbeat_response::Output as Wire;
    let (node, output) = match *output {
        Output::Alive {
            node,
            state,
            may_stop,
            emptied,
        } => {
            let state = match state {
                NodeState::Fenced => pb::NodeState::Fenced,
                NodeState::Active => pb::NodeState::Active,
                NodeState::Draining => pb::NodeState::Draining,
            };
            let heard = pb::HeardNode {
                state: state.into(),
                may_stop,
                emptied,
            };
            (node, Wire::Heard(heard))
        }
        Output::MustRegister { node, found } => {
            let needed = pb::RegistrationNeeded {
                found_broker_epoch: found.map(BrokerEpoch::get),
            };
            (node, Wire::RegistrationNeeded(needed))
        }
        Output::NotController { node } => (node, Wire::NotController(pb::NotController {})),
    };
    pb::HeartbeatResponse {
        node_id: node.0,
        output: Some(output),
    }
}

/// What the controller says to the sign of life of `asked`.
///
/// # Errors
/// [`Invalid`]; whether the node was heard is unknown then.
pub fn heartbeat_response(asked: NodeId, raw: pb::HeartbeatResponse) -> Result<Output> {
    use pb::heartbeat_response::Output as Wire;
    let node = node(raw.node_id)?;
    if node != asked {
        return invalid(format!(
            "the heartbeat of node {asked} got the answer for node {node}"
        ));
    }
    Ok(match raw.output.ok_or_else(|| missing("output"))? {
        Wire::Heard(heard) => Output::Alive {
            node,
            state: match pb::NodeState::try_from(heard.state) {
                Ok(pb::NodeState::Fenced) => NodeState::Fenced,
                Ok(pb::NodeState::Active) => NodeState::Active,
                Ok(pb::NodeState::Draining) => NodeState::Draining,
                Ok(pb::NodeState::Unspecified) => return Err(missing("state")),
                Err(_) => return invalid(format!("{} is not a known node state", heard.state)),
            },
            may_stop: heard.may_stop,
            emptied: heard.emptied,
        },
        Wire::RegistrationNeeded(needed) => Output::MustRegister {
            node,
            found: needed
                .found_broker_epoch
                .map(|epoch| broker_epoch("found_broker_epoch", epoch))
                .transpose()?,
        },
        Wire::NotController(pb::NotController {}) => Output::NotController { node },
    })
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
