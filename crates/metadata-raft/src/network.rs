//! How members reach each other: a trait for whatever carries bytes, and openraft's network on it.
//!
//! Invariants: every call has a deadline here, whatever the transport does; an error that may have reached the
//! other side is never taken for one that did not; a message names the member it is for, so an answer never
//! comes from another one; one that is for a known node is heard by no other.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::RwLock;
use varve_types::{ClusterId, NodeId};

use crate::entry;
use crate::message::{
    APPEND_MAX_BYTES, Appended, CHUNK_MAX_BYTES, Header, Hello, Refusal, Request, Response,
    decode_response, encode_request,
};
use crate::types::{Entry, Member, RaftId, Snapshot, TypeConfig, Vote};

/// How long a member may take over a piece of a snapshot: it writes the whole to its disk at the last one.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request certainly did not arrive.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The request may have arrived.
    #[error("did not answer: {0}")]
    Failed(String),
}

/// An answer, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub bytes: Bytes,
    /// Random number of the process that gave it; `None`: it did not say.
    pub process: Option<u128>,
}

/// The answer to a call, later.
pub type Call = Pin<Box<dyn Future<Output = Result<Answered, TransportError>> + Send>>;

/// Carries requests to other nodes. Whoever answers does so with [`crate::MetadataRaft::serve`].
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to `host:port` and resolves with the answer. `node`: which node is meant, where that is
    /// known: no other one is to hear the request.
    fn call(&self, node: Option<NodeId>, to: &str, request: Bytes) -> Call;

    /// Random number of this process.
    fn process(&self) -> u128;
}

/// Whom a question is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom<'a> {
    /// The member; 0: anybody.
    id: RaftId,
    /// The node, where it is known.
    node: Option<NodeId>,
    /// Where it is.
    address: &'a str,
}

impl<'a> Whom<'a> {
    /// Whoever is at an address.
    pub(crate) const fn at(address: &'a str) -> Self {
        Self {
            id: 0,
            node: None,
            address,
        }
    }

    /// One member.
    pub(crate) fn member(id: RaftId, member: &'a Member) -> Self {
        Self {
            id,
            node: Some(member.node),
            address: &member.address,
        }
    }
}

/// What this node says about itself in every message.
pub(crate) struct Speaker {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) node: NodeId,
    pub(crate) id: RaftId,
    pub(crate) cluster: RwLock<Option<ClusterId>>,
    /// Where members are now: openraft keeps the address that a member had when it was connected to.
    pub(crate) addresses: RwLock<BTreeMap<RaftId, String>>,
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Speaker({})", self.node)
    }
}

impl Speaker {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.read()
    }

    /// Notes where a member is.
    pub(crate) fn note_address(&self, id: RaftId, address: &str) {
        let known = self.addresses.read().get(&id).is_some_and(|a| a == address);
        if !known {
            self.addresses.write().insert(id, address.to_owned());
        }
    }

    fn address(&self, id: RaftId) -> Option<String> {
        self.addresses.read().get(&id).cloned()
    }

    pub(crate) fn header(&self, to: RaftId) -> Header {
        Header {
            cluster: self.cluster(),
            node: self.node,
            from: self.id,
            to,
        }
    }

    /// Asks a member, or whoever is at an address.
    pub(crate) async fn ask(
        &self,
        whom: Whom<'_>,
        request: &Request,
        within: Duration,
    ) -> Result<Response, TransportError> {
        let answered = self.ask_process(whom, request, within).await;
        answered.map(|(response, _)| response)
    }

    /// Asks who is at an address. The number is that of the process there, if it says so.
    pub(crate) async fn hello(
        &self,
        address: &str,
        within: Duration,
    ) -> Result<(Hello, Option<u128>), String> {
        let asked = self.ask_process(Whom::at(address), &Request::Hello, within);
        match asked.await {
            Ok((Response::Hello(hello), process)) => Ok((*hello, process)),
            Ok((Response::Refused(_, why), _)) => Err(why),
            Ok(_) => Err("internal error: it answered another question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn ask_process(
        &self,
        whom: Whom<'_>,
        request: &Request,
        within: Duration,
    ) -> Result<(Response, Option<u128>), TransportError> {
        let Whom { id, node, address } = whom;
        let bytes = encode_request(&self.header(id), request);
        let call = self.transport.call(node, address, bytes);
        let answer = match tokio::time::timeout(within, call).await {
            Ok(answer) => answer?,
            Err(_) => {
                let why = format!("no answer within {} ms", within.as_millis());
                return Err(TransportError::Failed(why));
            }
        };
        let failed = |why: String| TransportError::Failed(why);
        let (header, response) =
            decode_response(&answer.bytes).map_err(|e| failed(e.to_string()))?;
        if id != 0 && header.from != id {
            return Err(failed(format!("another member answered at {address}")));
        }
        Ok((response, answer.process))
    }
}

/// Makes connections for openraft.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) patience: Duration,
}

/// One member, as openraft reaches it.
#[derive(Debug)]
pub(crate) struct Peer {
    speaker: Arc<Speaker>,
    id: RaftId,
    node: NodeId,
    address: String,
    patience: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: RaftId, member: &Member) -> Peer {
        Peer {
            speaker: self.speaker.clone(),
            id: target,
            node: member.node,
            address: member.address.clone(),
            patience: self.patience,
        }
    }
}

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

impl Peer {
    async fn ask(&self, request: &Request, within: Duration) -> RpcResult<Response> {
        let noted = self.speaker.address(self.id);
        let address = noted.as_ref().unwrap_or(&self.address);
        let whom = Whom {
            id: self.id,
            node: Some(self.node),
            address,
        };
        let asked = self.speaker.ask(whom, request, within);
        match asked.await {
            Ok(Response::Refused(refusal, why)) => Err(refused(refusal, &why)),
            Ok(response) => Ok(response),
            Err(TransportError::Unreachable(why)) => Err(unreachable_node(why)),
            Err(TransportError::Failed(why)) => {
                Err(RPCError::Network(NetworkError::from_string(why)))
            }
        }
    }
}

fn unreachable_node(why: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn refused(refusal: Refusal, why: &str) -> RPCError<TypeConfig> {
    unreachable_node(format!("{refusal:?}: {why}"))
}

fn unexpected() -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(
        "the answer belongs to another question",
    ))
}

/// How many of the entries go into one message.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    for (count, entry) in entries.iter().enumerate() {
        bytes += 4 + entry::encode(entry).len();
        if bytes > APPEND_MAX_BYTES && count > 0 {
            return count;
        }
    }
    entries.len()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let all = rpc.entries.len();
        rpc.entries.truncate(fitting(&rpc.entries));
        let cut = rpc.entries.len() < all;
        let last = rpc.entries.last().map(|e| e.log_id).or(rpc.prev_log_id);
        let request = Request::Append {
            vote: rpc.vote,
            previous: rpc.prev_log_id,
            entries: rpc.entries,
            committed: rpc.leader_commit,
        };
        match self.ask(&request, self.patience).await? {
            Response::Append(Appended::All) if cut => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            Response::Append(Appended::All) => Ok(AppendEntriesResponse::Success),
            Response::Append(Appended::UpTo(id)) => Ok(AppendEntriesResponse::PartialSuccess(id)),
            Response::Append(Appended::Conflict) => Ok(AppendEntriesResponse::Conflict),
            Response::Append(Appended::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, &snapshot) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let request = Request::Transfer {
            vote: *rpc.from_leader(),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().copied(),
        };
        match self.ask(&request, self.patience).await? {
            Response::Transferring => Ok(Ok(())),
            _ => Err(unexpected()),
        }
    }
}

impl Peer {
    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        pre: bool,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        let request = Request::Vote {
            pre,
            vote: rpc.vote,
            last: rpc.last_log_id,
            transfer: rpc.leadership_transfer,
        };
        match self.ask(&request, self.patience).await? {
            Response::Vote {
                vote,
                granted,
                last,
            } => Ok(VoteResponse::new(vote, last, granted)),
            _ => Err(unexpected()),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: &Snapshot,
    ) -> RpcResult<SnapshotResponse<TypeConfig>> {
        let state = &snapshot.snapshot;
        let mut at = 0;
        loop {
            let end = state.len().min(at + CHUNK_MAX_BYTES);
            let request = Request::Snapshot {
                vote,
                meta: snapshot.meta.clone(),
                total: state.len() as u64,
                at: at as u64,
                piece: state.slice(at..end),
            };
            let Response::Snapshot(theirs) = self.ask(&request, SNAPSHOT_PATIENCE).await? else {
                return Err(unexpected());
            };
            if end == state.len() || theirs > vote {
                return Ok(SnapshotResponse::new(theirs));
            }
            at = end;
        }
    }
}
