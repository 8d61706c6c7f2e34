//! The classic group protocol: join, sync, heartbeat, leave.

use varve_broker_api::{Broker, ClassicError, ClassicGroups};

use super::Call;
use crate::shared::Shared;
use crate::translate::classic::{self, classic_code};
use crate::wire::ErrorCode;
use crate::wire::generated::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::generated::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::generated::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::wire::generated::sync_group::{SyncGroupRequest, SyncGroupResponse};

/// Counts a refusal that is none of the protocol's own, and gives its code.
fn refused<B: Broker>(shared: &Shared<B>, error: &ClassicError) -> ErrorCode {
    if let ClassicError::Failed(error) = error {
        shared.count(error);
    }
    classic_code(error)
}

/// Held until the generation begins.
pub(super) async fn join<B: Broker + ClassicGroups>(
    shared: &Shared<B>,
    call: &Call,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let (version, asked) = (call.version(), request.member_id.clone());
    let join = match classic::join(version, request) {
        Ok(join) => join,
        Err(code) => return classic::join_refused(version, asked, code),
    };
    match shared.broker.join_group(&call.ctx, join).await {
        Ok(found) => classic::joined(version, found),
        Err(error) => {
            refused(shared, &error);
            classic::not_joined(version, &asked, &error)
        }
    }
}

/// Held until the leader has assigned and that is durable.
pub(super) async fn sync<B: Broker + ClassicGroups>(
    shared: &Shared<B>,
    call: &Call,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let found = match classic::sync(request) {
        Ok(sync) => {
            let found = shared.broker.sync_group(&call.ctx, sync).await;
            found.map_err(|error| refused(shared, &error))
        }
        Err(code) => Err(code),
    };
    classic::synced(found)
}

pub(super) async fn heartbeat<B: Broker + ClassicGroups>(
    shared: &Shared<B>,
    call: &Call,
    request: &HeartbeatRequest,
) -> HeartbeatResponse {
    let code = match classic::heartbeat(request) {
        Ok(beat) => match shared.broker.classic_heartbeat(&call.ctx, beat).await {
            Ok(()) => ErrorCode::None,
            Err(error) => refused(shared, &error),
        },
        Err(code) => code,
    };
    HeartbeatResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
    }
}

pub(super) async fn leave<B: Broker + ClassicGroups>(
    shared: &Shared<B>,
    call: &Call,
    request: &LeaveGroupRequest,
) -> LeaveGroupResponse {
    let version = call.version();
    let left = match classic::leave(version, request) {
        Ok(leave) => {
            let left = shared.broker.leave_group(&call.ctx, leave).await;
            left.map_err(|error| refused(shared, &error))
        }
        Err(code) => Err(code),
    };
    let mut response = LeaveGroupResponse::default();
    match left {
        Ok(left) => {
            let one = |result: Result<(), ClassicError>| match result {
                Ok(()) => ErrorCode::None.code(),
                Err(error) => refused(shared, &error).code(),
            };
            let codes: Vec<i16> = left.into_iter().map(one).collect();
            if request.members.is_empty() {
                // One member left, by a version that has no list.
                response.error_code = codes.first().copied().unwrap_or_default();
            } else {
                let members = request.members.iter().zip(codes);
                response.members = members
                    .map(|(m, error_code)| MemberResponse {
                        member_id: m.member_id.clone(),
                        group_instance_id: m.group_instance_id.clone(),
                        error_code,
                    })
                    .collect();
            }
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}
