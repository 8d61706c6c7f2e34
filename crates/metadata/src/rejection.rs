//! Why a command is refused. Nothing was changed.

use varve_types::text::counted;
use varve_types::{
    BrokerEpoch, ConfigError, ErrorKind, LeaderEpoch, NodeId, PartitionId, TopicId, TopicName,
};

fn leader_text(leader: Option<NodeId>) -> String {
    leader.map_or_else(
        || "it has no leader".to_owned(),
        |n| format!("node {n} leads it"),
    )
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
    /// No topic of that id.
    #[error("topic id {id} does not exist: the topic was deleted, or has not been created yet")]
    TopicIdNotFound {
        /// Id.
        id: TopicId,
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
    #[error(
        "topic {name} has no partition {partition}; it has {}, counted from 0",
        counted(.partitions, "partition")
    )]
    PartitionNotFound {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Number of partitions.
        partitions: i32,
    },
    /// A count outside its range.
    #[error("{what} is {found}; it must be {min} to {max}")]
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
    #[error(
        "topic {name} already has {}; the new total must be greater, but it is {given}",
        counted(.found, "partition")
    )]
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
    /// More replicas than nodes that can take one.
    #[error(
        "topic {name} needs {} of each partition, but only {usable} of {} can take one (the others \
         are fenced, stopping or being emptied)",
        counted(.wanted, "replica"), counted(.known, "known node")
    )]
    NotEnoughNodes {
        /// Topic.
        name: TopicName,
        /// Replicas wanted.
        wanted: i32,
        /// Nodes that can take a replica.
        usable: usize,
        /// Nodes known.
        known: usize,
    },
    /// Too many partitions on a node.
    #[error("node {node} would hold {found} partitions; the limit is {max}")]
    NodeFull {
        /// Node.
        node: NodeId,
        /// Partitions it would hold.
        found: usize,
        /// Most.
        max: usize,
    },
    /// No such node.
    #[error("node {node} is unknown")]
    NodeNotFound {
        /// Node.
        node: NodeId,
    },
    /// Another process lives under that id.
    #[error(
        "node id {node} is in use: a node with directory {directory} is registered under it and alive at \
         {address}. Give this node an id of its own, or stop the other one and wait until it is fenced"
    )]
    DuplicateNode {
        /// Node.
        node: NodeId,
        /// Directory of the one that is alive.
        directory: varve_types::DirectoryId,
        /// Its address.
        address: String,
    },
    /// Decided about an earlier run of the node.
    #[error("node {node} has registered again since: its broker epoch is {found}, not {given}")]
    StaleBrokerEpoch {
        /// Node.
        node: NodeId,
        /// Epoch it is in.
        found: BrokerEpoch,
        /// Epoch given.
        given: BrokerEpoch,
    },
    /// The node is not in the state that the command needs.
    #[error("node {node} {why}")]
    BadNodeState {
        /// Node.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// The asking leader has been replaced.
    #[error("{name}:{partition} is in leader epoch {found}; epoch {given} has ended")]
    FencedLeaderEpoch {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Epoch it is in.
        found: LeaderEpoch,
        /// Epoch given.
        given: LeaderEpoch,
    },
    /// An epoch that has not begun.
    #[error("{name}:{partition} is in leader epoch {found}; epoch {given} has not started")]
    UnknownLeaderEpoch {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Epoch it is in.
        found: LeaderEpoch,
        /// Epoch given.
        given: LeaderEpoch,
    },
    /// The asking node does not lead.
    #[error("node {given} does not lead {name}:{partition}: {}", leader_text(*.leader))]
    NotLeader {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Node that leads.
        leader: Option<NodeId>,
        /// Node that asked.
        given: NodeId,
    },
    /// Decided on an older state of the partition.
    #[error(
        "{name}:{partition} is at partition epoch {found}, not {given}: the change is out of date"
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
    /// A replica that must not be in sync now.
    #[error("node {node} cannot join the in-sync replicas of {name}:{partition}: {why}")]
    IneligibleReplica {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Node.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// In-sync replicas that cannot be.
    #[error("the in-sync replicas given for {name}:{partition} are not valid: {why}")]
    BadIsr {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Why.
        why: String,
    },
    /// An election without a possible outcome.
    #[error("no leader was elected for {name}:{partition}: {why}")]
    NotElectable {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Why.
        why: String,
    },
    /// A replica that cannot be spared.
    #[error(
        "the replica of {name}:{partition} on node {node} is kept: no other replica is known to \
         hold all committed records"
    )]
    LastReplica {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Node that holds it.
        node: NodeId,
    },
    /// A move of replicas that cannot be.
    #[error("{name}:{partition} cannot be reassigned this way: {why}")]
    BadReassignment {
        /// Name.
        name: TopicName,
        /// Partition.
        partition: PartitionId,
        /// Why.
        why: String,
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
    #[error("{what} are exhausted")]
    Exhausted {
        /// Which numbers.
        what: &'static str,
    },
    /// A feature level that cannot be.
    #[error("feature level {given} cannot be set: {why}")]
    BadFeatureLevel {
        /// Level given.
        given: u16,
        /// Why.
        why: String,
    },
    /// The cluster has not agreed on the level that the command needs.
    #[error(
        "this needs feature level {needed}, but the cluster is at {level}; raise the level first"
    )]
    LevelNotReached {
        /// Level needed.
        needed: u16,
        /// Level of the cluster.
        level: u16,
    },
    /// This node's state is another than the controller's: see [`Rejection::is_fatal`].
    #[error(
        "the metadata of this node differs from the controller's at version {version} (checksum \
         {found:08x} here, {given:08x} there), although both come from the same commands; the node \
         stops before it acts on them. Start it on an empty data directory, and keep the old one \
         for diagnosis"
    )]
    Diverged {
        /// Version compared.
        version: u64,
        /// Checksum of the controller's state.
        given: u32,
        /// Checksum of the state here.
        found: u32,
    },
    /// The cluster agreed on what this program does not know: see [`Rejection::is_fatal`].
    #[error(
        "the cluster moves to feature level {given}, but this program supports levels up to \
         {known}; start a newer program on this node (nothing was changed)"
    )]
    BeyondThisProgram {
        /// Level of the cluster.
        given: u16,
        /// Highest level known here.
        known: u16,
    },
}

impl Rejection {
    /// What is out of range where a topic wants too many or too few partitions.
    pub const PARTITIONS: &'static str = "the number of partitions";
    /// What is out of range where a topic wants too many or too few replicas.
    pub const REPLICATION_FACTOR: &'static str = "the replication factor";

    /// Whether others may have applied what this program cannot. The node must stop: from here on it does
    /// not know the state.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::BeyondThisProgram { .. } | Self::Diverged { .. })
    }

    /// Kind under which callers know it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TopicExists { .. } => ErrorKind::TopicAlreadyExists,
            Self::TopicNotFound { .. }
            | Self::TopicIdNotFound { .. }
            | Self::TopicIdMismatch { .. } => ErrorKind::TopicNotFound,
            Self::PartitionNotFound { .. } => ErrorKind::PartitionNotFound,
            Self::NodeNotFound { .. } => ErrorKind::NodeNotFound,
            Self::NotLeader { .. } => ErrorKind::NotLeader,
            Self::FencedLeaderEpoch { .. }
            | Self::StalePartitionEpoch { .. }
            | Self::StaleBrokerEpoch { .. } => ErrorKind::FencedLeaderEpoch,
            Self::UnknownLeaderEpoch { .. } => ErrorKind::UnknownLeaderEpoch,
            Self::IneligibleReplica { .. } => ErrorKind::OperationInProgress,
            Self::NotElectable { .. } => ErrorKind::LeaderNotAvailable,
            Self::Config(_) => ErrorKind::InvalidConfig,
            Self::Diverged { .. } => ErrorKind::StorageError,
            Self::BadFeatureLevel { .. }
            | Self::LevelNotReached { .. }
            | Self::BeyondThisProgram { .. } => ErrorKind::UnsupportedFeature,
            Self::Exhausted { .. }
            | Self::NodeFull { .. }
            | Self::DuplicateNode { .. }
            | Self::LastReplica { .. }
            | Self::BadNodeState { .. } => ErrorKind::PolicyViolation,
            Self::TopicIdExists { .. }
            | Self::OutOfRange { .. }
            | Self::NotMorePartitions { .. }
            | Self::BadPlacement { .. }
            | Self::NotEnoughNodes { .. }
            | Self::BadIsr { .. }
            | Self::BadReassignment { .. }
            | Self::BadText { .. } => ErrorKind::InvalidRequest,
        }
    }
}
