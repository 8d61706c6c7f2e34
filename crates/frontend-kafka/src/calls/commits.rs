//! Committed offsets: written, by members, by transactions and by those without a group's membership; read, and
//! removed.
//!
//! Invariant: a committed offset is a place in a log. Where a client commits the name of one (-1, -2), the place that
//! the name means at that time is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use varve_broker_api::{
    Broker, CommitOffsets, CommitTransactionOffsets, CommittedOffset, Context, Error, Forward,
    GetOffsets, Isolation, OffsetCommit, OffsetQuery, Position,
};
use varve_types::{
    ErrorKind, MemberId, Offset, PartitionId, ProducerId, TopicId, TopicName, TopicPartition,
};

use super::Call;
use crate::shared::{Shared, Topics};
use crate::translate::group::{group_code, in_classic_terms};
use crate::translate::{epoch, names, partition, topic_name};
use crate::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::wire::generated::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use crate::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::wire::generated::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};
use crate::wire::{ErrorCode, Text, Uuid};

/// Names of places, which KafkaJS commits where its consumer has lost its own, and which `resetOffsets` of its admin
/// client means.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// From this version on `OffsetCommit` and `OffsetFetch` name topics by their ids.
const BY_ID_FROM: i16 = 10;
/// From this version on `TxnOffsetCommit` does so, and members of the protocol of KIP-848 are told in its terms.
const IN_TRANSACTION_BY_ID_FROM: i16 = 6;
/// From this version on members of the protocol of KIP-848 commit.
const EPOCHS_FROM: i16 = 9;
/// From this version on `OffsetFetch` is about several groups.
const GROUPS_FROM: i16 = 8;

/// The topic that a request means.
fn topic(by_id: bool, topics: &Topics, name: &Text, id: Uuid) -> Result<TopicName, ErrorCode> {
    if !by_id {
        return topic_name(name).map_err(|_| ErrorCode::UnknownTopicOrPartition);
    }
    let found = topics.name(TopicId(id.0)).cloned();
    found.ok_or(ErrorCode::UnknownTopicId)
}

/// Who commits: a member of that name, or somebody without membership.
fn member(id: &Text, epoch: i32) -> Result<Option<MemberId>, ErrorCode> {
    if id.is_empty() && epoch < 0 {
        return Ok(None);
    }
    let member = names::member(id.as_str());
    member.map(Some).map_err(|_| ErrorCode::UnknownMemberId)
}

/// One partition that is committed.
struct Commit<'a> {
    number: i32,
    offset: i64,
    epoch: i32,
    metadata: &'a Option<Text>,
}

/// What is to be committed, and if its offset is the name of a place, which.
fn commit(
    topic: &Result<TopicName, ErrorCode>,
    of: &Commit<'_>,
) -> Result<(OffsetCommit, Option<Position>), ErrorCode> {
    let topic = topic.clone()?;
    let number = partition(of.number).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let (offset, place) = match of.offset {
        LATEST => (Offset::ZERO, Some(Position::Latest)),
        EARLIEST => (Offset::ZERO, Some(Position::Earliest)),
        offset => (
            Offset::new(offset).ok_or(ErrorCode::OffsetOutOfRange)?,
            None,
        ),
    };
    let commit = OffsetCommit {
        partition: TopicPartition::new(topic, number),
        offset,
        leader_epoch: epoch(of.epoch).filter(|_| place.is_none()),
        metadata: of.metadata.as_ref().map_or("", Text::as_str).to_owned(),
    };
    Ok((commit, place))
}

/// Commits of a request: those that can be made, and for each what is known of it.
#[derive(Default)]
struct Commits {
    wanted: Vec<OffsetCommit>,
    /// Which of the wanted ones, or why none, in the order of the request.
    places: Vec<Result<usize, ErrorCode>>,
    /// Wanted ones whose offsets are to be looked up, and which of the request they are.
    named: Vec<(usize, OffsetCommit, Position)>,
}

impl Commits {
    fn add(&mut self, commit: Result<(OffsetCommit, Option<Position>), ErrorCode>) {
        let place = match commit {
            Ok((commit, None)) => self.want(commit),
            Ok((commit, Some(position))) => {
                self.named.push((self.places.len(), commit, position));
                Err(ErrorCode::UnknownServerError)
            }
            Err(error) => Err(error),
        };
        self.places.push(place);
    }

    fn want(&mut self, commit: OffsetCommit) -> Result<usize, ErrorCode> {
        self.wanted.push(commit);
        Ok(self.wanted.len() - 1)
    }

    /// Asks the leaders, whichever nodes they are, where the named places are.
    async fn look_up<B: Broker>(&mut self, shared: &Shared<B>, call: &Call) {
        let named = std::mem::take(&mut self.named);
        if named.is_empty() {
            return;
        }
        let ctx = Context {
            forward: Some(Arc::new(Forward::default())),
            ..call.ctx.clone()
        };
        let query = |(_, commit, position): &(usize, OffsetCommit, Position)| OffsetQuery {
            partition: commit.partition.clone(),
            position: Some(*position),
            with_time: false,
            isolation: Isolation::Uncommitted,
        };
        let queries = named.iter().map(query).collect();
        let found = shared.broker.list_offsets(&ctx, queries).await;
        for ((at, commit, _), found) in named.into_iter().zip(found) {
            self.places[at] = match found.map(|found| found.offset) {
                Ok(Some(offset)) => self.want(OffsetCommit { offset, ..commit }),
                Ok(None) => Err(ErrorCode::UnknownServerError),
                Err(error) => {
                    shared.count(&error);
                    Err(group_code(&error))
                }
            };
        }
    }
}

/// What became of each commit, in the order of the request.
fn outcomes<B: Broker>(
    shared: &Shared<B>,
    places: Vec<Result<usize, ErrorCode>>,
    done: Result<Vec<Result<(), Error>>, ErrorCode>,
    code: impl Fn(&Error) -> ErrorCode,
) -> impl Iterator<Item = i16> {
    let done = done.map(|done| {
        let of = |result: Result<(), Error>| match result {
            Ok(()) => ErrorCode::None,
            Err(error) => {
                shared.count(&error);
                code(&error)
            }
        };
        done.into_iter().map(of).collect::<Vec<_>>()
    });
    places.into_iter().map(move |place| {
        let error = match (place, &done) {
            (Err(error), _) => error,
            (_, Err(error)) => *error,
            (Ok(index), Ok(done)) => {
                let found = done.get(index).copied();
                found.unwrap_or(ErrorCode::UnknownServerError)
            }
        };
        error.code()
    })
}

/// A static member that is not known any more, because another has taken its instance id, is told that (KIP-345): it
/// would take the place back otherwise.
async fn replaced<B: Broker, T>(
    shared: &Shared<B>,
    call: &Call,
    (group, member, instance): (&Text, &Text, Option<&Text>),
    done: Result<T, ErrorCode>,
) -> Result<T, ErrorCode> {
    let Some(instance) = instance.filter(|_| matches!(done, Err(ErrorCode::UnknownMemberId)))
    else {
        return done;
    };
    let Ok(name) = names::group(group.as_str()) else {
        return done;
    };
    let Ok(found) = shared.broker.group(&call.ctx, &name).await else {
        return done;
    };
    let holds = found.members.iter().any(|m| {
        let other = names::decoded(m.member.as_str()) != member.as_str();
        other && m.instance.as_deref() == Some(instance.as_str())
    });
    match holds && found.classic.is_some() {
        true => Err(ErrorCode::FencedInstanceId),
        false => done,
    }
}

pub(super) async fn commit_offsets<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let version = call.version();
    let topics = shared.topics().unwrap_or_default();
    let mut commits = Commits::default();
    for of in &request.topics {
        let name = topic(version >= BY_ID_FROM, &topics, &of.name, of.topic_id);
        for p in &of.partitions {
            let of = Commit {
                number: p.partition_index,
                offset: p.committed_offset,
                epoch: p.committed_leader_epoch,
                metadata: &p.committed_metadata,
            };
            commits.add(commit(&name, &of));
        }
    }
    commits.look_up(shared, call).await;
    let alone = request.member_id.is_empty();
    let code = |error: &Error| match error.kind {
        // The group has members, and this is none of them.
        ErrorKind::GroupNotEmpty if alone => ErrorCode::UnknownMemberId,
        _ if in_classic_terms(error) => group_code(error),
        ErrorKind::StaleMemberEpoch | ErrorKind::FencedMemberEpoch if version < EPOCHS_FROM => {
            ErrorCode::IllegalGeneration
        }
        _ => group_code(error),
    };
    let Commits { wanted, places, .. } = commits;
    let prepared = || -> Result<CommitOffsets, ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        Ok(CommitOffsets {
            group: names::group(request.group_id.as_str())
                .map_err(|_| ErrorCode::InvalidGroupId)?,
            member: member(&request.member_id, epoch)?,
            member_epoch: epoch,
            offsets: wanted,
        })
    };
    let done = match prepared() {
        Ok(commits) => shared
            .broker
            .commit_offsets(&call.ctx, commits)
            .await
            .map_err(|error| {
                shared.count(&error);
                code(&error)
            }),
        Err(error) => Err(error),
    };
    let instance = request.group_instance_id.as_ref();
    let done = replaced(
        shared,
        call,
        (&request.group_id, &request.member_id, instance),
        done,
    )
    .await;
    let mut outcomes = outcomes(shared, places, done, code);
    let topics = request.topics.into_iter().map(|of| {
        let partitions = of.partitions.iter().map(|p| OffsetCommitResponsePartition {
            partition_index: p.partition_index,
            error_code: outcomes
                .next()
                .unwrap_or(ErrorCode::UnknownServerError.code()),
        });
        OffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: of.name,
            topic_id: of.topic_id,
        }
    });
    OffsetCommitResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}

/// Offsets that count when the transaction does.
pub(super) async fn commit_in_transaction<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let by_id = call.version() >= IN_TRANSACTION_BY_ID_FROM;
    let topics = shared.topics().unwrap_or_default();
    let mut commits = Commits::default();
    for of in &request.topics {
        let name = topic(by_id, &topics, &of.name, of.topic_id);
        for p in &of.partitions {
            let of = Commit {
                number: p.partition_index,
                offset: p.committed_offset,
                epoch: p.committed_leader_epoch,
                metadata: &p.committed_metadata,
            };
            commits.add(commit(&name, &of));
        }
    }
    commits.look_up(shared, call).await;
    let code = |error: &Error| match error.kind {
        ErrorKind::StaleMemberEpoch if by_id && !in_classic_terms(error) => {
            ErrorCode::StaleMemberEpoch
        }
        _ => super::transactions::offsets_code(error),
    };
    let Commits { wanted, places, .. } = commits;
    let prepared = || -> Result<CommitTransactionOffsets, ErrorCode> {
        Ok(CommitTransactionOffsets {
            id: names::transactional(request.transactional_id.as_str())
                .map_err(|_| ErrorCode::InvalidProducerIdMapping)?,
            producer: ProducerId {
                id: request.producer_id,
                epoch: request.producer_epoch,
            },
            group: names::group_of_members(request.group_id.as_str())
                .map_err(|_| ErrorCode::InvalidGroupId)?,
            member: member(&request.member_id, request.generation_id)?,
            member_epoch: request.generation_id,
            offsets: wanted,
            version: super::transactions::version_of(call, super::transactions::COMMITS_V2_FROM),
        })
    };
    let done = match prepared() {
        Ok(commits) => shared
            .broker
            .commit_transaction_offsets(&call.ctx, commits)
            .await
            .map_err(|error| {
                shared.count(&error);
                code(&error)
            }),
        Err(error) => Err(error),
    };
    let instance = request.group_instance_id.as_ref();
    let done = replaced(
        shared,
        call,
        (&request.group_id, &request.member_id, instance),
        done,
    )
    .await;
    let mut outcomes = outcomes(shared, places, done, code);
    let topics = request.topics.into_iter().map(|of| {
        let partitions = of
            .partitions
            .iter()
            .map(|p| TxnOffsetCommitResponsePartition {
                partition_index: p.partition_index,
                error_code: outcomes
                    .next()
                    .unwrap_or(ErrorCode::UnknownServerError.code()),
            });
        TxnOffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: of.name,
            topic_id: of.topic_id,
        }
    });
    TxnOffsetCommitResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}

/// Offsets of a group by topic and partition.
type Found = BTreeMap<TopicName, BTreeMap<i32, CommittedOffset>>;

/// Reads what a group has committed; one that there is not has nothing.
async fn committed<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    group: &Text,
    partitions: Vec<TopicPartition>,
    require_stable: bool,
) -> Result<Found, ErrorCode> {
    let group = names::group(group.as_str()).map_err(|_| ErrorCode::InvalidGroupId)?;
    let wanted = GetOffsets {
        group,
        partitions,
        include_lag: false,
        require_stable,
    };
    let all = match shared.broker.committed_offsets(&call.ctx, wanted).await {
        Ok(all) => all,
        Err(error) if error.kind == ErrorKind::GroupNotFound => Vec::new(),
        Err(error) => {
            shared.count(&error);
            return Err(group_code(&error));
        }
    };
    let mut found = Found::new();
    for offset in all {
        let place = offset.partition.clone();
        let of = found.entry(place.topic).or_default();
        of.insert(place.partition.0, offset);
    }
    Ok(found)
}

fn places(topic: Option<&TopicName>, numbers: &[i32]) -> Vec<TopicPartition> {
    let place = |name: &TopicName, number| TopicPartition::new(name.clone(), PartitionId(number));
    let some = numbers.iter().filter(|n| **n >= 0);
    topic.map_or_else(Vec::new, |name| some.map(|n| place(name, *n)).collect())
}

pub(super) async fn fetch<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse::default();
    if call.version() >= GROUPS_FROM {
        for group in request.groups {
            let stable = request.require_stable;
            let answer = fetch_group(shared, call, group, stable).await;
            response.groups.push(answer);
        }
        return response;
    }
    let topics = request.topics.map(|topics| {
        let of = |topic: crate::wire::generated::offset_fetch::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics {
                name: topic.name,
                topic_id: Uuid::ZERO,
                partition_indexes: topic.partition_indexes,
            }
        };
        topics.into_iter().map(of).collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    };
    let answer = fetch_group(shared, call, group, request.require_stable).await;
    response.error_code = answer.error_code;
    let of = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: match p.error_code {
            // Oldest clients look for the group's error here.
            0 => answer.error_code,
            own => own,
        },
    };
    response.topics = answer
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(of).collect(),
        })
        .collect();
    response
}

async fn fetch_group<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let version = call.version();
    let topics = shared.topics().unwrap_or_default();
    let mut wanted = Vec::new();
    for of in group.topics.iter().flatten() {
        let name = topic(version >= BY_ID_FROM, &topics, &of.name, of.topic_id).ok();
        wanted.extend(places(name.as_ref(), &of.partition_indexes));
    }
    let mut answer = OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        ..OffsetFetchResponseGroup::default()
    };
    let nothing = group.topics.is_some() && wanted.is_empty();
    let found = match nothing {
        true => Ok(Found::new()),
        false => committed(shared, call, &group.group_id, wanted, require_stable).await,
    };
    let (found, unstable) = match found {
        Ok(found) => (found, ErrorCode::None),
        // Told of each partition: the group itself is well.
        Err(ErrorCode::UnstableOffsetCommit) => (Found::new(), ErrorCode::UnstableOffsetCommit),
        Err(error) => {
            answer.error_code = error.code();
            (Found::new(), ErrorCode::None)
        }
    };
    let asked = match group.topics {
        Some(asked) => asked,
        None => found
            .iter()
            .map(|(name, of)| OffsetFetchRequestTopics {
                name: Text::from(name.as_str()),
                topic_id: topics
                    .get(name.as_str())
                    .map_or(Uuid::ZERO, |info| crate::translate::uuid(info.id)),
                partition_indexes: of.keys().copied().collect(),
            })
            .collect(),
    };
    for of in asked {
        let name = topic(version >= BY_ID_FROM, &topics, &of.name, of.topic_id);
        let error = match &name {
            Err(ErrorCode::UnknownTopicId) => ErrorCode::UnknownTopicId,
            _ => unstable,
        };
        let known = name.ok().and_then(|name| found.get(&name));
        let told = |number: &i32| {
            let offset = known.and_then(|of| of.get(number));
            told(*number, offset, error)
        };
        answer.topics.push(OffsetFetchResponseTopics {
            partitions: of.partition_indexes.iter().map(told).collect(),
            name: of.name,
            topic_id: of.topic_id,
        });
    }
    answer
}

fn told(
    partition_index: i32,
    offset: Option<&CommittedOffset>,
    error: ErrorCode,
) -> OffsetFetchResponsePartitions {
    let epoch = offset.and_then(|o| o.leader_epoch);
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.map_or(-1, |o| o.offset.get()),
        committed_leader_epoch: epoch.map_or(-1, varve_types::LeaderEpoch::get),
        metadata: Some(Text::from(offset.map_or("", |o| o.metadata.as_str()))),
        error_code: error.code(),
    }
}

pub(super) async fn delete<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut response = OffsetDeleteResponse::default();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let name = topic_name(&topic.name).ok();
        let numbers: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
        wanted.extend(places(name.as_ref(), &numbers));
    }
    let done = match names::group(request.group_id.as_str()) {
        Err(_) => Err(ErrorCode::InvalidGroupId),
        Ok(group) => {
            let done = shared
                .broker
                .delete_offsets(&call.ctx, &group, wanted.clone())
                .await;
            done.map_err(|error| {
                shared.count(&error);
                group_code(&error)
            })
        }
    };
    let done: BTreeMap<TopicPartition, Result<(), Error>> = match done {
        Ok(done) => wanted.into_iter().zip(done).collect(),
        Err(error) => {
            response.error_code = error.code();
            return response;
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let name = topic_name(&topic.name).ok();
        let of = |number: i32| {
            let place = TopicPartition::new(name.clone()?, PartitionId(number));
            Some(match done.get(&place)? {
                Ok(()) => ErrorCode::None,
                Err(error) if error.kind == ErrorKind::GroupNotEmpty => {
                    ErrorCode::GroupSubscribedToTopic
                }
                Err(error) => group_code(error),
            })
        };
        let partitions = topic.partitions.iter().map(|p| {
            let error = of(p.partition_index);
            OffsetDeleteResponsePartition {
                partition_index: p.partition_index,
                error_code: error.unwrap_or(ErrorCode::UnknownTopicOrPartition).code(),
            }
        });
        OffsetDeleteResponseTopic {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    response.topics = topics.collect();
    response
}
