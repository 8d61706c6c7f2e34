//! The cluster: nodes, routing, health and limits to messages.

use std::time::Duration;

use varve_broker_api::{
    ClusterHealth, Error, Features, NodeDetail, NodeInfo, NodeState, NodeStatus, PartitionInfo,
    Reassignment, Target, TopicInfo,
};
use varve_proto::v1;
use varve_types::{NodeId, TopicPartition, limits};

use super::{missing, to_duration, to_timestamp, to_topic_partition, topic_partition};

/// Shortest interval of client pings that the server tolerates.
const MIN_KEEPALIVE: Duration = Duration::from_secs(10);

/// A node's description of itself.
#[must_use]
pub fn to_server_info(node: &NodeInfo) -> v1::GetServerInfoResponse {
    let bytes = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    v1::GetServerInfoResponse {
        version: node.version.to_owned(),
        revision: node.revision.to_owned(),
        cluster_id: node.cluster.to_string(),
        node_id: node.node.0,
        features: node.features.iter().map(|f| (*f).to_owned()).collect(),
        limits: Some(v1::Limits {
            max_request_bytes: bytes(node.max_request_bytes),
            max_fetch_bytes: bytes(node.max_fetch_bytes),
            max_batch_records: i32::try_from(limits::BATCH_MAX_RECORDS).unwrap_or(i32::MAX),
            default_timeout: Some(to_duration(Duration::from_millis(node.request_timeout_ms))),
            min_keepalive_interval: Some(to_duration(MIN_KEEPALIVE)),
        }),
        server_time: Some(to_timestamp(node.now_ms)),
        listeners: node.listeners.clone().into_iter().collect(),
    }
}

/// A node in the words of the API.
#[must_use]
pub fn to_node(node: &NodeStatus) -> v1::Node {
    let state = to_state(node.state);
    v1::Node {
        node_id: node.node.0,
        address: node.address.clone(),
        rack: node.rack.clone(),
        state: state as i32,
        version: node.version.clone(),
    }
}

/// A node's state in the words of the API.
#[must_use]
pub const fn to_state(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Active => v1::NodeState::Active,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Drained => v1::NodeState::Drained,
        NodeState::Decommissioning => v1::NodeState::Decommissioning,
        NodeState::Offline => v1::NodeState::Offline,
    }
}

/// A node id.
///
/// # Errors
/// `InvalidRequest` naming `field` when it is missing or negative.
pub fn node(field: &'static str, value: Option<i32>) -> Result<NodeId, Error> {
    let value = value.ok_or_else(|| missing(field))?;
    if value < 0 {
        let text =
            format!("{field} is {value}, but a node id must not be negative; nothing was changed");
        return Err(Error::invalid(field, text));
    }
    Ok(NodeId(value))
}

/// Where a partition is to be.
///
/// # Errors
/// `InvalidRequest` when nothing is said, or both nodes and their number are.
pub fn reassignment(item: &v1::Reassignment) -> Result<(TopicPartition, Target), Error> {
    let id = topic_partition("topic_partition", item.topic_partition.as_ref())?;
    let target = match (&item.node_ids[..], item.replica_count) {
        ([], 0) => return Err(missing("node_ids")),
        ([], replicas) => Target::Count(replicas),
        (nodes, 0) => {
            let nodes = nodes.iter().map(|n| node("node_ids", Some(*n)));
            Target::Nodes(nodes.collect::<Result<_, _>>()?)
        }
        _ => {
            let text = format!(
                "partition {id}: node_ids already give the number of replicas; leave replica_count \
                 out; nothing was changed"
            );
            return Err(Error::invalid("replica_count", text));
        }
    };
    Ok((id, target))
}

/// A node with its load.
#[must_use]
pub fn to_detail(node: &NodeDetail) -> v1::NodeDetail {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    v1::NodeDetail {
        node: Some(to_node(&node.status)),
        replica_count: count(node.replicas),
        leader_count: count(node.leaders),
        decommissioning: node.decommissioning,
    }
}

/// How far a partition is moved.
#[must_use]
pub fn to_progress(progress: &Reassignment) -> v1::ReassignmentProgress {
    let bytes = progress.remaining_bytes;
    v1::ReassignmentProgress {
        topic_partition: Some(to_topic_partition(&progress.partition)),
        leader_node_id: progress.leader.map(|n| n.0),
        adding_node_ids: ids(&progress.adding),
        removing_node_ids: ids(&progress.removing),
        remaining_bytes: bytes.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
    }
}

/// Feature levels.
#[must_use]
pub fn to_features(features: &Features) -> v1::GetFeaturesResponse {
    let nodes = features.nodes.iter().map(|node| v1::NodeFeatures {
        node_id: node.node.0,
        version: node.version.clone(),
        min_level: node.min.into(),
        max_level: node.max.into(),
    });
    v1::GetFeaturesResponse {
        level: features.level.into(),
        possible_level: features.possible.into(),
        nodes: nodes.collect(),
    }
}

/// The node that leads the metadata, if one does.
#[must_use]
pub fn controller(nodes: &[NodeStatus]) -> Option<i32> {
    nodes.iter().find(|n| n.controller).map(|n| n.node.0)
}

/// Routing of a topic.
#[must_use]
pub fn to_routing(topic: &TopicInfo, partitions: &[PartitionInfo]) -> v1::TopicMetadata {
    v1::TopicMetadata {
        topic: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partitioner: v1::Partitioner::Murmur2 as i32,
        partitions: partitions.iter().map(to_partition_routing).collect(),
        error: None,
    }
}

fn to_partition_routing(partition: &PartitionInfo) -> v1::PartitionMetadata {
    v1::PartitionMetadata {
        partition: partition.partition.0,
        leader_node_id: partition.leader.map(|n| n.0),
        leader_epoch: partition.leader_epoch.get().into(),
        replica_node_ids: ids(&partition.replicas),
        in_sync_node_ids: ids(&partition.in_sync),
    }
}

/// What is wrong with the cluster.
#[must_use]
pub fn to_health(health: &ClusterHealth) -> v1::GetClusterHealthResponse {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    v1::GetClusterHealthResponse {
        healthy: health.healthy(),
        controller_node_id: health.controller.map(|n| n.0),
        offline_node_ids: ids(&health.offline),
        draining_node_ids: ids(&health.draining),
        leaderless_partitions: count(health.leaderless),
        under_replicated_partitions: count(health.under_replicated),
        under_min_isr_partitions: count(health.under_min_isr),
        low_space_node_ids: ids(&health.low_space),
        non_preferred_leaders: count(health.non_preferred),
        offline_since: {
            let since = health.offline_since.iter();
            since.map(|(id, ms)| (id.0, to_timestamp(*ms))).collect()
        },
        near_limits: {
            let near = health.near_limits.iter();
            near.map(|limit| v1::NearLimit {
                name: limit.name.to_owned(),
                used: count(limit.used),
                max: count(limit.max),
            })
            .collect()
        },
    }
}

fn ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|n| n.0).collect()
}

/// Metadata versions are counted from 0 on the wire, too.
#[must_use]
pub fn to_version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_without_a_controller_is_not_healthy() {
        let mut health = ClusterHealth::default();
        assert!(!to_health(&health).healthy);
        health.controller = Some(NodeId(1));
        health.non_preferred = 3;
        let sent = to_health(&health);
        assert!(sent.healthy);
        assert_eq!(
            (sent.controller_node_id, sent.non_preferred_leaders),
            (Some(1), 3)
        );
    }
}
