//! Topics and their configuration.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, NodeId, Offset, PartitionId, TopicId, TopicName, TopicPartition};

/// Creates a topic.
#[derive(Debug, Clone)]
pub struct CreateTopic {
    /// Name.
    pub topic: TopicName,
    /// Number of partitions; `None`: the node's `num.partitions`.
    pub partitions: Option<i32>,
    /// Replicas of each partition; `None`: the node's `default.replication.factor`.
    pub replication_factor: Option<i32>,
    /// Configs as given.
    pub configs: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Explicit placement: partition to nodes, the first being the preferred leader.
    pub placement: BTreeMap<i32, Vec<NodeId>>,
    /// Check everything, create nothing.
    pub validate_only: bool,
    /// Makes the call idempotent for 10 minutes.
    pub request_id: Option<u128>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication_factor: i32,
    /// Configs that were set on the topic.
    pub configs: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// A partition in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Number.
    pub partition: PartitionId,
    /// Leader; `None`: none at present.
    pub leader: Option<NodeId>,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
    /// Replicas; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Replicas in sync.
    pub in_sync: Vec<NodeId>,
    /// Oldest readable offset.
    pub log_start: Offset,
    /// One past the last committed record.
    pub high_watermark: Offset,
    /// One past the last record of the leader's log.
    pub log_end: Offset,
    /// Bytes on the leader's disk.
    pub size_bytes: u64,
    /// Why the partition is offline, if it is.
    pub error: Option<crate::Error>,
}

/// Where a config value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Built in.
    Default,
    /// The node's file, environment or flags.
    Static,
    /// Set on the topic.
    Topic,
}

/// An effective config value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub value: String,
    /// Where it comes from.
    pub source: ConfigSource,
    /// What it would be if it were not set here.
    pub inherited: String,
    /// One sentence.
    pub description: &'static str,
}

/// What to do with one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set.
    Set(String),
    /// Remove, so that the inherited value applies.
    Delete,
    /// Add to a list value.
    Append(String),
    /// Remove from a list value.
    Subtract(String),
}

/// Changes configs of a topic.
#[derive(Debug, Clone)]
pub struct UpdateConfigs {
    /// Topic.
    pub topic: TopicName,
    /// Changes by name.
    pub changes: BTreeMap<String, ConfigChange>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// Raises the number of partitions.
#[derive(Debug, Clone)]
pub struct AddPartitions {
    /// Topic.
    pub topic: TopicName,
    /// New total, greater than the present count.
    pub total: i32,
    /// Placement of the new partitions, as in [`CreateTopic::placement`].
    pub placement: BTreeMap<i32, Vec<NodeId>>,
    /// Check everything, add nothing.
    pub validate_only: bool,
}

/// Where a log will start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// This offset, at most the high watermark.
    Offset(Offset),
    /// The first record at or after this time (ms).
    Timestamp(i64),
    /// The high watermark: everything goes.
    End,
}

/// Deletes the records of one partition before a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteBefore {
    /// Partition.
    pub partition: TopicPartition,
    /// Place.
    pub before: Before,
}
