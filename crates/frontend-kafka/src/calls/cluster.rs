//! Who serves what: versions, nodes, topics with the leaders of their partitions.

use std::collections::BTreeSet;

use varve_broker_api::{Broker, CreateTopic, PartitionInfo, TopicInfo};
use varve_types::{ErrorKind, NodeId, TopicId, TopicName};

use super::Call;
use super::topics::creation_code;
use crate::shared::{Endpoint, Shared};
use crate::translate::{code, operations, topic_name, uuid};
use crate::versions;
use crate::wire::generated::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::generated::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::wire::generated::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, ResponseCursor,
};
use crate::wire::generated::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use crate::wire::{ErrorCode, Text, Uuid};

/// Most partitions of one answer of `DescribeTopicPartitions`.
const PARTITIONS_PER_ANSWER: i32 = 2_000;
/// From this version on a leader that has no such listener is told by a code of its own.
const LISTENER_NOT_FOUND_FROM: i16 = 6;

pub(super) fn api_versions<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    // KIP-511: what software calls itself is a name, not any bytes.
    let named = |text: &Text| {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-.".contains(b);
        let ends = bytes.first().zip(bytes.last());
        bytes.iter().all(inner)
            && ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
    };
    let named = named(&request.client_software_name) && named(&request.client_software_version);
    if call.version() >= 3 && !named {
        return versions::announced(call.version(), ErrorCode::InvalidRequest.code());
    }
    let reached = reached(shared, request);
    versions::announced(call.version(), reached.code())
}

/// KIP-1242: a client that knows which node it means says so, and is sent back to its first addresses when it has come
/// to another one.
fn reached<B: Broker>(shared: &Shared<B>, request: &ApiVersionsRequest) -> ErrorCode {
    match (&request.cluster_id, request.node_id) {
        (None, -1) => ErrorCode::None,
        (None, _) | (Some(_), -1) => ErrorCode::InvalidRequest,
        (Some(cluster), node) if node == shared.node.0 && *cluster == cluster_id(shared) => {
            ErrorCode::None
        }
        _ => ErrorCode::RebootstrapRequired,
    }
}

/// A topic that a client asks about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Named(Text),
    Id(TopicId),
}

pub(super) async fn metadata<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: MetadataRequest,
) -> MetadataResponse {
    let version = call.version();
    let endpoints = shared.endpoints();
    let all = match &request.topics {
        None => true,
        // Version 0 has no null: an empty list is all.
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let (of_cluster, of_topics) = (
        request.include_cluster_authorized_operations,
        request.include_topic_authorized_operations,
    );
    let mut topics = Vec::new();
    let mut error_code = ErrorCode::None;
    if all {
        match shared.topics() {
            Ok(known) => {
                let of = |info| described(shared, call, &endpoints, info);
                topics = known.all.iter().map(of).collect();
            }
            Err(error) => {
                shared.count(&error);
                error_code = code(error.kind);
            }
        }
    } else {
        let create =
            shared.options.auto_create && (version < 4 || request.allow_auto_topic_creation);
        // Each once, however often it is named: an answer is no larger than the cluster.
        let mut seen = BTreeSet::new();
        for topic in request.topics.unwrap_or_default() {
            // Who asks by an id leaves the name null or, as Java's client does, empty.
            let asked = match (topic.topic_id, topic.name) {
                (Uuid::ZERO, Some(name)) => Asked::Named(name),
                (id, _) => Asked::Id(TopicId(id.0)),
            };
            if !seen.insert(asked.clone()) {
                continue;
            }
            topics.push(one(shared, call, &endpoints, asked, create).await);
        }
    }
    for topic in &mut topics {
        topic.topic_authorized_operations = operations::told(of_topics, operations::TOPIC);
    }
    MetadataResponse {
        throttle_time_ms: 0,
        cluster_authorized_operations: operations::told(of_cluster, operations::CLUSTER),
        brokers: endpoints.iter().map(broker).collect(),
        cluster_id: Some(cluster_id(shared)),
        // Any node passes changes on to the one that decides.
        controller_id: shared.node.0,
        topics,
        error_code: error_code.code(),
    }
}

/// The id as clients show it.
fn cluster_id<B: Broker>(shared: &Shared<B>) -> Text {
    Text::from(shared.broker.node().cluster.to_string())
}

fn broker(endpoint: &Endpoint) -> MetadataResponseBroker {
    MetadataResponseBroker {
        node_id: endpoint.node.0,
        host: Text::from(endpoint.host.as_str()),
        port: endpoint.port.into(),
        rack: rack(endpoint),
    }
}

fn rack(endpoint: &Endpoint) -> Option<Text> {
    (!endpoint.rack.is_empty()).then(|| Text::from(endpoint.rack.as_str()))
}

/// One topic that was asked about, created where that is wanted.
async fn one<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    endpoints: &[Endpoint],
    asked: Asked,
    create: bool,
) -> MetadataResponseTopic {
    let known = shared.topics();
    let failed = |name: Option<Text>, id: TopicId, error: ErrorCode| MetadataResponseTopic {
        error_code: error.code(),
        name: name.or_else(|| (call.version() < 12).then_some(Text::EMPTY)),
        topic_id: uuid(id),
        ..MetadataResponseTopic::default()
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            shared.count(&error);
            return failed(None, TopicId(0), code(error.kind));
        }
    };
    let text = match asked {
        Asked::Named(name) => name,
        Asked::Id(id) => match known.name(id) {
            Some(name) => Text::from(name.as_str()),
            None => return failed(None, id, ErrorCode::UnknownTopicId),
        },
    };
    if let Some(info) = known.get(text.as_str()) {
        return described(shared, call, endpoints, info);
    }
    let name = match topic_name(&text) {
        Ok(name) => name,
        Err(error) => return failed(Some(text), TopicId(0), error),
    };
    let refused = shared.refused.contains(name.as_str(), shared.now());
    if !create || refused || name.is_internal() {
        return failed(Some(text), TopicId(0), ErrorCode::UnknownTopicOrPartition);
    }
    match create_topic(shared, call, name).await {
        Ok(info) => described(shared, call, endpoints, &info),
        Err(error) => failed(Some(text), TopicId(0), error),
    }
}

/// Creates a topic because it was asked about.
async fn create_topic<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    name: TopicName,
) -> Result<TopicInfo, ErrorCode> {
    let request = CreateTopic {
        topic: name.clone(),
        partitions: None,
        replication_factor: None,
        configs: Default::default(),
        labels: Default::default(),
        placement: Default::default(),
        validate_only: false,
        request_id: None,
    };
    match shared.broker.create_topic(&call.ctx, request).await {
        Ok(info) => {
            tracing::info!(
                topic = name.as_str(),
                partitions = info.partitions,
                "created a topic because a Kafka client requested its metadata"
            );
            Ok(info)
        }
        // Somebody else was faster; the client asks again.
        Err(error) if error.kind == ErrorKind::TopicAlreadyExists => {
            Err(ErrorCode::LeaderNotAvailable)
        }
        Err(error) => {
            shared.count(&error);
            Err(creation_code(&error))
        }
    }
}

fn described<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    endpoints: &[Endpoint],
    info: &TopicInfo,
) -> MetadataResponseTopic {
    let found = shared.broker.partitions(&call.ctx, &info.name);
    let (error, partitions) = match found {
        Ok(partitions) => (ErrorCode::None, partitions),
        Err(error) => {
            shared.count(&error);
            (code(error.kind), Vec::new())
        }
    };
    let of = |p: &PartitionInfo| {
        let (error, leader) = leader(p, endpoints, call.version());
        MetadataResponsePartition {
            error_code: error.code(),
            partition_index: p.partition.0,
            leader_id: leader,
            leader_epoch: p.leader_epoch.get(),
            replica_nodes: ids(&p.replicas),
            isr_nodes: ids(&p.in_sync),
            offline_replicas: offline(p, endpoints),
        }
    };
    MetadataResponseTopic {
        error_code: error.code(),
        name: Some(Text::from(info.name.as_str())),
        topic_id: uuid(info.id),
        is_internal: info.name.is_internal(),
        partitions: partitions.iter().map(of).collect(),
        ..MetadataResponseTopic::default()
    }
}

/// Who leads a partition, for clients of a version.
fn leader(partition: &PartitionInfo, endpoints: &[Endpoint], version: i16) -> (ErrorCode, i32) {
    match partition.leader {
        None => (ErrorCode::LeaderNotAvailable, -1),
        Some(node) if endpoints.iter().any(|e| e.node == node) => (ErrorCode::None, node.0),
        Some(_) if version >= LISTENER_NOT_FOUND_FROM => (ErrorCode::ListenerNotFound, -1),
        Some(_) => (ErrorCode::LeaderNotAvailable, -1),
    }
}

fn ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|n| n.0).collect()
}

fn offline(partition: &PartitionInfo, endpoints: &[Endpoint]) -> Vec<i32> {
    let known = |n: &&NodeId| !endpoints.iter().any(|e| e.node == **n);
    let offline = partition.replicas.iter().filter(known);
    offline.map(|n| n.0).collect()
}

pub(super) fn describe_cluster<B: Broker>(
    shared: &Shared<B>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse {
        endpoint_type: 1,
        cluster_id: cluster_id(shared),
        controller_id: shared.node.0,
        cluster_authorized_operations: operations::told(
            request.include_cluster_authorized_operations,
            operations::CLUSTER,
        ),
        ..DescribeClusterResponse::default()
    };
    if request.endpoint_type != 1 {
        // Controllers are no nodes of their own here, and have no such listener.
        response.error_code = ErrorCode::MismatchedEndpointType.code();
        let text = "this is a broker; ask for broker endpoints";
        response.error_message = Some(Text::from_static(text));
        return response;
    }
    let broker = |endpoint: &Endpoint| DescribeClusterBroker {
        broker_id: endpoint.node.0,
        host: Text::from(endpoint.host.as_str()),
        port: endpoint.port.into(),
        rack: rack(endpoint),
        is_fenced: false,
    };
    response.brokers = shared.endpoints().iter().map(broker).collect();
    response
}

pub(super) fn describe_topic_partitions<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let Ok(known) = shared.topics() else {
        return response;
    };
    let endpoints = shared.endpoints();
    // This call has no word for whether they are wanted.
    let operations = operations::told(true, operations::TOPIC);
    let mut names: Vec<&str> = match request.topics.is_empty() {
        true => known.all.iter().map(|t| t.name.as_str()).collect(),
        false => request.topics.iter().map(|t| t.name.as_str()).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let (first, mut skip) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index.max(0)),
        None => ("", 0),
    };
    let mut left = request
        .response_partition_limit
        .clamp(1, PARTITIONS_PER_ANSWER) as usize;
    for name in names.into_iter().filter(|name| *name >= first) {
        if name != first {
            skip = 0;
        }
        let Some(info) = known.get(name) else {
            let error = match topic_name(&Text::from(name)) {
                Ok(_) => ErrorCode::UnknownTopicOrPartition,
                Err(error) => error,
            };
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: error.code(),
                name: Some(Text::from(name)),
                topic_authorized_operations: operations,
                ..DescribeTopicPartitionsResponseTopic::default()
            });
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(ResponseCursor {
                topic_name: Text::from(name),
                partition_index: 0,
            });
            break;
        }
        let all = shared.broker.partitions(&call.ctx, &info.name);
        let all = all.unwrap_or_default();
        let rest = all.iter().filter(|p| p.partition.0 >= skip);
        let shown: Vec<_> = rest.clone().take(left).collect();
        let of = |p: &&PartitionInfo| detailed(p, &endpoints);
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(Text::from(name)),
            topic_id: uuid(info.id),
            is_internal: info.name.is_internal(),
            partitions: shown.iter().map(of).collect(),
            topic_authorized_operations: operations,
            ..DescribeTopicPartitionsResponseTopic::default()
        });
        left -= shown.len();
        if let Some(next) = rest.clone().nth(shown.len()) {
            response.next_cursor = Some(ResponseCursor {
                topic_name: Text::from(name),
                partition_index: next.partition.0,
            });
            break;
        }
    }
    response
}

fn detailed(p: &PartitionInfo, endpoints: &[Endpoint]) -> DescribeTopicPartitionsResponsePartition {
    let (error, leader) = leader(p, endpoints, LISTENER_NOT_FOUND_FROM);
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: p.partition.0,
        leader_id: leader,
        leader_epoch: p.leader_epoch.get(),
        replica_nodes: ids(&p.replicas),
        isr_nodes: ids(&p.in_sync),
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: offline(p, endpoints),
    }
}
