//! What a run is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_client::proto as v1;
use varve_client::{Admin, Client, ClientConfig, ClientError};
use varve_types::TopicName;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses of the nodes; every worker begins with another one.
    pub brokers: Vec<String>,
    /// How connections are protected; `None`: they are not.
    pub tls: Option<std::sync::Arc<varve_client::ClientTls>>,
    /// What connections are opened over.
    pub network: std::sync::Arc<dyn varve_client::Network>,
    /// The topic, which is of this run alone.
    pub topic: TopicName,
    /// Its partitions.
    pub partitions: i32,
    /// Number of the run: records of other runs are no records of this one.
    pub run: u64,
    /// What choices are drawn from.
    pub seed: u64,
    /// Idempotent producers.
    pub producers: u32,
    /// Producers without idempotence; the second and every other one asks the leader only.
    pub plain_producers: u32,
    /// Consumers, each of all partitions.
    pub consumers: u32,
    /// Sends in a second, all producers together.
    pub rate: u32,
    /// Sends of one producer that wait for an answer at most.
    pub in_flight: usize,
    /// Bytes of the largest record.
    pub record_bytes: u64,
    /// A send is given up after this.
    pub delivery_timeout: Duration,
    /// About how long a producer or a reader lives before another takes its place.
    pub life: Duration,
}

impl Config {
    /// A run of 4 idempotent and 2 other producers and 3 consumers.
    #[must_use]
    pub fn new(brokers: Vec<String>, topic: TopicName, partitions: i32, seed: u64) -> Self {
        Self {
            brokers,
            tls: None,
            network: std::sync::Arc::new(varve_client::Tcp),
            topic,
            partitions,
            run: seed,
            seed,
            producers: 4,
            plain_producers: 2,
            consumers: 3,
            rate: 500,
            in_flight: 64,
            record_bytes: 1_000,
            delivery_timeout: Duration::from_secs(20),
            life: Duration::from_secs(30),
        }
    }

    /// Connections that try the nodes from number `first` on.
    ///
    /// # Errors
    /// When an address is none.
    pub fn client(&self, first: u32) -> Result<Client, ClientError> {
        let mut brokers = self.brokers.clone();
        if !brokers.is_empty() {
            let first = first as usize % brokers.len();
            brokers.rotate_left(first);
        }
        Client::new(ClientConfig {
            brokers,
            client_id: format!("varve-check-{first}"),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            tls: self.tls.clone(),
            network: self.network.clone(),
            ..ClientConfig::default()
        })
    }
}

/// Creates the topic of a run. Repeats until a minute has passed.
///
/// # Errors
/// As the cluster says.
pub async fn create_topic(
    config: &Config,
    replicas: i32,
    configs: &BTreeMap<String, String>,
) -> Result<(), ClientError> {
    let admin = Admin::new(config.client(0)?);
    let request = v1::CreateTopicRequest {
        topic: config.topic.to_string(),
        partition_count: config.partitions,
        replication_factor: replicas,
        configs: configs.clone().into_iter().collect(),
        ..Default::default()
    };
    let within = Duration::from_secs(60);
    let created = admin
        .client()
        .retrying(within, || admin.create_topic(request.clone()));
    match created.await {
        Ok(_) => Ok(()),
        // A repeat of a call whose answer was lost.
        Err(error) if error.kind() == Some(varve_types::ErrorKind::TopicAlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}
