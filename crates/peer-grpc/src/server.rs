//! The called side: takes streams of followers, heartbeats, messages of the consensus and of transactions, and
//! ends when it is told to, whatever the callers do.
//!
//! Invariants: a caller is checked before its message is looked at; records are asked of the service only
//! when the stream has room for more, so each stream holds the answers of one read and no more; when either
//! half of a stream ends the other one ends too, and both are dropped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use varve_broker::peer::{Answer, Answers, PeerService, Tell};
use varve_metadata::log::Later;
use varve_proto::peer::v1 as pb;
use varve_proto::peer::v1::raft_service_server::{RaftService, RaftServiceServer};
use varve_proto::peer::v1::replica_service_server::{ReplicaService, ReplicaServiceServer};
use varve_proto::peer::v1::transaction_service_server::{
    TransactionService, TransactionServiceServer,
};
use varve_tls::{Caller, Listener, ServerTls};
use varve_types::{NodeId, limits};

use crate::identity::{Identity, Membership};
use crate::incoming::incoming;
use crate::passed_on::{self, CallsHandle, Consumers, Groups, PassedOn, Producers, Topics};
use crate::{convert, transaction};

/// Largest heartbeat; the limit of small messages.
const ENVELOPE_BYTES: usize = 1024;
/// Largest list of request headers, in bytes.
const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Most answers in one message: refusals have no bytes that would bound them.
const ANSWERS_MAX: usize = limits::PEER_MESSAGES_MAX;

/// How a node serves its peers.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Time without a word after which a connection is tried.
    pub keepalive_interval: Duration,
    /// Time the other side has to show that it is there.
    pub keepalive_timeout: Duration,
    /// Most open connections.
    pub connections_max: usize,
    /// Time that calls under way have once the server is told to end.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
            connections_max: limits::PEER_CONNECTIONS_MAX,
            grace: Duration::from_secs(1),
        }
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the peer listener failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Whoever takes part in the consensus on metadata.
pub trait RaftHandler: Send + Sync + 'static {
    /// Answers a message of node `from`. The answer has at most [`limits::PEER_RAFT_MAX_BYTES`].
    fn call(&self, from: NodeId, request: Bytes) -> Later<'static, Bytes>;
}

/// Serves the peers of a node.
pub struct PeerServer {
    identity: Identity,
    service: Arc<dyn PeerService>,
    raft: Arc<dyn RaftHandler>,
    options: ServerOptions,
    tls: Option<Arc<ServerTls>>,
    calls: CallsHandle,
}

impl std::fmt::Debug for PeerServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerServer")
            .field("identity", &self.identity)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl PeerServer {
    /// A server of `service` and `raft` for the peers of the node that `identity` names.
    #[must_use]
    pub fn new(
        identity: Identity,
        service: Arc<dyn PeerService>,
        raft: Arc<dyn RaftHandler>,
        options: ServerOptions,
    ) -> Self {
        Self {
            identity,
            service,
            raft,
            options,
            tls: None,
            calls: CallsHandle::default(),
        }
    }

    /// Serves calls of clients that other nodes pass on with what is found there.
    #[must_use]
    pub fn with_calls(mut self, calls: CallsHandle) -> Self {
        self.calls = calls;
        self
    }

    /// Serves by that TLS only. It must ask callers for certificates: a call counts only when the
    /// certificate is that of the node that it says it is from.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ServerTls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// As [`Self::serve`], compiled here for every node.
    pub fn run(
        self,
        listener: Listener,
        shutdown: CancellationToken,
    ) -> Later<'static, Result<(), ServeError>> {
        Box::pin(self.serve(listener, shutdown))
    }

    /// Serves until `shutdown` is cancelled: streams end at once, calls within the grace.
    ///
    /// # Errors
    /// [`ServeError`]. A peer's fault never ends the server.
    pub async fn serve(
        self,
        listener: impl Into<Listener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let grace = self.options.grace;
        let kill = CancellationToken::new();
        let connections = incoming(
            listener.into(),
            self.options.connections_max,
            self.tls,
            kill.clone(),
        );
        let transactions = Transactions {
            identity: self.identity.clone(),
            service: Arc::clone(&self.service),
        };
        let replica = Replica {
            identity: self.identity.clone(),
            service: self.service,
            shutdown: shutdown.clone(),
        };
        let raft = Raft {
            identity: self.identity.clone(),
            handler: self.raft,
        };
        let (me, calls) = (self.identity, self.calls);
        let small = limits::PEER_RAFT_MAX_BYTES + ENVELOPE_BYTES;
        let serving = transport(&self.options)
            .add_service(
                ReplicaServiceServer::new(replica)
                    .max_decoding_message_size(limits::PEER_REQUEST_MAX_BYTES)
                    .max_encoding_message_size(limits::PEER_RESPONSE_MAX_BYTES),
            )
            .add_service(
                RaftServiceServer::new(raft)
                    .max_decoding_message_size(small)
                    .max_encoding_message_size(small),
            )
            .add_service(
                TransactionServiceServer::new(transactions)
                    .max_decoding_message_size(small)
                    .max_encoding_message_size(small),
            )
            .add_service(PassedOn::<Producers>::new(me.clone(), calls.clone()))
            .add_service(PassedOn::<Consumers>::new(me.clone(), calls.clone()))
            .add_service(PassedOn::<Groups>::new(me.clone(), calls.clone()))
            .add_service(PassedOn::<Topics>::new(me.clone(), calls.clone()))
            .add_service(PassedOn::<passed_on::Clusters>::new(
                me.clone(),
                calls.clone(),
            ))
            .add_service(PassedOn::<passed_on::Transactions>::new(me, calls))
            .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
        let mut serving = Box::pin(serving);
        let over = async {
            shutdown.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = over => {}
        }
        // A graceful end waits for callers without end; from here on they have no say.
        kill.cancel();
        match tokio::time::timeout(grace, serving).await {
            Ok(served) => Ok(served?),
            Err(_) => Ok(()),
        }
    }
}

fn transport(options: &ServerOptions) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_frame_size(limits::HTTP2_FRAME_BYTES)
        .max_concurrent_streams(limits::HTTP2_MAX_STREAMS)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .accept_http1(false)
}

/// Who makes a call, if it may.
fn caller<T>(
    identity: &Identity,
    request: &Request<T>,
    membership: Membership,
) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>();
    identity.check(request.metadata(), caller, membership)
}

struct Raft {
    identity: Identity,
    handler: Arc<dyn RaftHandler>,
}

#[tonic::async_trait]
impl RaftService for Raft {
    async fn call(
        &self,
        request: Request<pb::CallRequest>,
    ) -> Result<Response<pb::CallResponse>, Status> {
        let from = caller(&self.identity, &request, Membership::Joining)?;
        let payload = self.handler.call(from, request.into_inner().payload).await;
        let mut response = Response::new(pb::CallResponse { payload });
        self.identity.sign(response.metadata_mut());
        Ok(response)
    }
}

struct Transactions {
    identity: Identity,
    service: Arc<dyn PeerService>,
}

#[tonic::async_trait]
impl TransactionService for Transactions {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        caller(&self.identity, &request, Membership::Required)?;
        let registration = transaction::register_request(request.into_inner())
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let outcome = self.service.register(registration).await;
        Ok(Response::new(transaction::to_register_response(outcome)))
    }

    async fn write_markers(
        &self,
        request: Request<pb::WriteMarkersRequest>,
    ) -> Result<Response<pb::WriteMarkersResponse>, Status> {
        caller(&self.identity, &request, Membership::Required)?;
        let order = transaction::write_markers_request(request.into_inner())
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let outcomes = self.service.write_markers(order).await;
        let outcomes = transaction::to_write_markers_response(&outcomes);
        Ok(Response::new(outcomes))
    }
}

struct Replica {
    identity: Identity,
    service: Arc<dyn PeerService>,
    shutdown: CancellationToken,
}

type Outbound = Pin<Box<dyn Stream<Item = Result<pb::ReplicateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicaService for Replica {
    type ReplicateStream = Outbound;

    async fn replicate(
        &self,
        request: Request<Streaming<pb::ReplicateRequest>>,
    ) -> Result<Response<Outbound>, Status> {
        let follower = caller(&self.identity, &request, Membership::Required)?;
        let (tell, answers) = self.service.connected(follower);
        let ended = self.shutdown.child_token();
        let fault = Arc::new(OnceLock::new());
        let listening = Listening {
            follower,
            tell,
            fault: Arc::clone(&fault),
            ended: ended.clone(),
        };
        tokio::spawn(listening.run(request.into_inner()));
        let answering = Answering {
            answers,
            due: VecDeque::new(),
            fault,
            ended: ended.clone(),
            _end: ended.drop_guard(),
        };
        let outbound = futures_util::stream::unfold(Some(answering), Answering::step);
        Ok(Response::new(Box::pin(outbound)))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let caller = caller(&self.identity, &request, Membership::Required)?;
        let beat = convert::heartbeat_request(caller, request.get_ref())
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let output = self.service.heartbeat(beat).await;
        Ok(Response::new(convert::to_heartbeat_response(&output)))
    }
}

/// The half of a stream that listens to the follower: a task of its own, so that a follower that is slow to
/// take answers is heard all the same, and small frames never pile up unread.
struct Listening {
    follower: NodeId,
    tell: Tell,
    fault: Arc<OnceLock<Status>>,
    ended: CancellationToken,
}

impl Listening {
    async fn run(mut self, mut requests: Streaming<pb::ReplicateRequest>) {
        let _end = self.ended.clone().drop_guard();
        let follower = self.follower;
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                () = self.ended.cancelled() => return,
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(node_id = follower.0, %status, "a follower has disconnected");
                    return;
                }
            };
            match convert::replicate_request(follower, request) {
                Ok(messages) => (self.tell)(messages),
                Err(invalid) => {
                    tracing::warn!(node_id = follower.0, %invalid, "closing a follower's stream");
                    let fault = Status::invalid_argument(invalid.to_string());
                    // Nobody else sets it.
                    let _ = self.fault.set(fault);
                    return;
                }
            }
        }
    }
}

/// The half of a stream that answers, driven by the connection's room.
struct Answering {
    answers: Box<dyn Answers>,
    /// Answers that were read and not sent yet.
    due: VecDeque<Answer>,
    fault: Arc<OnceLock<Status>>,
    ended: CancellationToken,
    /// Ends the other half with this one.
    _end: DropGuard,
}

impl Answering {
    async fn step(
        state: Option<Self>,
    ) -> Option<(Result<pb::ReplicateResponse, Status>, Option<Self>)> {
        let mut this = state?;
        while this.due.is_empty() {
            let answers = tokio::select! {
                biased;
                () = this.ended.cancelled() => None,
                answers = this.answers.next() => answers,
            };
            match answers {
                Some(answers) => this.due.extend(answers),
                None => {
                    let fault = this.fault.get().cloned();
                    return fault.map(|status| (Err(status), None));
                }
            }
        }
        let message = convert::to_replicate_response(first_of(&mut this.due));
        Some((Ok(message), Some(this)))
    }
}

/// Takes the answers that go into one message: about [`limits::READ_CHUNK_BYTES`] of records, at least one
/// answer.
fn first_of(due: &mut VecDeque<Answer>) -> Vec<Answer> {
    let (mut bytes, mut count) = (0_usize, 0);
    for answer in due.iter().take(ANSWERS_MAX) {
        bytes = bytes.saturating_add(convert::record_bytes(answer));
        if count > 0 && bytes > limits::READ_CHUNK_BYTES {
            break;
        }
        count += 1;
    }
    due.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use varve_broker::peer::Records;
    use varve_metadata::PartitionKey;
    use varve_partition::{FetchId, FetchRefusal};
    use varve_types::{Offset, PartitionId, TopicId};

    use super::*;

    fn answer(result: Result<usize, FetchRefusal>) -> Answer {
        Answer {
            partition: PartitionKey {
                topic: TopicId(1),
                partition: PartitionId(0),
            },
            id: FetchId(1),
            result: result.map(|bytes| Records {
                batches: Bytes::from(vec![0; bytes]),
                high_watermark: Offset::ZERO,
                log_start: Offset::ZERO,
            }),
        }
    }

    fn cut(sizes: &[usize]) -> Vec<usize> {
        let mut due: VecDeque<Answer> = sizes.iter().map(|n| answer(Ok(*n))).collect();
        let mut cuts = Vec::new();
        while !due.is_empty() {
            cuts.push(first_of(&mut due).len());
        }
        cuts
    }

    #[test]
    fn messages_are_cut_at_about_a_mebibyte() {
        const MIB: usize = 1024 * 1024;
        assert_eq!(cut(&[0, 10, 20]), [3]);
        assert_eq!(cut(&[MIB / 2, MIB / 2, 1]), [2, 1]);
        assert_eq!(cut(&[3 * MIB, 1, 1]), [1, 2]);
        assert_eq!(cut(&[1, 3 * MIB, 1]), [1, 1, 1]);
        let mut refused: VecDeque<Answer> =
            vec![answer(Err(FetchRefusal::Stale)); ANSWERS_MAX + 1].into();
        assert_eq!(first_of(&mut refused).len(), ANSWERS_MAX);
        assert_eq!(first_of(&mut refused).len(), 1);
    }
}
