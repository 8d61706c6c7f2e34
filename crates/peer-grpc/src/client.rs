//! The calling side: a connection to each peer for bulk data, one for what must not wait behind it, and one for
//! calls of clients, made when first used and made again by the next call once lost.
//!
//! Invariants: windows are fixed and never adaptive (many small unread frames would end the connection);
//! what waits for a leader goes out in one message; a connection on which nothing comes back is given up
//! after the keepalive, whether or not anything is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use varve_broker::peer::{
    Incoming, MarkerOrder, MarkerOutcome, Outgoing, PeerError, Peers, Registration, ToLeader,
};
use varve_broker_api::Error;
use varve_metadata::log::Later;
use varve_metadata::{Heartbeat, Output};
use varve_proto::peer::v1 as pb;
use varve_proto::peer::v1::raft_service_client::RaftServiceClient;
use varve_proto::peer::v1::replica_service_client::ReplicaServiceClient;
use varve_proto::peer::v1::transaction_service_client::TransactionServiceClient;
use varve_tls::{ClientTls, Connector, Explained, Network, Tcp, names};
use varve_types::{NodeId, limits};

use crate::identity::{Identity, signed};
use crate::outcome::{CallError, CallErrorKind, kind, sentence};
use crate::{convert, transaction};

/// Room for what surrounds a payload in a message.
const ENVELOPE_BYTES: usize = 1024;
/// Connections kept; more addresses than a cluster has nodes are leftovers.
const CHANNELS_MAX: usize = 2 * limits::NODES_MAX;

/// How to call other nodes.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Longest time until a leader takes a replication stream.
    pub open_timeout: Duration,
    /// Longest time for a heartbeat.
    pub heartbeat_timeout: Duration,
    /// Longest time for a registration in a transaction, and for its markers to be written.
    pub transaction_timeout: Duration,
    /// Time without a word after which a connection is tried.
    pub keepalive_interval: Duration,
    /// Time the other side has to show that it is there.
    pub keepalive_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(5),
            heartbeat_timeout: Duration::from_secs(1),
            transaction_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
        }
    }
}

/// The answer to a message of the consensus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The answer.
    pub payload: Bytes,
    /// Random number of the process that gave it, if it says so.
    pub process: Option<u128>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Consensus, heartbeats and transactions: small, and somebody waits.
    Control,
    /// Records.
    Bulk,
    /// Calls of clients.
    Calls,
}

/// What belongs to one connection.
type Key = (Lane, String, Option<NodeId>);

/// Calls other nodes. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct PeerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    options: ClientOptions,
    tls: Option<Arc<ClientTls>>,
    network: Arc<dyn Network>,
    /// By TLS the name that is expected belongs to a connection, so the node is part of its key.
    channels: std::sync::Mutex<BTreeMap<Key, Explained<Channel>>>,
}

impl PeerClient {
    /// Prepares; connects to nobody yet. Belongs into a tokio runtime. Without TLS.
    #[must_use]
    pub fn new(identity: Identity, options: ClientOptions) -> Self {
        Self::over(identity, options, None, Arc::new(Tcp))
    }

    /// As [`Self::new`], by TLS: the certificate of whoever answers must name the node that is meant, and
    /// `tls` must hold a certificate of this node to show.
    #[must_use]
    pub fn with_tls(identity: Identity, options: ClientOptions, tls: Arc<ClientTls>) -> Self {
        Self::over(identity, options, Some(tls), Arc::new(Tcp))
    }

    /// As [`Self::with_tls`] or [`Self::new`], over that network.
    #[must_use]
    pub fn over(
        identity: Identity,
        options: ClientOptions,
        tls: Option<Arc<ClientTls>>,
        network: Arc<dyn Network>,
    ) -> Self {
        let inner = Inner {
            identity,
            options,
            tls,
            network,
            channels: std::sync::Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends a message of the metadata consensus and waits for the answer. `to`: which node is meant, when
    /// that is known; `address` is `host:port` of its peer listener.
    ///
    /// # Errors
    /// [`CallError`]; unless it was refused, the node may have heard the message.
    pub fn raft_call<'a>(
        &'a self,
        to: Option<NodeId>,
        address: &'a str,
        request: Bytes,
        timeout: Duration,
    ) -> Later<'a, Result<Called, CallError>> {
        Box::pin(self.call_raft(to, address, request, timeout))
    }

    /// This client as the broker uses it, compiled in this crate.
    #[must_use]
    pub fn peers(&self) -> Arc<dyn Peers> {
        Arc::new(self.clone())
    }

    async fn call_raft(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Called, CallError> {
        let failed = |kind, why| CallError {
            address: address.to_owned(),
            kind,
            why,
        };
        if request.len() > limits::PEER_RAFT_MAX_BYTES {
            let (found, most) = (request.len(), limits::PEER_RAFT_MAX_BYTES);
            let why = format!(
                "a message of {found} bytes was not sent: a consensus message may have at most \
                 {most}"
            );
            return Err(failed(CallErrorKind::Refused, why));
        }
        let channel = self
            .inner
            .channel(Lane::Control, address, to)
            .map_err(|why| failed(CallErrorKind::Refused, why))?;
        let mut client = RaftServiceClient::new(channel)
            .max_encoding_message_size(limits::PEER_RAFT_MAX_BYTES + ENVELOPE_BYTES)
            .max_decoding_message_size(limits::PEER_RAFT_MAX_BYTES + ENVELOPE_BYTES);
        let request = self
            .inner
            .request(pb::CallRequest { payload: request }, to, timeout);
        match tokio::time::timeout(timeout, client.call(request)).await {
            Ok(Ok(response)) => Ok(Called {
                process: signed(response.metadata()),
                payload: response.into_inner().payload,
            }),
            Ok(Err(status)) if kind(&status) != CallErrorKind::TimedOut => {
                Err(failed(kind(&status), sentence(&status)))
            }
            Ok(Err(_)) | Err(_) => Err(failed(CallErrorKind::TimedOut, late(timeout))),
        }
    }
}

/// Says in every call of a client that is passed on who passes it on, and to whom.
#[derive(Debug, Clone)]
pub struct Stamp {
    identity: Identity,
    to: NodeId,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
        self.identity.stamp(request.metadata_mut(), Some(self.to));
        Ok(request)
    }
}

/// A connection for calls of clients that another node answers.
pub type Calls = InterceptedService<Explained<Channel>, Stamp>;

impl PeerClient {
    /// The connection to node `to` for calls of clients; opened when first used. `address` is `host:port` of
    /// its peer listener.
    ///
    /// # Errors
    /// When `address` is not legal.
    pub fn calls(&self, to: NodeId, address: &str) -> Result<Calls, String> {
        let channel = self.inner.channel(Lane::Calls, address, Some(to))?;
        let identity = self.inner.identity.clone();
        Ok(InterceptedService::new(channel, Stamp { identity, to }))
    }
}

impl Peers for PeerClient {
    fn replicate(
        &self,
        to: NodeId,
        address: String,
        outgoing: Outgoing,
        incoming: Incoming,
    ) -> Later<'static, Result<(), PeerError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let replicated = inner.replicate(to, &address, outgoing, incoming).await;
            replicated.map_err(|why| PeerError {
                node: to,
                address,
                why,
            })
        })
    }

    fn heartbeat(
        &self,
        to: NodeId,
        address: String,
        beat: Heartbeat,
    ) -> Later<'static, Result<Output, PeerError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let heard = inner.heartbeat(to, &address, beat).await;
            heard.map_err(|why| PeerError {
                node: to,
                address,
                why,
            })
        })
    }

    fn register(
        &self,
        to: NodeId,
        address: String,
        registration: Registration,
    ) -> Later<'static, Result<Result<(), Error>, PeerError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let answer = inner.register(to, &address, registration).await;
            answer.map_err(|why| PeerError {
                node: to,
                address,
                why,
            })
        })
    }

    fn write_markers(
        &self,
        to: NodeId,
        address: String,
        order: MarkerOrder,
    ) -> Later<'static, Result<Vec<MarkerOutcome>, PeerError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let outcomes = inner.write_markers(to, &address, order).await;
            outcomes.map_err(|why| PeerError {
                node: to,
                address,
                why,
            })
        })
    }
}

impl Inner {
    /// The connection to `address` for that purpose.
    fn channel(
        &self,
        lane: Lane,
        address: &str,
        to: Option<NodeId>,
    ) -> Result<Explained<Channel>, String> {
        let mut channels = self
            .channels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (lane, address.to_owned(), to);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            // Those in use live on with whoever uses them.
            channels.clear();
        }
        let connector =
            Connector::new(self.tls.clone(), Some(names::of(to))).over(Arc::clone(&self.network));
        let fault = connector.fault();
        let channel = endpoint(address, &self.options)?.connect_with_connector_lazy(connector);
        let channel = Explained::new(channel, fault);
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    fn request<T>(&self, message: T, to: Option<NodeId>, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        self.identity.stamp(request.metadata_mut(), to);
        request.set_timeout(timeout);
        request
    }

    async fn heartbeat(
        &self,
        to: NodeId,
        address: &str,
        beat: Heartbeat,
    ) -> Result<Output, String> {
        let timeout = self.options.heartbeat_timeout;
        let mut client =
            ReplicaServiceClient::new(self.channel(Lane::Control, address, Some(to))?);
        let request = self.request(convert::to_heartbeat_request(&beat), Some(to), timeout);
        let answer = tokio::time::timeout(timeout, client.heartbeat(request)).await;
        let answer = answer.map_err(|_| late(timeout))?;
        let answer = answer.map_err(|status| sentence(&status))?;
        convert::heartbeat_response(beat.node, answer.into_inner()).map_err(not_legal)
    }

    /// What transactions are spoken about on: small messages, and a producer waits.
    fn transactions(
        &self,
        to: NodeId,
        address: &str,
    ) -> Result<TransactionServiceClient<Explained<Channel>>, String> {
        let channel = self.channel(Lane::Control, address, Some(to))?;
        Ok(TransactionServiceClient::new(channel)
            .max_encoding_message_size(limits::PEER_RAFT_MAX_BYTES)
            .max_decoding_message_size(limits::PEER_RAFT_MAX_BYTES))
    }

    async fn register(
        &self,
        to: NodeId,
        address: &str,
        registration: Registration,
    ) -> Result<Result<(), Error>, String> {
        let timeout = self.options.transaction_timeout;
        let mut client = self.transactions(to, address)?;
        let request = self.request(
            transaction::to_register_request(&registration),
            Some(to),
            timeout,
        );
        let answer = tokio::time::timeout(timeout, client.register(request)).await;
        let answer = answer.map_err(|_| late(timeout))?;
        let answer = answer.map_err(|status| sentence(&status))?;
        transaction::register_response(answer.into_inner()).map_err(not_legal)
    }

    async fn write_markers(
        &self,
        to: NodeId,
        address: &str,
        order: MarkerOrder,
    ) -> Result<Vec<MarkerOutcome>, String> {
        let timeout = self.options.transaction_timeout;
        let mut client = self.transactions(to, address)?;
        let asked = order.partitions.len();
        let request = self.request(
            transaction::to_write_markers_request(&order),
            Some(to),
            timeout,
        );
        let answer = tokio::time::timeout(timeout, client.write_markers(request)).await;
        let answer = answer.map_err(|_| late(timeout))?;
        let answer = answer.map_err(|status| sentence(&status))?;
        transaction::write_markers_response(asked, &answer.into_inner()).map_err(not_legal)
    }

    async fn replicate(
        &self,
        to: NodeId,
        address: &str,
        outgoing: Outgoing,
        incoming: Incoming,
    ) -> Result<(), String> {
        let mut client = ReplicaServiceClient::new(self.channel(Lane::Bulk, address, Some(to))?)
            .max_encoding_message_size(limits::PEER_REQUEST_MAX_BYTES)
            .max_decoding_message_size(limits::PEER_RESPONSE_MAX_BYTES);
        let (closed, dropped) = (CancellationToken::new(), CancellationToken::new());
        // The transport goes on sending when nobody waits for answers any more, and the leader would never
        // know: what is said ends with the one who listens.
        let _end = dropped.clone().drop_guard();
        let mut request = Request::new(said(outgoing, closed.clone(), dropped));
        self.identity.stamp(request.metadata_mut(), Some(to));
        let open_timeout = self.options.open_timeout;
        let exchange = async move {
            let opened = tokio::time::timeout(open_timeout, client.replicate(request)).await;
            let opened = opened.map_err(|_| late(open_timeout))?;
            let mut answers = opened.map_err(|status| sentence(&status))?.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(message)) => {
                        incoming(convert::replicate_response(message).map_err(not_legal)?);
                    }
                    Ok(None) => return Err("the node has closed the stream".to_owned()),
                    Err(status) => return Err(sentence(&status)),
                }
            }
        };
        tokio::select! {
            () = closed.cancelled() => Ok(()),
            // The leader ends its half after ours, which is no fault then.
            ended = exchange => if closed.is_cancelled() { Ok(()) } else { ended },
        }
    }
}

/// What a follower says, as many messages in one as wait when the connection has room. Cancels `closed`
/// when there will be no more; ends when `dropped` is.
fn said(
    outgoing: UnboundedReceiver<ToLeader>,
    closed: CancellationToken,
    dropped: CancellationToken,
) -> impl Stream<Item = pb::ReplicateRequest> + Send + 'static {
    futures_util::stream::unfold(
        (outgoing, closed, dropped, Vec::new()),
        |(mut outgoing, closed, dropped, mut waiting)| async move {
            let count = tokio::select! {
                biased;
                () = dropped.cancelled() => return None,
                count = outgoing.recv_many(&mut waiting, limits::PEER_MESSAGES_MAX) => count,
            };
            if count == 0 {
                closed.cancel();
                return None;
            }
            let message = convert::to_replicate_request(&waiting);
            waiting.clear();
            Some((message, (outgoing, closed, dropped, waiting)))
        },
    )
}

fn late(timeout: Duration) -> String {
    format!("no answer within {timeout:?}; the node may have received the message")
}

fn not_legal(invalid: convert::Invalid) -> String {
    format!("the answer is not valid and was ignored: {invalid}")
}

fn endpoint(address: &str, options: &ClientOptions) -> Result<Endpoint, String> {
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !has_port {
        return Err(format!("{address:?} is not an address: expected host:port"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not an address: {error}"))?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HTTP2_READ_FRAME_BYTES)
        .http2_adaptive_window(false)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let options = ClientOptions::default();
        for good in ["node-1:8279", "10.0.0.1:1", "[::1]:8279"] {
            assert!(endpoint(good, &options).is_ok(), "{good}");
        }
        for bad in ["", "node", "node:", ":1", "a b:1", "node:0", "node:70000"] {
            assert!(endpoint(bad, &options).is_err(), "{bad}");
        }
    }
}
