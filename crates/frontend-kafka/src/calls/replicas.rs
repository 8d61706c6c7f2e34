//! Replicas: what a node holds of them, where they are to be, and which are on the move.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{Broker, Error, Operations, Reassign, Reassignment, ReplicaLog, Target};
use varve_types::limits::REPLICATION_FACTOR_MAX;
use varve_types::{ErrorKind, NodeId, PartitionId, TopicName, TopicPartition};

use super::Call;
use super::topics::creation_code;
use crate::shared::Shared;
use crate::translate::{sentence, topic_name};
use crate::wire::generated::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::generated::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::wire::generated::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::wire::{ErrorCode, Text};

/// Partitions that a request asks about.
struct Asked<'a>(Option<BTreeMap<&'a str, BTreeSet<i32>>>);

impl<'a> Asked<'a> {
    /// `None`: all there are.
    fn new(topics: Option<impl Iterator<Item = (&'a Text, &'a [i32])>>) -> Self {
        Self(topics.map(|topics| {
            let mut asked: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
            for (name, numbers) in topics {
                let of = asked.entry(name.as_str()).or_default();
                of.extend(numbers.iter().copied());
            }
            asked
        }))
    }

    fn has(&self, partition: &TopicPartition) -> bool {
        self.0.as_ref().is_none_or(|asked| {
            let of = asked.get(partition.topic.as_str());
            of.is_some_and(|numbers| numbers.contains(&partition.partition.0))
        })
    }
}

/// What lies together, by topic: `all` is ordered by it.
fn by_topic<T, P>(
    all: impl Iterator<Item = T>,
    topic: impl Fn(&T) -> &TopicName,
    part: impl Fn(&T) -> P,
) -> Vec<(Text, Vec<P>)> {
    let mut topics: Vec<(Text, Vec<P>)> = Vec::new();
    for one in all {
        let name = topic(&one).as_str();
        match topics.last_mut() {
            Some((last, parts)) if last.as_str() == name => parts.push(part(&one)),
            _ => topics.push((Text::from(name), vec![part(&one)])),
        }
    }
    topics
}

/// What this node holds. What it does not hold is left out, whether that is there or not.
pub(super) async fn describe_log_dirs<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let mut response = DescribeLogDirsResponse::default();
    let directory = match shared.broker.log_directory(&call.ctx).await {
        Ok(directory) => directory,
        Err(error) => {
            shared.count(&error);
            response.error_code = creation_code(&error).code();
            return response;
        }
    };
    let topics = request.topics.as_ref().map(|topics| {
        let of = topics.iter();
        of.map(|t| (&t.topic, t.partitions.as_slice()))
    });
    let asked = Asked::new(topics);
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let part = |replica: &&ReplicaLog| DescribeLogDirsPartition {
        partition_index: replica.partition.partition.0,
        partition_size: bytes(replica.size_bytes),
        offset_lag: replica.lag.map_or(-1, bytes),
        // A replica moves between nodes here, never between directories of one.
        is_future_key: false,
    };
    let held = directory.replicas.iter();
    let held = held.filter(|replica| asked.has(&replica.partition));
    let topics = by_topic(held, |replica| &replica.partition.topic, part);
    let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
    let result = DescribeLogDirsResult {
        error_code: ErrorCode::None.code(),
        topics: topics.into_iter().map(topic).collect(),
        total_bytes: directory.space.map_or(-1, |(total, _)| bytes(total)),
        usable_bytes: directory.space.map_or(-1, |(_, free)| bytes(free)),
        is_cordoned: directory.closed,
        log_dir: Text::from(directory.path),
    };
    response.results.push(result);
    response
}

/// Why a partition is left as it is.
type Refusal = (ErrorCode, Option<Text>);

fn because(code: ErrorCode, text: &'static str) -> Refusal {
    (code, Some(Text::from_static(text)))
}

fn unknown() -> Refusal {
    let text = "the partition does not exist; nothing was changed";
    because(ErrorCode::UnknownTopicOrPartition, text)
}

/// The code of an error about where a replica is to be.
fn move_code(error: &Error) -> ErrorCode {
    match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::NodeNotFound | ErrorKind::PolicyViolation => {
            ErrorCode::InvalidReplicaAssignment
        }
        _ => creation_code(error),
    }
}

/// Which replicas partitions have, those on their way away left out. Looked up once for each topic.
struct Present<'a, B> {
    shared: &'a Shared<B>,
    call: &'a Call,
    moving: BTreeMap<TopicPartition, Vec<NodeId>>,
    topics: BTreeMap<TopicName, BTreeMap<PartitionId, Vec<NodeId>>>,
}

impl<'a, B: Broker + Operations> Present<'a, B> {
    fn new(shared: &'a Shared<B>, call: &'a Call) -> Self {
        let moves = shared.broker.reassignments(&call.ctx).unwrap_or_default();
        Self {
            shared,
            call,
            moving: moves
                .into_iter()
                .map(|m| (m.partition, m.removing))
                .collect(),
            topics: BTreeMap::new(),
        }
    }

    /// `None`: the partition is not known here.
    fn of(&mut self, id: &TopicPartition) -> Option<Vec<NodeId>> {
        let topic = self.topics.entry(id.topic.clone()).or_insert_with(|| {
            let found = self.shared.broker.partitions(&self.call.ctx, &id.topic);
            let found = found.unwrap_or_default().into_iter();
            found.map(|p| (p.partition, p.replicas)).collect()
        });
        let mut nodes = topic.get(&id.partition)?.clone();
        if let Some(removing) = self.moving.get(id) {
            nodes.retain(|node| !removing.contains(node));
        }
        Some(nodes)
    }
}

/// What a client wants of a partition.
enum Wanted {
    Move(TopicPartition, Vec<NodeId>),
    Cancel(TopicPartition),
}

/// `same_number` refuses another number of replicas than there is.
fn wanted<B: Broker + Operations>(
    topic: &Text,
    number: i32,
    replicas: Option<&[i32]>,
    present: &mut Present<'_, B>,
    same_number: bool,
) -> Result<Wanted, Refusal> {
    let topic = topic_name(topic).map_err(|_| unknown())?;
    let number = crate::translate::partition(number).ok_or_else(unknown)?;
    let id = TopicPartition::new(topic, number);
    let Some(replicas) = replicas else {
        return Ok(Wanted::Cancel(id));
    };
    let most = usize::try_from(REPLICATION_FACTOR_MAX).unwrap_or(usize::MAX);
    if replicas.len() > most {
        let text = format!(
            "a partition may have at most {most} replicas; found {}; nothing was changed",
            replicas.len()
        );
        return Err((ErrorCode::InvalidReplicaAssignment, Some(Text::from(text))));
    }
    if same_number
        && present
            .of(&id)
            .is_some_and(|now| now.len() != replicas.len())
    {
        let text = "the request does not allow a change of the number of replicas; nothing was \
            changed";
        return Err(because(ErrorCode::InvalidReplicationFactor, text));
    }
    let nodes = replicas.iter().copied().map(NodeId);
    Ok(Wanted::Move(id, nodes.collect()))
}

/// What became of the moves; an error is about all of them.
async fn start<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    moves: Vec<(TopicPartition, Vec<NodeId>)>,
) -> Result<Vec<Result<(), Refusal>>, Error> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let items = moves.iter().cloned();
    let request = Reassign {
        items: items.map(|(id, to)| (id, Target::Nodes(to))).collect(),
        validate_only: false,
    };
    let refusal = |error: &Error| {
        shared.count(error);
        (move_code(error), sentence(error))
    };
    match shared.broker.reassign(&call.ctx, request).await {
        Ok(done) => {
            let of = |result: Result<(), Error>| result.map_err(|error| refusal(&error));
            Ok(done.into_iter().map(of).collect())
        }
        // A node that is alone has no moves, and what stays where it is needs none.
        Err(error) if error.kind == ErrorKind::PolicyViolation => {
            let mut present = Present::new(shared, call);
            let mut of = |(id, to): (TopicPartition, Vec<NodeId>)| match present.of(&id) {
                None => Err(unknown()),
                Some(now) if now == to => Ok(()),
                Some(_) => Err(refusal(&error)),
            };
            Ok(moves.into_iter().map(&mut of).collect())
        }
        Err(error) => Err(error),
    }
}

/// What became of the cancellations; an error is about all of them.
async fn cancel<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    ids: Vec<TopicPartition>,
) -> Result<Vec<Result<(), Refusal>>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let done = shared
        .broker
        .cancel_reassignments(&call.ctx, ids.clone())
        .await;
    let done = match done {
        Ok(done) => done,
        Err(error) if error.kind == ErrorKind::PolicyViolation => {
            let failed = ids.iter().map(|_| Err(error.clone()));
            failed.collect()
        }
        Err(error) => return Err(error),
    };
    let mut present = Present::new(shared, call);
    let mut of = |(id, result): (TopicPartition, Result<(), Error>)| {
        let Err(error) = result else {
            return Ok(());
        };
        shared.count(&error);
        let code = match error.kind {
            ErrorKind::InvalidRequest | ErrorKind::PolicyViolation => match present.of(&id) {
                None => return Err(unknown()),
                // It moves, and cannot be returned to what it was.
                Some(_) if present.moving.contains_key(&id) => ErrorCode::InvalidReplicaAssignment,
                Some(_) => ErrorCode::NoReassignmentInProgress,
            },
            _ => move_code(&error),
        };
        Err((code, sentence(&error)))
    };
    Ok(ids.into_iter().zip(done).map(&mut of).collect())
}

pub(super) async fn alter_reassignments<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let same_number = !request.allow_replication_factor_change;
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        ..AlterPartitionReassignmentsResponse::default()
    };
    let (mut moves, mut cancelled) = (Vec::new(), Vec::new());
    // For each partition whether it is to move, or why it is not.
    let mut places: Vec<Result<bool, Refusal>> = Vec::new();
    let mut present = Present::new(shared, call);
    for topic in &request.topics {
        for p in &topic.partitions {
            let (number, to) = (p.partition_index, p.replicas.as_deref());
            let wanted = wanted(&topic.name, number, to, &mut present, same_number);
            places.push(wanted.map(|wanted| match wanted {
                Wanted::Move(id, nodes) => {
                    moves.push((id, nodes));
                    true
                }
                Wanted::Cancel(id) => {
                    cancelled.push(id);
                    false
                }
            }));
        }
    }
    drop(present);
    let done = match start(shared, call, moves).await {
        Ok(moved) => cancel(shared, call, cancelled).await.map(|c| (moved, c)),
        Err(error) => Err(error),
    };
    let (moved, cancelled) = match done {
        Ok(done) => done,
        Err(error) => {
            shared.count(&error);
            response.error_code = creation_code(&error).code();
            response.error_message = sentence(&error);
            return response;
        }
    };
    let (mut moved, mut cancelled) = (moved.into_iter(), cancelled.into_iter());
    let mut outcomes = places.into_iter().map(|place| match place {
        Ok(true) => moved.next().unwrap_or(Ok(())),
        Ok(false) => cancelled.next().unwrap_or(Ok(())),
        Err(refusal) => Err(refusal),
    });
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let refusal = outcomes.next().and_then(Result::err);
            let (code, error_message) = refusal.unwrap_or((ErrorCode::None, None));
            ReassignablePartitionResponse {
                partition_index: p.partition_index,
                error_code: code.code(),
                error_message,
            }
        });
        ReassignableTopicResponse {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    response.responses = topics.collect();
    response
}

/// Partitions on the move; those asked about that do not move are left out.
pub(super) fn list_reassignments<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let mut response = ListPartitionReassignmentsResponse::default();
    let moves = match shared.broker.reassignments(&call.ctx) {
        Ok(moves) => moves,
        Err(error) => {
            shared.count(&error);
            response.error_code = creation_code(&error).code();
            response.error_message = sentence(&error);
            return response;
        }
    };
    let topics = request.topics.as_ref().map(|topics| {
        let of = topics.iter();
        of.map(|t| (&t.name, t.partition_indexes.as_slice()))
    });
    let asked = Asked::new(topics);
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let part = |one: &&Reassignment| OngoingPartitionReassignment {
        partition_index: one.partition.partition.0,
        replicas: ids(&one.replicas),
        adding_replicas: ids(&one.adding),
        removing_replicas: ids(&one.removing),
    };
    let of = moves.iter().filter(|one| asked.has(&one.partition));
    let topics = by_topic(of, |one| &one.partition.topic, part);
    let topic = |(name, partitions)| OngoingTopicReassignment { name, partitions };
    response.topics = topics.into_iter().map(topic).collect();
    response
}
