//! Where to begin: offsets by time and at the ends, and where an epoch of a leader ends.

use std::cmp::Ordering;

use varve_broker_api::{Broker, Error, Isolation, OffsetFound, OffsetQuery, Position};
use varve_types::{Offset, TopicPartition};

use super::Call;
use crate::shared::Shared;
use crate::translate::{code, epoch, partition, topic_name};
use crate::wire::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::wire::generated::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
};
use crate::wire::{ErrorCode, Text};

/// Names of places, where a time would be.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// What a time in a request means.
enum Place {
    At(Position),
    /// There is none, and that is the answer.
    Nowhere,
}

fn place(timestamp: i64) -> Result<Place, ErrorCode> {
    Ok(match timestamp {
        LATEST => Place::At(Position::Latest),
        EARLIEST | EARLIEST_LOCAL => Place::At(Position::Earliest),
        MAX_TIMESTAMP => Place::At(Position::MaxTimestamp),
        // Nothing is moved to other storage.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Place::Nowhere,
        time if time >= 0 => Place::At(Position::Timestamp(time)),
        _ => return Err(ErrorCode::UnsupportedVersion),
    })
}

pub(super) async fn list<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let isolation = match request.isolation_level {
        1 => Isolation::Committed,
        _ => Isolation::Uncommitted,
    };
    let mut queries = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let wanted = topic.partitions.into_iter().map(|wanted| {
            let query = query(&topic.name, &wanted, isolation);
            let index = match query {
                Ok(Some(query)) => {
                    queries.push(query);
                    Ok(Some(queries.len() - 1))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            (wanted, index)
        });
        let wanted: Vec<_> = wanted.collect();
        topics.push((topic.name, wanted));
    }
    let found = shared.broker.list_offsets(&call.ctx, queries).await;
    let topics = topics.into_iter().map(|(name, wanted)| {
        let partitions = wanted.into_iter().map(|(wanted, index)| {
            let found = index.map(|index| index.and_then(|index| found.get(index)));
            told(shared, call.version(), &wanted, found)
        });
        ListOffsetsTopicResponse {
            partitions: partitions.collect(),
            name,
        }
    });
    ListOffsetsResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}

/// The question to the broker; `None`: the answer is known without it.
fn query(
    topic: &Text,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Option<OffsetQuery>, ErrorCode> {
    let topic = topic_name(topic)?;
    let number = partition(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let Place::At(position) = place(wanted.timestamp)? else {
        return Ok(None);
    };
    Ok(Some(OffsetQuery {
        partition: TopicPartition::new(topic, number),
        position: Some(position),
        with_time: false,
        isolation,
    }))
}

fn told<B: Broker>(
    shared: &Shared<B>,
    version: i16,
    wanted: &ListOffsetsPartition,
    found: Result<Option<&Result<OffsetFound, Error>>, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse {
        partition_index: wanted.partition_index,
        ..ListOffsetsPartitionResponse::default()
    };
    let found = match found {
        Ok(None) => return answer,
        Ok(Some(Ok(found))) => check_epoch(wanted.current_leader_epoch, found),
        Ok(Some(Err(error))) => {
            shared.count(error);
            Err(code(error.kind))
        }
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            answer.error_code = error.code();
            return answer;
        }
    };
    let by_time = wanted.timestamp >= 0 || wanted.timestamp == MAX_TIMESTAMP;
    // A time that nothing is at or after has no offset, in the words of this protocol.
    let offset = match by_time && found.timestamp_ms.is_none() {
        true => None,
        false => found.offset,
    };
    let offset = offset.map_or(-1, Offset::get);
    if version == 0 {
        answer.old_style_offsets = vec![offset];
        return answer;
    }
    answer.offset = offset;
    if by_time {
        answer.timestamp = found.timestamp_ms.unwrap_or(-1);
    }
    if version >= 4 && wanted.timestamp == LATEST {
        answer.leader_epoch = found.leader_epoch.get();
    }
    answer
}

/// Whether the client believes in the leader's epoch as it is.
fn check_epoch(believed: i32, found: &OffsetFound) -> Result<&OffsetFound, ErrorCode> {
    let Some(believed) = epoch(believed) else {
        return Ok(found);
    };
    match believed.cmp(&found.leader_epoch) {
        Ordering::Equal => Ok(found),
        Ordering::Less => Err(ErrorCode::FencedLeaderEpoch),
        Ordering::Greater => Err(ErrorCode::UnknownLeaderEpoch),
    }
}

pub(super) async fn for_leader_epoch<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let name = topic_name(&topic.topic);
        let partitions = topic.partitions.iter().map(|wanted| {
            let mut answer = EpochEndOffset {
                partition: wanted.partition,
                ..EpochEndOffset::default()
            };
            let place = match (
                &name,
                partition(wanted.partition),
                epoch(wanted.leader_epoch),
            ) {
                (Err(error), _, _) => Err(*error),
                (_, None, _) => Err(ErrorCode::UnknownTopicOrPartition),
                // An epoch that no record has.
                (_, _, None) => return answer,
                (Ok(name), Some(number), Some(asked)) => {
                    Ok((TopicPartition::new(name.clone(), number), asked))
                }
            };
            let found = place.and_then(|(place, asked)| {
                let believed = epoch(wanted.current_leader_epoch);
                let found = shared.broker.epoch_end(&call.ctx, &place, asked, believed);
                found.map_err(|error| {
                    shared.count(&error);
                    code(error.kind)
                })
            });
            match found {
                Ok(Some(found)) => {
                    answer.leader_epoch = found.epoch.get();
                    answer.end_offset = found.end.get();
                }
                Ok(None) => {}
                Err(error) => answer.error_code = error.code(),
            }
            answer
        });
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic.clone(),
        }
    });
    OffsetForLeaderEpochResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}
