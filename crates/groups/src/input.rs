//! What the coordinator is told. Plain data; every time is an argument. Never performs anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{
    GroupName, LeaderEpoch, MemberId, Offset, PartitionId, ProducerId, TopicId, TopicName,
    TopicPartition,
};

use crate::{ClassicHeartbeat, ClassicJoin, ClassicLeave, ClassicSync, Failure};

/// Monotonic time in milliseconds. Only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// This time moved forward by `ms`; stays at the end of time.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 when that is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A caller that waits for an answer. Chosen by the rim, unique among those not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An append the coordinator asked for. Chosen by the coordinator, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// What a member wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// Topics by name. They need not exist yet.
    pub topics: Vec<TopicName>,
    /// Pattern matched against whole topic names, in addition; empty: none. Internal topics
    /// (`__...`) are only subscribed to by name.
    pub pattern: String,
    /// `uniform`, `range`, or empty for no preference.
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
    /// Stable id of the instance; `None` or empty: dynamic member.
    pub instance: Option<String>,
    /// Required when joining; `None` later: unchanged.
    pub subscription: Option<Subscription>,
    /// Partitions owned now; `None`: unchanged.
    pub owned: Option<Vec<TopicPartition>>,
    /// Rack of the member.
    pub rack: String,
    /// Silence after which the member is expelled, clamped to the limits; `None`: the default.
    pub session_timeout_ms: Option<u64>,
    /// Time to give up partitions; `None`: the default.
    pub rebalance_timeout_ms: Option<u64>,
    /// Hold the answer until the assignment differs from what is owned, at most this long.
    pub max_wait_ms: u64,
    /// Name the client gives itself.
    pub client_id: Arc<str>,
    /// Peer address.
    pub peer: Option<SocketAddr>,
}

/// One position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Partition.
    pub partition: TopicPartition,
    /// The next offset the group will read. The rim has checked it against the high watermark.
    pub offset: Offset,
    /// Epoch of the leader that the last processed record came from.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Free text, at most `COMMIT_METADATA_MAX_BYTES`.
    pub metadata: String,
}

/// What the coordinator knows of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicState {
    /// Id: a topic that comes back under its name with another id is another topic.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
}

/// One event or call.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed: send it when `next_deadline` is reached.
    Tick {
        /// Wall clock, milliseconds since the Unix epoch; offsets expire by it.
        wall_ms: i64,
    },
    /// One record of `__consumer_offsets`, oldest first, before [`Input::Loaded`].
    Load {
        /// Key.
        key: Vec<u8>,
        /// Value; `None`: tombstone.
        value: Option<Vec<u8>>,
    },
    /// One record of `__consumer_offsets` from a transactional batch, in its place among the others.
    LoadTxn {
        /// Producer of the batch.
        producer: ProducerId,
        /// Offset of the batch.
        offset: Offset,
        /// Key.
        key: Vec<u8>,
        /// Value; `None`: tombstone.
        value: Option<Vec<u8>>,
    },
    /// The marker that ends a producer's transaction is committed in this coordinator's partition of
    /// `__consumer_offsets`. In the order of the log, before [`Input::Loaded`] and after it.
    TxnEnded {
        /// Producer of the marker. Its epoch is above that of the transaction: what has the same epoch or a greater
        /// one is of a later transaction, and stays.
        producer: ProducerId,
        /// Offset of the marker where its producer keeps its epoch: then what has the same epoch ends too, unless it
        /// came after the marker.
        kept_at: Option<Offset>,
        /// Committed; else aborted.
        committed: bool,
        /// For a coordinator of several partitions: which one, and how many `__consumer_offsets` has. Only groups
        /// that are there are concerned.
        within: Option<(PartitionId, i32)>,
    },
    /// Replay is complete. Before this every call is answered with `CoordinatorLoading`. Send
    /// [`Input::Topics`] first: offsets of topics that are gone are removed now.
    Loaded,
    /// Every topic of the cluster, whenever that changes.
    Topics(Arc<BTreeMap<TopicName, TopicState>>),
    /// Stop parking heartbeats and answer those parked: the node shuts down.
    Drain,
    /// The caller of a parked heartbeat, join or sync is gone. Unknown tickets are ignored.
    Cancel {
        /// Caller.
        ticket: Ticket,
    },
    /// The append is durable.
    CommitDurable {
        /// Which.
        id: AppendId,
    },
    /// The append failed; the table does not change.
    CommitFailed {
        /// Which.
        id: AppendId,
        /// Answer for the caller.
        failure: Failure,
    },
    /// A member speaks.
    Heartbeat {
        /// Caller.
        ticket: Ticket,
        /// What it says.
        heartbeat: Box<Heartbeat>,
    },
    /// A member of a classic group joins. Held until the generation begins.
    ClassicJoin {
        /// Caller.
        ticket: Ticket,
        /// What it says.
        join: Box<ClassicJoin>,
    },
    /// A member of a classic group asks for its assignment. Held until that is durable.
    ClassicSync {
        /// Caller.
        ticket: Ticket,
        /// What it says.
        sync: Box<ClassicSync>,
    },
    /// A member of a classic group is alive.
    ClassicHeartbeat {
        /// Caller.
        ticket: Ticket,
        /// What it says.
        heartbeat: Box<ClassicHeartbeat>,
    },
    /// Members of a classic group leave.
    ClassicLeave {
        /// Caller.
        ticket: Ticket,
        /// What they say.
        leave: Box<ClassicLeave>,
    },
    /// Commits offsets. In a classic group `member_epoch` is the generation.
    Commit {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
        /// Member; `None`: stand-alone, accepted only while the group has no members.
        member: Option<MemberId>,
        /// Epoch of the member.
        member_epoch: i32,
        /// Positions.
        offsets: Vec<OffsetCommit>,
        /// Wall clock, milliseconds since the Unix epoch.
        wall_ms: i64,
    },
    /// Commits offsets in a transaction: they count when it is committed.
    TxnCommit {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
        /// Member; `None`: whoever holds the producer may commit, members or not.
        member: Option<MemberId>,
        /// Epoch of the member; in a classic group, the generation.
        member_epoch: i32,
        /// Producer of the transaction, which the rim has checked.
        producer: ProducerId,
        /// Where the log of the group's partition ended when that was checked, or before it; `None`: it was not
        /// checked. The batch must not follow a marker from there on that leaves the producer its epoch.
        since: Option<Offset>,
        /// Positions.
        offsets: Vec<OffsetCommit>,
        /// Wall clock, milliseconds since the Unix epoch.
        wall_ms: i64,
    },
    /// Sets offsets of a group without members.
    SetOffsets {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
        /// Positions.
        offsets: Vec<OffsetCommit>,
        /// Wall clock, milliseconds since the Unix epoch.
        wall_ms: i64,
    },
    /// Reads committed offsets.
    GetOffsets {
        /// Caller.
        ticket: Ticket,
        /// Group; an unknown one has no offsets.
        group: GroupName,
        /// Partitions; empty: all.
        partitions: Vec<TopicPartition>,
        /// Those that an open transaction may change are named instead of answered.
        require_stable: bool,
    },
    /// Removes committed offsets of topics that no member is subscribed to.
    DeleteOffsets {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
        /// Partitions.
        partitions: Vec<TopicPartition>,
    },
    /// Lists every group.
    ListGroups {
        /// Caller.
        ticket: Ticket,
    },
    /// Counts all groups, and tells of some what metrics show.
    Survey {
        /// Caller.
        ticket: Ticket,
        /// How many to tell of.
        most: usize,
    },
    /// Describes one group.
    GetGroup {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
    },
    /// Deletes a group without members, with its offsets.
    DeleteGroup {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
    },
    /// Expels members.
    RemoveMembers {
        /// Caller.
        ticket: Ticket,
        /// Group.
        group: GroupName,
        /// Members; empty: all.
        members: Vec<MemberId>,
    },
}

impl Input {
    /// The caller to answer, if this input is a call.
    #[must_use]
    pub const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Heartbeat { ticket, .. }
            | Self::ClassicJoin { ticket, .. }
            | Self::ClassicSync { ticket, .. }
            | Self::ClassicHeartbeat { ticket, .. }
            | Self::ClassicLeave { ticket, .. }
            | Self::Commit { ticket, .. }
            | Self::TxnCommit { ticket, .. }
            | Self::SetOffsets { ticket, .. }
            | Self::GetOffsets { ticket, .. }
            | Self::DeleteOffsets { ticket, .. }
            | Self::ListGroups { ticket }
            | Self::Survey { ticket, .. }
            | Self::GetGroup { ticket, .. }
            | Self::DeleteGroup { ticket, .. }
            | Self::RemoveMembers { ticket, .. } => Some(*ticket),
            Self::Tick { .. }
            | Self::Load { .. }
            | Self::LoadTxn { .. }
            | Self::TxnEnded { .. }
            | Self::Loaded
            | Self::Topics(_)
            | Self::Drain
            | Self::Cancel { .. }
            | Self::CommitDurable { .. }
            | Self::CommitFailed { .. } => None,
        }
    }
}
