//! Words of the classic group protocol, to those of `broker-api` and back.

use std::time::Duration;

use bytes::Bytes;
use varve_broker_api::{
    ClassicError, ClassicHeartbeat, ClassicState, JoinGroup, JoinedGroup, LeaveGroup, SyncGroup,
    SyncedGroup,
};
use varve_types::{ErrorKind, GroupName, MemberId};

use super::group::group_code;
use super::names;
use crate::wire::generated::heartbeat::HeartbeatRequest;
use crate::wire::generated::join_group::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};
use crate::wire::generated::leave_group::LeaveGroupRequest;
use crate::wire::generated::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::wire::{ErrorCode, Text};

/// From this version on a member without id is told one first, and joins with that (KIP-394).
const ID_FIRST_FROM: i16 = 4;
/// From this version on several members leave at once.
const MANY_LEAVE_FROM: i16 = 3;
/// From this version on a member says how long others may take to join again.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// From this version on a leader can be told to keep its assignment (KIP-814).
const SKIP_FROM: i16 = 9;

/// The code of a refusal.
#[must_use]
pub fn classic_code(error: &ClassicError) -> ErrorCode {
    match error {
        ClassicError::UnknownMember => ErrorCode::UnknownMemberId,
        ClassicError::IllegalGeneration => ErrorCode::IllegalGeneration,
        ClassicError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        ClassicError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        ClassicError::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
        ClassicError::FencedInstance => ErrorCode::FencedInstanceId,
        ClassicError::GroupFull => ErrorCode::GroupMaxSizeReached,
        ClassicError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        ClassicError::Failed(error) => match error.kind {
            // The group's record could not be written now: members ask again.
            ErrorKind::NotEnoughReplicas | ErrorKind::StorageFull | ErrorKind::StorageError => {
                ErrorCode::CoordinatorNotAvailable
            }
            _ => group_code(error),
        },
    }
}

/// The name of a state, as clients show it.
#[must_use]
pub const fn classic_state(state: ClassicState) -> &'static str {
    match state {
        ClassicState::Empty => "Empty",
        ClassicState::PreparingRebalance => "PreparingRebalance",
        ClassicState::CompletingRebalance => "CompletingRebalance",
        ClassicState::Stable => "Stable",
    }
}

fn group(name: &Text) -> Result<GroupName, ErrorCode> {
    names::group_of_members(name.as_str()).map_err(|_| ErrorCode::InvalidGroupId)
}

/// The id of a member that has one. One that cannot be is known to no group.
fn member(id: &Text) -> Result<MemberId, ErrorCode> {
    names::member(id.as_str()).map_err(|_| ErrorCode::UnknownMemberId)
}

/// An id as its client has it.
fn id(member: &MemberId) -> Text {
    Text::from(names::decoded(member.as_str()))
}

fn member_if_any(id: &Text) -> Result<Option<MemberId>, ErrorCode> {
    match id.is_empty() {
        true => Ok(None),
        false => member(id).map(Some),
    }
}

fn owned(text: Option<&Text>) -> Option<String> {
    text.map(|text| text.as_str().to_owned())
}

fn instance(id: Option<&Text>) -> Option<String> {
    owned(id).filter(|id| !id.is_empty())
}

fn span(ms: i32) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// # Errors
/// The code for a name that cannot be one.
pub fn join(version: i16, request: JoinGroupRequest) -> Result<JoinGroup, ErrorCode> {
    let instance = instance(request.group_instance_id.as_ref());
    let session = span(request.session_timeout_ms).ok_or(ErrorCode::InvalidSessionTimeout)?;
    let rebalance = match version >= REBALANCE_TIMEOUT_FROM {
        true => span(request.rebalance_timeout_ms).unwrap_or(session),
        false => session,
    };
    let protocols = request.protocols.into_iter();
    Ok(JoinGroup {
        group: group(&request.group_id)?,
        member: member_if_any(&request.member_id)?,
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: protocols
            .map(|p| (p.name.as_str().to_owned(), p.metadata))
            .collect(),
        session_timeout: session,
        rebalance_timeout: rebalance,
        require_known_member_id: version >= ID_FIRST_FROM && instance.is_none(),
        instance,
    })
}

/// The answer to a join.
#[must_use]
pub fn joined(version: i16, found: JoinedGroup) -> JoinGroupResponse {
    // Where the coordinator assigns, nobody leads: no member takes another's id for its own.
    let leads = found.leader.as_ref() == Some(&found.member);
    let members = found.members.into_iter().map(|m| JoinGroupResponseMember {
        member_id: id(&m.member),
        group_instance_id: m.instance.map(Text::from),
        metadata: m.metadata,
    });
    JoinGroupResponse {
        generation_id: found.generation,
        protocol_type: Some(Text::from(found.protocol_type)),
        protocol_name: Some(Text::from(found.protocol)),
        skip_assignment: version >= SKIP_FROM && leads && found.skip_assignment,
        leader: found.leader.as_ref().map_or(Text::EMPTY, id),
        member_id: id(&found.member),
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

/// The answer to a join that is refused. `asked`: the id it came with.
#[must_use]
pub fn not_joined(version: i16, asked: &Text, error: &ClassicError) -> JoinGroupResponse {
    let member_id = match error {
        ClassicError::MemberIdRequired(member) => id(member),
        _ => asked.clone(),
    };
    join_refused(version, member_id, classic_code(error))
}

/// The same with a code.
#[must_use]
pub fn join_refused(version: i16, member_id: Text, code: ErrorCode) -> JoinGroupResponse {
    /// From this version on the protocol may be null.
    const NULL_FROM: i16 = 7;
    JoinGroupResponse {
        error_code: code.code(),
        protocol_name: (version < NULL_FROM).then(|| Text::from_static("")),
        member_id,
        ..JoinGroupResponse::default()
    }
}

/// # Errors
/// The code for a name that cannot be one.
pub fn sync(request: SyncGroupRequest) -> Result<SyncGroup, ErrorCode> {
    let given = request.assignments.into_iter();
    // Who is no member is assigned nothing.
    let given = given.filter_map(|a| Some((member(&a.member_id).ok()?, a.assignment)));
    Ok(SyncGroup {
        group: group(&request.group_id)?,
        member: member(&request.member_id)?,
        generation: request.generation_id,
        instance: instance(request.group_instance_id.as_ref()),
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments: given.collect(),
    })
}

/// The answer to a sync.
#[must_use]
pub fn synced(found: Result<SyncedGroup, ErrorCode>) -> SyncGroupResponse {
    match found {
        Ok(found) => SyncGroupResponse {
            protocol_type: Some(Text::from(found.protocol_type)),
            protocol_name: Some(Text::from(found.protocol)),
            assignment: found.assignment,
            ..SyncGroupResponse::default()
        },
        Err(code) => SyncGroupResponse {
            error_code: code.code(),
            assignment: Bytes::new(),
            ..SyncGroupResponse::default()
        },
    }
}

/// # Errors
/// The code for a name that cannot be one.
pub fn heartbeat(request: &HeartbeatRequest) -> Result<ClassicHeartbeat, ErrorCode> {
    Ok(ClassicHeartbeat {
        group: group(&request.group_id)?,
        member: member(&request.member_id)?,
        generation: request.generation_id,
        instance: instance(request.group_instance_id.as_ref()),
    })
}

/// # Errors
/// The code for a name that cannot be one.
pub fn leave(version: i16, request: &LeaveGroupRequest) -> Result<LeaveGroup, ErrorCode> {
    let members = match version >= MANY_LEAVE_FROM {
        true => {
            let members = request.members.iter();
            // An id that no server gives belongs to nobody, as nothing does.
            members
                .map(|m| match member_if_any(&m.member_id) {
                    Ok(id) => (id, instance(m.group_instance_id.as_ref())),
                    Err(_) => (None, None),
                })
                .collect()
        }
        false => vec![(Some(member(&request.member_id)?), None)],
    };
    Ok(LeaveGroup {
        group: group(&request.group_id)?,
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::generated::join_group::JoinGroupRequestProtocol;

    fn request() -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: Text::from_static("g"),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: Text::from_static("consumer"),
            protocols: vec![JoinGroupRequestProtocol {
                name: Text::from_static("range"),
                metadata: Bytes::from_static(b"m"),
            }],
            ..JoinGroupRequest::default()
        }
    }

    #[test]
    fn old_joins_take_the_session_for_the_rebalance_and_need_no_id() {
        let old = join(0, request()).unwrap();
        assert_eq!(old.rebalance_timeout, Duration::from_secs(10));
        assert!(!old.require_known_member_id && old.member.is_none());
        let new = join(9, request()).unwrap();
        assert_eq!(new.rebalance_timeout, Duration::from_secs(60));
        assert!(new.require_known_member_id);
        let mut fixed = request();
        fixed.group_instance_id = Some(Text::from_static("i"));
        assert!(!join(9, fixed).unwrap().require_known_member_id);
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_their_code() {
        let mut bad = request();
        bad.group_id = Text::from_static("");
        assert_eq!(join(9, bad).unwrap_err(), ErrorCode::InvalidGroupId);
        let mut bad = request();
        bad.member_id = Text::from("m".repeat(1_000));
        assert_eq!(join(9, bad).unwrap_err(), ErrorCode::UnknownMemberId);
        let mut bad = request();
        bad.session_timeout_ms = -1;
        assert_eq!(join(9, bad).unwrap_err(), ErrorCode::InvalidSessionTimeout);
    }

    #[test]
    fn ids_are_written_as_other_calls_write_them() {
        let mut odd = request();
        odd.member_id = Text::from_static("a+b");
        let member = join(9, odd).unwrap().member.unwrap();
        assert_eq!(member, names::member("a+b").unwrap());
        let error = ClassicError::MemberIdRequired(member);
        assert_eq!(
            not_joined(5, &Text::EMPTY, &error).member_id.as_str(),
            "a+b"
        );
    }

    #[test]
    fn a_member_that_is_to_come_back_is_told_its_id() {
        let error = ClassicError::MemberIdRequired("m-1".parse().unwrap());
        let told = not_joined(5, &Text::default(), &error);
        assert_eq!(told.member_id.as_str(), "m-1");
        assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
        assert_eq!(told.protocol_name, Some(Text::from_static("")));
        let told = not_joined(7, &Text::from_static("x"), &ClassicError::GroupFull);
        assert_eq!((told.member_id.as_str(), told.protocol_name), ("x", None));
    }
}
