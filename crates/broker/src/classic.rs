//! Groups of the classic protocol as front ends see them: each call is one input of the coordinator, in other words.
//!
//! Invariants: nobody joins by this protocol before every node of the cluster can read what is then written of the
//! group; ids that this node gives to members are unique.

use std::time::Duration;

use bytes::Bytes;
use varve_broker_api as api;
use varve_broker_api::{
    ClassicError, ClassicGroups, ClassicHeartbeat, ClassicResult, Context, JoinGroup, JoinedGroup,
    JoinedMember, LeaveGroup, SyncGroup, SyncedGroup,
};
use varve_groups::{Input, Reply, Ticket};
use varve_metadata::features;
use varve_types::MemberId;

use crate::api::unexpected;
use crate::coordinator;
use crate::start::Broker;

/// Of the name that a client gives itself, so much is part of the id of its member.
const NAME_MAX: usize = 100;

impl ClassicGroups for Broker {
    async fn join_group(&self, ctx: &Context, request: JoinGroup) -> ClassicResult<JoinedGroup> {
        let registry = &self.inner.registry;
        registry.check_level(features::CLASSIC_GROUPS, "groups of the classic protocol")?;
        let join = Box::new(varve_groups::ClassicJoin {
            group: request.group,
            member: request.member,
            proposed: new_member(&ctx.client_id),
            instance: request.instance,
            protocol_type: request.protocol_type,
            protocols: pairs(request.protocols),
            session_timeout_ms: millis(request.session_timeout),
            rebalance_timeout_ms: millis(request.rebalance_timeout),
            client_id: ctx.client_id.clone(),
            peer: ctx.peer,
            require_known_member_id: request.require_known_member_id,
        });
        match self
            .classic(|ticket| Input::ClassicJoin { ticket, join })
            .await?
        {
            Reply::ClassicJoined(joined) => Ok(from_joined(*joined)),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn sync_group(&self, _ctx: &Context, request: SyncGroup) -> ClassicResult<SyncedGroup> {
        let sync = Box::new(varve_groups::ClassicSync {
            group: request.group,
            member: request.member,
            generation: request.generation,
            instance: request.instance,
            protocol_type: request.protocol_type,
            protocol: request.protocol,
            assignments: pairs(request.assignments),
        });
        match self
            .classic(|ticket| Input::ClassicSync { ticket, sync })
            .await?
        {
            Reply::ClassicSynced(synced) => Ok(SyncedGroup {
                protocol_type: synced.protocol_type,
                protocol: synced.protocol,
                assignment: synced.assignment.into(),
            }),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn classic_heartbeat(
        &self,
        _ctx: &Context,
        request: ClassicHeartbeat,
    ) -> ClassicResult<()> {
        let heartbeat = Box::new(varve_groups::ClassicHeartbeat {
            group: request.group,
            member: request.member,
            generation: request.generation,
            instance: request.instance,
        });
        let input = |ticket| Input::ClassicHeartbeat { ticket, heartbeat };
        match self.classic(input).await? {
            Reply::ClassicAlive => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn leave_group(
        &self,
        _ctx: &Context,
        request: LeaveGroup,
    ) -> ClassicResult<Vec<ClassicResult<()>>> {
        let leave = Box::new(varve_groups::ClassicLeave {
            group: request.group,
            members: request.members,
        });
        match self
            .classic(|ticket| Input::ClassicLeave { ticket, leave })
            .await?
        {
            Reply::ClassicLeft(results) => Ok(results
                .into_iter()
                .map(|result| result.map_err(from_error))
                .collect()),
            other => Err(unexpected(&other).into()),
        }
    }
}

impl Broker {
    async fn classic(&self, input: impl FnOnce(Ticket) -> Input) -> ClassicResult<Reply> {
        match self.call(input).await? {
            Reply::ClassicFailed(error) => Err(from_error(error)),
            reply => Ok(reply),
        }
    }
}

/// An id that no member has had: the name that the client gives itself, as far as it can be part of an id, and chance.
fn new_member(client: &str) -> MemberId {
    // No dots: front ends may write with them what cannot be part of an id.
    let plain = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
        _ => '_',
    };
    let name: String = client.chars().take(NAME_MAX).map(plain).collect();
    let id = uuid::Uuid::new_v4();
    let text = match name.is_empty() {
        true => id.to_string(),
        false => format!("{name}-{id}"),
    };
    match MemberId::new(&text) {
        Ok(id) => id,
        Err(error) => unreachable!("{text:?} is a legal member id: {error}"),
    }
}

fn pairs<K>(pairs: Vec<(K, Bytes)>) -> Vec<(K, Vec<u8>)> {
    let own = |(key, bytes): (K, Bytes)| (key, Vec::from(bytes));
    pairs.into_iter().map(own).collect()
}

fn from_joined(joined: varve_groups::ClassicJoined) -> JoinedGroup {
    let member = |m: varve_groups::ClassicMember| JoinedMember {
        member: m.member,
        instance: m.instance,
        metadata: m.metadata.into(),
    };
    JoinedGroup {
        member: joined.member,
        generation: joined.generation,
        protocol_type: joined.protocol_type,
        protocol: joined.protocol,
        leader: joined.leader,
        members: joined.members.into_iter().map(member).collect(),
        skip_assignment: joined.skip_assignment,
    }
}

fn from_error(error: varve_groups::ClassicError) -> ClassicError {
    use varve_groups::ClassicError as Core;
    match error {
        Core::UnknownMember => ClassicError::UnknownMember,
        Core::IllegalGeneration => ClassicError::IllegalGeneration,
        Core::RebalanceInProgress => ClassicError::RebalanceInProgress,
        Core::InconsistentProtocol => ClassicError::InconsistentProtocol,
        Core::MemberIdRequired(id) => ClassicError::MemberIdRequired(id),
        Core::FencedInstance => ClassicError::FencedInstance,
        Core::GroupFull => ClassicError::GroupFull,
        Core::InvalidSessionTimeout => ClassicError::InvalidSessionTimeout,
        Core::Failed(failure) => coordinator::error(failure).into(),
    }
}

/// What is particular to a group of the classic protocol.
pub(crate) fn group(listing: varve_groups::ClassicListing) -> api::ClassicGroup {
    use varve_groups::ClassicState as Core;
    api::ClassicGroup {
        state: match listing.state {
            Core::Empty => api::ClassicState::Empty,
            Core::PreparingRebalance => api::ClassicState::PreparingRebalance,
            Core::CompletingRebalance => api::ClassicState::CompletingRebalance,
            Core::Stable => api::ClassicState::Stable,
        },
        protocol_type: listing.protocol_type,
        protocol: listing.protocol,
        leader: listing.leader,
    }
}

/// What is particular to a member that speaks the classic protocol: what it said, and what it was assigned.
pub(crate) fn member((metadata, assignment): (Vec<u8>, Vec<u8>)) -> api::ClassicMember {
    api::ClassicMember {
        metadata: metadata.into(),
        assignment: assignment.into(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
