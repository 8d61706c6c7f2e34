//! What a run is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_client::Isolation;
use varve_client::proto as v1;
use varve_client::{Admin, Client, ClientConfig, ClientError};
use varve_types::{TopicName, TransactionalId};

use crate::Kind;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses of the nodes; every worker begins with another one.
    pub brokers: Vec<String>,
    /// How connections are protected; `None`: they are not.
    pub tls: Option<std::sync::Arc<varve_client::ClientTls>>,
    /// What connections are opened over.
    pub network: std::sync::Arc<dyn varve_client::Network>,
    /// What the clients do; see [`Config::with_kind`].
    pub kind: Kind,
    /// The topic, which is of this run alone.
    pub topic: TopicName,
    /// The topic of what a pipeline makes, for the kind that has one.
    pub made: Option<TopicName>,
    /// Partitions of each topic.
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
    /// Members of each group, where there are groups with members.
    pub members: u32,
    /// Producers with transactions, where there are some and no members have them.
    pub transactional: u32,
    /// The cluster aborts transactions that are open for longer.
    pub transaction_timeout: Duration,
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
    /// A run of 4 idempotent and 2 other producers and 3 consumers, without groups and transactions.
    #[must_use]
    pub fn new(brokers: Vec<String>, topic: TopicName, partitions: i32, seed: u64) -> Self {
        Self {
            brokers,
            tls: None,
            network: std::sync::Arc::new(varve_client::Tcp),
            kind: Kind::Queue,
            topic,
            made: None,
            partitions,
            run: seed,
            seed,
            producers: 4,
            plain_producers: 2,
            consumers: 3,
            members: 3,
            transactional: 4,
            transaction_timeout: Duration::from_secs(10),
            rate: 500,
            in_flight: 64,
            record_bytes: 1_000,
            delivery_timeout: Duration::from_secs(20),
            life: Duration::from_secs(30),
        }
    }

    /// The same run with clients of that kind.
    ///
    /// # Errors
    /// When the name of the topic is too long for what belongs to that kind.
    pub fn with_kind(self, kind: Kind) -> Result<Self, ClientError> {
        let made = match kind {
            Kind::Ctp => Some(named(&format!("{}-made", self.topic))?),
            _ => None,
        };
        let (producers, plain_producers, consumers) = match kind {
            Kind::Queue => (self.producers, self.plain_producers, self.consumers),
            Kind::QueueSubscribe => (self.producers, self.plain_producers, 1),
            Kind::Ctp => (2, 0, 2),
            Kind::Txn | Kind::Abort => (1, 0, 2),
        };
        Ok(Self {
            kind,
            made,
            producers,
            plain_producers,
            consumers,
            ..self
        })
    }

    /// Topics of the run.
    pub fn topics(&self) -> impl Iterator<Item = &TopicName> {
        std::iter::once(&self.topic).chain(&self.made)
    }

    /// Partitions of all topics. In a history they are counted through: those of the second topic come after those of
    /// the first.
    #[must_use]
    pub fn places(&self) -> i32 {
        match self.made {
            Some(_) => self.partitions.saturating_mul(2),
            None => self.partitions,
        }
    }

    /// Topic and partition of a place.
    pub(crate) fn place(&self, place: i32) -> (&TopicName, i32) {
        match &self.made {
            Some(made) if place >= self.partitions => (made, place - self.partitions),
            _ => (&self.topic, place),
        }
    }

    /// The place of a partition.
    pub(crate) fn place_of(&self, topic: &TopicName, partition: i32) -> i32 {
        match &self.made {
            Some(made) if made == topic => self.partitions + partition,
            _ => partition,
        }
    }

    /// Sends in a second of the producers without transactions, and of those with.
    pub(crate) fn rates(&self) -> (u32, u32) {
        let rate = self.rate.max(1);
        match self.kind {
            Kind::Queue | Kind::QueueSubscribe => (rate, 0),
            Kind::Ctp => (rate.div_ceil(2), 0),
            Kind::Txn | Kind::Abort => (rate.div_ceil(4), rate - rate / 4),
        }
    }

    /// A transactional id of the run.
    ///
    /// # Errors
    /// When the name of the topic is too long.
    pub(crate) fn transactional_id(&self, number: u32) -> Result<TransactionalId, ClientError> {
        named(&format!("{}-{number}", self.topic))
    }

    /// Connections that try the nodes from number `first` on.
    ///
    /// # Errors
    /// When an address is none.
    pub fn client(&self, first: u32) -> Result<Client, ClientError> {
        self.client_seeing(first, Isolation::Committed)
    }

    /// As [`Config::client`], for readers of that isolation.
    pub(crate) fn client_seeing(
        &self,
        first: u32,
        isolation: Isolation,
    ) -> Result<Client, ClientError> {
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
            isolation,
        })
    }
}

/// A name made from that of the topic.
pub(crate) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
) -> Result<T, ClientError> {
    name.parse()
        .map_err(|error| ClientError::Config(format!("{name:?} is not a valid name: {error}")))
}

/// Creates the topics of a run. Repeats until a minute has passed.
///
/// # Errors
/// As the cluster says.
pub async fn create_topic(
    config: &Config,
    replicas: i32,
    configs: &BTreeMap<String, String>,
) -> Result<(), ClientError> {
    let admin = Admin::new(config.client(0)?);
    for topic in config.topics() {
        let request = v1::CreateTopicRequest {
            topic: topic.to_string(),
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
            Ok(_) => {}
            // A repeat of a call whose answer was lost.
            Err(error) if error.kind() == Some(varve_types::ErrorKind::TopicAlreadyExists) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
