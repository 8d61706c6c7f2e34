//! @generated from `messages` by `cargo xtask kafka`: do not edit.
//!
//! Every API that has a table, with its key and versions, and one type over all requests and responses.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod get_telemetry_subscriptions;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod push_telemetry;
pub mod sync_group;
pub mod txn_offset_commit;
pub mod update_features;

use crate::wire::codec::{EncodeError, Source, Wire, Writer};

/// A kind of request, by the name that the protocol gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiKey {
    /// Key 0, versions 0 to 13.
    Produce = 0,
    /// Key 1, versions 0 to 18.
    Fetch = 1,
    /// Key 2, versions 0 to 11.
    ListOffsets = 2,
    /// Key 3, versions 0 to 13.
    Metadata = 3,
    /// Key 8, versions 0 to 10.
    OffsetCommit = 8,
    /// Key 9, versions 0 to 10.
    OffsetFetch = 9,
    /// Key 10, versions 0 to 6.
    FindCoordinator = 10,
    /// Key 11, versions 0 to 9.
    JoinGroup = 11,
    /// Key 12, versions 0 to 4.
    Heartbeat = 12,
    /// Key 13, versions 0 to 5.
    LeaveGroup = 13,
    /// Key 14, versions 0 to 5.
    SyncGroup = 14,
    /// Key 15, versions 0 to 6.
    DescribeGroups = 15,
    /// Key 16, versions 0 to 5.
    ListGroups = 16,
    /// Key 18, versions 0 to 5.
    ApiVersions = 18,
    /// Key 19, versions 0 to 7.
    CreateTopics = 19,
    /// Key 20, versions 0 to 6.
    DeleteTopics = 20,
    /// Key 21, versions 0 to 2.
    DeleteRecords = 21,
    /// Key 22, versions 0 to 5.
    InitProducerId = 22,
    /// Key 23, versions 0 to 4.
    OffsetForLeaderEpoch = 23,
    /// Key 24, versions 0 to 5.
    AddPartitionsToTxn = 24,
    /// Key 25, versions 0 to 4.
    AddOffsetsToTxn = 25,
    /// Key 26, versions 0 to 5.
    EndTxn = 26,
    /// Key 28, versions 0 to 6.
    TxnOffsetCommit = 28,
    /// Key 29, versions 1 to 3.
    DescribeAcls = 29,
    /// Key 32, versions 0 to 4.
    DescribeConfigs = 32,
    /// Key 33, versions 0 to 2.
    AlterConfigs = 33,
    /// Key 35, versions 0 to 5.
    DescribeLogDirs = 35,
    /// Key 37, versions 0 to 3.
    CreatePartitions = 37,
    /// Key 42, versions 0 to 3.
    DeleteGroups = 42,
    /// Key 43, versions 0 to 2.
    ElectLeaders = 43,
    /// Key 44, versions 0 to 1.
    IncrementalAlterConfigs = 44,
    /// Key 45, versions 0 to 1.
    AlterPartitionReassignments = 45,
    /// Key 46, version 0.
    ListPartitionReassignments = 46,
    /// Key 47, version 0.
    OffsetDelete = 47,
    /// Key 48, versions 0 to 1.
    DescribeClientQuotas = 48,
    /// Key 50, version 0.
    DescribeUserScramCredentials = 50,
    /// Key 55, versions 0 to 2.
    DescribeQuorum = 55,
    /// Key 57, versions 0 to 2.
    UpdateFeatures = 57,
    /// Key 60, versions 0 to 2.
    DescribeCluster = 60,
    /// Key 61, version 0.
    DescribeProducers = 61,
    /// Key 65, version 0.
    DescribeTransactions = 65,
    /// Key 66, versions 0 to 2.
    ListTransactions = 66,
    /// Key 68, versions 0 to 1.
    ConsumerGroupHeartbeat = 68,
    /// Key 69, versions 0 to 1.
    ConsumerGroupDescribe = 69,
    /// Key 71, version 0.
    GetTelemetrySubscriptions = 71,
    /// Key 72, version 0.
    PushTelemetry = 72,
    /// Key 74, versions 0 to 1.
    ListConfigResources = 74,
    /// Key 75, version 0.
    DescribeTopicPartitions = 75,
}

impl ApiKey {
    /// All of them, by key.
    pub const ALL: &[Self] = &[
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::OffsetCommit,
        Self::OffsetFetch,
        Self::FindCoordinator,
        Self::JoinGroup,
        Self::Heartbeat,
        Self::LeaveGroup,
        Self::SyncGroup,
        Self::DescribeGroups,
        Self::ListGroups,
        Self::ApiVersions,
        Self::CreateTopics,
        Self::DeleteTopics,
        Self::DeleteRecords,
        Self::InitProducerId,
        Self::OffsetForLeaderEpoch,
        Self::AddPartitionsToTxn,
        Self::AddOffsetsToTxn,
        Self::EndTxn,
        Self::TxnOffsetCommit,
        Self::DescribeAcls,
        Self::DescribeConfigs,
        Self::AlterConfigs,
        Self::DescribeLogDirs,
        Self::CreatePartitions,
        Self::DeleteGroups,
        Self::ElectLeaders,
        Self::IncrementalAlterConfigs,
        Self::AlterPartitionReassignments,
        Self::ListPartitionReassignments,
        Self::OffsetDelete,
        Self::DescribeClientQuotas,
        Self::DescribeUserScramCredentials,
        Self::DescribeQuorum,
        Self::UpdateFeatures,
        Self::DescribeCluster,
        Self::DescribeProducers,
        Self::DescribeTransactions,
        Self::ListTransactions,
        Self::ConsumerGroupHeartbeat,
        Self::ConsumerGroupDescribe,
        Self::GetTelemetrySubscriptions,
        Self::PushTelemetry,
        Self::ListConfigResources,
        Self::DescribeTopicPartitions,
    ];

    /// The name in the protocol's documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::ListOffsets => "ListOffsets",
            Self::Metadata => "Metadata",
            Self::OffsetCommit => "OffsetCommit",
            Self::OffsetFetch => "OffsetFetch",
            Self::FindCoordinator => "FindCoordinator",
            Self::JoinGroup => "JoinGroup",
            Self::Heartbeat => "Heartbeat",
            Self::LeaveGroup => "LeaveGroup",
            Self::SyncGroup => "SyncGroup",
            Self::DescribeGroups => "DescribeGroups",
            Self::ListGroups => "ListGroups",
            Self::ApiVersions => "ApiVersions",
            Self::CreateTopics => "CreateTopics",
            Self::DeleteTopics => "DeleteTopics",
            Self::DeleteRecords => "DeleteRecords",
            Self::InitProducerId => "InitProducerId",
            Self::OffsetForLeaderEpoch => "OffsetForLeaderEpoch",
            Self::AddPartitionsToTxn => "AddPartitionsToTxn",
            Self::AddOffsetsToTxn => "AddOffsetsToTxn",
            Self::EndTxn => "EndTxn",
            Self::TxnOffsetCommit => "TxnOffsetCommit",
            Self::DescribeAcls => "DescribeAcls",
            Self::DescribeConfigs => "DescribeConfigs",
            Self::AlterConfigs => "AlterConfigs",
            Self::DescribeLogDirs => "DescribeLogDirs",
            Self::CreatePartitions => "CreatePartitions",
            Self::DeleteGroups => "DeleteGroups",
            Self::ElectLeaders => "ElectLeaders",
            Self::IncrementalAlterConfigs => "IncrementalAlterConfigs",
            Self::AlterPartitionReassignments => "AlterPartitionReassignments",
            Self::ListPartitionReassignments => "ListPartitionReassignments",
            Self::OffsetDelete => "OffsetDelete",
            Self::DescribeClientQuotas => "DescribeClientQuotas",
            Self::DescribeUserScramCredentials => "DescribeUserScramCredentials",
            Self::DescribeQuorum => "DescribeQuorum",
            Self::UpdateFeatures => "UpdateFeatures",
            Self::DescribeCluster => "DescribeCluster",
            Self::DescribeProducers => "DescribeProducers",
            Self::DescribeTransactions => "DescribeTransactions",
            Self::ListTransactions => "ListTransactions",
            Self::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeat",
            Self::ConsumerGroupDescribe => "ConsumerGroupDescribe",
            Self::GetTelemetrySubscriptions => "GetTelemetrySubscriptions",
            Self::PushTelemetry => "PushTelemetry",
            Self::ListConfigResources => "ListConfigResources",
            Self::DescribeTopicPartitions => "DescribeTopicPartitions",
        }
    }

    /// The name of its request, for errors.
    #[must_use]
    pub const fn request_name(self) -> &'static str {
        match self {
            Self::Produce => "ProduceRequest",
            Self::Fetch => "FetchRequest",
            Self::ListOffsets => "ListOffsetsRequest",
            Self::Metadata => "MetadataRequest",
            Self::OffsetCommit => "OffsetCommitRequest",
            Self::OffsetFetch => "OffsetFetchRequest",
            Self::FindCoordinator => "FindCoordinatorRequest",
            Self::JoinGroup => "JoinGroupRequest",
            Self::Heartbeat => "HeartbeatRequest",
            Self::LeaveGroup => "LeaveGroupRequest",
            Self::SyncGroup => "SyncGroupRequest",
            Self::DescribeGroups => "DescribeGroupsRequest",
            Self::ListGroups => "ListGroupsRequest",
            Self::ApiVersions => "ApiVersionsRequest",
            Self::CreateTopics => "CreateTopicsRequest",
            Self::DeleteTopics => "DeleteTopicsRequest",
            Self::DeleteRecords => "DeleteRecordsRequest",
            Self::InitProducerId => "InitProducerIdRequest",
            Self::OffsetForLeaderEpoch => "OffsetForLeaderEpochRequest",
            Self::AddPartitionsToTxn => "AddPartitionsToTxnRequest",
            Self::AddOffsetsToTxn => "AddOffsetsToTxnRequest",
            Self::EndTxn => "EndTxnRequest",
            Self::TxnOffsetCommit => "TxnOffsetCommitRequest",
            Self::DescribeAcls => "DescribeAclsRequest",
            Self::DescribeConfigs => "DescribeConfigsRequest",
            Self::AlterConfigs => "AlterConfigsRequest",
            Self::DescribeLogDirs => "DescribeLogDirsRequest",
            Self::CreatePartitions => "CreatePartitionsRequest",
            Self::DeleteGroups => "DeleteGroupsRequest",
            Self::ElectLeaders => "ElectLeadersRequest",
            Self::IncrementalAlterConfigs => "IncrementalAlterConfigsRequest",
            Self::AlterPartitionReassignments => "AlterPartitionReassignmentsRequest",
            Self::ListPartitionReassignments => "ListPartitionReassignmentsRequest",
            Self::OffsetDelete => "OffsetDeleteRequest",
            Self::DescribeClientQuotas => "DescribeClientQuotasRequest",
            Self::DescribeUserScramCredentials => "DescribeUserScramCredentialsRequest",
            Self::DescribeQuorum => "DescribeQuorumRequest",
            Self::UpdateFeatures => "UpdateFeaturesRequest",
            Self::DescribeCluster => "DescribeClusterRequest",
            Self::DescribeProducers => "DescribeProducersRequest",
            Self::DescribeTransactions => "DescribeTransactionsRequest",
            Self::ListTransactions => "ListTransactionsRequest",
            Self::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeatRequest",
            Self::ConsumerGroupDescribe => "ConsumerGroupDescribeRequest",
            Self::GetTelemetrySubscriptions => "GetTelemetrySubscriptionsRequest",
            Self::PushTelemetry => "PushTelemetryRequest",
            Self::ListConfigResources => "ListConfigResourcesRequest",
            Self::DescribeTopicPartitions => "DescribeTopicPartitionsRequest",
        }
    }

    /// The name of its response, for errors.
    #[must_use]
    pub const fn response_name(self) -> &'static str {
        match self {
            Self::Produce => "ProduceResponse",
            Self::Fetch => "FetchResponse",
            Self::ListOffsets => "ListOffsetsResponse",
            Self::Metadata => "MetadataResponse",
            Self::OffsetCommit => "OffsetCommitResponse",
            Self::OffsetFetch => "OffsetFetchResponse",
            Self::FindCoordinator => "FindCoordinatorResponse",
            Self::JoinGroup => "JoinGroupResponse",
            Self::Heartbeat => "HeartbeatResponse",
            Self::LeaveGroup => "LeaveGroupResponse",
            Self::SyncGroup => "SyncGroupResponse",
            Self::DescribeGroups => "DescribeGroupsResponse",
            Self::ListGroups => "ListGroupsResponse",
            Self::ApiVersions => "ApiVersionsResponse",
            Self::CreateTopics => "CreateTopicsResponse",
            Self::DeleteTopics => "DeleteTopicsResponse",
            Self::DeleteRecords => "DeleteRecordsResponse",
            Self::InitProducerId => "InitProducerIdResponse",
            Self::OffsetForLeaderEpoch => "OffsetForLeaderEpochResponse",
            Self::AddPartitionsToTxn => "AddPartitionsToTxnResponse",
            Self::AddOffsetsToTxn => "AddOffsetsToTxnResponse",
            Self::EndTxn => "EndTxnResponse",
            Self::TxnOffsetCommit => "TxnOffsetCommitResponse",
            Self::DescribeAcls => "DescribeAclsResponse",
            Self::DescribeConfigs => "DescribeConfigsResponse",
            Self::AlterConfigs => "AlterConfigsResponse",
            Self::DescribeLogDirs => "DescribeLogDirsResponse",
            Self::CreatePartitions => "CreatePartitionsResponse",
            Self::DeleteGroups => "DeleteGroupsResponse",
            Self::ElectLeaders => "ElectLeadersResponse",
            Self::IncrementalAlterConfigs => "IncrementalAlterConfigsResponse",
            Self::AlterPartitionReassignments => "AlterPartitionReassignmentsResponse",
            Self::ListPartitionReassignments => "ListPartitionReassignmentsResponse",
            Self::OffsetDelete => "OffsetDeleteResponse",
            Self::DescribeClientQuotas => "DescribeClientQuotasResponse",
            Self::DescribeUserScramCredentials => "DescribeUserScramCredentialsResponse",
            Self::DescribeQuorum => "DescribeQuorumResponse",
            Self::UpdateFeatures => "UpdateFeaturesResponse",
            Self::DescribeCluster => "DescribeClusterResponse",
            Self::DescribeProducers => "DescribeProducersResponse",
            Self::DescribeTransactions => "DescribeTransactionsResponse",
            Self::ListTransactions => "ListTransactionsResponse",
            Self::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeatResponse",
            Self::ConsumerGroupDescribe => "ConsumerGroupDescribeResponse",
            Self::GetTelemetrySubscriptions => "GetTelemetrySubscriptionsResponse",
            Self::PushTelemetry => "PushTelemetryResponse",
            Self::ListConfigResources => "ListConfigResourcesResponse",
            Self::DescribeTopicPartitions => "DescribeTopicPartitionsResponse",
        }
    }

    /// The oldest version that has a table.
    #[must_use]
    pub const fn first_version(self) -> i16 {
        match self {
            Self::Produce => 0,
            Self::Fetch => 0,
            Self::ListOffsets => 0,
            Self::Metadata => 0,
            Self::OffsetCommit => 0,
            Self::OffsetFetch => 0,
            Self::FindCoordinator => 0,
            Self::JoinGroup => 0,
            Self::Heartbeat => 0,
            Self::LeaveGroup => 0,
            Self::SyncGroup => 0,
            Self::DescribeGroups => 0,
            Self::ListGroups => 0,
            Self::ApiVersions => 0,
            Self::CreateTopics => 0,
            Self::DeleteTopics => 0,
            Self::DeleteRecords => 0,
            Self::InitProducerId => 0,
            Self::OffsetForLeaderEpoch => 0,
            Self::AddPartitionsToTxn => 0,
            Self::AddOffsetsToTxn => 0,
            Self::EndTxn => 0,
            Self::TxnOffsetCommit => 0,
            Self::DescribeAcls => 1,
            Self::DescribeConfigs => 0,
            Self::AlterConfigs => 0,
            Self::DescribeLogDirs => 0,
            Self::CreatePartitions => 0,
            Self::DeleteGroups => 0,
            Self::ElectLeaders => 0,
            Self::IncrementalAlterConfigs => 0,
            Self::AlterPartitionReassignments => 0,
            Self::ListPartitionReassignments => 0,
            Self::OffsetDelete => 0,
            Self::DescribeClientQuotas => 0,
            Self::DescribeUserScramCredentials => 0,
            Self::DescribeQuorum => 0,
            Self::UpdateFeatures => 0,
            Self::DescribeCluster => 0,
            Self::DescribeProducers => 0,
            Self::DescribeTransactions => 0,
            Self::ListTransactions => 0,
            Self::ConsumerGroupHeartbeat => 0,
            Self::ConsumerGroupDescribe => 0,
            Self::GetTelemetrySubscriptions => 0,
            Self::PushTelemetry => 0,
            Self::ListConfigResources => 0,
            Self::DescribeTopicPartitions => 0,
        }
    }

    /// The newest version that has a table.
    #[must_use]
    pub const fn last_version(self) -> i16 {
        match self {
            Self::Produce => 13,
            Self::Fetch => 18,
            Self::ListOffsets => 11,
            Self::Metadata => 13,
            Self::OffsetCommit => 10,
            Self::OffsetFetch => 10,
            Self::FindCoordinator => 6,
            Self::JoinGroup => 9,
            Self::Heartbeat => 4,
            Self::LeaveGroup => 5,
            Self::SyncGroup => 5,
            Self::DescribeGroups => 6,
            Self::ListGroups => 5,
            Self::ApiVersions => 5,
            Self::CreateTopics => 7,
            Self::DeleteTopics => 6,
            Self::DeleteRecords => 2,
            Self::InitProducerId => 5,
            Self::OffsetForLeaderEpoch => 4,
            Self::AddPartitionsToTxn => 5,
            Self::AddOffsetsToTxn => 4,
            Self::EndTxn => 5,
            Self::TxnOffsetCommit => 6,
            Self::DescribeAcls => 3,
            Self::DescribeConfigs => 4,
            Self::AlterConfigs => 2,
            Self::DescribeLogDirs => 5,
            Self::CreatePartitions => 3,
            Self::DeleteGroups => 3,
            Self::ElectLeaders => 2,
            Self::IncrementalAlterConfigs => 1,
            Self::AlterPartitionReassignments => 1,
            Self::ListPartitionReassignments => 0,
            Self::OffsetDelete => 0,
            Self::DescribeClientQuotas => 1,
            Self::DescribeUserScramCredentials => 0,
            Self::DescribeQuorum => 2,
            Self::UpdateFeatures => 2,
            Self::DescribeCluster => 2,
            Self::DescribeProducers => 0,
            Self::DescribeTransactions => 0,
            Self::ListTransactions => 2,
            Self::ConsumerGroupHeartbeat => 1,
            Self::ConsumerGroupDescribe => 1,
            Self::GetTelemetrySubscriptions => 0,
            Self::PushTelemetry => 0,
            Self::ListConfigResources => 1,
            Self::DescribeTopicPartitions => 0,
        }
    }

    /// The first version with compact lengths and tagged fields; `None`: no version has them.
    #[must_use]
    pub const fn flexible_from(self) -> Option<i16> {
        match self {
            Self::Produce => Some(9),
            Self::Fetch => Some(12),
            Self::ListOffsets => Some(6),
            Self::Metadata => Some(9),
            Self::OffsetCommit => Some(8),
            Self::OffsetFetch => Some(6),
            Self::FindCoordinator => Some(3),
            Self::JoinGroup => Some(6),
            Self::Heartbeat => Some(4),
            Self::LeaveGroup => Some(4),
            Self::SyncGroup => Some(4),
            Self::DescribeGroups => Some(5),
            Self::ListGroups => Some(3),
            Self::ApiVersions => Some(3),
            Self::CreateTopics => Some(5),
            Self::DeleteTopics => Some(4),
            Self::DeleteRecords => Some(2),
            Self::InitProducerId => Some(2),
            Self::OffsetForLeaderEpoch => Some(4),
            Self::AddPartitionsToTxn => Some(3),
            Self::AddOffsetsToTxn => Some(3),
            Self::EndTxn => Some(3),
            Self::TxnOffsetCommit => Some(3),
            Self::DescribeAcls => Some(2),
            Self::DescribeConfigs => Some(4),
            Self::AlterConfigs => Some(2),
            Self::DescribeLogDirs => Some(2),
            Self::CreatePartitions => Some(2),
            Self::DeleteGroups => Some(2),
            Self::ElectLeaders => Some(2),
            Self::IncrementalAlterConfigs => Some(1),
            Self::AlterPartitionReassignments => Some(0),
            Self::ListPartitionReassignments => Some(0),
            Self::OffsetDelete => None,
            Self::DescribeClientQuotas => Some(1),
            Self::DescribeUserScramCredentials => Some(0),
            Self::DescribeQuorum => Some(0),
            Self::UpdateFeatures => Some(0),
            Self::DescribeCluster => Some(0),
            Self::DescribeProducers => Some(0),
            Self::DescribeTransactions => Some(0),
            Self::ListTransactions => Some(0),
            Self::ConsumerGroupHeartbeat => Some(0),
            Self::ConsumerGroupDescribe => Some(0),
            Self::GetTelemetrySubscriptions => Some(0),
            Self::PushTelemetry => Some(0),
            Self::ListConfigResources => Some(0),
            Self::DescribeTopicPartitions => Some(0),
        }
    }

    /// The API of a key; `None` when there is no table for it.
    #[must_use]
    pub const fn from_key(key: i16) -> Option<Self> {
        Some(match key {
            0 => Self::Produce,
            1 => Self::Fetch,
            2 => Self::ListOffsets,
            3 => Self::Metadata,
            8 => Self::OffsetCommit,
            9 => Self::OffsetFetch,
            10 => Self::FindCoordinator,
            11 => Self::JoinGroup,
            12 => Self::Heartbeat,
            13 => Self::LeaveGroup,
            14 => Self::SyncGroup,
            15 => Self::DescribeGroups,
            16 => Self::ListGroups,
            18 => Self::ApiVersions,
            19 => Self::CreateTopics,
            20 => Self::DeleteTopics,
            21 => Self::DeleteRecords,
            22 => Self::InitProducerId,
            23 => Self::OffsetForLeaderEpoch,
            24 => Self::AddPartitionsToTxn,
            25 => Self::AddOffsetsToTxn,
            26 => Self::EndTxn,
            28 => Self::TxnOffsetCommit,
            29 => Self::DescribeAcls,
            32 => Self::DescribeConfigs,
            33 => Self::AlterConfigs,
            35 => Self::DescribeLogDirs,
            37 => Self::CreatePartitions,
            42 => Self::DeleteGroups,
            43 => Self::ElectLeaders,
            44 => Self::IncrementalAlterConfigs,
            45 => Self::AlterPartitionReassignments,
            46 => Self::ListPartitionReassignments,
            47 => Self::OffsetDelete,
            48 => Self::DescribeClientQuotas,
            50 => Self::DescribeUserScramCredentials,
            55 => Self::DescribeQuorum,
            57 => Self::UpdateFeatures,
            60 => Self::DescribeCluster,
            61 => Self::DescribeProducers,
            65 => Self::DescribeTransactions,
            66 => Self::ListTransactions,
            68 => Self::ConsumerGroupHeartbeat,
            69 => Self::ConsumerGroupDescribe,
            71 => Self::GetTelemetrySubscriptions,
            72 => Self::PushTelemetry,
            74 => Self::ListConfigResources,
            75 => Self::DescribeTopicPartitions,
            _ => return None,
        })
    }
}

/// What one side asks, whatever the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `Produce`.
    Produce(produce::ProduceRequest),
    /// `Fetch`.
    Fetch(fetch::FetchRequest),
    /// `ListOffsets`.
    ListOffsets(list_offsets::ListOffsetsRequest),
    /// `Metadata`.
    Metadata(metadata::MetadataRequest),
    /// `OffsetCommit`.
    OffsetCommit(offset_commit::OffsetCommitRequest),
    /// `OffsetFetch`.
    OffsetFetch(offset_fetch::OffsetFetchRequest),
    /// `FindCoordinator`.
    FindCoordinator(find_coordinator::FindCoordinatorRequest),
    /// `JoinGroup`.
    JoinGroup(join_group::JoinGroupRequest),
    /// `Heartbeat`.
    Heartbeat(heartbeat::HeartbeatRequest),
    /// `LeaveGroup`.
    LeaveGroup(leave_group::LeaveGroupRequest),
    /// `SyncGroup`.
    SyncGroup(sync_group::SyncGroupRequest),
    /// `DescribeGroups`.
    DescribeGroups(describe_groups::DescribeGroupsRequest),
    /// `ListGroups`.
    ListGroups(list_groups::ListGroupsRequest),
    /// `ApiVersions`.
    ApiVersions(api_versions::ApiVersionsRequest),
    /// `CreateTopics`.
    CreateTopics(create_topics::CreateTopicsRequest),
    /// `DeleteTopics`.
    DeleteTopics(delete_topics::DeleteTopicsRequest),
    /// `DeleteRecords`.
    DeleteRecords(delete_records::DeleteRecordsRequest),
    /// `InitProducerId`.
    InitProducerId(init_producer_id::InitProducerIdRequest),
    /// `OffsetForLeaderEpoch`.
    OffsetForLeaderEpoch(offset_for_leader_epoch::OffsetForLeaderEpochRequest),
    /// `AddPartitionsToTxn`.
    AddPartitionsToTxn(add_partitions_to_txn::AddPartitionsToTxnRequest),
    /// `AddOffsetsToTxn`.
    AddOffsetsToTxn(add_offsets_to_txn::AddOffsetsToTxnRequest),
    /// `EndTxn`.
    EndTxn(end_txn::EndTxnRequest),
    /// `TxnOffsetCommit`.
    TxnOffsetCommit(txn_offset_commit::TxnOffsetCommitRequest),
    /// `DescribeAcls`.
    DescribeAcls(describe_acls::DescribeAclsRequest),
    /// `DescribeConfigs`.
    DescribeConfigs(describe_configs::DescribeConfigsRequest),
    /// `AlterConfigs`.
    AlterConfigs(alter_configs::AlterConfigsRequest),
    /// `DescribeLogDirs`.
    DescribeLogDirs(describe_log_dirs::DescribeLogDirsRequest),
    /// `CreatePartitions`.
    CreatePartitions(create_partitions::CreatePartitionsRequest),
    /// `DeleteGroups`.
    DeleteGroups(delete_groups::DeleteGroupsRequest),
    /// `ElectLeaders`.
    ElectLeaders(elect_leaders::ElectLeadersRequest),
    /// `IncrementalAlterConfigs`.
    IncrementalAlterConfigs(incremental_alter_configs::IncrementalAlterConfigsRequest),
    /// `AlterPartitionReassignments`.
    AlterPartitionReassignments(alter_partition_reassignments::AlterPartitionReassignmentsRequest),
    /// `ListPartitionReassignments`.
    ListPartitionReassignments(list_partition_reassignments::ListPartitionReassignmentsRequest),
    /// `OffsetDelete`.
    OffsetDelete(offset_delete::OffsetDeleteRequest),
    /// `DescribeClientQuotas`.
    DescribeClientQuotas(describe_client_quotas::DescribeClientQuotasRequest),
    /// `DescribeUserScramCredentials`.
    DescribeUserScramCredentials(describe_user_scram_credentials::DescribeUserScramCredentialsRequest),
    /// `DescribeQuorum`.
    DescribeQuorum(describe_quorum::DescribeQuorumRequest),
    /// `UpdateFeatures`.
    UpdateFeatures(update_features::UpdateFeaturesRequest),
    /// `DescribeCluster`.
    DescribeCluster(describe_cluster::DescribeClusterRequest),
    /// `DescribeProducers`.
    DescribeProducers(describe_producers::DescribeProducersRequest),
    /// `DescribeTransactions`.
    DescribeTransactions(describe_transactions::DescribeTransactionsRequest),
    /// `ListTransactions`.
    ListTransactions(list_transactions::ListTransactionsRequest),
    /// `ConsumerGroupHeartbeat`.
    ConsumerGroupHeartbeat(consumer_group_heartbeat::ConsumerGroupHeartbeatRequest),
    /// `ConsumerGroupDescribe`.
    ConsumerGroupDescribe(consumer_group_describe::ConsumerGroupDescribeRequest),
    /// `GetTelemetrySubscriptions`.
    GetTelemetrySubscriptions(get_telemetry_subscriptions::GetTelemetrySubscriptionsRequest),
    /// `PushTelemetry`.
    PushTelemetry(push_telemetry::PushTelemetryRequest),
    /// `ListConfigResources`.
    ListConfigResources(list_config_resources::ListConfigResourcesRequest),
    /// `DescribeTopicPartitions`.
    DescribeTopicPartitions(describe_topic_partitions::DescribeTopicPartitionsRequest),
}

impl Request {
    /// The API that it belongs to.
    #[must_use]
    pub const fn key(&self) -> ApiKey {
        match self {
            Self::Produce(_) => ApiKey::Produce,
            Self::Fetch(_) => ApiKey::Fetch,
            Self::ListOffsets(_) => ApiKey::ListOffsets,
            Self::Metadata(_) => ApiKey::Metadata,
            Self::OffsetCommit(_) => ApiKey::OffsetCommit,
            Self::OffsetFetch(_) => ApiKey::OffsetFetch,
            Self::FindCoordinator(_) => ApiKey::FindCoordinator,
            Self::JoinGroup(_) => ApiKey::JoinGroup,
            Self::Heartbeat(_) => ApiKey::Heartbeat,
            Self::LeaveGroup(_) => ApiKey::LeaveGroup,
            Self::SyncGroup(_) => ApiKey::SyncGroup,
            Self::DescribeGroups(_) => ApiKey::DescribeGroups,
            Self::ListGroups(_) => ApiKey::ListGroups,
            Self::ApiVersions(_) => ApiKey::ApiVersions,
            Self::CreateTopics(_) => ApiKey::CreateTopics,
            Self::DeleteTopics(_) => ApiKey::DeleteTopics,
            Self::DeleteRecords(_) => ApiKey::DeleteRecords,
            Self::InitProducerId(_) => ApiKey::InitProducerId,
            Self::OffsetForLeaderEpoch(_) => ApiKey::OffsetForLeaderEpoch,
            Self::AddPartitionsToTxn(_) => ApiKey::AddPartitionsToTxn,
            Self::AddOffsetsToTxn(_) => ApiKey::AddOffsetsToTxn,
            Self::EndTxn(_) => ApiKey::EndTxn,
            Self::TxnOffsetCommit(_) => ApiKey::TxnOffsetCommit,
            Self::DescribeAcls(_) => ApiKey::DescribeAcls,
            Self::DescribeConfigs(_) => ApiKey::DescribeConfigs,
            Self::AlterConfigs(_) => ApiKey::AlterConfigs,
            Self::DescribeLogDirs(_) => ApiKey::DescribeLogDirs,
            Self::CreatePartitions(_) => ApiKey::CreatePartitions,
            Self::DeleteGroups(_) => ApiKey::DeleteGroups,
            Self::ElectLeaders(_) => ApiKey::ElectLeaders,
            Self::IncrementalAlterConfigs(_) => ApiKey::IncrementalAlterConfigs,
            Self::AlterPartitionReassignments(_) => ApiKey::AlterPartitionReassignments,
            Self::ListPartitionReassignments(_) => ApiKey::ListPartitionReassignments,
            Self::OffsetDelete(_) => ApiKey::OffsetDelete,
            Self::DescribeClientQuotas(_) => ApiKey::DescribeClientQuotas,
            Self::DescribeUserScramCredentials(_) => ApiKey::DescribeUserScramCredentials,
            Self::DescribeQuorum(_) => ApiKey::DescribeQuorum,
            Self::UpdateFeatures(_) => ApiKey::UpdateFeatures,
            Self::DescribeCluster(_) => ApiKey::DescribeCluster,
            Self::DescribeProducers(_) => ApiKey::DescribeProducers,
            Self::DescribeTransactions(_) => ApiKey::DescribeTransactions,
            Self::ListTransactions(_) => ApiKey::ListTransactions,
            Self::ConsumerGroupHeartbeat(_) => ApiKey::ConsumerGroupHeartbeat,
            Self::ConsumerGroupDescribe(_) => ApiKey::ConsumerGroupDescribe,
            Self::GetTelemetrySubscriptions(_) => ApiKey::GetTelemetrySubscriptions,
            Self::PushTelemetry(_) => ApiKey::PushTelemetry,
            Self::ListConfigResources(_) => ApiKey::ListConfigResources,
            Self::DescribeTopicPartitions(_) => ApiKey::DescribeTopicPartitions,
        }
    }

    /// Reads the body of a message of `key`.
    ///
    /// # Errors
    /// What the source finds wrong.
    pub fn read<S: Source>(key: ApiKey, s: &mut S) -> Result<Self, S::Error> {
        Ok(match key {
            ApiKey::Produce => Self::Produce(Wire::read(s)?),
            ApiKey::Fetch => Self::Fetch(Wire::read(s)?),
            ApiKey::ListOffsets => Self::ListOffsets(Wire::read(s)?),
            ApiKey::Metadata => Self::Metadata(Wire::read(s)?),
            ApiKey::OffsetCommit => Self::OffsetCommit(Wire::read(s)?),
            ApiKey::OffsetFetch => Self::OffsetFetch(Wire::read(s)?),
            ApiKey::FindCoordinator => Self::FindCoordinator(Wire::read(s)?),
            ApiKey::JoinGroup => Self::JoinGroup(Wire::read(s)?),
            ApiKey::Heartbeat => Self::Heartbeat(Wire::read(s)?),
            ApiKey::LeaveGroup => Self::LeaveGroup(Wire::read(s)?),
            ApiKey::SyncGroup => Self::SyncGroup(Wire::read(s)?),
            ApiKey::DescribeGroups => Self::DescribeGroups(Wire::read(s)?),
            ApiKey::ListGroups => Self::ListGroups(Wire::read(s)?),
            ApiKey::ApiVersions => Self::ApiVersions(Wire::read(s)?),
            ApiKey::CreateTopics => Self::CreateTopics(Wire::read(s)?),
            ApiKey::DeleteTopics => Self::DeleteTopics(Wire::read(s)?),
            ApiKey::DeleteRecords => Self::DeleteRecords(Wire::read(s)?),
            ApiKey::InitProducerId => Self::InitProducerId(Wire::read(s)?),
            ApiKey::OffsetForLeaderEpoch => Self::OffsetForLeaderEpoch(Wire::read(s)?),
            ApiKey::AddPartitionsToTxn => Self::AddPartitionsToTxn(Wire::read(s)?),
            ApiKey::AddOffsetsToTxn => Self::AddOffsetsToTxn(Wire::read(s)?),
            ApiKey::EndTxn => Self::EndTxn(Wire::read(s)?),
            ApiKey::TxnOffsetCommit => Self::TxnOffsetCommit(Wire::read(s)?),
            ApiKey::DescribeAcls => Self::DescribeAcls(Wire::read(s)?),
            ApiKey::DescribeConfigs => Self::DescribeConfigs(Wire::read(s)?),
            ApiKey::AlterConfigs => Self::AlterConfigs(Wire::read(s)?),
            ApiKey::DescribeLogDirs => Self::DescribeLogDirs(Wire::read(s)?),
            ApiKey::CreatePartitions => Self::CreatePartitions(Wire::read(s)?),
            ApiKey::DeleteGroups => Self::DeleteGroups(Wire::read(s)?),
            ApiKey::ElectLeaders => Self::ElectLeaders(Wire::read(s)?),
            ApiKey::IncrementalAlterConfigs => Self::IncrementalAlterConfigs(Wire::read(s)?),
            ApiKey::AlterPartitionReassignments => Self::AlterPartitionReassignments(Wire::read(s)?),
            ApiKey::ListPartitionReassignments => Self::ListPartitionReassignments(Wire::read(s)?),
            ApiKey::OffsetDelete => Self::OffsetDelete(Wire::read(s)?),
            ApiKey::DescribeClientQuotas => Self::DescribeClientQuotas(Wire::read(s)?),
            ApiKey::DescribeUserScramCredentials => Self::DescribeUserScramCredentials(Wire::read(s)?),
            ApiKey::DescribeQuorum => Self::DescribeQuorum(Wire::read(s)?),
            ApiKey::UpdateFeatures => Self::UpdateFeatures(Wire::read(s)?),
            ApiKey::DescribeCluster => Self::DescribeCluster(Wire::read(s)?),
            ApiKey::DescribeProducers => Self::DescribeProducers(Wire::read(s)?),
            ApiKey::DescribeTransactions => Self::DescribeTransactions(Wire::read(s)?),
            ApiKey::ListTransactions => Self::ListTransactions(Wire::read(s)?),
            ApiKey::ConsumerGroupHeartbeat => Self::ConsumerGroupHeartbeat(Wire::read(s)?),
            ApiKey::ConsumerGroupDescribe => Self::ConsumerGroupDescribe(Wire::read(s)?),
            ApiKey::GetTelemetrySubscriptions => Self::GetTelemetrySubscriptions(Wire::read(s)?),
            ApiKey::PushTelemetry => Self::PushTelemetry(Wire::read(s)?),
            ApiKey::ListConfigResources => Self::ListConfigResources(Wire::read(s)?),
            ApiKey::DescribeTopicPartitions => Self::DescribeTopicPartitions(Wire::read(s)?),
        })
    }

    /// Writes the body.
    ///
    /// # Errors
    /// What the version of the writer cannot say.
    pub fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Produce(m) => m.write(w),
            Self::Fetch(m) => m.write(w),
            Self::ListOffsets(m) => m.write(w),
            Self::Metadata(m) => m.write(w),
            Self::OffsetCommit(m) => m.write(w),
            Self::OffsetFetch(m) => m.write(w),
            Self::FindCoordinator(m) => m.write(w),
            Self::JoinGroup(m) => m.write(w),
            Self::Heartbeat(m) => m.write(w),
            Self::LeaveGroup(m) => m.write(w),
            Self::SyncGroup(m) => m.write(w),
            Self::DescribeGroups(m) => m.write(w),
            Self::ListGroups(m) => m.write(w),
            Self::ApiVersions(m) => m.write(w),
            Self::CreateTopics(m) => m.write(w),
            Self::DeleteTopics(m) => m.write(w),
            Self::DeleteRecords(m) => m.write(w),
            Self::InitProducerId(m) => m.write(w),
            Self::OffsetForLeaderEpoch(m) => m.write(w),
            Self::AddPartitionsToTxn(m) => m.write(w),
            Self::AddOffsetsToTxn(m) => m.write(w),
            Self::EndTxn(m) => m.write(w),
            Self::TxnOffsetCommit(m) => m.write(w),
            Self::DescribeAcls(m) => m.write(w),
            Self::DescribeConfigs(m) => m.write(w),
            Self::AlterConfigs(m) => m.write(w),
            Self::DescribeLogDirs(m) => m.write(w),
            Self::CreatePartitions(m) => m.write(w),
            Self::DeleteGroups(m) => m.write(w),
            Self::ElectLeaders(m) => m.write(w),
            Self::IncrementalAlterConfigs(m) => m.write(w),
            Self::AlterPartitionReassignments(m) => m.write(w),
            Self::ListPartitionReassignments(m) => m.write(w),
            Self::OffsetDelete(m) => m.write(w),
            Self::DescribeClientQuotas(m) => m.write(w),
            Self::DescribeUserScramCredentials(m) => m.write(w),
            Self::DescribeQuorum(m) => m.write(w),
            Self::UpdateFeatures(m) => m.write(w),
            Self::DescribeCluster(m) => m.write(w),
            Self::DescribeProducers(m) => m.write(w),
            Self::DescribeTransactions(m) => m.write(w),
            Self::ListTransactions(m) => m.write(w),
            Self::ConsumerGroupHeartbeat(m) => m.write(w),
            Self::ConsumerGroupDescribe(m) => m.write(w),
            Self::GetTelemetrySubscriptions(m) => m.write(w),
            Self::PushTelemetry(m) => m.write(w),
            Self::ListConfigResources(m) => m.write(w),
            Self::DescribeTopicPartitions(m) => m.write(w),
        }
    }
}

/// What one side answers, whatever the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// `Produce`.
    Produce(produce::ProduceResponse),
    /// `Fetch`.
    Fetch(fetch::FetchResponse),
    /// `ListOffsets`.
    ListOffsets(list_offsets::ListOffsetsResponse),
    /// `Metadata`.
    Metadata(metadata::MetadataResponse),
    /// `OffsetCommit`.
    OffsetCommit(offset_commit::OffsetCommitResponse),
    /// `OffsetFetch`.
    OffsetFetch(offset_fetch::OffsetFetchResponse),
    /// `FindCoordinator`.
    FindCoordinator(find_coordinator::FindCoordinatorResponse),
    /// `JoinGroup`.
    JoinGroup(join_group::JoinGroupResponse),
    /// `Heartbeat`.
    Heartbeat(heartbeat::HeartbeatResponse),
    /// `LeaveGroup`.
    LeaveGroup(leave_group::LeaveGroupResponse),
    /// `SyncGroup`.
    SyncGroup(sync_group::SyncGroupResponse),
    /// `DescribeGroups`.
    DescribeGroups(describe_groups::DescribeGroupsResponse),
    /// `ListGroups`.
    ListGroups(list_groups::ListGroupsResponse),
    /// `ApiVersions`.
    ApiVersions(api_versions::ApiVersionsResponse),
    /// `CreateTopics`.
    CreateTopics(create_topics::CreateTopicsResponse),
    /// `DeleteTopics`.
    DeleteTopics(delete_topics::DeleteTopicsResponse),
    /// `DeleteRecords`.
    DeleteRecords(delete_records::DeleteRecordsResponse),
    /// `InitProducerId`.
    InitProducerId(init_producer_id::InitProducerIdResponse),
    /// `OffsetForLeaderEpoch`.
    OffsetForLeaderEpoch(offset_for_leader_epoch::OffsetForLeaderEpochResponse),
    /// `AddPartitionsToTxn`.
    AddPartitionsToTxn(add_partitions_to_txn::AddPartitionsToTxnResponse),
    /// `AddOffsetsToTxn`.
    AddOffsetsToTxn(add_offsets_to_txn::AddOffsetsToTxnResponse),
    /// `EndTxn`.
    EndTxn(end_txn::EndTxnResponse),
    /// `TxnOffsetCommit`.
    TxnOffsetCommit(txn_offset_commit::TxnOffsetCommitResponse),
    /// `DescribeAcls`.
    DescribeAcls(describe_acls::DescribeAclsResponse),
    /// `DescribeConfigs`.
    DescribeConfigs(describe_configs::DescribeConfigsResponse),
    /// `AlterConfigs`.
    AlterConfigs(alter_configs::AlterConfigsResponse),
    /// `DescribeLogDirs`.
    DescribeLogDirs(describe_log_dirs::DescribeLogDirsResponse),
    /// `CreatePartitions`.
    CreatePartitions(create_partitions::CreatePartitionsResponse),
    /// `DeleteGroups`.
    DeleteGroups(delete_groups::DeleteGroupsResponse),
    /// `ElectLeaders`.
    ElectLeaders(elect_leaders::ElectLeadersResponse),
    /// `IncrementalAlterConfigs`.
    IncrementalAlterConfigs(incremental_alter_configs::IncrementalAlterConfigsResponse),
    /// `AlterPartitionReassignments`.
    AlterPartitionReassignments(alter_partition_reassignments::AlterPartitionReassignmentsResponse),
    /// `ListPartitionReassignments`.
    ListPartitionReassignments(list_partition_reassignments::ListPartitionReassignmentsResponse),
    /// `OffsetDelete`.
    OffsetDelete(offset_delete::OffsetDeleteResponse),
    /// `DescribeClientQuotas`.
    DescribeClientQuotas(describe_client_quotas::DescribeClientQuotasResponse),
    /// `DescribeUserScramCredentials`.
    DescribeUserScramCredentials(describe_user_scram_credentials::DescribeUserScramCredentialsResponse),
    /// `DescribeQuorum`.
    DescribeQuorum(describe_quorum::DescribeQuorumResponse),
    /// `UpdateFeatures`.
    UpdateFeatures(update_features::UpdateFeaturesResponse),
    /// `DescribeCluster`.
    DescribeCluster(describe_cluster::DescribeClusterResponse),
    /// `DescribeProducers`.
    DescribeProducers(describe_producers::DescribeProducersResponse),
    /// `DescribeTransactions`.
    DescribeTransactions(describe_transactions::DescribeTransactionsResponse),
    /// `ListTransactions`.
    ListTransactions(list_transactions::ListTransactionsResponse),
    /// `ConsumerGroupHeartbeat`.
    ConsumerGroupHeartbeat(consumer_group_heartbeat::ConsumerGroupHeartbeatResponse),
    /// `ConsumerGroupDescribe`.
    ConsumerGroupDescribe(consumer_group_describe::ConsumerGroupDescribeResponse),
    /// `GetTelemetrySubscriptions`.
    GetTelemetrySubscriptions(get_telemetry_subscriptions::GetTelemetrySubscriptionsResponse),
    /// `PushTelemetry`.
    PushTelemetry(push_telemetry::PushTelemetryResponse),
    /// `ListConfigResources`.
    ListConfigResources(list_config_resources::ListConfigResourcesResponse),
    /// `DescribeTopicPartitions`.
    DescribeTopicPartitions(describe_topic_partitions::DescribeTopicPartitionsResponse),
}

impl Response {
    /// The API that it belongs to.
    #[must_use]
    pub const fn key(&self) -> ApiKey {
        match self {
            Self::Produce(_) => ApiKey::Produce,
            Self::Fetch(_) => ApiKey::Fetch,
            Self::ListOffsets(_) => ApiKey::ListOffsets,
            Self::Metadata(_) => ApiKey::Metadata,
            Self::OffsetCommit(_) => ApiKey::OffsetCommit,
            Self::OffsetFetch(_) => ApiKey::OffsetFetch,
            Self::FindCoordinator(_) => ApiKey::FindCoordinator,
            Self::JoinGroup(_) => ApiKey::JoinGroup,
            Self::Heartbeat(_) => ApiKey::Heartbeat,
            Self::LeaveGroup(_) => ApiKey::LeaveGroup,
            Self::SyncGroup(_) => ApiKey::SyncGroup,
            Self::DescribeGroups(_) => ApiKey::DescribeGroups,
            Self::ListGroups(_) => ApiKey::ListGroups,
            Self::ApiVersions(_) => ApiKey::ApiVersions,
            Self::CreateTopics(_) => ApiKey::CreateTopics,
            Self::DeleteTopics(_) => ApiKey::DeleteTopics,
            Self::DeleteRecords(_) => ApiKey::DeleteRecords,
            Self::InitProducerId(_) => ApiKey::InitProducerId,
            Self::OffsetForLeaderEpoch(_) => ApiKey::OffsetForLeaderEpoch,
            Self::AddPartitionsToTxn(_) => ApiKey::AddPartitionsToTxn,
            Self::AddOffsetsToTxn(_) => ApiKey::AddOffsetsToTxn,
            Self::EndTxn(_) => ApiKey::EndTxn,
            Self::TxnOffsetCommit(_) => ApiKey::TxnOffsetCommit,
            Self::DescribeAcls(_) => ApiKey::DescribeAcls,
            Self::DescribeConfigs(_) => ApiKey::DescribeConfigs,
            Self::AlterConfigs(_) => ApiKey::AlterConfigs,
            Self::DescribeLogDirs(_) => ApiKey::DescribeLogDirs,
            Self::CreatePartitions(_) => ApiKey::CreatePartitions,
            Self::DeleteGroups(_) => ApiKey::DeleteGroups,
            Self::ElectLeaders(_) => ApiKey::ElectLeaders,
            Self::IncrementalAlterConfigs(_) => ApiKey::IncrementalAlterConfigs,
            Self::AlterPartitionReassignments(_) => ApiKey::AlterPartitionReassignments,
            Self::ListPartitionReassignments(_) => ApiKey::ListPartitionReassignments,
            Self::OffsetDelete(_) => ApiKey::OffsetDelete,
            Self::DescribeClientQuotas(_) => ApiKey::DescribeClientQuotas,
            Self::DescribeUserScramCredentials(_) => ApiKey::DescribeUserScramCredentials,
            Self::DescribeQuorum(_) => ApiKey::DescribeQuorum,
            Self::UpdateFeatures(_) => ApiKey::UpdateFeatures,
            Self::DescribeCluster(_) => ApiKey::DescribeCluster,
            Self::DescribeProducers(_) => ApiKey::DescribeProducers,
            Self::DescribeTransactions(_) => ApiKey::DescribeTransactions,
            Self::ListTransactions(_) => ApiKey::ListTransactions,
            Self::ConsumerGroupHeartbeat(_) => ApiKey::ConsumerGroupHeartbeat,
            Self::ConsumerGroupDescribe(_) => ApiKey::ConsumerGroupDescribe,
            Self::GetTelemetrySubscriptions(_) => ApiKey::GetTelemetrySubscriptions,
            Self::PushTelemetry(_) => ApiKey::PushTelemetry,
            Self::ListConfigResources(_) => ApiKey::ListConfigResources,
            Self::DescribeTopicPartitions(_) => ApiKey::DescribeTopicPartitions,
        }
    }

    /// Reads the body of a message of `key`.
    ///
    /// # Errors
    /// What the source finds wrong.
    pub fn read<S: Source>(key: ApiKey, s: &mut S) -> Result<Self, S::Error> {
        Ok(match key {
            ApiKey::Produce => Self::Produce(Wire::read(s)?),
            ApiKey::Fetch => Self::Fetch(Wire::read(s)?),
            ApiKey::ListOffsets => Self::ListOffsets(Wire::read(s)?),
            ApiKey::Metadata => Self::Metadata(Wire::read(s)?),
            ApiKey::OffsetCommit => Self::OffsetCommit(Wire::read(s)?),
            ApiKey::OffsetFetch => Self::OffsetFetch(Wire::read(s)?),
            ApiKey::FindCoordinator => Self::FindCoordinator(Wire::read(s)?),
            ApiKey::JoinGroup => Self::JoinGroup(Wire::read(s)?),
            ApiKey::Heartbeat => Self::Heartbeat(Wire::read(s)?),
            ApiKey::LeaveGroup => Self::LeaveGroup(Wire::read(s)?),
            ApiKey::SyncGroup => Self::SyncGroup(Wire::read(s)?),
            ApiKey::DescribeGroups => Self::DescribeGroups(Wire::read(s)?),
            ApiKey::ListGroups => Self::ListGroups(Wire::read(s)?),
            ApiKey::ApiVersions => Self::ApiVersions(Wire::read(s)?),
            ApiKey::CreateTopics => Self::CreateTopics(Wire::read(s)?),
            ApiKey::DeleteTopics => Self::DeleteTopics(Wire::read(s)?),
            ApiKey::DeleteRecords => Self::DeleteRecords(Wire::read(s)?),
            ApiKey::InitProducerId => Self::InitProducerId(Wire::read(s)?),
            ApiKey::OffsetForLeaderEpoch => Self::OffsetForLeaderEpoch(Wire::read(s)?),
            ApiKey::AddPartitionsToTxn => Self::AddPartitionsToTxn(Wire::read(s)?),
            ApiKey::AddOffsetsToTxn => Self::AddOffsetsToTxn(Wire::read(s)?),
            ApiKey::EndTxn => Self::EndTxn(Wire::read(s)?),
            ApiKey::TxnOffsetCommit => Self::TxnOffsetCommit(Wire::read(s)?),
            ApiKey::DescribeAcls => Self::DescribeAcls(Wire::read(s)?),
            ApiKey::DescribeConfigs => Self::DescribeConfigs(Wire::read(s)?),
            ApiKey::AlterConfigs => Self::AlterConfigs(Wire::read(s)?),
            ApiKey::DescribeLogDirs => Self::DescribeLogDirs(Wire::read(s)?),
            ApiKey::CreatePartitions => Self::CreatePartitions(Wire::read(s)?),
            ApiKey::DeleteGroups => Self::DeleteGroups(Wire::read(s)?),
            ApiKey::ElectLeaders => Self::ElectLeaders(Wire::read(s)?),
            ApiKey::IncrementalAlterConfigs => Self::IncrementalAlterConfigs(Wire::read(s)?),
            ApiKey::AlterPartitionReassignments => Self::AlterPartitionReassignments(Wire::read(s)?),
            ApiKey::ListPartitionReassignments => Self::ListPartitionReassignments(Wire::read(s)?),
            ApiKey::OffsetDelete => Self::OffsetDelete(Wire::read(s)?),
            ApiKey::DescribeClientQuotas => Self::DescribeClientQuotas(Wire::read(s)?),
            ApiKey::DescribeUserScramCredentials => Self::DescribeUserScramCredentials(Wire::read(s)?),
            ApiKey::DescribeQuorum => Self::DescribeQuorum(Wire::read(s)?),
            ApiKey::UpdateFeatures => Self::UpdateFeatures(Wire::read(s)?),
            ApiKey::DescribeCluster => Self::DescribeCluster(Wire::read(s)?),
            ApiKey::DescribeProducers => Self::DescribeProducers(Wire::read(s)?),
            ApiKey::DescribeTransactions => Self::DescribeTransactions(Wire::read(s)?),
            ApiKey::ListTransactions => Self::ListTransactions(Wire::read(s)?),
            ApiKey::ConsumerGroupHeartbeat => Self::ConsumerGroupHeartbeat(Wire::read(s)?),
            ApiKey::ConsumerGroupDescribe => Self::ConsumerGroupDescribe(Wire::read(s)?),
            ApiKey::GetTelemetrySubscriptions => Self::GetTelemetrySubscriptions(Wire::read(s)?),
            ApiKey::PushTelemetry => Self::PushTelemetry(Wire::read(s)?),
            ApiKey::ListConfigResources => Self::ListConfigResources(Wire::read(s)?),
            ApiKey::DescribeTopicPartitions => Self::DescribeTopicPartitions(Wire::read(s)?),
        })
    }

    /// Writes the body.
    ///
    /// # Errors
    /// What the version of the writer cannot say.
    pub fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Produce(m) => m.write(w),
            Self::Fetch(m) => m.write(w),
            Self::ListOffsets(m) => m.write(w),
            Self::Metadata(m) => m.write(w),
            Self::OffsetCommit(m) => m.write(w),
            Self::OffsetFetch(m) => m.write(w),
            Self::FindCoordinator(m) => m.write(w),
            Self::JoinGroup(m) => m.write(w),
            Self::Heartbeat(m) => m.write(w),
            Self::LeaveGroup(m) => m.write(w),
            Self::SyncGroup(m) => m.write(w),
            Self::DescribeGroups(m) => m.write(w),
            Self::ListGroups(m) => m.write(w),
            Self::ApiVersions(m) => m.write(w),
            Self::CreateTopics(m) => m.write(w),
            Self::DeleteTopics(m) => m.write(w),
            Self::DeleteRecords(m) => m.write(w),
            Self::InitProducerId(m) => m.write(w),
            Self::OffsetForLeaderEpoch(m) => m.write(w),
            Self::AddPartitionsToTxn(m) => m.write(w),
            Self::AddOffsetsToTxn(m) => m.write(w),
            Self::EndTxn(m) => m.write(w),
            Self::TxnOffsetCommit(m) => m.write(w),
            Self::DescribeAcls(m) => m.write(w),
            Self::DescribeConfigs(m) => m.write(w),
            Self::AlterConfigs(m) => m.write(w),
            Self::DescribeLogDirs(m) => m.write(w),
            Self::CreatePartitions(m) => m.write(w),
            Self::DeleteGroups(m) => m.write(w),
            Self::ElectLeaders(m) => m.write(w),
            Self::IncrementalAlterConfigs(m) => m.write(w),
            Self::AlterPartitionReassignments(m) => m.write(w),
            Self::ListPartitionReassignments(m) => m.write(w),
            Self::OffsetDelete(m) => m.write(w),
            Self::DescribeClientQuotas(m) => m.write(w),
            Self::DescribeUserScramCredentials(m) => m.write(w),
            Self::DescribeQuorum(m) => m.write(w),
            Self::UpdateFeatures(m) => m.write(w),
            Self::DescribeCluster(m) => m.write(w),
            Self::DescribeProducers(m) => m.write(w),
            Self::DescribeTransactions(m) => m.write(w),
            Self::ListTransactions(m) => m.write(w),
            Self::ConsumerGroupHeartbeat(m) => m.write(w),
            Self::ConsumerGroupDescribe(m) => m.write(w),
            Self::GetTelemetrySubscriptions(m) => m.write(w),
            Self::PushTelemetry(m) => m.write(w),
            Self::ListConfigResources(m) => m.write(w),
            Self::DescribeTopicPartitions(m) => m.write(w),
        }
    }
}
