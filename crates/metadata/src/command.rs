//! What can happen to the cluster state and what comes of it. Plain data.
//!
//! Invariant: a command carries everything that its outcome depends on beside the state: times, random
//! ids, the epochs it was decided on.

use std::collections::BTreeMap;

use varve_types::{
    BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, PartitionId, ProducerId, TopicId, TopicName,
};

use crate::features::{FIRST_LEVEL, FeatureRange, STATE_CHECKS};
use crate::state::NodeState;

/// A partition by the id of its topic: what was decided about a deleted topic never meets its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: PartitionId,
}

/// A new topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// Name.
    pub name: TopicName,
    /// Id, chosen by the caller at random.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition, 1 to 7.
    pub replication_factor: i32,
    /// Configs as given.
    pub configs: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Wall clock, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Partition to nodes, the first being the preferred leader; empty: spread over racks and nodes.
    pub placement: BTreeMap<i32, Vec<NodeId>>,
}

/// How a leader is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first replica leads, if it is in sync.
    Preferred,
    /// That replica leads, if it holds everything committed; `None`: whichever can, if there is no leader.
    Clean(Option<NodeId>),
    /// That replica leads whatever it lacks. An operator's decision: records may be lost.
    Unclean(NodeId),
}

/// One change of the cluster state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A node came up, for the first time or again. It begins fenced, in a new broker epoch.
    RegisterNode {
        /// Node.
        node: NodeId,
        /// Random number of this run of the process: the same one sent again changes nothing.
        incarnation: u128,
        /// Data directory.
        directory: DirectoryId,
        /// `host:port` for clients.
        address: String,
        /// `host:port` for other nodes; may be empty on a node that is alone.
        peer_address: String,
        /// Rack or zone; may be empty.
        rack: String,
        /// Levels it can work at.
        features: FeatureRange,
        /// Version of its program, for people.
        version: String,
        /// Broker epoch of the run that ended in a clean stop, from the file that it left.
        clean: Option<BrokerEpoch>,
    },
    /// A node is given up for dead: it leads nothing and is in sync nowhere.
    FenceNode {
        /// Node.
        node: NodeId,
        /// Its broker epoch.
        epoch: BrokerEpoch,
    },
    /// A node has caught up with the metadata: it may lead and be in sync.
    UnfenceNode {
        /// Node.
        node: NodeId,
        /// Its broker epoch.
        epoch: BrokerEpoch,
    },
    /// A node wants to stop: leadership moves away; it leaves the in-sync replicas where enough remain.
    BeginShutdown {
        /// Node.
        node: NodeId,
        /// Its broker epoch.
        epoch: BrokerEpoch,
    },
    /// A node is forgotten. It must be fenced and hold nothing.
    UnregisterNode {
        /// Node.
        node: NodeId,
    },
    /// A node gets no new replicas, and the controller moves away what it has; or no longer so.
    SetDecommissioning {
        /// Node.
        node: NodeId,
        /// Whether it is to leave.
        on: bool,
    },
    /// Creates a topic.
    CreateTopic(CreateTopic),
    /// Deletes a topic.
    DeleteTopic {
        /// Name.
        name: TopicName,
        /// Guards against deleting a newer topic of that name; `None`: whichever it is.
        id: Option<TopicId>,
    },
    /// Raises the number of partitions.
    AddPartitions {
        /// Name.
        name: TopicName,
        /// New total, greater than the present count.
        total: i32,
        /// Placement of the new partitions; empty: spread over racks and nodes.
        placement: BTreeMap<i32, Vec<NodeId>>,
    },
    /// Replaces the configs of a topic.
    SetTopicConfigs {
        /// Name.
        name: TopicName,
        /// Every config the topic has from now on.
        configs: BTreeMap<String, String>,
    },
    /// A leader asks for other in-sync replicas (KIP-497). Compare-and-set on every epoch named.
    AlterPartition {
        /// Topic.
        topic_id: TopicId,
        /// Partition.
        partition: PartitionId,
        /// Leader that asks.
        leader: NodeId,
        /// Epoch it leads in.
        leader_epoch: LeaderEpoch,
        /// Partition epoch it decided on.
        partition_epoch: i32,
        /// In-sync replicas, each with the broker epoch seen in its fetches; the leader among them.
        isr: Vec<(NodeId, BrokerEpoch)>,
        /// Broker epoch of the leader.
        broker_epoch: BrokerEpoch,
    },
    /// Chooses a leader.
    ElectLeader {
        /// Topic.
        topic_id: TopicId,
        /// Partition.
        partition: PartitionId,
        /// How.
        how: Election,
    },
    /// Moves a partition to other nodes (KIP-455), or cancels such a move.
    Reassign {
        /// Topic.
        topic_id: TopicId,
        /// Partition.
        partition: PartitionId,
        /// Replicas in the end, the first being the preferred leader; `None`: stay as before the move.
        target: Option<Vec<NodeId>>,
    },
    /// A replica may lack what it had: it cut its log, its directory is missing, or its log cannot be opened. It is
    /// neither in sync nor eligible until it has caught up.
    ReplicaLost {
        /// Node that holds it.
        node: NodeId,
        /// Its broker epoch.
        epoch: BrokerEpoch,
        /// Topic.
        topic_id: TopicId,
        /// Partition.
        partition: PartitionId,
    },
    /// A replica is damaged and is to be copied again. As [`Self::ReplicaLost`], but refused where no other
    /// replica is in sync or eligible: what is left of the last copy is kept, damaged as it is.
    GiveUpReplica {
        /// Node that holds it.
        node: NodeId,
        /// Its broker epoch.
        epoch: BrokerEpoch,
        /// Topic.
        topic_id: TopicId,
        /// Partition.
        partition: PartitionId,
    },
    /// Raises the feature level of the cluster, for good.
    FinalizeFeature {
        /// New level.
        level: u16,
    },
    /// Reserves a block of producer ids.
    AllocateProducerIds {
        /// How many, at least 1.
        count: u32,
    },
    /// Every node compares its state of that version with the one that the controller had. Passed over where
    /// other commands came before it.
    CheckState {
        /// Version of the state.
        version: u64,
        /// [`crate::snapshot::checksum`] of it.
        checksum: u32,
    },
    /// Opens a session of a named producer: the first gets a new id, later ones a higher epoch.
    BumpProducerEpoch {
        /// Name of the producer.
        name: String,
    },
}

impl Command {
    /// First feature level that knows this command.
    #[must_use]
    pub const fn level(&self) -> u16 {
        match self {
            Self::RegisterNode { .. }
            | Self::FenceNode { .. }
            | Self::UnfenceNode { .. }
            | Self::BeginShutdown { .. }
            | Self::UnregisterNode { .. }
            | Self::SetDecommissioning { .. }
            | Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::AddPartitions { .. }
            | Self::SetTopicConfigs { .. }
            | Self::AlterPartition { .. }
            | Self::ElectLeader { .. }
            | Self::Reassign { .. }
            | Self::ReplicaLost { .. }
            | Self::GiveUpReplica { .. }
            | Self::FinalizeFeature { .. }
            | Self::AllocateProducerIds { .. }
            | Self::BumpProducerEpoch { .. } => FIRST_LEVEL,
            Self::CheckState { .. } => STATE_CHECKS,
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node is known, in this broker epoch.
    NodeRegistered {
        /// Node.
        node: NodeId,
        /// Its broker epoch from now on.
        epoch: BrokerEpoch,
        /// Partitions that changed with it, ascending.
        changed: Vec<PartitionKey>,
    },
    /// The node is fenced, unfenced, stopping, or to be emptied.
    NodeChanged {
        /// Node.
        node: NodeId,
        /// What it is now.
        state: NodeState,
        /// Partitions that changed with it, ascending.
        changed: Vec<PartitionKey>,
    },
    /// The node is forgotten.
    NodeUnregistered {
        /// Node.
        node: NodeId,
    },
    /// The topic exists.
    TopicCreated {
        /// Name.
        name: TopicName,
        /// Id.
        id: TopicId,
    },
    /// The topic is gone.
    TopicDeleted {
        /// Name.
        name: TopicName,
        /// Id it had.
        id: TopicId,
    },
    /// The topic has more partitions.
    PartitionsAdded {
        /// Name.
        name: TopicName,
        /// First new partition.
        first: PartitionId,
        /// New total.
        total: i32,
    },
    /// The topic's configs are the given ones.
    TopicConfigsSet {
        /// Name.
        name: TopicName,
        /// Partitions whose eligible replicas changed with `min.insync.replicas`, ascending.
        changed: Vec<PartitionKey>,
    },
    /// What the partition is now. The epochs tell whether anything changed.
    PartitionChanged {
        /// Partition.
        at: PartitionKey,
        /// Leader now.
        leader: Option<NodeId>,
        /// Leader epoch now.
        leader_epoch: LeaderEpoch,
        /// Partition epoch now.
        partition_epoch: i32,
    },
    /// An operator made a replica lead that may lack committed records. To be logged.
    UncleanLeaderElected {
        /// Partition.
        at: PartitionKey,
        /// Leader now.
        leader: NodeId,
        /// Leader epoch now.
        leader_epoch: LeaderEpoch,
        /// Partition epoch now.
        partition_epoch: i32,
    },
    /// The cluster works at this level.
    FeatureFinalized {
        /// Level.
        level: u16,
    },
    /// The states were compared, or not: others had changed them.
    StateChecked {
        /// Whether they were, and are the same.
        compared: bool,
    },
    /// These ids belong to the caller for ever.
    ProducerIdsAllocated {
        /// First id.
        first: i64,
        /// How many.
        count: u32,
    },
    /// The producer's session.
    ProducerEpochBumped {
        /// Id and epoch.
        producer: ProducerId,
    },
}
