//! What is done with a request: one function for each API, from its request to its response, by asking the broker.

mod asked;
mod batches;
mod blamed;
mod classic;
mod cluster;
mod commits;
pub(crate) mod configs;
mod elections;
mod elsewhere;
mod fetch;
mod groups;
mod offsets;
mod produce;
mod producers;
mod replicas;
mod telemetry;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use varve_broker_api::{Broker, ClassicGroups, Context, Operations, Unread};
use varve_types::limits;

use crate::following::{Following, Follows, Turn};
use crate::shared::Shared;
use crate::translate::bulk;
use crate::translate::refusal::refuse;
use crate::versions;
use crate::wire::{
    ApiKey, ErrorCode, Frame, Prefix, Request, RequestError, RequestHeader, Response,
    decode_request, encode_response,
};

/// What goes back to the client.
pub(crate) enum Answer {
    /// A frame, and what goes with it.
    Frame(Frame, Sent),
    /// The client wants none.
    Nothing,
    /// Nothing can be said in a way that the client would understand. The reason is for metrics.
    Close(&'static str),
}

/// What goes with an answer.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Its bytes are counted until they are sent.
    pub(crate) outgoing: Option<Unread>,
    /// What a read leaves behind.
    pub(crate) follows: Option<Box<Follows>>,
}

/// A request that has begun.
pub(crate) enum Begun {
    /// Resolves when the broker has taken it, to what resolves to its answer.
    Append(BoxFuture<'static, BoxFuture<'static, Answer>>),
    /// Begins when what came before is answered.
    Alone(BoxFuture<'static, Answer>),
    /// As that, and waits for what others do, however long they take: given up when the client is gone.
    Held(BoxFuture<'static, Answer>),
}

/// A request's circumstances.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) prefix: Prefix,
    pub(crate) ctx: Context,
    pub(crate) arrived: Instant,
}

impl Call {
    fn new(header: &RequestHeader, peer: SocketAddr) -> Self {
        let name = header.client_id.as_ref().map_or("", |id| id.as_str());
        let name: String = name.chars().take(limits::NAME_MAX_BYTES).collect();
        Self {
            prefix: header.prefix,
            ctx: Context {
                client_id: Arc::from(name),
                peer: Some(peer),
                commits_ahead: true,
                ..Context::anonymous()
            },
            arrived: Instant::now(),
        }
    }

    pub(crate) const fn version(&self) -> i16 {
        self.prefix.api_version
    }

    /// The frame of a response.
    fn answer<B: Broker>(&self, shared: &Shared<B>, response: &Response, sent: Sent) -> Answer {
        let took = self.arrived.elapsed();
        shared
            .metrics
            .answered(response.key(), self.version(), took);
        match encode_response(self.prefix.correlation_id, self.version(), response) {
            Ok(frame) => Answer::Frame(frame, sent),
            Err(error) => {
                tracing::error!(%error, "cannot encode a Kafka response; closing the connection");
                Answer::Close("response")
            }
        }
    }
}

/// Begins what a frame asks for.
pub(crate) fn begin<B: Broker + ClassicGroups + Operations>(
    shared: &Arc<Shared<B>>,
    peer: SocketAddr,
    frame: Bytes,
    following: &mut Following,
) -> Begun {
    let (header, request) = match decode_request(frame) {
        Ok(decoded) => decoded,
        Err(error) => return now(undecodable(shared, peer, &error)),
    };
    let (key, version) = (request.key(), header.prefix.api_version);
    let call = Call::new(&header, peer);
    if !bulk::is_bounded(&request) {
        if shared.log_limit.allows() {
            tracing::info!(
                %peer, api = key.name(),
                "a Kafka request names more items than allowed; closing its connection"
            );
        }
        return now(Answer::Close("too_much"));
    }
    if !versions::serves(key, version) {
        return now(not_served(shared, &call, &request));
    }
    let shared = Arc::clone(shared);
    match request {
        Request::Produce(request) => Begun::Append(Box::pin(produce::begin(shared, call, request))),
        request => {
            let held = matches!(
                request,
                Request::JoinGroup(_) | Request::SyncGroup(_) | Request::Fetch(_)
            );
            let turn = match &request {
                Request::Fetch(_) => following.asked(),
                _ => Turn::default(),
            };
            let answer = Box::pin(async move {
                let (response, sent) = respond(&shared, &call, request, turn).await;
                match response {
                    Some(response) => call.answer(&shared, &response, sent),
                    None => Answer::Close("not_served"),
                }
            });
            match held {
                true => Begun::Held(answer),
                false => Begun::Alone(answer),
            }
        }
    }
}

fn now(answer: Answer) -> Begun {
    Begun::Alone(Box::pin(std::future::ready(answer)))
}

/// The answer to bytes that are no request of ours.
fn undecodable<B: Broker>(shared: &Shared<B>, peer: SocketAddr, error: &RequestError) -> Answer {
    let reason = match error {
        RequestError::UnsupportedVersion(prefix, ApiKey::ApiVersions) => {
            // In version 0, which every client reads, with the versions that there are.
            let response = versions::announced(0, ErrorCode::UnsupportedVersion.code());
            let response = Response::ApiVersions(response);
            return match encode_response(prefix.correlation_id, 0, &response) {
                Ok(frame) => Answer::Frame(frame, Sent::default()),
                Err(_) => Answer::Close("response"),
            };
        }
        RequestError::NoPrefix(_) | RequestError::Malformed(..) => "malformed",
        RequestError::UnknownApi(_) | RequestError::UnsupportedVersion(..) => "not_served",
    };
    if shared.log_limit.allows() {
        tracing::info!(%peer, why = %error, "cannot decode a Kafka request; closing its connection");
    }
    Answer::Close(reason)
}

/// The answer to a request that can be read and that is not announced.
fn not_served<B: Broker>(shared: &Shared<B>, call: &Call, request: &Request) -> Answer {
    let key = request.key();
    if shared.log_limit.allows() {
        let (api, version) = (key.name(), call.version());
        tracing::info!(
            peer = ?call.ctx.peer, api, version,
            "a Kafka request has a version that the node does not announce"
        );
    }
    match refuse(request, ErrorCode::UnsupportedVersion) {
        Some(response) => call.answer(shared, &response, Sent::default()),
        None => Answer::Close("not_served"),
    }
}

/// One line for each API. Boxed: the futures of all of them together would be large.
async fn respond<B: Broker + ClassicGroups + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: Request,
    turn: Turn,
) -> (Option<Response>, Sent) {
    let response = match request {
        Request::ApiVersions(request) => {
            Response::ApiVersions(cluster::api_versions(shared, call, &request))
        }
        Request::Metadata(request) => {
            Response::Metadata(Box::pin(cluster::metadata(shared, call, request)).await)
        }
        Request::DescribeCluster(request) => {
            Response::DescribeCluster(cluster::describe_cluster(shared, &request))
        }
        Request::DescribeTopicPartitions(request) => Response::DescribeTopicPartitions(
            cluster::describe_topic_partitions(shared, call, &request),
        ),
        Request::CreateTopics(request) => {
            Response::CreateTopics(Box::pin(topics::create(shared, call, request)).await)
        }
        Request::DeleteTopics(request) => {
            Response::DeleteTopics(Box::pin(topics::delete(shared, call, request)).await)
        }
        Request::CreatePartitions(request) => Response::CreatePartitions(
            Box::pin(topics::create_partitions(shared, call, request)).await,
        ),
        Request::DeleteRecords(request) => {
            Response::DeleteRecords(Box::pin(topics::delete_records(shared, call, request)).await)
        }
        Request::ElectLeaders(request) => {
            Response::ElectLeaders(Box::pin(elections::elect_leaders(shared, call, request)).await)
        }
        Request::DescribeLogDirs(request) => Response::DescribeLogDirs(
            Box::pin(replicas::describe_log_dirs(shared, call, request)).await,
        ),
        Request::AlterPartitionReassignments(request) => Response::AlterPartitionReassignments(
            Box::pin(replicas::alter_reassignments(shared, call, request)).await,
        ),
        Request::ListPartitionReassignments(request) => Response::ListPartitionReassignments(
            replicas::list_reassignments(shared, call, &request),
        ),
        Request::DescribeProducers(request) => {
            Response::DescribeProducers(Box::pin(producers::describe(shared, call, request)).await)
        }
        Request::GetTelemetrySubscriptions(request) => {
            Response::GetTelemetrySubscriptions(telemetry::subscriptions(&request))
        }
        Request::PushTelemetry(request) => Response::PushTelemetry(telemetry::push(&request)),
        Request::DescribeAcls(_) => Response::DescribeAcls(asked::acls()),
        Request::DescribeClientQuotas(_) => Response::DescribeClientQuotas(asked::quotas()),
        Request::DescribeUserScramCredentials(request) => {
            Response::DescribeUserScramCredentials(asked::credentials(request))
        }
        Request::ListConfigResources(request) => {
            Response::ListConfigResources(asked::resources(shared, call, &request))
        }
        Request::DescribeQuorum(request) => {
            Response::DescribeQuorum(asked::quorum(shared, call, &request))
        }
        Request::UpdateFeatures(request) => {
            Response::UpdateFeatures(asked::features(call, request))
        }
        Request::DescribeConfigs(request) => {
            Response::DescribeConfigs(configs::describe(shared, call, &request))
        }
        Request::AlterConfigs(request) => {
            Response::AlterConfigs(Box::pin(configs::alter(shared, call, request)).await)
        }
        Request::IncrementalAlterConfigs(request) => Response::IncrementalAlterConfigs(
            Box::pin(configs::alter_incrementally(shared, call, request)).await,
        ),
        Request::InitProducerId(request) => Response::InitProducerId(
            Box::pin(produce::init_producer_id(shared, call, request)).await,
        ),
        Request::ListOffsets(request) => {
            Response::ListOffsets(Box::pin(offsets::list(shared, call, request)).await)
        }
        Request::OffsetForLeaderEpoch(request) => Response::OffsetForLeaderEpoch(
            Box::pin(offsets::for_leader_epoch(shared, call, request)).await,
        ),
        Request::FindCoordinator(request) => Response::FindCoordinator(
            Box::pin(groups::find_coordinator(shared, call, request)).await,
        ),
        Request::ListGroups(request) => {
            Response::ListGroups(Box::pin(groups::list(shared, call, request)).await)
        }
        Request::DescribeGroups(request) => Response::DescribeGroups(
            Box::pin(groups::describe_classic(shared, call, request)).await,
        ),
        Request::ConsumerGroupDescribe(request) => Response::ConsumerGroupDescribe(
            Box::pin(groups::describe_consumer(shared, call, request)).await,
        ),
        Request::DeleteGroups(request) => {
            Response::DeleteGroups(Box::pin(groups::delete(shared, call, request)).await)
        }
        Request::ConsumerGroupHeartbeat(request) => Response::ConsumerGroupHeartbeat(
            Box::pin(groups::heartbeat(shared, call, request)).await,
        ),
        Request::OffsetCommit(request) => {
            Response::OffsetCommit(Box::pin(commits::commit_offsets(shared, call, request)).await)
        }
        Request::OffsetFetch(request) => {
            Response::OffsetFetch(Box::pin(commits::fetch(shared, call, request)).await)
        }
        Request::OffsetDelete(request) => {
            Response::OffsetDelete(Box::pin(commits::delete(shared, call, request)).await)
        }
        Request::TxnOffsetCommit(request) => Response::TxnOffsetCommit(
            Box::pin(commits::commit_in_transaction(shared, call, request)).await,
        ),
        Request::ListTransactions(request) => {
            Response::ListTransactions(Box::pin(transactions::list(shared, call, request)).await)
        }
        Request::DescribeTransactions(request) => Response::DescribeTransactions(
            Box::pin(transactions::describe(shared, call, request)).await,
        ),
        Request::AddPartitionsToTxn(request) => Response::AddPartitionsToTxn(
            Box::pin(transactions::add_partitions(shared, call, request)).await,
        ),
        Request::AddOffsetsToTxn(request) => Response::AddOffsetsToTxn(
            Box::pin(transactions::add_offsets(shared, call, request)).await,
        ),
        Request::EndTxn(request) => {
            Response::EndTxn(Box::pin(transactions::end(shared, call, request)).await)
        }
        Request::Fetch(request) => {
            let (response, sent) = Box::pin(fetch::fetch(shared, call, request, turn)).await;
            return (Some(Response::Fetch(response)), sent);
        }
        Request::JoinGroup(request) => {
            Response::JoinGroup(Box::pin(classic::join(shared, call, request)).await)
        }
        Request::SyncGroup(request) => {
            Response::SyncGroup(Box::pin(classic::sync(shared, call, request)).await)
        }
        Request::Heartbeat(request) => {
            Response::Heartbeat(Box::pin(classic::heartbeat(shared, call, &request)).await)
        }
        Request::LeaveGroup(request) => {
            Response::LeaveGroup(Box::pin(classic::leave(shared, call, &request)).await)
        }
        _ => return (None, Sent::default()),
    };
    (Some(response), Sent::default())
}
