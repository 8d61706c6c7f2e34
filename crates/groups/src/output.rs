//! What the coordinator wants done, in order: appends to `__consumer_offsets` and answers. A refusal is
//! an answer like any other. Never performs anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{ErrorKind, GroupName, MemberId, Offset, ProducerId, TopicPartition};

use crate::codec::CodecError;
use crate::offsets::CommittedOffset;
use crate::{
    AppendId, ClassicError, ClassicJoined, ClassicState, ClassicSynced, Subscription, Ticket,
};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What programs match on.
    pub kind: ErrorKind,
    /// What happened, to what, and what to do next.
    pub message: String,
    /// Field of the request at fault, for `InvalidRequest`.
    pub field: Option<&'static str>,
    /// Values of the message under stable names.
    pub metadata: Vec<(&'static str, String)>,
}

impl Failure {
    /// A failure of `kind` with a sentence for people.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            metadata: Vec::new(),
        }
    }

    /// `InvalidRequest` about one field.
    #[must_use]
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }

    /// Adds a value that the message mentions.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Append these records to the group's partition of `__consumer_offsets` as one batch, in the
    /// order of the outputs, and come back with `CommitDurable` or `CommitFailed`.
    Append {
        /// Comes back with the completion.
        id: AppendId,
        /// Group, which decides the partition ([`crate::codec::partition_of`]).
        group: GroupName,
        /// Keys with values; `None`: tombstone.
        records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// As [`Output::Append`], as a batch of this producer's open transaction.
    TxnAppend {
        /// Comes back with the completion.
        id: AppendId,
        /// Group, which decides the partition.
        group: GroupName,
        /// Producer.
        producer: ProducerId,
        /// As in [`crate::Input::TxnCommit`]: the append is refused after a marker from there on.
        since: Option<Offset>,
        /// Keys with values; `None`: tombstone.
        records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// Answer a caller.
    Reply {
        /// Caller.
        ticket: Ticket,
        /// Answer.
        reply: Reply,
    },
    /// A replayed record could not be understood and was left out; for the log.
    LoadSkipped {
        /// Why.
        error: CodecError,
    },
}

/// What metrics show of groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// How many groups are in each state.
    pub states: BTreeMap<GroupState, usize>,
    /// As many as were asked for, with their committed offsets: those with members before those without, and of each
    /// kind the first by name.
    pub groups: Vec<(GroupListing, Vec<CommittedOffset>)>,
}

impl Survey {
    /// Those of several coordinators together.
    pub fn merge(&mut self, other: Self, most: usize) {
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.groups.extend(other.groups);
        self.groups
            .sort_by(|(a, _), (b, _)| (a.members == 0, &a.group).cmp(&(b.members == 0, &b.group)));
        self.groups.truncate(most);
    }
}

/// Answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To a heartbeat.
    Heartbeat(HeartbeatReply),
    /// To a commit: one result per item, in order. What succeeded is durable.
    Committed(Vec<Result<(), Failure>>),
    /// To `GetOffsets`, ordered by topic and partition.
    Offsets(Vec<CommittedOffset>),
    /// To `GetOffsets` with `require_stable`, where open transactions may change something of it.
    OffsetsUnstable {
        /// What is stable, ordered by topic and partition.
        offsets: Vec<CommittedOffset>,
        /// What is not, in the same order: ask again later.
        unstable: Vec<TopicPartition>,
    },
    /// To `SetOffsets`: what is committed now, in the order asked. Durable.
    OffsetsSet(Vec<CommittedOffset>),
    /// To `DeleteOffsets`: one result per partition, in order. Durable.
    OffsetsDeleted(Vec<Result<(), Failure>>),
    /// To `ListGroups`, ordered by name.
    Groups(Vec<GroupListing>),
    /// To `Survey`.
    Survey(Box<Survey>),
    /// To `GetGroup`.
    Group(Box<GroupDescription>),
    /// To `DeleteGroup`. Durable.
    GroupDeleted,
    /// To `RemoveMembers`: those expelled, ordered by id.
    MembersRemoved(Vec<MemberId>),
    /// To a join of a classic group.
    ClassicJoined(Box<ClassicJoined>),
    /// To a sync of a classic group. Durable.
    ClassicSynced(ClassicSynced),
    /// To a heartbeat in a classic group.
    ClassicAlive,
    /// To `ClassicLeave`: one result per member, in order.
    ClassicLeft(Vec<Result<(), ClassicError>>),
    /// Refused in the terms of the classic protocol: to its calls, and to a commit of a member in a
    /// classic group.
    ClassicFailed(ClassicError),
    /// Refused. Any call may be answered so.
    Failed(Failure),
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Epoch to send from now on; 0 after leaving.
    pub member_epoch: i32,
    /// Partitions the member may own now; present only when they differ from what it owns.
    pub assignment: Option<Vec<TopicPartition>>,
    /// Next heartbeat due within this time.
    pub heartbeat_interval_ms: u64,
    /// The member is expelled after this long without one.
    pub session_timeout_ms: u64,
}

/// State of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; offsets may exist.
    Empty,
    /// Every member has reached its target assignment.
    Stable,
    /// Members are moving to a new target assignment.
    Reconciling,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Name.
    pub group: GroupName,
    /// State.
    pub state: GroupState,
    /// Number of members.
    pub members: usize,
    /// It has offsets and never had members.
    pub simple: bool,
    /// Set if the group speaks the classic protocol.
    pub classic: Option<ClassicListing>,
}

/// What is particular to a group that speaks the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicListing {
    /// State; [`GroupState`] is the nearest of the other protocol.
    pub state: ClassicState,
    /// What the members do together, `consumer` for consumers.
    pub protocol_type: String,
    /// How they assign; empty while that is not known.
    pub protocol: String,
    /// Leader, if there is one.
    pub leader: Option<MemberId>,
}

/// A group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Name.
    pub group: GroupName,
    /// State.
    pub state: GroupState,
    /// Raised with each change of membership or subscription.
    pub group_epoch: i32,
    /// Epoch of the current target assignment.
    pub assignment_epoch: i32,
    /// Assignor in use.
    pub assignor: &'static str,
    /// Members, ordered by id.
    pub members: Vec<MemberDescription>,
    /// It has offsets and never had members.
    pub simple: bool,
    /// Set if the group speaks the classic protocol. Its generation is `group_epoch`.
    pub classic: Option<ClassicListing>,
}

/// A member in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
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
    /// Partitions granted and not yet given back.
    pub owned: Vec<TopicPartition>,
    /// Partitions it is meant to own.
    pub target: Vec<TopicPartition>,
    /// Time since its last heartbeat, milliseconds.
    pub since_heartbeat_ms: u64,
    /// If it speaks the classic protocol, in a group of either: what it said with the protocol that was
    /// chosen, and what it was assigned.
    pub classic: Option<(Vec<u8>, Vec<u8>)>,
}
