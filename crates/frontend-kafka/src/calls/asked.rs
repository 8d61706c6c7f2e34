//! Calls that only ask, and that consoles and tools make first: access rules, quotas, credentials, features, resources
//! with configs, and the nodes that agree on the metadata.
//!
//! Invariant: what there is not is answered as none, or by the code that says so, never with a guess. Nothing is
//! changed here.

use varve_broker_api::{Broker, Error, Operations, QuorumMember};

use super::Call;
use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::shared::Shared;
use crate::translate::{code, sentence};
use crate::versions::{TRANSACTIONS, TRANSACTIONS_LEVEL};
use crate::wire::generated::describe_acls::DescribeAclsResponse;
use crate::wire::generated::describe_client_quotas::DescribeClientQuotasResponse;
use crate::wire::generated::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState,
    TopicData,
};
use crate::wire::generated::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
};
use crate::wire::generated::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::wire::generated::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use crate::wire::{ErrorCode, Text};

/// The log of metadata, as Kafka's tools call it.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// From this version on a request for resources says which types.
const TYPES_FROM: i16 = 1;
/// From this version on features are refused together.
const FEATURES_TOGETHER_FROM: i16 = 2;

pub(super) fn acls() -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(Text::from_static(
            "this cluster has no access rules: every client that can connect may do everything",
        )),
        ..DescribeAclsResponse::default()
    }
}

/// There are no quotas, so none matches.
pub(super) fn quotas() -> DescribeClientQuotasResponse {
    DescribeClientQuotasResponse {
        entries: Some(Vec::new()),
        ..DescribeClientQuotasResponse::default()
    }
}

/// There are no users; one that is named is not found.
pub(super) fn credentials(
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let users = request.users.unwrap_or_default().into_iter();
    let unknown = users.map(|user| DescribeUserScramCredentialsResult {
        error_message: Some(Text::from(format!(
            "there is no user {:.100}: this cluster has no SCRAM credentials",
            user.name.as_str()
        ))),
        user: user.name,
        error_code: ErrorCode::ResourceNotFound.code(),
        ..DescribeUserScramCredentialsResult::default()
    });
    DescribeUserScramCredentialsResponse {
        results: unknown.collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}

/// What has configs. Groups and subscriptions to metrics have none of their own here.
pub(super) fn resources<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let mut response = ListConfigResourcesResponse::default();
    let types: &[i8] = match request.resource_types.as_slice() {
        _ if call.version() < TYPES_FROM => &[CLIENT_METRICS],
        [] => &ALL,
        types => types,
    };
    if types.iter().any(|kind| !ALL.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion.code();
        return response;
    }
    let mut add = |kind, name: Text| {
        response.config_resources.push(ConfigResource {
            resource_name: name,
            resource_type: kind,
        });
    };
    for kind in ALL.into_iter().filter(|kind| types.contains(kind)) {
        match kind {
            TOPIC => {
                let topics = shared.topics().unwrap_or_default();
                let names = topics.all.iter().map(|t| Text::from(t.name.as_str()));
                names.for_each(|name| add(kind, name));
            }
            BROKER | BROKER_LOGGER => {
                let nodes = shared.endpoints().into_iter();
                nodes.for_each(|e| add(kind, Text::from(e.node.to_string())));
            }
            _ => {}
        }
    }
    response
}

/// Tools ask what would become of a change. What is announced to Kafka's clients is part of the program.
pub(super) fn features(call: &Call, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let mut response = UpdateFeaturesResponse::default();
    let judged = |update: FeatureUpdateKey| match judge(&update) {
        Ok(()) => UpdatableFeatureResult {
            feature: update.feature,
            ..UpdatableFeatureResult::default()
        },
        Err(why) => UpdatableFeatureResult {
            feature: update.feature,
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some(Text::from(why)),
        },
    };
    let results: Vec<_> = request.feature_updates.into_iter().map(judged).collect();
    if call.version() < FEATURES_TOGETHER_FROM {
        response.results = results;
    } else if let Some(bad) = results.into_iter().find(|r| r.error_code != 0) {
        response.error_code = bad.error_code;
        response.error_message = bad.error_message;
    }
    response
}

fn judge(update: &FeatureUpdateKey) -> Result<(), String> {
    let (name, level) = (update.feature.as_str(), update.max_version_level);
    let why = match name {
        TRANSACTIONS if level == TRANSACTIONS_LEVEL => return Ok(()),
        TRANSACTIONS => format!("it stays at {TRANSACTIONS_LEVEL}"),
        _ => "this cluster has no such feature".to_owned(),
    };
    Err(format!(
        "feature {name:.100} cannot be at {level}: {why}; nothing was changed. The feature level of \
         the cluster is raised by `varve cluster upgrade`"
    ))
}

/// Who agrees on the metadata, as far as this node knows.
pub(super) fn quorum<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: &DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let quorum = match shared.broker.quorum(&call.ctx) {
        Ok(quorum) => quorum,
        Err(error) => return unknown_quorum(shared, &error),
    };
    let now = shared.broker.node().now_ms;
    let replica = |member: &QuorumMember| {
        let leads = quorum.leader == Some(member.node);
        ReplicaState {
            replica_id: member.node.0,
            log_end_offset: member.log_end.map_or(-1, |end| end.cast_signed()),
            last_caught_up_timestamp: if leads { now } else { -1 },
            ..ReplicaState::default()
        }
    };
    let those = |voters: bool| {
        let members = quorum.members.iter().filter(|m| m.voter == voters);
        members.map(replica).collect()
    };
    let described = |topic: &Text, number: i32| {
        let mut data = PartitionData {
            partition_index: number,
            ..PartitionData::default()
        };
        if topic.as_str() != METADATA_TOPIC || number != 0 {
            data.error_code = ErrorCode::UnknownTopicOrPartition.code();
            data.leader_id = -1;
            return data;
        }
        data.leader_id = quorum.leader.map_or(-1, |node| node.0);
        data.leader_epoch = i32::try_from(quorum.epoch).unwrap_or(i32::MAX);
        data.high_watermark = quorum.committed.cast_signed();
        data.current_voters = those(true);
        data.observers = those(false);
        data
    };
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|p| described(&topic.topic_name, p.partition_index))
            .collect(),
    });
    let nodes = shared.endpoints().into_iter().map(|endpoint| Node {
        node_id: endpoint.node.0,
        listeners: vec![Listener {
            name: Text::from_static("KAFKA"),
            host: Text::from(endpoint.host),
            port: endpoint.port,
        }],
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        // Earlier versions have no place for it.
        nodes: match call.version() {
            2.. => nodes.collect(),
            _ => Vec::new(),
        },
        ..DescribeQuorumResponse::default()
    }
}

fn unknown_quorum<B: Broker>(shared: &Shared<B>, error: &Error) -> DescribeQuorumResponse {
    shared.count(error);
    DescribeQuorumResponse {
        error_code: code(error.kind).code(),
        error_message: sentence(error),
        ..DescribeQuorumResponse::default()
    }
}
