//! Connections to the cluster: one per address, opened when first used, shared by everything.
//!
//! HTTP/2 windows are fixed and large (a stream's throughput is its window divided by the round trip)
//! and never adaptive: small unread acknowledgements would make the server drop the connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use varve_broker_api::Isolation;
use varve_proto::v1;
use varve_proto::v1::admin_service_client::AdminServiceClient;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::group_service_client::GroupServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::topic_service_client::TopicServiceClient;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;
use varve_tls::{ClientTls, ConnectError, Connector, Explained, Network, Tcp};
use varve_types::limits;

use crate::error::ClientError;
use crate::routing::Routing;

/// Largest response a client accepts, in bytes.
pub(crate) const MAX_DECODE_BYTES: usize =
    limits::FETCH_MAX_BYTES + limits::BATCH_MAX_BYTES + 1024 * 1024;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Addresses as `host:port`; any one that answers is enough.
    pub brokers: Vec<String>,
    /// Name shown in groups, logs and quotas. At most 249 characters.
    pub client_id: String,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest time for a call that the server does not hold on purpose.
    pub request_timeout: Duration,
    /// TLS, if the cluster speaks it. Certificates must name the hosts of the addresses.
    pub tls: Option<Arc<ClientTls>>,
    /// What connections are opened over.
    pub network: Arc<dyn Network>,
    /// Which records of transactions consumers of this client read, and where the end is that offsets are asked for.
    pub isolation: Isolation,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:8278".to_owned()],
            client_id: "varve-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            tls: None,
            network: Arc::new(Tcp),
            isolation: Isolation::Committed,
        }
    }
}

/// Adds the metadata that every call carries.
#[derive(Debug, Clone)]
pub struct CallMetadata {
    client_id: MetadataValue<Ascii>,
    never_forward: bool,
}

impl Interceptor for CallMetadata {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        // A call that is passed on keeps the name of who made it.
        if !metadata.contains_key("varve-client-id") {
            metadata.insert("varve-client-id", self.client_id.clone());
        }
        if self.never_forward {
            metadata.insert("varve-forward", MetadataValue::from_static("never"));
        }
        Ok(request)
    }
}

type Stamped = InterceptedService<Explained<Channel>, CallMetadata>;

/// A connection that adds the client's metadata, and knows what the client's readers see.
#[derive(Debug, Clone)]
pub struct Rpc {
    inner: Stamped,
    isolation: v1::Isolation,
}

impl Rpc {
    /// Which records of transactions are read over it.
    pub(crate) const fn isolation(&self) -> v1::Isolation {
        self.isolation
    }
}

type Answered = <Stamped as Service<http::Request<Body>>>::Response;
type Failed = <Stamped as Service<http::Request<Body>>>::Error;

/// Refuses an answer that is not gRPC: decoding a web page would only tell that its first byte is wrong.
fn only_grpc(answer: Result<Answered, Failed>) -> Result<Answered, Failed> {
    let answer = answer?;
    let kind = answer.headers().get(http::header::CONTENT_TYPE);
    match kind.map(http::HeaderValue::as_bytes) {
        Some(kind) if !kind.starts_with(b"application/grpc") => {
            let text = format!(
                "the server answers as a web server does (status {}), so this is not a gRPC port (varve's is 8278 \
                 unless its configuration says otherwise)",
                answer.status()
            );
            Err(ConnectError::new(text).into())
        }
        _ => Ok(answer),
    }
}

impl Service<http::Request<Body>> for Rpc {
    type Response = Answered;
    type Error = Failed;
    type Future = futures_util::future::Map<
        <Stamped as Service<http::Request<Body>>>::Future,
        fn(Result<Answered, Failed>) -> Result<Answered, Failed>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.inner.call(request).map(only_grpc)
    }
}

/// Connections and routes to one cluster. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    client_id: MetadataValue<Ascii>,
    channels: Mutex<BTreeMap<String, Explained<Channel>>>,
    /// The address that answered last: asked first, so that a dead one is waited for once.
    answered: Mutex<Option<String>>,
    routing: Routing,
}

impl Client {
    /// Prepares connections; none is opened yet.
    ///
    /// # Errors
    /// [`ClientError::Config`] when there is no address, or one is not `host:port`, or the client id is
    /// not ASCII.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        if config.brokers.is_empty() {
            return Err(ClientError::Config("no broker address is given".to_owned()));
        }
        for address in &config.brokers {
            endpoint(address, &config)?;
        }
        let client_id = MetadataValue::try_from(config.client_id.as_str())
            .map_err(|_| ClientError::Config("the client id must be visible ASCII".to_owned()))?;
        let inner = Inner {
            config,
            client_id,
            channels: Mutex::new(BTreeMap::new()),
            answered: Mutex::default(),
            routing: Routing::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// Which records of transactions its readers see, in the words of the API.
    pub(crate) fn isolation(&self) -> v1::Isolation {
        match self.config().isolation {
            Isolation::Committed => v1::Isolation::ReadCommitted,
            Isolation::Uncommitted => v1::Isolation::ReadUncommitted,
        }
    }

    /// Where partitions are led, as far as known.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.inner.routing
    }

    /// Addresses to ask what any node knows, in this order: who answered last, the configured ones, all
    /// others that are known.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let answered = self.answered().clone();
        let mut addresses = Vec::from_iter(answered);
        let known = self.routing().addresses();
        for address in self.config().brokers.iter().chain(&known) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    pub(crate) fn answered(&self) -> MutexGuard<'_, Option<String>> {
        let answered = &self.inner.answered;
        answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to `address`; opened when first used, and opened again when lost.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn channel(&self, address: &str) -> Result<Explained<Channel>, ClientError> {
        let mut channels = self
            .inner
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let connector = Connector::new(self.inner.config.tls.clone(), None)
            .over(Arc::clone(&self.inner.config.network));
        let endpoint = endpoint(address, &self.inner.config)?;
        let fault = connector.fault();
        let channel = Explained::new(endpoint.connect_with_connector_lazy(connector), fault);
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The connection for calls that are written by hand. `never_forward`: the node must lead the
    /// partition itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub(crate) fn rpc(&self, address: &str, never_forward: bool) -> Result<Rpc, ClientError> {
        let metadata = CallMetadata {
            client_id: self.inner.client_id.clone(),
            never_forward,
        };
        Ok(Rpc {
            inner: InterceptedService::new(self.channel(address)?, metadata),
            isolation: self.isolation(),
        })
    }

    /// Producer calls at `address`. `never_forward`: the node must lead the partition itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn producer_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<ProducerServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(ProducerServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Consumer calls at `address`. `never_forward`: the node must lead the partition itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn consumer_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<ConsumerServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(ConsumerServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Group calls at `address`. `never_forward`: the node must be responsible itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn group_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<GroupServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(GroupServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Calls about transactions at `address`. `never_forward`: the node must be responsible itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn transaction_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<TransactionServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(TransactionServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Topic calls at `address`. `never_forward`: the node must be responsible itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn topic_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<TopicServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(TopicServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Cluster calls at `address`. `never_forward`: the node must be responsible itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn cluster_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<ClusterServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(ClusterServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }

    /// Operators' calls at `address`. `never_forward`: the node must be responsible itself.
    ///
    /// # Errors
    /// [`ClientError::Config`] when `address` is not `host:port`.
    pub fn admin_service(
        &self,
        address: &str,
        never_forward: bool,
    ) -> Result<AdminServiceClient<Rpc>, ClientError> {
        let rpc = self.rpc(address, never_forward)?;
        Ok(AdminServiceClient::new(rpc).max_decoding_message_size(MAX_DECODE_BYTES))
    }
}

fn endpoint(address: &str, config: &ClientConfig) -> Result<Endpoint, ClientError> {
    let bad = |why: String| ClientError::Config(format!("broker address {address:?}: {why}"));
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !has_port {
        return Err(bad("expected host:port".to_owned()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| bad(error.to_string()))?;
    Ok(endpoint
        .connect_timeout(config.connect_timeout)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HTTP2_READ_FRAME_BYTES)
        .http2_adaptive_window(false)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let with = |address: &str| {
            Client::new(ClientConfig {
                brokers: vec![address.to_owned()],
                ..Default::default()
            })
        };
        for good in ["localhost:8278", "10.0.0.1:1", "[::1]:8278"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "localhost:",
            ":1",
            "a b:1",
            "host:99999",
            "host:0",
        ] {
            assert!(matches!(with(bad), Err(ClientError::Config(_))), "{bad}");
        }
        let none = ClientConfig {
            brokers: Vec::new(),
            ..Default::default()
        };
        assert!(Client::new(none).is_err());
    }
}
