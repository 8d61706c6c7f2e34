//! A node: directory, broker, front end and HTTP port put together, and taken apart in the right order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use varve_broker::Broker;
use varve_broker_api::{Boxed, Limits, UnreadBudget};
use varve_forward::{Forwarding, Lines};
use varve_tls::{Listener, Network, Reload, ServerTls};

use crate::cluster::{self, Joined};
use crate::config::Config;
use crate::datadir::DataDir;
use crate::health::Health;
use crate::kafka;
use crate::limits::LimitMetrics;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::{http, notify};

/// Grace of the HTTP port: probes are short.
const HTTP_GRACE: Duration = Duration::from_secs(1);
/// How often files of certificates are read again.
pub(crate) const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// A running node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    directory: DataDir,
    broker: Broker,
    /// The node's part in a cluster.
    joined: Option<Joined>,
    health: Health,
    grpc_health: varve_frontend_grpc::Health,
    stop_frontends: CancellationToken,
    stop_http: CancellationToken,
    frontend: JoinHandle<Result<(), varve_frontend_grpc::ServeError>>,
    kafka: kafka::Serving,
    http: JoinHandle<std::io::Result<()>>,
    /// Learns where other nodes serve what this one serves.
    _listeners: Option<AbortOnDropHandle<()>>,
    /// Reads certificates again.
    _certificates: Option<AbortOnDropHandle<()>>,
    /// Why the node cannot go on. The task of a listener that ended must not be waited for again.
    ended: Option<anyhow::Error>,
    client_address: SocketAddr,
    http_address: SocketAddr,
}

impl Node {
    /// Takes the data directory, recovers, and serves. The HTTP port answers during recovery.
    ///
    /// # Errors
    /// A sentence about what is wrong; nothing is served then.
    pub fn start(config: Config) -> Boxed<'static, Result<Self>> {
        Box::pin(Self::start_on(config, Machine::this()))
    }

    /// As [`Self::start`], on a machine that need not be this one: for simulation.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(mut config: Config, machine: Machine) -> Result<Self> {
        let network = &*machine.network;
        let client = bind(network, &config.client_address, "listeners.client.address").await?;
        let http_listener = bind(network, &config.http_address, "http.address").await?;
        let (client_address, http_address) = (client.local_addr()?, http_listener.local_addr()?);
        let client_tls = client_tls(&config, client_address)?;
        let kafka = kafka::Bound::open(&mut config, network).await?;
        let (clock, vfs) = (Arc::clone(&machine.clock), Arc::clone(&machine.vfs));
        let path = config.broker.data_dir.clone();
        let members = config.members.clone();
        let peer = match &members {
            Some(members) => Some(bind(network, &members.address, "listeners.peer.address").await?),
            None => None,
        };
        let joins = members.is_some();
        let mut directory =
            DataDir::open(Arc::clone(&vfs), &path, config.node, config.cluster, joins)?;
        config.broker.directory = directory.directory();
        config.broker.clean_start = directory.clean();
        config.broker.workers = machine.workers.clone();
        config.broker.address = config.advertised(client_address);
        let http = crate::config::advertised(None, http_address);
        config.broker.listeners.insert("http".to_owned(), http);
        tracing::info!(
            version = crate::VERSION, revision = crate::REVISION, node_id = config.node.0,
            cluster_id = %directory.cluster().map_or(String::new(), |c| c.to_string()), data_dir = %path.display(), client = %client_address,
            http = %http_address, advertised = config.broker.address, clean = directory.clean(),
            "varve starts"
        );
        let (health, stop_http) = (Health::default(), CancellationToken::new());
        let metrics = Metrics::new(&health);
        let frontend_metrics = varve_frontend_grpc::Metrics::default();
        metrics.register(|registry| frontend_metrics.register(registry));
        let kafka_metrics = varve_frontend_kafka::Metrics::default();
        if kafka.is_some() {
            metrics.register(|registry| kafka_metrics.register(registry));
        }
        let grpc_health = varve_frontend_grpc::Health::starting().await;
        let http = tokio::spawn(http::serve(
            http_listener,
            health.clone(),
            metrics.clone(),
            grpc_health.routes().into_axum_router(),
            stop_http.clone(),
        ));
        let joined = match (&members, peer) {
            (Some(members), Some(listener)) => {
                let directory = &mut directory;
                Some(cluster::join(&config, members, listener, directory, &machine).await?)
            }
            _ => None,
        };
        config.broker.cluster = directory.cluster().unwrap_or_default();
        let broker = match &joined {
            Some(joined) => {
                let (cluster, service) = (joined.cluster.clone(), &joined.service);
                let broker = config.broker.clone();
                tokio::select! {
                    broker = Broker::start_in(broker, vfs, clock, cluster, service) => broker?,
                    // It would wait for ever to be let in.
                    why = joined.raft.failed() => anyhow::bail!("{}", out_of_service(&why)),
                }
            }
            None => Broker::start(config.broker.clone(), vfs, clock).await?,
        };
        metrics.register(|registry| broker.register_metrics(registry));
        let forward_metrics = varve_forward::Metrics::default();
        metrics.register(|registry| forward_metrics.register(registry));
        let lines: Arc<dyn Lines> = match &joined {
            Some(joined) => Arc::clone(&joined.lines),
            None => Arc::new(cluster::Alone),
        };
        let anywhere = Forwarding::new(Arc::new(broker.shared()), lines, forward_metrics);
        let everything = Arc::new(anywhere.shared());
        let stop_frontends = CancellationToken::new();
        let unread = UnreadBudget::new(config.unread_max_bytes);
        let mut limits = Limits::default();
        broker.add_limits(&mut limits);
        limits.unread(&unread);
        let open = |n: i64| usize::try_from(n).unwrap_or(0);
        let (grpc_open, kafka_open) = (frontend_metrics.clone(), kafka_metrics.clone());
        let most = config.connections.all;
        limits.refusing("listeners.client.max_connections", most, move || {
            open(grpc_open.open_connections())
        });
        if let Some(kafka) = &config.kafka {
            let most = kafka.connections.all;
            limits.refusing("listeners.kafka.max_connections", most, move || {
                open(kafka_open.open_connections())
            });
        }
        let limits = Arc::new(limits);
        broker.watch_limits(Arc::clone(&limits));
        metrics.register(|registry| registry.register_collector(Box::new(LimitMetrics(limits))));
        let options = varve_frontend_grpc::Options {
            drain_grace: config.stream_grace,
            connections: config.connections,
            unread: Arc::clone(&unread),
        };
        let server = varve_frontend_grpc::Server::new(
            Arc::clone(&everything),
            frontend_metrics,
            options,
            grpc_health.clone(),
        );
        let server = server.with_tls(client_tls.clone());
        if let Some(joined) = &joined {
            joined
                .calls
                .serve(server.run_passed_on(stop_frontends.clone())?);
        }
        let frontend = tokio::spawn(server.run(client, stop_frontends.clone()));
        let kafka_tls = kafka.as_ref().and_then(|bound| bound.tls.clone());
        let kafka = match kafka {
            Some(bound) => bound.serve(
                Arc::clone(&everything),
                kafka_metrics,
                config.stream_grace,
                unread,
                stop_frontends.clone(),
            )?,
            None => kafka::Serving::NONE,
        };
        let listeners = kafka
            .address
            .map(|_| AbortOnDropHandle::new(tokio::spawn(anywhere.run_listeners())));
        let watched = client_tls.into_iter().chain(kafka_tls);
        let watched: Vec<_> = watched.map(|tls| tls as Arc<dyn Reload>).collect();
        let certificates = (!watched.is_empty()).then(|| {
            let watching = varve_tls::watch(watched, CERTIFICATES_EVERY);
            AbortOnDropHandle::new(tokio::spawn(watching))
        });
        health.started(broker.clone());
        grpc_health.set_started(true).await;
        grpc_health.set_ready(true).await;
        tracing::info!(node_id = config.node.0, "ready");
        Ok(Self {
            config,
            directory,
            broker,
            joined,
            health,
            grpc_health,
            stop_frontends,
            stop_http,
            frontend,
            kafka,
            http,
            _listeners: listeners,
            _certificates: certificates,
            ended: None,
            client_address,
            http_address,
        })
    }

    /// Where the gRPC API listens.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where the Kafka protocol is served, if it is.
    #[must_use]
    pub const fn kafka_address(&self) -> Option<SocketAddr> {
        self.kafka.address
    }

    /// Where metrics and health listen.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where other nodes are served, in a cluster.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.joined.as_ref().map(|j| j.address)
    }

    /// The broker, for those who run it in process.
    #[must_use]
    pub const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Resolves when the node cannot go on: a write or sync of one of its logs, of its journal or of its metadata
    /// failed, or a listener ended by itself. It should be shut down then, which reports the reason, and started
    /// anew: the next start finds out what is on the disk. Safe to drop.
    pub fn failed(&mut self) -> Boxed<'_, ()> {
        Box::pin(self.fail())
    }

    async fn fail(&mut self) {
        let joined = self.joined.as_ref();
        let consensus = async {
            match joined {
                Some(joined) => joined.raft.failed().await,
                None => std::future::pending().await,
            }
        };
        let error = tokio::select! {
            why = consensus => anyhow::anyhow!(out_of_service(&why)),
            why = self.broker.failed() => anyhow::anyhow!(disk_failed(&why)),
            ended = &mut self.frontend => match ended {
                Ok(Ok(())) => anyhow::anyhow!("the gRPC listener ended"),
                Ok(Err(error)) => error.into(),
                Err(error) => anyhow::Error::from(error).context("gRPC listener"),
            },
            why = self.kafka.ended() => why,
            ended = &mut self.http => match ended {
                Ok(Ok(())) => anyhow::anyhow!("the HTTP listener ended"),
                Ok(Err(error)) => anyhow::Error::from(error).context("HTTP listener"),
                Err(error) => anyhow::Error::from(error).context("HTTP listener"),
            },
        };
        tracing::error!(
            error = format!("{error:#}"),
            "the node cannot continue and stops"
        );
        self.ended = Some(error);
    }

    /// Stops: not ready, drain, end streams, flush, mark. Returns whether all of it was clean.
    ///
    /// # Errors
    /// What kept the shutdown from being clean; acknowledged data is safe anyway.
    pub fn shutdown(self) -> Boxed<'static, Result<()>> {
        Box::pin(self.stop())
    }

    async fn stop(self) -> Result<()> {
        tracing::info!("stopping: not ready");
        notify::notify("STOPPING=1");
        self.health.stopping();
        self.grpc_health.set_ready(false).await;
        if let Some(joined) = &self.joined {
            // Others decide from here on, also about where this node's leaderships go.
            if let Err(error) = joined.raft.transfer_leadership(None).await {
                tracing::debug!(%error, "this node keeps the metadata leadership until it exits");
            }
        }
        // Leaderships move first: clients follow them while this node still answers.
        self.broker.leave().await;
        if self.ended.is_none() {
            tokio::time::sleep(self.config.drain_grace).await;
        }
        self.broker.drain().await;
        tracing::info!("stopping: closing streams");
        self.stop_frontends.cancel();
        // Whatever became of the listeners, what was accepted goes to disk.
        let served = match self.ended {
            Some(error) => {
                self.frontend.abort();
                self.http.abort();
                let _ = self.kafka.stop(true).await;
                Err(error)
            }
            None => {
                let served = self.frontend.await;
                let served = served
                    .map_err(anyhow::Error::from)
                    .and_then(|served| served.map_err(anyhow::Error::from))
                    .context("front end");
                served.and(self.kafka.stop(false).await)
            }
        };
        let safe = self.broker.shutdown().await;
        if let Some(joined) = self.joined {
            joined.leave().await;
        }
        let whole = self.broker.opened_every_log();
        if safe && whole {
            self.directory.mark_clean()?;
        }
        self.stop_http.cancel();
        if served.is_ok() {
            // A probe that keeps its connection open is not waited for.
            let _ = tokio::time::timeout(HTTP_GRACE, self.http).await;
        }
        if !safe {
            let text = "some logs could not be closed; the next start recovers them";
            return match served {
                Ok(()) => Err(anyhow::anyhow!(text)),
                Err(error) => Err(error.context(text)),
            };
        }
        if whole {
            tracing::info!("stopped: everything is on disk");
        } else {
            tracing::warn!(
                "stopped: all accepted records are on disk. Some logs could not be opened in this \
                 run, so the next start checks all logs as it does after a crash"
            );
        }
        served
    }
}

fn out_of_service(why: &str) -> String {
    format!("the metadata consensus is out of service: {why}")
}

fn disk_failed(why: &str) -> String {
    format!(
        "{why}. The node stops, because only a restart can find out what is on the disk; \
         acknowledged records are safe. Check the disk, then start the node again unless a \
         supervisor does"
    )
}

/// TLS of the gRPC API as the configuration wants it.
fn client_tls(config: &Config, bound: SocketAddr) -> Result<Option<Arc<ServerTls>>> {
    let Some(files) = config.client_tls.clone() else {
        if !bound.ip().is_loopback() {
            tracing::warn!(
                client = %bound,
                "the gRPC API is served in plaintext: anyone who can reach it can read and write \
                 everything"
            );
        }
        return Ok(None);
    };
    let tls = ServerTls::load(files).context("listeners.client.tls")?;
    Ok(Some(tls))
}

async fn bind(network: &dyn Network, address: &str, key: &str) -> Result<Listener> {
    network
        .listen(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({key})"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rustix::io::Errno;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use varve_broker_api::{Broker as _, Context, CreateTopic, Produce};
    use varve_record::{BatchBuilder, Compression};
    use varve_types::{Acks, PartitionId};
    use varve_vfs::fault::{FaultVfs, Op};
    use varve_vfs::{RealVfs, Vfs};

    use super::*;
    use crate::embedded;

    async fn status(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_serves_stops_and_starts_clean() {
        let dir = tempfile::tempdir().unwrap();
        let node = embedded::start(dir.path()).await.unwrap();
        assert!(!node.directory.clean());
        for path in ["/livez", "/readyz", "/startupz", "/metrics", "/version"] {
            let line = status(node.http_address(), path).await;
            assert_eq!(line, "HTTP/1.1 200 OK", "{path}");
        }
        let line = status(node.http_address(), "/nothing").await;
        assert_eq!(line, "HTTP/1.1 404 Not Found");
        let again = embedded::start(dir.path())
            .await
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            again.contains(&format!("in use by pid {}", std::process::id())),
            "{again}"
        );
        node.shutdown().await.unwrap();
        let node = embedded::start(dir.path()).await.unwrap();
        assert!(node.directory.clean(), "the first run ended in order");
        node.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sync_that_fails_ends_the_node_and_the_next_start_serves_what_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let faults = FaultVfs::new(Arc::new(RealVfs));
        let machine = Machine {
            vfs: Arc::clone(&faults) as Arc<dyn Vfs>,
            ..Machine::this()
        };
        let config = embedded::config(dir.path(), &[]).unwrap();
        let mut node = Node::start_on(config, machine).await.unwrap();
        let ctx = Context::anonymous();
        let topic = CreateTopic {
            topic: "orders".parse().unwrap(),
            partitions: Some(1),
            replication_factor: None,
            configs: BTreeMap::default(),
            labels: BTreeMap::default(),
            placement: BTreeMap::default(),
            validate_only: false,
            request_id: None,
        };
        node.broker.create_topic(&ctx, topic).await.unwrap();
        let log = dir.path().join("data");
        append(&node, "acknowledged").await.unwrap();
        // The first sync from now on may be one that keeps something else, which may fail.
        let mut unknown = false;
        for _ in 0..10 {
            faults.fail_once(Op::Sync, 1, Errno::IO);
            unknown |= append(&node, "unknown").await.is_err();
            if unknown {
                break;
            }
        }
        assert!(unknown);
        node.failed().await;
        let error = format!("{:#}", node.shutdown().await.unwrap_err());
        for part in [
            "the next start recovers them",
            "the log of orders:0 failed",
            "cannot sync",
            &*log.to_string_lossy(),
            "start the node again",
        ] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        let node = embedded::start(dir.path()).await.unwrap();
        assert!(!node.directory.clean(), "what failed is recovered");
        append(&node, "later").await.unwrap();
        node.shutdown().await.unwrap();
    }

    async fn append(node: &Node, value: &str) -> Result<(), varve_broker_api::Error> {
        let mut batch = BatchBuilder::new(Compression::None, None);
        batch
            .append(0, None, Some(value.as_bytes()), &[])
            .map_err(|_| ())
            .unwrap();
        let request = Produce {
            transaction_version: Default::default(),
            transactional_id: None,
            topic: "orders".parse().unwrap(),
            partition: PartitionId(0),
            acks: Acks::All,
            batch: batch.build_batch().unwrap(),
            expected_offset: None,
        };
        let receipt = node.broker.produce(&Context::anonymous(), request).await?;
        receipt.await.map(drop)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_listener_that_ends_stops_the_node_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = embedded::start(dir.path()).await.unwrap();
        node.frontend.abort();
        node.failed().await;
        let error = node.shutdown().await.unwrap_err();
        assert!(format!("{error:#}").contains("gRPC listener"), "{error:#}");
        let node = embedded::start(dir.path()).await.unwrap();
        assert!(node.directory.clean(), "everything was on disk");
        node.shutdown().await.unwrap();
    }
}
