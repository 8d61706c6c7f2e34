//! Topics: made, grown, trimmed and deleted.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{
    AddPartitions, Before, Broker, CreateTopic, DeleteBefore, Error, TopicInfo,
};
use varve_types::text::counted;
use varve_types::{ErrorKind, NodeId, Offset, PartitionId, TopicId, TopicName, TopicPartition};

use super::Call;
use crate::shared::Shared;
use crate::translate::{code, sentence, topic_name, unknown_topic, uuid};
use crate::wire::generated::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use crate::wire::generated::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use crate::wire::generated::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use crate::wire::generated::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::wire::{ErrorCode, Text};

/// The code of an error about a topic that was to be made or changed.
pub(super) fn creation_code(error: &Error) -> ErrorCode {
    match (error.kind, error.field) {
        (ErrorKind::InvalidRequest, Some("topic")) => ErrorCode::InvalidTopicException,
        (ErrorKind::InvalidRequest, Some("replication_factor")) => {
            ErrorCode::InvalidReplicationFactor
        }
        (ErrorKind::InvalidRequest, Some("partitions" | "partition_count" | "total")) => {
            ErrorCode::InvalidPartitions
        }
        (ErrorKind::InvalidRequest, Some("placement")) => ErrorCode::InvalidReplicaAssignment,
        (ErrorKind::PolicyViolation, _) => ErrorCode::PolicyViolation,
        // There is no one to decide at present; clients look for the controller and repeat.
        (ErrorKind::LeaderNotAvailable | ErrorKind::NotLeader, _) => ErrorCode::NotController,
        (kind, _) => code(kind),
    }
}

pub(super) async fn create<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut names = BTreeSet::new();
    let twice: BTreeSet<Text> = request
        .topics
        .iter()
        .filter(|t| !names.insert(t.name.clone()))
        .map(|t| t.name.clone())
        .collect();
    for topic in request.topics {
        if twice.contains(&topic.name) {
            topics.push(CreatableTopicResult {
                name: topic.name,
                error_code: ErrorCode::InvalidRequest.code(),
                error_message: Some(Text::from_static("the request names the topic twice")),
                ..CreatableTopicResult::default()
            });
            continue;
        }
        topics.push(create_one(shared, call, topic, request.validate_only).await);
    }
    CreateTopicsResponse {
        throttle_time_ms: 0,
        topics,
    }
}

async fn create_one<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    topic: CreatableTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let name = topic.name.clone();
    let is_placed = !topic.assignments.is_empty();
    let made = match creation(shared, topic, validate_only) {
        Ok(request) => shared.broker.create_topic(&call.ctx, request).await,
        Err(error) => Err(error),
    };
    match &made {
        _ if validate_only => {}
        Ok(_) => shared.refused.forget(name.as_str()),
        Err(error) if is_final(error.kind) => shared.refused.note(name.as_str(), shared.now()),
        Err(_) => {}
    }
    match made {
        Ok(info) => CreatableTopicResult {
            name,
            topic_id: uuid(info.id),
            num_partitions: info.partitions,
            replication_factor: i16::try_from(info.replication_factor).unwrap_or(-1),
            configs: Some(configs(shared, call, &info)),
            ..CreatableTopicResult::default()
        },
        Err(error) => {
            shared.count(&error);
            let code = match creation_code(&error) {
                // The number of replicas was not given but follows from where they are to be.
                ErrorCode::InvalidReplicationFactor if is_placed => {
                    ErrorCode::InvalidReplicaAssignment
                }
                code => code,
            };
            CreatableTopicResult {
                name,
                error_code: code.code(),
                error_message: sentence(&error),
                ..CreatableTopicResult::default()
            }
        }
    }
}

/// Whether a topic is refused for what was asked, and would be again.
const fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidConfig
            | ErrorKind::InvalidRequest
            | ErrorKind::PolicyViolation
            | ErrorKind::UnsupportedFeature
    )
}

/// Effective configs of a topic that was just made.
fn configs<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    info: &TopicInfo,
) -> Vec<CreatableTopicConfigs> {
    let all = shared.broker.topic_configs(&call.ctx, &info.name);
    let all = super::configs::with_kafkas(all.unwrap_or_default());
    all.into_iter()
        .map(|entry| CreatableTopicConfigs {
            name: Text::from_static(entry.name),
            read_only: super::configs::is_only_ours(entry.name),
            config_source: super::configs::source(entry.source),
            value: Some(Text::from(entry.value)),
            ..CreatableTopicConfigs::default()
        })
        .collect()
}

/// What a client's words ask the broker for.
fn creation<B: Broker>(
    shared: &Shared<B>,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<CreateTopic, Error> {
    let name = TopicName::new(topic.name.as_str())
        .map_err(|error| Error::invalid("topic", error.to_string()))?;
    let mut placement = BTreeMap::new();
    for given in &topic.assignments {
        if given.broker_ids.is_empty() {
            let text = format!(
                "the placement leaves out partition {}",
                given.partition_index
            );
            return Err(Error::invalid("placement", text));
        }
        let nodes = given.broker_ids.iter().copied().map(NodeId).collect();
        if placement.insert(given.partition_index, nodes).is_some() {
            let text = format!(
                "the placement names partition {} twice",
                given.partition_index
            );
            return Err(Error::invalid("placement", text));
        }
    }
    let given = !placement.is_empty();
    if given && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        let text = "a topic needs either numbers or a placement of its replicas, not both";
        return Err(Error::invalid("request", text));
    }
    let number = |value: i32, field| match value {
        -1 => Ok(None),
        value if value < 1 => Err(Error::invalid(field, format!("{field} must be at least 1"))),
        value => Ok(Some(value)),
    };
    let mut partitions = number(topic.num_partitions, "partitions")?;
    let mut replicas = number(topic.replication_factor.into(), "replication_factor")?;
    if given {
        partitions = i32::try_from(placement.len()).ok();
        let each = placement.values().next().map_or(0, Vec::len);
        replicas = i32::try_from(each).ok();
    } else if shared.options.lower_replication {
        replicas = lowered(shared, &name, replicas);
    }
    let configs = topic.configs.iter().filter_map(|config| {
        let value = config.value.as_ref()?.as_str().to_owned();
        Some((config.name.as_str().to_owned(), value))
    });
    Ok(CreateTopic {
        topic: name,
        partitions,
        replication_factor: replicas,
        configs: configs.collect(),
        labels: BTreeMap::new(),
        placement,
        validate_only,
        request_id: None,
    })
}

/// As many replicas as there are nodes, where more are wanted.
fn lowered<B: Broker>(shared: &Shared<B>, name: &TopicName, wanted: Option<i32>) -> Option<i32> {
    let nodes = i32::try_from(shared.broker.nodes().len()).unwrap_or(i32::MAX);
    match wanted {
        Some(replicas) if replicas > nodes => {
            tracing::warn!(
                topic = name.as_str(),
                wanted = replicas,
                made = nodes,
                "a Kafka client asked for more replicas than there are nodes; the topic gets \
                 fewer, since this node is for development"
            );
            Some(nodes)
        }
        wanted => wanted,
    }
}

pub(super) async fn delete<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let mut responses = Vec::new();
    for name in request.topic_names {
        responses.push(delete_named(shared, call, name, None).await);
    }
    for topic in request.topics {
        let id = TopicId(topic.topic_id.0);
        let result = match topic.name {
            Some(name) => delete_named(shared, call, name, None).await,
            None => match shared.topics().ok().and_then(|all| all.name(id).cloned()) {
                Some(name) => delete_named(shared, call, Text::from(name.as_str()), Some(id)).await,
                None => DeletableTopicResult {
                    topic_id: uuid(id),
                    error_code: ErrorCode::UnknownTopicId.code(),
                    ..DeletableTopicResult::default()
                },
            },
        };
        responses.push(result);
    }
    DeleteTopicsResponse {
        throttle_time_ms: 0,
        responses,
    }
}

async fn delete_named<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    text: Text,
    id: Option<TopicId>,
) -> DeletableTopicResult {
    let known = shared.topics().ok();
    let known = known.and_then(|all| all.get(text.as_str()).map(|t| t.id));
    let mut result = DeletableTopicResult {
        topic_id: uuid(id.or(known).unwrap_or_default()),
        ..DeletableTopicResult::default()
    };
    let gone = match topic_name(&text) {
        Ok(name) => shared.broker.delete_topic(&call.ctx, &name, id).await,
        Err(_) => Err(unknown_topic(text.as_str())),
    };
    if let Err(error) = gone {
        shared.count(&error);
        result.error_code = match error.kind {
            ErrorKind::TopicNotFound if id.is_some() => ErrorCode::UnknownTopicId.code(),
            _ => creation_code(&error).code(),
        };
        result.error_message = sentence(&error);
    }
    result.name = Some(text);
    result
}

pub(super) async fn create_partitions<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    let mut names = BTreeSet::new();
    let all = request.topics.iter().map(|topic| topic.name.clone());
    let twice: BTreeSet<Text> = all.filter(|name| !names.insert(name.clone())).collect();
    for topic in request.topics {
        let name = topic.name.clone();
        if twice.contains(&name) {
            results.push(CreatePartitionsTopicResult {
                name,
                error_code: ErrorCode::InvalidRequest.code(),
                error_message: Some(Text::from_static("the request names the topic twice")),
            });
            continue;
        }
        let done = match growth(shared, topic, request.validate_only) {
            Ok(wanted) => shared.broker.add_partitions(&call.ctx, wanted).await,
            Err(error) => Err(error),
        };
        let error = done.err();
        if let Some(error) = &error {
            shared.count(error);
        }
        results.push(CreatePartitionsTopicResult {
            name,
            error_code: error.as_ref().map_or(0, |e| growth_code(e).code()),
            error_message: error.as_ref().and_then(sentence),
        });
    }
    CreatePartitionsResponse {
        throttle_time_ms: 0,
        results,
    }
}

/// As for a topic that is made; a number that is not larger than the present one is at fault too.
fn growth_code(error: &Error) -> ErrorCode {
    match creation_code(error) {
        ErrorCode::InvalidRequest => ErrorCode::InvalidPartitions,
        code => code,
    }
}

fn growth<B: Broker>(
    shared: &Shared<B>,
    topic: CreatePartitionsTopic,
    validate_only: bool,
) -> Result<AddPartitions, Error> {
    let unknown = || unknown_topic(topic.name.as_str());
    let name = topic_name(&topic.name).map_err(|_| unknown())?;
    let all = shared.topics()?;
    let now = all.get(name.as_str()).ok_or_else(unknown)?.partitions;
    if topic.count <= now {
        let text = format!(
            "topic {:?} already has {}, and the number can only grow; nothing was changed",
            name.as_str(),
            counted(now, "partition")
        );
        return Err(Error::invalid("partitions", text));
    }
    let given = topic.assignments.unwrap_or_default();
    let placement = (now..).zip(given).map(|(partition, given)| {
        let nodes = given.broker_ids.into_iter().map(NodeId);
        (partition, nodes.collect())
    });
    Ok(AddPartitions {
        topic: name,
        total: topic.count,
        placement: placement.collect(),
        validate_only,
    })
}

pub(super) async fn delete_records<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let before = match wanted.offset {
                -1 => Some(Before::End),
                offset => Offset::new(offset).map(Before::Offset),
            };
            let done = match (&name, before) {
                (Ok(name), Some(before)) => {
                    let place = PartitionId(wanted.partition_index);
                    let partition = TopicPartition::new(name.clone(), place);
                    let item = DeleteBefore { partition, before };
                    let done = shared.broker.delete_records(&call.ctx, vec![item]).await;
                    done.into_iter().next().map(|done| {
                        done.map_err(|error| {
                            shared.count(&error);
                            code(error.kind)
                        })
                    })
                }
                (Err(error), _) => Some(Err(*error)),
                (_, None) => Some(Err(ErrorCode::OffsetOutOfRange)),
            };
            let done = done.unwrap_or(Err(ErrorCode::UnknownServerError));
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: wanted.partition_index,
                low_watermark: done.map_or(-1, Offset::get),
                error_code: done.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
        });
    }
    DeleteRecordsResponse {
        throttle_time_ms: 0,
        topics,
    }
}
