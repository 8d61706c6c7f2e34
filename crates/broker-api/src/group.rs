//! Consumer groups (KIP-848 in one call) and committed offsets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use varve_types::{GroupName, LeaderEpoch, MemberId, NodeId, Offset, TopicName, TopicPartition};

use crate::{ClassicGroup, ClassicMember, Position};

/// What a member wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// Topics.
    pub topics: Vec<TopicName>,
    /// Pattern matched against whole topic names, in addition; empty: none.
    pub pattern: String,
    /// `uniform`, `range`, or empty for the default (`uniform`).
    pub assignor: String,
}

/// Join, stay, change the subscription, confirm assignments, leave.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Group.
    pub group: GroupName,
    /// Member, for its lifetime.
    pub member: MemberId,
    /// 0 joins or rejoins; otherwise the epoch of the last reply.
    pub member_epoch: i32,
    /// Leaves.
    pub leave: bool,
    /// With `leave` and an instance id: the partitions wait one session timeout for its return.
    pub keep_assignment: bool,
    /// Stable id of the instance; `None`: dynamic member.
    pub instance: Option<String>,
    /// Required when joining; `None` later: unchanged.
    pub subscription: Option<Subscription>,
    /// Partitions owned now; `None`: unchanged.
    pub owned: Option<Vec<TopicPartition>>,
    /// Rack of the member.
    pub rack: String,
    /// Silence after which the member is expelled; `None`: the group's default.
    pub session_timeout: Option<Duration>,
    /// Time to give up partitions; `None`: 60 s.
    pub rebalance_timeout: Option<Duration>,
    /// Hold the answer until the assignment differs from `owned`, at most this long (clamped to the
    /// heartbeat interval).
    pub max_wait: Duration,
}

/// Answer to a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Epoch to send from now on.
    pub member_epoch: i32,
    /// Partitions the member may own now; present only when they differ from what it owns.
    pub assignment: Option<Vec<TopicPartition>>,
    /// Next heartbeat due within this time.
    pub heartbeat_interval: Duration,
    /// The member is expelled after this long without one.
    pub session_timeout: Duration,
}

/// One committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Partition.
    pub partition: TopicPartition,
    /// The next offset the group will read.
    pub offset: Offset,
    /// Epoch of the leader that the last processed record came from.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Free text, at most 4096 bytes.
    pub metadata: String,
}

/// Commits offsets.
#[derive(Debug, Clone)]
pub struct CommitOffsets {
    /// Group.
    pub group: GroupName,
    /// Member; `None`: a stand-alone commit, accepted only while the group has no members.
    pub member: Option<MemberId>,
    /// Epoch of the member.
    pub member_epoch: i32,
    /// Positions.
    pub offsets: Vec<OffsetCommit>,
}

/// Asks for committed offsets.
#[derive(Debug, Clone)]
pub struct GetOffsets {
    /// Group.
    pub group: GroupName,
    /// Partitions; empty: all the group has offsets for.
    pub partitions: Vec<TopicPartition>,
    /// Also look up high watermarks to fill in the lag.
    pub include_lag: bool,
    /// Refuse with `ConcurrentTransactions` while a transaction may change one of them.
    pub require_stable: bool,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Partition.
    pub partition: TopicPartition,
    /// The next offset the group will read.
    pub offset: Offset,
    /// Leader epoch given with the commit.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Metadata given with the commit.
    pub metadata: String,
    /// When it was committed, milliseconds since the Unix epoch.
    pub commit_time_ms: i64,
    /// High watermark, when asked for and known.
    pub high_watermark: Option<Offset>,
    /// Time of the first record that the group has not read, milliseconds since the Unix epoch, when asked for and
    /// there is one.
    pub next_time_ms: Option<i64>,
}

/// Where offsets are reset to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetTarget {
    /// A position in each partition.
    Position(Position),
    /// What is committed now, written again.
    Committed,
    /// Relative to the committed offset, clamped to the log.
    ShiftBy(i64),
    /// The committed offsets of another group.
    FromGroup(GroupName),
    /// These offsets, found by whoever knows the partitions: nothing is looked up or clamped here.
    Exactly(BTreeMap<TopicPartition, Offset>),
}

/// Sets the offsets of a group without members.
#[derive(Debug, Clone)]
pub struct ResetOffsets {
    /// Group.
    pub group: GroupName,
    /// Partitions; empty together with `topics`: all the group has offsets for.
    pub partitions: Vec<TopicPartition>,
    /// Whole topics.
    pub topics: Vec<TopicName>,
    /// Target.
    pub target: ResetTarget,
    /// Compute and return without writing.
    pub validate_only: bool,
}

/// State of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members; offsets may exist.
    Empty,
    /// Every member has reached its target assignment.
    Stable,
    /// Members are moving to a new target assignment.
    Reconciling,
}

/// Protocol by which members come to their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members join and sync, and one of them assigns.
    Classic,
    /// The coordinator assigns, by heartbeats.
    Consumer,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Name.
    pub group: GroupName,
    /// State.
    pub state: GroupState,
    /// Coordinator.
    pub coordinator: NodeId,
    /// Number of members.
    pub members: usize,
    /// It has offsets and never had members; told of groups that are coordinated here.
    pub simple: bool,
    /// Protocol of the group.
    pub protocol: GroupProtocol,
    /// Of a group of the classic protocol that is coordinated here: what is particular to it.
    pub classic: Option<ClassicGroup>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Name.
    pub group: GroupName,
    /// State.
    pub state: GroupState,
    /// Coordinator.
    pub coordinator: NodeId,
    /// Raised with each change of membership or subscription.
    pub group_epoch: i32,
    /// Epoch of the current target assignment.
    pub assignment_epoch: i32,
    /// Assignor in use.
    pub assignor: String,
    /// Members, ordered by id.
    pub members: Vec<MemberInfo>,
    /// It has offsets and never had members; told of groups that are coordinated here.
    pub simple: bool,
    /// Protocol of the group. One of the consumer protocol may have members of the classic protocol.
    pub protocol: GroupProtocol,
    /// Of a group of the classic protocol that is coordinated here: what is particular to it. Its generation is
    /// `group_epoch`.
    pub classic: Option<ClassicGroup>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Member id.
    pub member: MemberId,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// Name the client gives itself.
    pub client_id: Arc<str>,
    /// Peer address.
    pub peer: Option<SocketAddr>,
    /// Epoch.
    pub member_epoch: i32,
    /// Rack it is in; empty if it did not say.
    pub rack: String,
    /// Subscription.
    pub subscription: Subscription,
    /// Partitions owned now.
    pub owned: Vec<TopicPartition>,
    /// Partitions it is meant to own.
    pub target: Vec<TopicPartition>,
    /// Time since its last heartbeat.
    pub since_heartbeat: Duration,
    /// Protocol that it speaks.
    pub protocol: GroupProtocol,
    /// If that is the classic protocol, and the group is coordinated here: what it said and was assigned.
    pub classic: Option<ClassicMember>,
}
