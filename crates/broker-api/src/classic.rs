//! The classic group protocol: members join and sync, and one of them assigns. Consumers of other protocols come by it;
//! what they say of themselves and what they are assigned are bytes here.
//!
//! Calls are answered by the node that coordinates the group, and are not passed on to it: who speaks this
//! protocol looks for that node itself.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use varve_types::{GroupName, MemberId};

use crate::{Context, Error};

/// Result of a call of the classic protocol.
pub type ClassicResult<T> = std::result::Result<T, ClassicError>;

/// Why a call of the classic protocol was refused. Nothing was changed.
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
    /// The group has as many members as it may.
    GroupFull,
    /// The session timeout is outside the limits.
    InvalidSessionTimeout,
    /// Any other reason.
    Failed(Box<Error>),
}

impl From<Error> for ClassicError {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// A member joins, or joins again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroup {
    /// Group.
    pub group: GroupName,
    /// Id of the member; `None`: it has none yet.
    pub member: Option<MemberId>,
    /// Stable id of the instance; `None`: dynamic member.
    pub instance: Option<String>,
    /// What the members do together, `consumer` for consumers; the same for all.
    pub protocol_type: String,
    /// Ways to assign it knows, most preferred first, each with what the leader is told of the member.
    pub protocols: Vec<(String, Bytes)>,
    /// Silence after which the member is removed; refused outside the limits.
    pub session_timeout: Duration,
    /// Time the others have to join again.
    pub rebalance_timeout: Duration,
    /// A dynamic member without id is only told the id to come back with (KIP-394).
    pub require_known_member_id: bool,
}

/// A member as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Member.
    pub member: MemberId,
    /// Instance id of a static member.
    pub instance: Option<String>,
    /// What it said with the protocol that was chosen.
    pub metadata: Bytes,
}

/// Answer to a join: the generation has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedGroup {
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
    pub members: Vec<JoinedMember>,
    /// The leader need not assign: the assignment of before stands.
    pub skip_assignment: bool,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
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
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// Answer to a sync. What it tells is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedGroup {
    /// Protocol type.
    pub protocol_type: String,
    /// Protocol that was chosen.
    pub protocol: String,
    /// What the leader assigned to the member.
    pub assignment: Bytes,
}

/// A member is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Members leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroup {
    /// Group.
    pub group: GroupName,
    /// Members by id or, for static ones, by instance id; with both the two must belong together.
    pub members: Vec<(Option<MemberId>, Option<String>)>,
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

/// What is particular to a group that speaks the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicGroup {
    /// State; [`crate::GroupState`] is the nearest of the other protocol.
    pub state: ClassicState,
    /// What the members do together, `consumer` for consumers.
    pub protocol_type: String,
    /// How they assign; empty while that is not known.
    pub protocol: String,
    /// Leader, if there is one.
    pub leader: Option<MemberId>,
}

/// What is particular to a member that speaks the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMember {
    /// What it said with the protocol that was chosen.
    pub metadata: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// Groups of the classic protocol, as far as a front end serves it.
pub trait ClassicGroups: Send + Sync + 'static {
    /// Held until the generation begins. Dropping the call takes the join back where it still waits.
    fn join_group(
        &self,
        ctx: &Context,
        request: JoinGroup,
    ) -> impl Future<Output = ClassicResult<JoinedGroup>> + Send;

    /// Held until the assignment is durable. Safe to drop.
    fn sync_group(
        &self,
        ctx: &Context,
        request: SyncGroup,
    ) -> impl Future<Output = ClassicResult<SyncedGroup>> + Send;

    /// A member is alive.
    fn classic_heartbeat(
        &self,
        ctx: &Context,
        request: ClassicHeartbeat,
    ) -> impl Future<Output = ClassicResult<()>> + Send;

    /// One result for each member, in order.
    fn leave_group(
        &self,
        ctx: &Context,
        request: LeaveGroup,
    ) -> impl Future<Output = ClassicResult<Vec<ClassicResult<()>>>> + Send;
}
