//! The Kafka listener of a node: put together where the configuration wants one.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use varve_broker_api::{SharedBroker, UnreadBudget};
use varve_frontend_kafka::{LISTENER, Metrics, Options, ServeError, Server};
use varve_tls::{Listener, Network, ServerTls};

use crate::config::{Config, Kafka};

/// A listener that is bound and not served yet.
pub(crate) struct Bound {
    config: Kafka,
    listener: Listener,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ServerTls>>,
}

/// The listener that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    task: Option<JoinHandle<Result<(), ServeError>>>,
    pub(crate) address: Option<SocketAddr>,
}

impl Bound {
    /// Binds the listener, if there is to be one, and tells the broker its address.
    pub(crate) async fn open(config: &mut Config, network: &dyn Network) -> Result<Option<Self>> {
        let Some(kafka) = config.kafka.clone() else {
            return Ok(None);
        };
        let address = &kafka.address;
        let listener = network.listen(address).await;
        let listener = listener.with_context(|| {
            format!(
                "cannot listen on {address} for Kafka clients; set listeners.kafka.address to \
                 another address, or to an empty one to turn Kafka off (--set-config \
                 listeners.kafka.address=, also with --dev)"
            )
        })?;
        let address = listener.local_addr()?;
        let tls = match kafka.tls.clone() {
            Some(files) => Some(ServerTls::load(files).context("listeners.kafka.tls")?),
            None => None,
        };
        let advertised = kafka.advertised(address);
        let listeners = &mut config.broker.listeners;
        listeners.insert(LISTENER.to_owned(), advertised);
        Ok(Some(Self {
            config: kafka,
            listener,
            address,
            tls,
        }))
    }

    /// Serves `broker` until `stop` is cancelled and the drain is over.
    pub(crate) fn serve(
        self,
        broker: Arc<SharedBroker>,
        metrics: Metrics,
        grace: std::time::Duration,
        unread: Arc<UnreadBudget>,
        stop: CancellationToken,
    ) -> Result<Serving> {
        let address = self.address;
        let advertised = self.config.advertised(address);
        if self.tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                kafka = %address,
                "the Kafka protocol is served in plaintext: anyone who can reach it can read and write everything"
            );
        }
        tracing::info!(kafka = %address, advertised, "serving the Kafka protocol");
        let options = Options {
            advertised: self.config.advertised(self.address),
            request_max_bytes: self.config.request_max_bytes,
            idle_max: self.config.idle_max,
            connections: self.config.connections,
            auto_create: self.config.auto_create,
            num_partitions: self.config.num_partitions,
            default_replication_factor: self.config.default_replication_factor,
            lower_replication: self.config.lower_replication,
            node_configs: self.config.node_configs,
            drain_grace: grace,
            unread,
            ..Options::default()
        };
        let server = Server::new(broker, metrics, options)
            .context("listeners.kafka.advertised_address")?
            .with_tls(self.tls);
        Ok(Serving {
            task: Some(tokio::spawn(server.run(self.listener, stop))),
            address: Some(self.address),
        })
    }
}

impl Serving {
    /// There is no such listener.
    pub(crate) const NONE: Self = Self {
        task: None,
        address: None,
    };

    /// Resolves when the listener has ended, which it does not do by itself; never where there is none. Not to be
    /// called again afterwards.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let Some(task) = &mut self.task else {
            return pending().await;
        };
        let ended = task.await;
        self.task = None;
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("the Kafka listener ended"),
            Ok(Err(error)) => error.into(),
            Err(error) => anyhow::Error::from(error).context("Kafka listener"),
        }
    }

    /// Waits for the end of a drain, or cuts it short.
    pub(crate) async fn stop(self, cut: bool) -> Result<()> {
        let Some(task) = self.task else {
            return Ok(());
        };
        if cut {
            task.abort();
            return Ok(());
        }
        task.await
            .map_err(anyhow::Error::from)
            .and_then(|served| served.map_err(anyhow::Error::from))
            .context("Kafka listener")
    }
}
