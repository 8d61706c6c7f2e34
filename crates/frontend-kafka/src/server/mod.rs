//! The listener: connections accepted up to a bound, requests read within bounds, answers in order, and an end that
//! does not depend on the clients.
//!
//! A drain runs in this order: the listener closes; connections without a request end at once; requests that have
//! arrived are answered; after the grace whatever is left is cut off.

mod connection;
mod intake;
mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use varve_broker_api::{Boxed, Broker, ClassicGroups, Operations, SharedBroker, UnreadBudget};
use varve_tls::{Accepted, Admission, ConnectionLimits, Listener, ServerTls};
use varve_types::limits;

pub use metrics::{Metrics, OpenGuard};

pub use crate::calls::configs::NodeConfig;
use crate::calls::{self, Answer, Begun};
use crate::following::Following;
use crate::shared::Shared;
use connection::Connection;

/// What the configuration keys of the listener begin with.
const KEYS: &str = "listeners.kafka";
/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Time between the cut and the end of the tasks that were cut.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` that clients are told of this node.
    pub advertised: String,
    /// Longest request in bytes.
    pub request_max_bytes: usize,
    /// Silence after which a connection is closed.
    pub idle_max: Duration,
    /// Longest time from the first byte of a request to its last.
    pub frame_max: Duration,
    /// Most open connections.
    pub connections: ConnectionLimits,
    /// Bytes of appends that are being read or answered, all connections together; more waits. One peer has half.
    pub budget_bytes: usize,
    /// The same of all other requests.
    pub control_budget_bytes: usize,
    /// How long requests that have arrived may take once a drain has begun.
    pub drain_grace: Duration,
    /// Whether asking about a topic that does not exist creates it, where the client allows that.
    pub auto_create: bool,
    /// Partitions of topics that name no number, as clients are told.
    pub num_partitions: i32,
    /// Replicas of topics that name no number, as clients are told; `None`: 3, or as many as there are nodes.
    pub default_replication_factor: Option<i32>,
    /// Whether more replicas than there are nodes become as many as there are nodes.
    pub lower_replication: bool,
    /// The node's budget for what is read and not taken.
    pub unread: Arc<UnreadBudget>,
    /// Configs of the node as clients are told them, by Kafka's names.
    pub node_configs: Vec<NodeConfig>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            advertised: String::new(),
            request_max_bytes: limits::REQUEST_MAX_BYTES,
            idle_max: Duration::from_mins(10),
            frame_max: Duration::from_secs(30),
            connections: ConnectionLimits::default(),
            budget_bytes: 128 * 1024 * 1024,
            control_budget_bytes: 64 * 1024 * 1024,
            drain_grace: Duration::from_secs(10),
            auto_create: false,
            num_partitions: 1,
            default_replication_factor: None,
            lower_replication: false,
            unread: UnreadBudget::new(limits::UNREAD_DEFAULT_MAX_BYTES),
            node_configs: Vec::new(),
        }
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address that clients are told cannot be one.
    #[error("{0:?} cannot be announced to Kafka clients: it is not HOST:PORT")]
    Advertised(String),
}

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This frame is sent, its length included.
    Frame(Bytes),
    /// The client wants no answer.
    Nothing,
    /// The connection ends, for that reason.
    Close(&'static str),
}

/// The Kafka front end of a broker.
#[derive(Debug)]
pub struct Server<B> {
    shared: Arc<Shared<B>>,
    tls: Option<Arc<ServerTls>>,
}

impl Server<SharedBroker> {
    /// As [`Self::serve`], compiled here for every node.
    pub fn run(
        self,
        listener: Listener,
        shutdown: CancellationToken,
    ) -> Boxed<'static, Result<(), ServeError>> {
        Box::pin(self.serve(listener, shutdown))
    }
}

impl<B: Broker + ClassicGroups + Operations> Server<B> {
    /// A server for `broker` that counts in `metrics`.
    ///
    /// # Errors
    /// [`ServeError::Advertised`].
    pub fn new(broker: Arc<B>, metrics: Metrics, options: Options) -> Result<Self, ServeError> {
        let bad = ServeError::Advertised(options.advertised.clone());
        let shared = Shared::new(broker, metrics, options).ok_or(bad)?;
        Ok(Self {
            shared: Arc::new(shared),
            tls: None,
        })
    }

    /// Serves by that TLS only; `None`: without.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ServerTls>>) -> Self {
        self.tls = tls;
        self
    }

    /// What one request becomes by itself, without a connection: for tests of whole requests. Dropping the call is
    /// what the end of the connection is otherwise.
    pub async fn answer(&self, peer: SocketAddr, frame: Bytes) -> Outcome {
        let answer = match calls::begin(&self.shared, peer, frame, &mut Following::default()) {
            Begun::Append(accepting) => accepting.await.await,
            Begun::Alone(answer) | Begun::Held(answer) => answer.await,
        };
        match answer {
            Answer::Frame(frame, _) => Outcome::Frame(frame.into_bytes()),
            Answer::Nothing => Outcome::Nothing,
            Answer::Close(why) => Outcome::Close(why),
        }
    }

    /// Serves until `shutdown` is cancelled and the drain is over. A client's fault never ends the server.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(
        self,
        listener: impl Into<Listener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let (listener, kill, tasks) = (
            listener.into(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let accepting = self.accept(listener, &tasks, &shutdown, &kill);
        // The listener closes with this.
        let _ = shutdown.run_until_cancelled(accepting).await;
        tasks.close();
        let grace = self.shared.options.drain_grace;
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            kill.cancel();
            let _ = tokio::time::timeout(CUT_AFTER, tasks.wait()).await;
        }
        Ok(())
    }

    async fn accept(
        &self,
        listener: Listener,
        tasks: &TaskTracker,
        drain: &CancellationToken,
        kill: &CancellationToken,
    ) {
        let shared = &self.shared;
        let admission = Admission::new(KEYS, shared.options.connections);
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a Kafka connection; trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let admitted = match admission.admit(peer.ip()) {
                Ok(admitted) => admitted,
                Err(why) => {
                    shared.metrics.connection_refused();
                    if shared.log_limit.allows() {
                        tracing::warn!(%peer, %why, "Kafka connection refused");
                    }
                    continue;
                }
            };
            // Without this a small answer waits for the peer's delayed ACK.
            if let Err(error) = stream.set_nodelay() {
                tracing::debug!(%peer, %error, "the connection was lost before it was set up");
                continue;
            }
            let open = shared.metrics.connection();
            let stream = Accepted::new(stream, self.tls.as_deref());
            let connection = Connection::new(Arc::clone(shared), stream, peer, drain.clone());
            let kill = kill.clone();
            tasks.spawn(async move {
                let _ = kill.run_until_cancelled(connection.run()).await;
                drop((open, admitted));
            });
        }
    }
}
