//! The server: every service, reflection and health on one listener, every limit set explicitly, and an
//! end that does not depend on the clients.
//!
//! A drain runs in this order: health says NOT_SERVING, the listener closes, connections are told
//! (GOAWAY) and streams announce their end; calls in flight are answered; after the grace streams end by
//! themselves; a second later whatever is left is cut off.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Layer as _;
use varve_broker_api::{Boxed, Broker, Operations, SharedBroker, UnreadBudget};
use varve_proto::v1;
use varve_tls::{ConnectionLimits, Listener, ServerTls};
use varve_types::limits;

use crate::frames::Uncopied;
use crate::incoming::{Ports, incoming};
use crate::layer::ObserveLayer;
use crate::metrics::Metrics;
use crate::services::admin::Admin;
use crate::services::cluster::Cluster;
use crate::services::consumer::Consumer;
use crate::services::group::Groups;
use crate::services::producer::Producer;
use crate::services::topic::Topics;
use crate::services::transaction::Transactions;
use crate::shared::Shared;
use crate::transport;

/// Largest health message.
const HEALTH_BYTES: usize = 4096;
/// Largest answer of a control service.
const CONTROL_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Largest answer of a read: the largest fetch, one batch beyond it, and the frame around it.
const READ_ANSWER_BYTES: usize = limits::FETCH_MAX_BYTES + limits::BATCH_MAX_BYTES + 1024 * 1024;
/// Time between the end of the grace and the cut.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Names of the services, as health and reflection know them.
pub const SERVICES: [&str; 7] = [
    "varve.v1.ProducerService",
    "varve.v1.ConsumerService",
    "varve.v1.GroupService",
    "varve.v1.TransactionService",
    "varve.v1.TopicService",
    "varve.v1.ClusterService",
    "varve.v1.AdminService",
];

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long streams live on once a drain has begun.
    pub drain_grace: Duration,
    /// Most open connections.
    pub connections: ConnectionLimits,
    /// The node's budget for what is read and not taken.
    pub unread: Arc<UnreadBudget>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(10),
            connections: ConnectionLimits::default(),
            unread: UnreadBudget::new(limits::UNREAD_DEFAULT_MAX_BYTES),
        }
    }
}

/// The services without a listener.
pub type PassedOn =
    tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors of the schema could not be read: a bug of ours.
    #[error("the schema cannot be offered for reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What `grpc.health.v1.Health` says. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// A node that lives and has not started yet.
    pub async fn starting() -> Self {
        let health = Self(HealthReporter::new());
        health.set_alive(true).await;
        health.set_started(false).await;
        health.set_ready(false).await;
        health
    }

    /// The health service alone, for a port without the rest.
    #[must_use]
    pub fn routes(&self) -> Routes {
        use tonic_health::pb::health_server::HealthServer;
        let service = HealthService::from_health_reporter(self.0.clone());
        let server = HealthServer::new(service)
            .max_decoding_message_size(HEALTH_BYTES)
            .max_encoding_message_size(HEALTH_BYTES);
        Routes::new(server)
    }

    /// Says whether the node takes requests: for the empty name, `readiness`, and every service.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in ["", "readiness"].into_iter().chain(SERVICES) {
            self.0.set_service_status(name, status).await;
        }
    }

    /// Says whether the node has finished starting up.
    pub async fn set_started(&self, started: bool) {
        let status = if started {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.0.set_service_status("startup", status).await;
    }

    /// Says whether the node should go on living; an orchestrator restarts it otherwise.
    pub async fn set_alive(&self, alive: bool) {
        let status = if alive {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.0.set_service_status("liveness", status).await;
    }
}

/// The gRPC front end of a broker.
#[derive(Debug)]
pub struct Server<B> {
    broker: Arc<B>,
    metrics: Metrics,
    options: Options,
    health: Health,
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

    /// As [`Self::passed_on`], compiled here for every node.
    ///
    /// # Errors
    /// [`ServeError::Reflection`].
    pub fn run_passed_on(&self, drain: CancellationToken) -> Result<PassedOn, ServeError> {
        self.passed_on(drain)
    }
}

impl<B: Broker + Operations> Server<B> {
    /// A server for `broker` that counts in `metrics` and tells what `health` says.
    #[must_use]
    pub const fn new(broker: Arc<B>, metrics: Metrics, options: Options, health: Health) -> Self {
        Self {
            broker,
            metrics,
            options,
            health,
            tls: None,
        }
    }

    /// Serves by that TLS only; `None`: without.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ServerTls>>) -> Self {
        self.tls = tls;
        self
    }

    /// The services by themselves, for calls that other nodes pass on: whoever serves them has checked who
    /// calls. Streams end once `drain` is cancelled.
    ///
    /// # Errors
    /// [`ServeError::Reflection`].
    pub fn passed_on(&self, drain: CancellationToken) -> Result<PassedOn, ServeError> {
        let shared = Arc::new(Shared::new(
            Arc::clone(&self.broker),
            self.metrics.clone(),
            drain,
            self.options.drain_grace,
            Arc::clone(&self.options.unread),
        ));
        let observed = self.layer().layer(routes(&shared, &self.health)?);
        let whole = |answer: http::Response<_>| answer.map(Body::new);
        let service = tower::ServiceBuilder::new().map_response(whole);
        Ok(PassedOn::new(service.service(observed)))
    }

    fn layer(&self) -> ObserveLayer {
        ObserveLayer {
            metrics: self.metrics.clone(),
            node: HeaderValue::from(self.broker.node().node.0),
        }
    }

    /// Serves until `shutdown` is cancelled and the drain is over.
    ///
    /// # Errors
    /// [`ServeError`]. A client's fault never ends the server.
    pub async fn serve(
        self,
        listener: impl Into<Listener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let grace = self.options.drain_grace;
        let shared = Arc::new(Shared::new(
            Arc::clone(&self.broker),
            self.metrics.clone(),
            shutdown.clone(),
            grace,
            Arc::clone(&self.options.unread),
        ));
        let service = self.layer().layer(routes(&shared, &self.health)?);
        let kill = CancellationToken::new();
        let connections = incoming(
            listener.into(),
            Ports::of(&*self.broker),
            self.metrics.clone(),
            self.options.connections,
            self.tls,
            kill.clone(),
        );
        let serving = transport::serve(service, connections, shutdown.clone());
        let mut serving = Box::pin(serving);
        let health = self.health;
        let over = async {
            shutdown.cancelled().await;
            health.set_ready(false).await;
            tokio::time::sleep(grace + CUT_AFTER).await;
        };
        tokio::select! {
            () = &mut serving => return Ok(()),
            () = over => {}
        }
        // Graceful shutdown waits for clients without end; from here on they have no say.
        kill.cancel();
        let _ = tokio::time::timeout(CUT_AFTER, serving).await;
        Ok(())
    }
}

fn routes<B: Broker + Operations>(
    shared: &Arc<Shared<B>>,
    health: &Health,
) -> Result<Routes, ServeError> {
    use tonic_health::pb::health_server::HealthServer;
    use v1::admin_service_server::AdminServiceServer;
    use v1::cluster_service_server::ClusterServiceServer;
    use v1::consumer_service_server::ConsumerServiceServer;
    use v1::group_service_server::GroupServiceServer;
    use v1::producer_service_server::ProducerServiceServer;
    use v1::topic_service_server::TopicServiceServer;
    use v1::transaction_service_server::TransactionServiceServer;
    macro_rules! bounded {
        ($server:expr, $request:expr, $answer:expr) => {
            $server
                .max_decoding_message_size($request)
                .max_encoding_message_size($answer)
        };
    }
    let control = limits::CONTROL_REQUEST_MAX_BYTES;
    let producer = ProducerServiceServer::new(Producer(Arc::clone(shared)));
    let consumer = ConsumerServiceServer::new(Consumer(Arc::clone(shared)));
    let groups = GroupServiceServer::new(Groups(Arc::clone(shared)));
    let transactions = TransactionServiceServer::new(Transactions(Arc::clone(shared)));
    let topics = TopicServiceServer::new(Topics(Arc::clone(shared)));
    let cluster = ClusterServiceServer::new(Cluster(Arc::clone(shared)));
    let admin = AdminServiceServer::new(Admin(Arc::clone(shared)));
    let health = HealthServer::new(HealthService::from_health_reporter(health.0.clone()));
    let mut all = RoutesBuilder::default();
    all.add_service(bounded!(
        producer,
        limits::REQUEST_MAX_BYTES,
        CONTROL_ANSWER_BYTES
    ))
    .add_service(Uncopied::new(
        Arc::clone(shared),
        bounded!(consumer, control, READ_ANSWER_BYTES),
    ))
    .add_service(bounded!(
        groups,
        limits::GROUP_REQUEST_MAX_BYTES,
        CONTROL_ANSWER_BYTES
    ))
    .add_service(bounded!(transactions, control, CONTROL_ANSWER_BYTES))
    .add_service(bounded!(topics, control, CONTROL_ANSWER_BYTES))
    .add_service(bounded!(cluster, control, CONTROL_ANSWER_BYTES))
    .add_service(bounded!(admin, control, CONTROL_ANSWER_BYTES))
    .add_service(bounded!(health, HEALTH_BYTES, HEALTH_BYTES))
    .add_service(bounded!(
        reflection().build_v1()?,
        4096,
        CONTROL_ANSWER_BYTES
    ))
    .add_service(bounded!(
        reflection().build_v1alpha()?,
        4096,
        CONTROL_ANSWER_BYTES
    ));
    Ok(all.routes())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(varve_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
