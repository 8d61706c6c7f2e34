//! What can happen to the cluster state, what comes of it, and why it may be refused. Plain data.

use std::collections::BTreeMap;

use varve_types::{
    ConfigError, ErrorKind, LeaderEpoch, NodeId, PartitionId, ProducerId, TopicId, TopicName,
};

/// A new topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// Name.
    pub name: TopicName,
    /// Id, chosen by the caller at random.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication_factor: i32,
    /// Configs as given.
    pub configs: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Wall clock, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Partition to nodes, the first being the preferred leader; empty: placed evenly.
    pub placement: BTreeMap<i32, Vec<NodeId>>,
}

/// One change of the cluster state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A node came up, for the first time or again.
    RegisterNode {
        /// Node.
        node: NodeId,
        /// `host:port` for clients.
        address: String,
        /// Rack or zone; may be empty.
        rack: String,
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
        /// Placement of the new partitions; empty: placed evenly.
        placement: BTreeMap<i32, Vec<NodeId>>,
    },
    /// Replaces the configs of a topic.
    SetTopicConfigs {
        /// Name.
        name: TopicName,
        /// Every config the topic has from now on.
        configs: BTreeMap<String, String>,
    },
    /// Makes a replica the leader, in a new leader epoch. Also used when the same leader starts
    /// again, so that what it may have lost belongs to an older epoch.
    ElectLeader {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// New leader; `None`: the partition has none until the next election.
        leader: Option<NodeId>,
        /// Replicas in sync with it, the leader among them.
        isr: Vec<NodeId>,
    },
    /// Changes the in-sync replicas under the same leader.
    ChangeIsr {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Replicas in sync, the leader among them.
        isr: Vec<NodeId>,
        /// Partition epoch the change was decided in: an older one is refused.
        partition_epoch: i32,
    },
    /// Reserves a block of producer ids.
    AllocateProducerIds {
        /// How many, at least 1.
        count: u32,
    },
    /// Opens a session of a named producer: the first gets a new id, later ones a higher epoch.
    BumpProducerEpoch {
        /// Name of the producer.
        name: String,
    },
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node is known, with this address.
    NodeRegistered {
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
    },
    /// Leader, epoch or in-sync replicas of a partition changed.
    PartitionChanged {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Leader epoch now.
        leader_epoch: LeaderEpoch,
        /// Partition epoch now.
        partition_epoch: i32,
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

/// Why a command was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is taken.
    #[error("topic {name} already exists")]
    TopicExists {
        /// Name.
        name: TopicName,
    },
    /// The id is taken.
    #[error("topic id {id} already belongs to topic {name}; choose another")]
    TopicIdExists {
        /// Id.
        id: TopicId,
        /// Its topic.
        name: TopicName,
    },
    /// No topic of that name.
    #[error("topic {name} does not exist")]
    TopicNotFound {
        /// Name.
        name: TopicName,
    },
    /// The topic of that name is another one.
    #[error("topic {name} has id {found}, not {given}: it was deleted and created again")]
    TopicIdMismatch {
        /// Name.
        name: TopicName,
        /// Id it has.
        found: TopicId,
        /// Id given.
        given: TopicId,
    },
    /// No such partition.
    #[error("topic {name} has {partitions} partitions and no partition {partition}")]
    PartitionNotFound {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Number of partitions.
        partitions: i32,
    },
    /// A count outside its range.
    #[error("{what} is {found}; it must be from {min} to {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Value given.
        found: i64,
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A total that is not greater than the present number.
    #[error("topic {name} has {found} partitions; a new total must be greater, and {given} is not")]
    NotMorePartitions {
        /// Name.
        name: TopicName,
        /// Present number.
        found: i32,
        /// Total given.
        given: i32,
    },
    /// An explicit placement that cannot be.
    #[error("the placement of topic {name} is not valid: {why}")]
    BadPlacement {
        /// Name.
        name: TopicName,
        /// Why.
        why: String,
    },
    /// Leader or in-sync replicas that are not among the replicas.
    #[error("{name}-{partition} cannot be led so: {why}")]
    BadLeadership {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Why.
        why: String,
    },
    /// Decided on an older state of the partition.
    #[error(
        "{name}-{partition} is at partition epoch {found}, not {given}: the change is out of date"
    )]
    StalePartitionEpoch {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Epoch it is at.
        found: i32,
        /// Epoch given.
        given: i32,
    },
    /// A config that is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A text that is too long, or empty where it must not be.
    #[error("{what} is not valid: {why}")]
    BadText {
        /// Which text.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A number that can only grow has reached its end.
    #[error("{what} are used up")]
    Exhausted {
        /// Which numbers.
        what: &'static str,
    },
}

impl Rejection {
    /// Kind under which callers know it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TopicExists { .. } => ErrorKind::TopicAlreadyExists,
            Self::TopicNotFound { .. } | Self::TopicIdMismatch { .. } => ErrorKind::TopicNotFound,
            Self::PartitionNotFound { .. } => ErrorKind::PartitionNotFound,
            Self::StalePartitionEpoch { .. } => ErrorKind::FencedLeaderEpoch,
            Self::Config(_) => ErrorKind::InvalidConfig,
            Self::Exhausted { .. } => ErrorKind::PolicyViolation,
            Self::TopicIdExists { .. }
            | Self::OutOfRange { .. }
            | Self::NotMorePartitions { .. }
            | Self::BadPlacement { .. }
            | Self::BadLeadership { .. }
            | Self::BadText { .. } => ErrorKind::InvalidRequest,
        }
    }
}
