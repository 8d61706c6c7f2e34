//! Groups: who coordinates one, which there are, what they look like, and the membership protocol of KIP-848.

use std::collections::BTreeSet;
use std::time::Duration;

use varve_broker_api::{
    Broker, Error, GroupInfo, GroupListing, GroupProtocol, Heartbeat, HeartbeatReply, MemberInfo,
    Subscription,
};
use varve_types::{
    ErrorKind, GroupName, MemberId, PartitionId, TopicId, TopicName, TopicPartition,
};

use super::Call;
use crate::shared::{Endpoint, Shared, Topics};
use crate::translate::group::{
    assignment, by_topic, group_code, kind, protocol_type, state, subscription as subscribed,
};
use crate::translate::{name_code, names, operations, sentence, uuid};
use crate::wire::generated::consumer_group_describe as consumer;
use crate::wire::generated::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    ResponseTopicPartitions,
};
use crate::wire::generated::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use crate::wire::generated::describe_groups as classic;
use crate::wire::generated::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::wire::generated::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::wire::{ErrorCode, Text, Uuid};

/// Whose coordinator is looked for.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several are looked for at once.
const MANY_FROM: i16 = 4;
/// Epochs of members that leave: for good, and to come back.
const LEAVES: i32 = -1;
const LEAVES_TO_RETURN: i32 = -2;

pub(super) async fn find_coordinator<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = match call.version() >= MANY_FROM {
        true => request.coordinator_keys,
        false => vec![request.key],
    };
    let mut coordinators = Vec::with_capacity(keys.len());
    for key in keys {
        let found = coordinator(shared, call, request.key_type, &key).await;
        coordinators.push(match found {
            Ok(endpoint) => Coordinator {
                node_id: endpoint.node.0,
                host: Text::from(endpoint.host),
                port: endpoint.port.into(),
                error_code: ErrorCode::None.code(),
                error_message: None,
                key,
            },
            Err(error) => Coordinator {
                node_id: -1,
                port: -1,
                error_code: error.code(),
                key,
                ..Coordinator::default()
            },
        });
    }
    let mut response = FindCoordinatorResponse::default();
    if call.version() >= MANY_FROM {
        response.coordinators = coordinators;
    } else if let Some(found) = coordinators.pop() {
        response.error_code = found.error_code;
        response.node_id = found.node_id;
        response.host = found.host;
        response.port = found.port;
    }
    response
}

/// The node that answers for a name, which it is asked about: whoever coordinates something else says who does.
async fn coordinator<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    kind: i8,
    key: &Text,
) -> Result<Endpoint, ErrorCode> {
    let asked = match kind {
        GROUP => {
            let name = names::group(key.as_str()).map_err(|_| ErrorCode::InvalidGroupId)?;
            shared.broker.group(&call.ctx, &name).await.map(drop)
        }
        TRANSACTION => {
            let id = names::transactional(key.as_str());
            let id = id.map_err(|_| ErrorCode::InvalidRequest)?;
            shared.broker.transaction(&call.ctx, &id).await.map(drop)
        }
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let here = ErrorKind::GroupNotFound;
    let node = match asked {
        Ok(()) => shared.node,
        // Not known, or not read yet: by this node in any case.
        Err(error)
            if error.kind == here
                || matches!(
                    error.kind,
                    ErrorKind::TransactionNotFound | ErrorKind::CoordinatorLoading
                ) =>
        {
            shared.node
        }
        Err(error) => match (error.kind, &error.leader) {
            (ErrorKind::NotCoordinator, Some(leader)) => leader.node,
            (ErrorKind::UnsupportedFeature, _) => return Err(ErrorCode::UnsupportedVersion),
            _ => return Err(ErrorCode::CoordinatorNotAvailable),
        },
    };
    let mut all = shared.endpoints().into_iter();
    let found = all.find(|e| e.node == node);
    found.ok_or(ErrorCode::CoordinatorNotAvailable)
}

pub(super) async fn list<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let all = match shared.broker.groups(&call.ctx).await {
        Ok(all) => all,
        Err(error) => {
            shared.count(&error);
            return ListGroupsResponse {
                error_code: group_code(&error).code(),
                ..ListGroupsResponse::default()
            };
        }
    };
    // Once for all groups: a request can name millions of states.
    let lowered = |wanted: &[Text]| -> BTreeSet<String> {
        let wanted = wanted.iter();
        wanted.map(|w| w.as_str().to_ascii_lowercase()).collect()
    };
    let among = |wanted: &BTreeSet<String>, found: &str| {
        wanted.is_empty() || wanted.contains(&found.to_ascii_lowercase())
    };
    let (states, types) = (
        lowered(&request.states_filter),
        lowered(&request.types_filter),
    );
    let listed = |group: &GroupListing| ListedGroup {
        group_id: Text::from(names::decoded(group.group.as_str())),
        protocol_type: protocol_type(group.classic.as_ref(), group.simple),
        group_state: Text::from_static(state(group.state, group.classic.as_ref())),
        group_type: Text::from_static(kind(group.protocol, group.simple)),
    };
    let wanted = all.iter().filter(|group| {
        among(&states, state(group.state, group.classic.as_ref()))
            && among(&types, kind(group.protocol, group.simple))
    });
    ListGroupsResponse {
        groups: wanted.map(listed).collect(),
        ..ListGroupsResponse::default()
    }
}

/// A group of that name, with the code for why it cannot be told.
async fn group<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    name: &Text,
) -> Result<GroupInfo, (ErrorCode, Option<Text>)> {
    let name = names::group(name.as_str()).map_err(|_| (ErrorCode::InvalidGroupId, None))?;
    let found = shared.broker.group(&call.ctx, &name).await;
    found.map_err(|error| {
        shared.count(&error);
        (group_code(&error), sentence(&error))
    })
}

/// From this version on a group that there is not is an error.
const UNKNOWN_FROM: i16 = 6;

pub(super) async fn describe_classic<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: classic::DescribeGroupsRequest,
) -> classic::DescribeGroupsResponse {
    let asked = request.include_authorized_operations;
    let mut groups = Vec::with_capacity(request.groups.len());
    for name in request.groups {
        let found = match group(shared, call, &name).await {
            // A group whose members speak the other protocol is none for this call.
            Ok(found) if found.protocol == GroupProtocol::Consumer && !found.members.is_empty() => {
                Err((ErrorCode::GroupIdNotFound, None))
            }
            found => found,
        };
        let mut described = classic::DescribedGroup {
            group_id: name,
            authorized_operations: operations::told(asked, operations::GROUP),
            ..classic::DescribedGroup::default()
        };
        match found {
            Ok(found) => {
                let of = found.classic.as_ref();
                let protocol = match of {
                    Some(of) => of.protocol.as_str(),
                    None if found.simple => "",
                    None => found.assignor.as_str(),
                };
                described.group_state = Text::from_static(state(found.state, of));
                described.protocol_type = protocol_type(of, found.simple);
                described.protocol_data = Text::from(protocol);
                described.members = found.members.iter().map(classic_member).collect();
            }
            Err((ErrorCode::GroupIdNotFound, message)) => {
                described.group_state = Text::from_static("Dead");
                if call.version() >= UNKNOWN_FROM {
                    described.error_code = ErrorCode::GroupIdNotFound.code();
                    described.error_message = message;
                }
            }
            Err((error, message)) => {
                described.error_code = error.code();
                described.error_message = message.filter(|_| call.version() >= UNKNOWN_FROM);
            }
        }
        groups.push(described);
    }
    classic::DescribeGroupsResponse {
        throttle_time_ms: 0,
        groups,
    }
}

fn host(member: &MemberInfo) -> Text {
    let host = member.peer.map(|peer| format!("/{}", peer.ip()));
    Text::from(host.unwrap_or_default())
}

fn classic_member(member: &MemberInfo) -> classic::DescribedGroupMember {
    let said = member.classic.as_ref();
    classic::DescribedGroupMember {
        member_id: Text::from(names::decoded(member.member.as_str())),
        group_instance_id: member.instance.as_deref().map(Text::from),
        client_id: Text::from(&*member.client_id),
        client_host: host(member),
        member_metadata: said.map_or_else(
            || subscribed(&member.subscription.topics),
            |said| said.metadata.clone(),
        ),
        member_assignment: said
            .map_or_else(|| assignment(&member.owned), |said| said.assignment.clone()),
    }
}

pub(super) async fn describe_consumer<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: consumer::ConsumerGroupDescribeRequest,
) -> consumer::ConsumerGroupDescribeResponse {
    let asked = request.include_authorized_operations;
    let topics = shared.topics().unwrap_or_default();
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for name in request.group_ids {
        let found = match group(shared, call, &name).await {
            Ok(found) if found.protocol == GroupProtocol::Classic || found.simple => {
                let text = "it is not a group of the consumer protocol: it has only offsets, or \
                    members of the classic protocol";
                Err((ErrorCode::GroupIdNotFound, Some(Text::from_static(text))))
            }
            found => found,
        };
        let mut described = consumer::DescribedGroup {
            group_id: name,
            authorized_operations: operations::told(asked, operations::GROUP),
            ..consumer::DescribedGroup::default()
        };
        match found {
            Ok(found) => {
                described.group_state = Text::from_static(state(found.state, None));
                described.group_epoch = found.group_epoch;
                described.assignment_epoch = found.assignment_epoch;
                described.assignor_name = Text::from(found.assignor.as_str());
                let shown = |m: &MemberInfo| consumer_member(call, &topics, m);
                described.members = found.members.iter().map(shown).collect();
            }
            Err((error, message)) => {
                described.error_code = error.code();
                described.error_message = message;
            }
        }
        groups.push(described);
    }
    consumer::ConsumerGroupDescribeResponse {
        throttle_time_ms: 0,
        groups,
    }
}

fn consumer_member(call: &Call, topics: &Topics, member: &MemberInfo) -> consumer::Member {
    let places = |partitions: &[TopicPartition]| consumer::Assignment {
        topic_partitions: by_topic(partitions)
            .into_iter()
            .map(|(topic, partitions)| consumer::TopicPartitions {
                topic_id: id_of(topics, topic),
                topic_name: Text::from(topic.as_str()),
                partitions,
            })
            .collect(),
    };
    let pattern = Some(member.subscription.pattern.as_str()).filter(|p| !p.is_empty());
    let names = member.subscription.topics.iter();
    consumer::Member {
        member_id: Text::from(names::decoded(member.member.as_str())),
        instance_id: member.instance.as_deref().map(Text::from),
        rack_id: Some(member.rack.as_str())
            .filter(|rack| !rack.is_empty())
            .map(Text::from),
        member_epoch: member.member_epoch,
        client_id: Text::from(&*member.client_id),
        client_host: host(member),
        subscribed_topic_names: names.map(|t| Text::from(t.as_str())).collect(),
        subscribed_topic_regex: pattern.map(Text::from),
        assignment: places(&member.owned),
        target_assignment: places(&member.target),
        member_type: match (call.version(), member.protocol) {
            (0, _) => -1,
            (_, GroupProtocol::Classic) => 0,
            (_, GroupProtocol::Consumer) => 1,
        },
    }
}

fn id_of(topics: &Topics, name: &TopicName) -> Uuid {
    topics
        .get(name.as_str())
        .map_or(Uuid::ZERO, |info| uuid(info.id))
}

pub(super) async fn delete<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let done = match names::group(group_id.as_str()) {
            Err(error) => Err((name_code(&error), Some(Text::from(error.to_string())))),
            Ok(name) => match shared.broker.delete_group(&call.ctx, &name).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    shared.count(&error);
                    Err((group_code(&error), sentence(&error)))
                }
            },
        };
        let (error, error_message) = done.err().unwrap_or((ErrorCode::None, None));
        results.push(DeletableGroupResult {
            group_id,
            error_code: error.code(),
            error_message,
        });
    }
    DeleteGroupsResponse {
        throttle_time_ms: 0,
        results,
    }
}

/// Join, stay, confirm, leave (KIP-848).
pub(super) async fn heartbeat<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let topics = shared.topics().unwrap_or_default();
    let (epoch, member_id) = (request.member_epoch, request.member_id.clone());
    let changes = Changes::of(&request);
    let mut beat = match beat(call, &topics, request) {
        Ok(beat) => beat,
        Err(error) => return refused(shared, &error),
    };
    if let Some(subscription) = &mut beat.subscription {
        let merged = changes.merge(shared, call, (&beat.group, &beat.member), subscription);
        if let Err(error) = merged.await {
            return refused(shared, &error);
        }
    }
    let member = beat.member.clone();
    match shared.broker.heartbeat(&call.ctx, beat).await {
        Ok(reply) => told(&topics, epoch, &member, reply),
        // Who is not known has left already.
        Err(error) if epoch < 0 && error.kind == ErrorKind::UnknownMember => {
            ConsumerGroupHeartbeatResponse {
                member_id: Some(member_id),
                member_epoch: epoch,
                ..ConsumerGroupHeartbeatResponse::default()
            }
        }
        Err(error) => refused(shared, &error),
    }
}

fn refused<B: Broker>(shared: &Shared<B>, error: &Error) -> ConsumerGroupHeartbeatResponse {
    shared.count(error);
    tracing::debug!(%error, "refused a heartbeat of a group member");
    ConsumerGroupHeartbeatResponse {
        error_code: group_code(error).code(),
        error_message: sentence(error),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn told(
    topics: &Topics,
    epoch: i32,
    member: &MemberId,
    reply: HeartbeatReply,
) -> ConsumerGroupHeartbeatResponse {
    // A member that joins waits for an assignment, be it of nothing.
    let assigned = match reply.assignment {
        None if epoch == 0 => Some(Vec::new()),
        assigned => assigned,
    };
    let assignment = assigned.map(|places| Assignment {
        topic_partitions: by_topic(&places)
            .into_iter()
            .map(|(topic, partitions)| ResponseTopicPartitions {
                topic_id: id_of(topics, topic),
                partitions,
            })
            .collect(),
    });
    let interval = reply.heartbeat_interval.as_millis();
    ConsumerGroupHeartbeatResponse {
        member_id: Some(Text::from(names::decoded(member.as_str()))),
        // Who leaves is told the epoch by which it said so.
        member_epoch: if epoch < 0 { epoch } else { reply.member_epoch },
        heartbeat_interval_ms: i32::try_from(interval).unwrap_or(i32::MAX),
        assignment: assignment.filter(|_| epoch >= 0),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

/// Which parts of its subscription a member states. Those that it does not are as they were.
#[derive(Debug, Clone, Copy)]
struct Changes {
    topics: bool,
    pattern: bool,
    assignor: bool,
    /// Nothing was before: who joins states all.
    joins: bool,
}

impl Changes {
    const fn of(request: &ConsumerGroupHeartbeatRequest) -> Self {
        Self {
            topics: request.subscribed_topic_names.is_some(),
            pattern: request.subscribed_topic_regex.is_some(),
            assignor: request.server_assignor.is_some(),
            joins: request.member_epoch == 0,
        }
    }

    const fn any(self) -> bool {
        self.topics || self.pattern || self.assignor || self.joins
    }

    /// Adds what the member said before. Its heartbeats follow each other, so it is still so when this one counts.
    async fn merge<B: Broker>(
        self,
        shared: &Shared<B>,
        call: &Call,
        (group, member): (&GroupName, &MemberId),
        subscription: &mut Subscription,
    ) -> Result<(), Error> {
        if self.joins || (self.topics && self.pattern && self.assignor) {
            return Ok(());
        }
        // Who is not there, or whose group is not, is told so by the heartbeat.
        let members = match shared.broker.group(&call.ctx, group).await {
            Ok(found) => found.members,
            Err(error) if error.kind == ErrorKind::GroupNotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let Some(known) = members.into_iter().find(|m| m.member == *member) else {
            return Ok(());
        };
        if !self.topics {
            subscription.topics = known.subscription.topics;
        }
        if !self.pattern {
            subscription.pattern = known.subscription.pattern;
        }
        if !self.assignor {
            subscription.assignor = known.subscription.assignor;
        }
        Ok(())
    }
}

fn beat(
    call: &Call,
    topics: &Topics,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<Heartbeat, Error> {
    let invalid = |field, text: String| Error::invalid(field, text);
    let group = names::group_of_members(request.group_id.as_str())
        .map_err(|error| invalid("group", error.to_string()))?;
    let leave = request.member_epoch < 0;
    if leave && !matches!(request.member_epoch, LEAVES | LEAVES_TO_RETURN) {
        let text = format!("member epoch {} has no meaning", request.member_epoch);
        return Err(invalid("member_epoch", text));
    }
    let member = match request.member_id.as_str() {
        // Members of version 0 are named by the server.
        "" if call.version() == 0 && request.member_epoch == 0 => new_member(),
        id => names::member(id).map_err(|error| invalid("member", error.to_string()))?,
    };
    let text = |text: Option<&Text>| text.map_or("", Text::as_str).to_owned();
    let changes = Changes::of(&request);
    let subscription = changes.any().then(|| {
        let names = request.subscribed_topic_names.iter().flatten();
        Subscription {
            topics: names
                .filter_map(|n| TopicName::new(n.as_str()).ok())
                .collect(),
            pattern: text(request.subscribed_topic_regex.as_ref()),
            assignor: text(request.server_assignor.as_ref()),
        }
    });
    let owned = request.topic_partitions.map(|owned| {
        let mut places = Vec::new();
        for topic in owned {
            // A topic that is gone is owned by nobody.
            let Some(name) = topics.name(TopicId(topic.topic_id.0)) else {
                continue;
            };
            let place = |number| TopicPartition::new(name.clone(), PartitionId(number));
            places.extend(topic.partitions.into_iter().map(place));
        }
        places
    });
    let rebalance = u64::try_from(request.rebalance_timeout_ms).ok();
    Ok(Heartbeat {
        group,
        member,
        member_epoch: request.member_epoch.max(0),
        leave,
        keep_assignment: request.member_epoch == LEAVES_TO_RETURN,
        instance: request
            .instance_id
            .as_ref()
            .map(|id| id.as_str().to_owned()),
        subscription,
        owned,
        rack: text(request.rack_id.as_ref()),
        session_timeout: None,
        rebalance_timeout: rebalance.map(Duration::from_millis),
        max_wait: Duration::ZERO,
    })
}

/// A name that no other member has.
fn new_member() -> MemberId {
    let id = uuid::Uuid::new_v4().to_string();
    match MemberId::new(&id) {
        Ok(member) => member,
        Err(error) => unreachable!("hyphens and digits are legal in a name: {error}"),
    }
}
