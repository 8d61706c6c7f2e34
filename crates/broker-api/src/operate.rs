//! What operators do with a cluster that serves meanwhile: nodes are emptied and given back, leaderships and
//! replicas are moved.
//!
//! Invariants: no call waits for data to move: it declares what is wanted, and the lists tell how far it is;
//! what is refused changed nothing.

use std::future::Future;

use varve_types::{ErrorKind, NodeId, Offset, ProducerId, Sequence, TopicName, TopicPartition};

use crate::{Context, Error, LeaderHint, NodeState, NodeStatus, Result};

/// A node in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDetail {
    /// The node.
    pub status: NodeStatus,
    /// Replicas that it holds, those on their way to it and away from it among them.
    pub replicas: u64,
    /// Partitions that it leads.
    pub leaders: u64,
    /// It is being emptied, whatever its state.
    pub decommissioning: bool,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// State of the node.
    pub state: NodeState,
    /// Partitions that it still leads.
    pub leaders: u64,
    /// Of these, partitions that no other node can lead.
    pub stuck: u64,
}

/// How far a node is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decommission {
    /// State of the node.
    pub state: NodeState,
    /// Replicas that it still holds.
    pub replicas: u64,
    /// Of these, how many are on the move.
    pub moving: u64,
}

/// What became of a call for preferred leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elections {
    /// Leaderships that moved.
    pub started: u64,
    /// Partitions whose preferred leader cannot lead at present.
    pub skipped: u64,
}

/// Where the replicas of a partition are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// On these nodes; the first is the preferred leader.
    Nodes(Vec<NodeId>),
    /// On so many nodes: those that have it stay as far as possible, others are chosen by rack and load.
    Count(i32),
}

/// Moves replicas.
#[derive(Debug, Clone)]
pub struct Reassign {
    /// Partitions, and where they are to be.
    pub items: Vec<(TopicPartition, Target)>,
    /// Check everything, move nothing.
    pub validate_only: bool,
}

/// A partition on the move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// Partition.
    pub partition: TopicPartition,
    /// Node that leads it; `None`: none at present.
    pub leader: Option<NodeId>,
    /// Nodes that hold it, those being added and removed among them; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Replicas being added.
    pub adding: Vec<NodeId>,
    /// Replicas being removed.
    pub removing: Vec<NodeId>,
    /// Bytes still to copy; `None`: only the leader knows.
    pub remaining_bytes: Option<u64>,
}

/// What a node can work at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFeatures {
    /// Node.
    pub node: NodeId,
    /// Version of its program.
    pub version: String,
    /// Lowest feature level.
    pub min: u16,
    /// Highest feature level.
    pub max: u16,
}

/// Feature levels of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// What the cluster has agreed on.
    pub level: u16,
    /// The highest level that every registered node can work at.
    pub possible: u16,
    /// Registered nodes, ordered by id; those that are offline too.
    pub nodes: Vec<NodeFeatures>,
}

/// A replica on the disk of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaLog {
    /// Partition.
    pub partition: TopicPartition,
    /// Bytes of its log.
    pub size_bytes: u64,
    /// Committed offsets, as far as the replica knows, that its log does not have; `None`: it is offline.
    pub lag: Option<u64>,
}

/// Where a node keeps its data, and what it keeps there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirectory {
    /// Path on that node.
    pub path: String,
    /// Size of its file system and what is free of that, bytes; `None`: it does not say.
    pub space: Option<(u64, u64)>,
    /// No new replicas are placed there at present.
    pub closed: bool,
    /// Replicas, ordered by topic and number.
    pub replicas: Vec<ReplicaLog>,
}

/// A producer's session in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Id and epoch.
    pub producer: ProducerId,
    /// Sequence of its last record; `None`: it has none in this epoch.
    pub last_sequence: Option<Sequence>,
    /// When it was last heard of, milliseconds since the Unix epoch.
    pub last_used_ms: i64,
    /// Epoch of the coordinator that ended its last transaction; `None`: no transaction has ended.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction begins.
    pub transaction_start: Option<Offset>,
}

/// A node that agrees on the metadata with others, or learns what they agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumMember {
    /// Node.
    pub node: NodeId,
    /// Its voice counts.
    pub voter: bool,
    /// Offset after the last entry of its log; `None`: only the controller knows.
    pub log_end: Option<u64>,
}

/// The nodes that agree on the metadata, as one of them knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Controller, if one is known.
    pub leader: Option<NodeId>,
    /// Its term.
    pub epoch: u64,
    /// Offset after the last entry that is agreed on and applied here.
    pub committed: u64,
    /// Members, ordered by node.
    pub members: Vec<QuorumMember>,
}

/// Names of the throttles that a node has, as Kafka's tools set them.
pub const THROTTLES: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// A throttle that is set on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// One of [`THROTTLES`].
    pub name: &'static str,
    /// Bytes per second, at least 1.
    pub bytes_per_second: u64,
}

/// Operations on a cluster. A node that is alone refuses all that need another node.
pub trait Operations: Send + Sync + 'static {
    /// Every node with its load, ordered by id.
    fn node_details(&self, ctx: &Context) -> Result<Vec<NodeDetail>>;

    /// Takes leadership from a node and gives it none until it is resumed or started again. Refused without
    /// `force` while another node is draining or offline. To be repeated to see how far it is.
    fn drain_node(
        &self,
        ctx: &Context,
        node: NodeId,
        force: bool,
    ) -> impl Future<Output = Result<Drain>> + Send;

    /// Ends a drain or a decommission; moves that are under way go on.
    fn resume_node(
        &self,
        ctx: &Context,
        node: NodeId,
    ) -> impl Future<Output = Result<NodeState>> + Send;

    /// Moves every replica away from a node and forgets it then. `dead`: a node that will not come back. To
    /// be repeated to see how far it is; ends in `NodeNotFound`.
    fn decommission_node(
        &self,
        ctx: &Context,
        node: NodeId,
        dead: bool,
    ) -> impl Future<Output = Result<Decommission>> + Send;

    /// Makes a replica that is in sync the leader and the preferred leader. `None`: the preferred leader, or
    /// else any other replica in sync.
    fn transfer_leadership(
        &self,
        ctx: &Context,
        partition: TopicPartition,
        to: Option<NodeId>,
    ) -> impl Future<Output = Result<LeaderHint>> + Send;

    /// Preferred leaders lead again, of these topics or, when there are none, of all.
    fn elect_preferred_leaders(
        &self,
        ctx: &Context,
        topics: Vec<TopicName>,
    ) -> impl Future<Output = Result<Elections>> + Send;

    /// Preferred leaders of these partitions, and of no other, lead again; one result per partition, in order.
    /// `false`: it cannot lead at present, not being in sync or not being there.
    fn elect_preferred_leaders_of(
        &self,
        ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Vec<Result<bool>>>> + Send;

    /// Declares where replicas are to be; one result per partition, in order.
    fn reassign(
        &self,
        ctx: &Context,
        request: Reassign,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// What the cluster works at, and what its nodes could.
    fn features(&self, ctx: &Context) -> Result<Features>;

    /// Raises the feature level of the cluster for good, to the given one or else to the highest that every
    /// registered node can work at. `validate_only`: only says whether that is possible.
    fn finalize_features(
        &self,
        ctx: &Context,
        level: Option<u16>,
        validate_only: bool,
    ) -> impl Future<Output = Result<Features>> + Send;

    /// Partitions on the move, ordered by topic and number.
    fn reassignments(&self, ctx: &Context) -> Result<Vec<Reassignment>>;

    /// Returns partitions to the replicas that they had; one result per partition, in order.
    fn cancel_reassignments(
        &self,
        ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// The nodes that agree on the metadata, as this node knows them. Answers from memory.
    ///
    /// # Errors
    /// `UnsupportedFeature` where nothing is known of them.
    fn quorum(&self, ctx: &Context) -> Result<Quorum> {
        let _ = ctx;
        let text = "this node does not know how the metadata are agreed on";
        Err(Error::new(ErrorKind::UnsupportedFeature, text))
    }

    /// Throttles that are set on this node, ordered by name. Answers from memory.
    fn throttles(&self, ctx: &Context) -> Vec<Throttle> {
        let _ = ctx;
        Vec::new()
    }

    /// Sets throttles of this node, or deletes them (`None`): all of them or none. They hold until the node stops.
    fn set_throttles(
        &self,
        ctx: &Context,
        changes: Vec<(&'static str, Option<u64>)>,
    ) -> Result<()> {
        let _ = (ctx, changes);
        Ok(())
    }

    /// Where this node keeps its data, and what it keeps there. No other node is asked.
    fn log_directory(&self, ctx: &Context) -> impl Future<Output = Result<LogDirectory>> + Send;

    /// Producers that a partition remembers, ordered by id. Its leader alone answers: they are what it judges by.
    fn active_producers(
        &self,
        ctx: &Context,
        partition: &TopicPartition,
    ) -> impl Future<Output = Result<Vec<ActiveProducer>>> + Send;
}
