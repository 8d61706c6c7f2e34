//! What the nodes of a cluster say to each other for replication and to stay alive, as plain data, and the
//! trait through which it is said. Whoever implements it knows the network; the broker does not.
//!
//! Invariants: nothing here waits for a peer while it holds up a lane; a message is lost or arrives, and
//! the cores cope with either; at most one fetch of a partition is under way per follower, so the queues
//! are bounded by the number of partitions; records are read when the connection has room for them.

use std::sync::Arc;

use bytes::Bytes;
use varve_broker_api::Error;
use varve_metadata::log::Later;
use varve_metadata::{Heartbeat, Output, PartitionKey};
use varve_partition::{FetchId, FetchRefusal, Position};
use varve_types::{
    LeaderEpoch, NodeId, Offset, ProducerId, TopicId, TopicPartition, TransactionalId,
};

/// From a follower to the leader of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLeader {
    /// Asks for records.
    Fetch {
        /// Partition.
        partition: PartitionKey,
        /// Names the answer, within this connection.
        id: FetchId,
        /// How far the follower's log reaches.
        position: Position,
    },
    /// Tells that more is flushed since the last fetch.
    Progress {
        /// Partition.
        partition: PartitionKey,
        /// How far the follower's log reaches.
        position: Position,
    },
}

/// Records for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// Whole batches as the leader's log has them, from the asked offset on; may be empty.
    pub batches: Bytes,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start: Offset,
}

/// The answer to a follower's fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Partition.
    pub partition: PartitionKey,
    /// Which fetch.
    pub id: FetchId,
    /// What came of it.
    pub result: Result<Records, FetchRefusal>,
}

/// Why a peer did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} at {address}: {why}")]
pub struct PeerError {
    /// Whom we asked.
    pub node: NodeId,
    /// Where.
    pub address: String,
    /// What went wrong.
    pub why: String,
}

/// A leader asks the coordinator of a transactional id to register partitions of its own in the producer's
/// transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Transactional id.
    pub id: TransactionalId,
    /// Session that wants to append.
    pub producer: ProducerId,
    /// Partitions, at least one: topic by its id and, for people, its name.
    pub partitions: Vec<(TopicId, TopicPartition)>,
    /// Only ask whether they are registered: the producer keeps its epoch, and registers its partitions itself
    /// (KIP-98).
    pub verify_only: bool,
}

/// A coordinator tells partitions how a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerOrder {
    /// Producer of the markers: one epoch above that of the transaction's records, or the same with a number.
    pub producer: ProducerId,
    /// Which transaction of its epoch is ended, for a producer that keeps it.
    pub number: Option<i64>,
    /// Commit, or abort.
    pub commit: bool,
    /// Epoch of the coordinator.
    pub coordinator_epoch: LeaderEpoch,
    /// Partitions that the asked node leads, at least one.
    pub partitions: Vec<PartitionKey>,
}

/// What became of one marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// It is committed, or not needed any more: the partition has a greater epoch of the producer.
    Done,
    /// Not written, or nobody knows: send it again, to whoever leads then.
    Again,
    /// A newer coordinator has spoken to the partition: the caller is not the coordinator any more.
    Fenced,
}

/// Takes the answers of a leader, some at a time.
pub type Incoming = Arc<dyn Fn(Vec<Answer>) + Send + Sync>;

/// What is to be sent to a leader. Never full: its producers have at most one fetch under way each.
pub type Outgoing = tokio::sync::mpsc::UnboundedReceiver<ToLeader>;

/// The other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Keeps one connection to a leader: sends what comes from `outgoing`, as many messages at once as wait,
    /// and hands what is answered to `incoming`. Resolves when the connection cannot be made or has ended,
    /// or when `outgoing` is closed; it is not made again by itself.
    fn replicate(
        &self,
        to: NodeId,
        address: String,
        outgoing: Outgoing,
        incoming: Incoming,
    ) -> Later<'static, Result<(), PeerError>>;

    /// Tells the controller that this node is alive.
    fn heartbeat(
        &self,
        to: NodeId,
        address: String,
        beat: Heartbeat,
    ) -> Later<'static, Result<Output, PeerError>>;

    /// Asks a coordinator to register partitions. The inner error is the coordinator's refusal.
    fn register(
        &self,
        to: NodeId,
        address: String,
        registration: Registration,
    ) -> Later<'static, Result<Result<(), Error>, PeerError>>;

    /// Has markers written; one outcome per partition, in order.
    fn write_markers(
        &self,
        to: NodeId,
        address: String,
        order: MarkerOrder,
    ) -> Later<'static, Result<Vec<MarkerOutcome>, PeerError>>;
}

/// Hands over what a follower says.
pub type Tell = Box<dyn FnMut(Vec<ToLeader>) + Send>;

/// The answers to one follower.
pub trait Answers: Send {
    /// Waits for answers that are due and reads their records: about a mebibyte at a time, at least one
    /// answer. `None`: this node is shutting down. What is dropped before it resolves may lose answers: they are
    /// awaited to the end, or the connection is over.
    fn next(&mut self) -> Later<'_, Option<Vec<Answer>>>;
}

/// What a node does for its peers.
pub trait PeerService: Send + Sync + 'static {
    /// A follower has connected, and is who it says. Dropping both halves ends it.
    fn connected(&self, follower: NodeId) -> (Tell, Box<dyn Answers>);

    /// A node is alive.
    fn heartbeat(&self, beat: Heartbeat) -> Later<'static, Output>;

    /// A leader wants partitions registered in a transaction that this node coordinates. Durable when it is
    /// answered.
    fn register(&self, registration: Registration) -> Later<'static, Result<(), Error>>;

    /// A coordinator has markers for partitions that this node leads; one outcome per partition, in order.
    fn write_markers(&self, order: MarkerOrder) -> Later<'static, Vec<MarkerOutcome>>;
}
