//! The other nodes: a connection to each, what a passed on call carries, and how long it is tried.
//!
//! Invariants: a call names this node as its hop, so that nobody passes it on again; it carries who asked
//! and what the caller sent for the next node to see; it never outlives its caller's patience.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tower::{Service, ServiceExt as _};
use varve_broker_api::{Context, Error, LeaderHint};
use varve_client::RpcError;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::group_service_client::GroupServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::topic_service_client::TopicServiceClient;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;
use varve_types::{ErrorKind, NodeId};

use crate::convert;
use crate::metrics::Metrics;

/// Largest answer that is taken from another node, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// First pause before a call is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// What is kept back of a deadline, so that the reason arrives and not a bare timeout.
const MARGIN: Duration = Duration::from_millis(250);

/// A connection on which another node takes calls that this one passes on.
pub type Line =
    tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, LineError>;

/// Why a call has no answer, whatever the connection is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LineError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A connection as a [`Line`].
pub fn line<S, B>(connection: S) -> Line
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = |answer: http::Response<B>| answer.map(Body::new);
    let connection = connection.map_response(whole);
    Line::new(connection.map_err(|error: S::Error| LineError(error.into())))
}

/// The connections to other nodes.
pub trait Lines: std::fmt::Debug + Send + Sync + 'static {
    /// The connection to a node, opened when first used. The node at its end is the one that is meant, or no
    /// call goes through; and it knows which node calls.
    ///
    /// # Errors
    /// Why there is none: nothing was sent.
    fn line(&self, to: NodeId) -> Result<Line, String>;
}

/// Why a passed on call failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The connection broke: the call may have arrived.
    pub(crate) unknown: bool,
}

impl Failure {
    /// The error of a call that may be made again whatever became of it.
    pub(crate) fn harmless(self) -> Error {
        if !self.unknown {
            return self.error;
        }
        Error {
            kind: ErrorKind::LeaderNotAvailable,
            ..self.error
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    lines: Arc<dyn Lines>,
    me: NodeId,
    hop: Option<MetadataValue<Ascii>>,
    timeout: Duration,
    metrics: Metrics,
}

impl Nodes {
    pub(crate) fn new(
        lines: Arc<dyn Lines>,
        me: NodeId,
        timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        Self {
            lines,
            me,
            hop: MetadataValue::try_from(me.to_string()).ok(),
            timeout,
            metrics,
        }
    }

    pub(crate) const fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn cluster(&self, to: NodeId) -> Result<ClusterServiceClient<Line>, String> {
        self.lines.line(to).map(ClusterServiceClient::new)
    }

    fn line(&self, to: &LeaderHint) -> Result<Line, RpcError> {
        self.lines.line(to.node).map_err(|why| RpcError {
            unsent: true,
            ..RpcError::transport(why)
        })
    }

    pub(crate) fn producer(
        &self,
        to: &LeaderHint,
    ) -> Result<ProducerServiceClient<Line>, RpcError> {
        let service = ProducerServiceClient::new(self.line(to)?);
        Ok(service.max_decoding_message_size(ANSWER_BYTES))
    }

    pub(crate) fn consumer(
        &self,
        to: &LeaderHint,
    ) -> Result<ConsumerServiceClient<Line>, RpcError> {
        let service = ConsumerServiceClient::new(self.line(to)?);
        Ok(service.max_decoding_message_size(ANSWER_BYTES))
    }

    pub(crate) fn topics(&self, to: &LeaderHint) -> Result<TopicServiceClient<Line>, RpcError> {
        let service = TopicServiceClient::new(self.line(to)?);
        Ok(service.max_decoding_message_size(ANSWER_BYTES))
    }

    pub(crate) fn groups(&self, to: &LeaderHint) -> Result<GroupServiceClient<Line>, RpcError> {
        let service = GroupServiceClient::new(self.line(to)?);
        Ok(service.max_decoding_message_size(ANSWER_BYTES))
    }

    pub(crate) fn transactions(
        &self,
        to: &LeaderHint,
    ) -> Result<TransactionServiceClient<Line>, RpcError> {
        let service = TransactionServiceClient::new(self.line(to)?);
        Ok(service.max_decoding_message_size(ANSWER_BYTES))
    }

    /// Until when a call is tried.
    pub(crate) fn until(&self, ctx: &Context) -> Instant {
        let now = Instant::now();
        match ctx.deadline {
            None => now + self.timeout.saturating_sub(MARGIN),
            Some(deadline) => {
                let left = Instant::from_std(deadline).saturating_duration_since(now);
                now + left.saturating_sub(MARGIN.max(left / 8).min(left / 2))
            }
        }
    }

    /// How long an answer that is not held may take.
    pub(crate) fn read_timeout(&self) -> Duration {
        self.timeout.min(Duration::from_secs(10))
    }

    /// A message with everything that travels beside it.
    pub(crate) fn request<T>(
        &self,
        ctx: &Context,
        message: T,
        within: Duration,
    ) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(within.max(Duration::from_millis(50)));
        let metadata = request.metadata_mut();
        if let Some(hop) = &self.hop {
            metadata.insert("varve-hop", hop.clone());
        }
        if let Ok(id) = MetadataValue::try_from(&*ctx.client_id)
            && !ctx.client_id.is_empty()
        {
            metadata.insert("varve-client-id", id);
        }
        for (key, value) in ctx.forward.iter().flat_map(|forward| &forward.carried) {
            if let Ok(value) = MetadataValue::try_from(value.as_str()) {
                metadata.insert(*key, value);
            }
        }
        request
    }

    /// Counts a passed on call, remembers who answered it, and says what its failure means.
    pub(crate) fn outcome<T>(
        &self,
        ctx: &Context,
        method: &'static str,
        to: &LeaderHint,
        answer: Result<T, RpcError>,
    ) -> Result<T, Failure> {
        let answered = match &answer {
            Ok(_) => true,
            Err(error) => error.kind.is_some(),
        };
        self.metrics.forwarded(method, answered);
        if let (true, Some(forward)) = (answered, &ctx.forward) {
            forward.note(to.clone());
        }
        answer.map_err(|error| {
            tracing::debug!(
                method, node = to.node.0, address = to.address, %error,
                "a forwarded call failed"
            );
            convert::failure(to, error)
        })
    }

    /// Whether a failed call may be tried again, here or elsewhere.
    pub(crate) const fn again(error: &Error) -> bool {
        matches!(
            error.kind,
            ErrorKind::NotLeader
                | ErrorKind::NotCoordinator
                | ErrorKind::LeaderNotAvailable
                | ErrorKind::CoordinatorLoading
        )
    }

    /// Where the error says to go, if that is elsewhere.
    pub(crate) fn target(&self, error: &Error) -> Option<LeaderHint> {
        let hint = error.leader.as_deref()?;
        let elsewhere = hint.node != self.me && !hint.address.is_empty();
        let moved = matches!(error.kind, ErrorKind::NotLeader | ErrorKind::NotCoordinator);
        (elsewhere && moved).then(|| hint.clone())
    }
}

/// Pauses between attempts, until the caller's patience ends.
#[derive(Debug)]
pub(crate) struct Retry {
    until: Instant,
    pause: Duration,
}

impl Retry {
    pub(crate) const fn new(until: Instant) -> Self {
        Self {
            until,
            pause: PAUSE_FIRST,
        }
    }

    /// Time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits before the next attempt; false when there is no time for one.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause >= self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
