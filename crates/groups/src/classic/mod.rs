//! The classic group protocol: members join, one of them is the leader and assigns, everybody is told.
//!
//! Invariants: one leader per generation; a generation is never smaller than the one before; an assignment
//! is told only after the record that holds it is durable, and only in the generation it was made for; a static
//! member is told its id only when no record may be in the log that holds its instance under another one.
//! Metadata and assignments are bytes here, which only a passage to the consumer protocol looks into.

mod join;
mod members;
mod passage;
mod state;
mod sync;

use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{ErrorKind, GroupName, MemberId};

pub(crate) use passage::{Waiting, assignment};
pub(crate) use state::{Classic, Step, Wanted};

use crate::Failure;

/// `JoinGroup`: a member joins or joins again. Answered when the generation begins.
#[derive(Debug, Clone)]
pub struct ClassicJoin {
    /// Group.
    pub group: GroupName,
    /// Id of the member; `None`: it has none yet.
    pub member: Option<MemberId>,
    /// Id it gets if it has none. Unique.
    pub proposed: MemberId,
    /// Stable id of the instance; `None` or empty: dynamic member.
    pub instance: Option<String>,
    /// What the members do together, `consumer` for consumers; the same for all.
    pub protocol_type: String,
    /// Ways to assign it knows, most preferred first, each with what the leader is told of the member.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Silence after which the member is removed, milliseconds; refused outside the limits.
    pub session_timeout_ms: u64,
    /// Time the others have to join again, milliseconds.
    pub rebalance_timeout_ms: u64,
    /// Name the client gives itself.
    pub client_id: Arc<str>,
    /// Peer address.
    pub peer: Option<SocketAddr>,
    /// A dynamic member without id is only told the id to come back with.
    pub require_known_member_id: bool,
}

/// `SyncGroup`: a member asks for its assignment; the leader brings everybody's.
#[derive(Debug, Clone)]
pub struct ClassicSync {
    /// Group.
    pub group: GroupName,
    /// Member.
    pub member: MemberId,
    /// Generation of the answer to its join.
    pub generation: i32,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// Checked if given.
    pub protocol_type: Option<String>,
    /// Checked if given.
    pub protocol: Option<String>,
    /// From the leader: assignments by member.
    pub assignments: Vec<(MemberId, Vec<u8>)>,
}

/// `Heartbeat`: a member is alive.
#[derive(Debug, Clone)]
pub struct ClassicHeartbeat {
    /// Group.
    pub group: GroupName,
    /// Member.
    pub member: MemberId,
    /// Its generation.
    pub generation: i32,
    /// Instance id of a static member.
    pub instance: Option<String>,
}

/// `LeaveGroup`: members leave.
#[derive(Debug, Clone)]
pub struct ClassicLeave {
    /// Group.
    pub group: GroupName,
    /// Members by id or, for static ones, by instance id; with both the two must belong together.
    pub members: Vec<(Option<MemberId>, Option<String>)>,
}

/// Why a call of the classic protocol was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassicError {
    /// The group does not know the member: join anew.
    UnknownMember,
    /// The generation is not the present one: join again.
    IllegalGeneration,
    /// Members are joining: join again.
    RebalanceInProgress,
    /// Protocol type or protocols do not go with those of the members, or the members speak the other
    /// group protocol and are kept to themselves.
    InconsistentProtocol,
    /// Join again with this id.
    MemberIdRequired(MemberId),
    /// Another member holds the instance id now: end.
    FencedInstance,
    /// `group.max.size` is reached.
    GroupFull,
    /// The session timeout is outside the limits.
    InvalidSessionTimeout,
    /// Any other reason, in the terms of the other calls.
    Failed(Failure),
}

impl ClassicError {
    /// The same in the terms of the other calls, for callers that do not speak the classic protocol.
    #[must_use]
    pub fn into_failure(self, group: &GroupName) -> Failure {
        let (kind, what) = match self {
            Self::Failed(failure) => return failure,
            Self::UnknownMember => (
                ErrorKind::UnknownMember,
                "does not know the member; join again as a new member",
            ),
            Self::IllegalGeneration => (
                ErrorKind::StaleMemberEpoch,
                "is in another generation; join again",
            ),
            Self::RebalanceInProgress => {
                (ErrorKind::OperationInProgress, "is rebalancing; join again")
            }
            Self::InconsistentProtocol => (
                ErrorKind::GroupProtocolMismatch,
                "uses another protocol; use that one, or wait until the group is empty",
            ),
            Self::MemberIdRequired(_) => (
                ErrorKind::UnknownMember,
                "expects the member to join again with the id that the group gave it",
            ),
            Self::FencedInstance => (
                ErrorKind::FencedMemberEpoch,
                "has fenced this member: another one uses its instance id; stop this one",
            ),
            Self::GroupFull => (ErrorKind::GroupFull, "is full"),
            Self::InvalidSessionTimeout => (
                ErrorKind::InvalidRequest,
                "does not accept this session timeout, which is outside the limits",
            ),
        };
        Failure::new(kind, format!("group {group} {what}; nothing was changed"))
            .with("group", group)
            .with("protocol", "classic")
    }
}

/// A member as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMember {
    /// Member.
    pub member: MemberId,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// What it said with the protocol that was chosen.
    pub metadata: Vec<u8>,
}

/// Answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicJoined {
    /// The member's id.
    pub member: MemberId,
    /// Generation.
    pub generation: i32,
    /// Protocol type.
    pub protocol_type: String,
    /// Protocol that was chosen.
    pub protocol: String,
    /// Leader of the generation; `None`: the coordinator assigns.
    pub leader: Option<MemberId>,
    /// To the leader: every member. To others: empty.
    pub members: Vec<ClassicMember>,
    /// The leader need not assign: the assignment of before stands.
    pub skip_assignment: bool,
}

/// Answer to a sync. What it tells is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicSynced {
    /// Protocol type.
    pub protocol_type: String,
    /// Protocol that was chosen.
    pub protocol: String,
    /// What the leader assigned to the member.
    pub assignment: Vec<u8>,
}

/// State of a group that speaks the classic protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassicState {
    /// No members.
    Empty,
    /// Members are joining.
    PreparingRebalance,
    /// The leader is assigning.
    CompletingRebalance,
    /// Everybody has, or can ask for, its assignment.
    Stable,
}

impl ClassicState {
    /// Name as Kafka's tools print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}
