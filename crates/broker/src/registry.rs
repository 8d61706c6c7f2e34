//! Which topics there are, and which of their partitions this node holds. Lookups read an immutable view;
//! changes are made by [`crate::alone`] on a node that is alone, and by the cluster's metadata log elsewhere.
//!
//! Invariants: a partition is visible only after its log is open; a partition whose directory is missing is
//! offline, never silently empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, oneshot, watch};
use varve_broker_api::{
    AddPartitions, ConfigEntry, CreateTopic, Error, ProducerSession, Result, TopicInfo,
    UpdateConfigs,
};
use varve_metadata::{PartitionKey, Rejection};
use varve_types::{
    ErrorKind, PartitionId, TopicConfig, TopicId, TopicName, TopicPartition, limits,
};

use crate::alone::Ledger;
use crate::cluster::{InCluster, key};
use crate::configs;
use crate::lane::Command;
use crate::opener::Opener;
use crate::partition::{Partition, topic_not_found};

/// A topic and those of its partitions that this node holds.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) info: TopicInfo,
    pub(crate) partitions: BTreeMap<PartitionId, Arc<Partition>>,
}

impl Topic {
    /// One partition, if this node holds it.
    ///
    /// # Errors
    /// That the topic has no such partition; or that other nodes hold it.
    pub(crate) fn partition(&self, partition: PartitionId) -> Result<&Arc<Partition>> {
        if let Some(found) = self.partitions.get(&partition) {
            return Ok(found);
        }
        self.check_number(partition)?;
        let text = format!(
            "this node does not hold partition {}:{partition}; nothing was changed; ask its leader",
            self.info.name
        );
        Err(Error::new(ErrorKind::NotLeader, text)
            .with("topic", &self.info.name)
            .with("partition", partition))
    }

    /// Refuses numbers that no partition of the topic has.
    pub(crate) fn check_number(&self, partition: PartitionId) -> Result<()> {
        if (0..self.info.partitions).contains(&partition.0) {
            return Ok(());
        }
        let text = format!(
            "topic {:?} has no partition {partition}; it has {} (0 to {})",
            self.info.name.as_str(),
            self.info.partitions,
            self.info.partitions - 1
        );
        Err(Error::new(ErrorKind::PartitionNotFound, text)
            .with("topic", &self.info.name)
            .with("partition", partition))
    }
}

/// Everything there is, at one moment.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) version: u64,
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    /// What this node holds, by the ids of topics.
    pub(crate) by_key: BTreeMap<PartitionKey, Arc<Partition>>,
}

impl View {
    /// Every partition that this node holds.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics.values().flat_map(|t| t.partitions.values())
    }
}

/// A partition that may be read here.
pub(crate) struct Readable {
    pub(crate) partition: Arc<Partition>,
    /// Another node leads it.
    pub(crate) copy: bool,
}

/// Who decides about changes of metadata.
pub(crate) enum Changes {
    /// This node.
    Alone(Box<Mutex<Ledger>>),
    /// All of them together.
    Cluster(Arc<InCluster>),
}

/// The registry of a broker.
pub(crate) struct Registry {
    pub(crate) opener: Opener,
    view: ArcSwap<View>,
    version: watch::Sender<u64>,
    pub(crate) changes: Changes,
    next_slot: AtomicU32,
}

impl Registry {
    pub(crate) fn new(opener: Opener, changes: Changes) -> Self {
        Self {
            view: ArcSwap::default(),
            version: watch::Sender::new(0),
            changes,
            next_slot: AtomicU32::new(0),
            opener,
        }
    }

    /// Refuses to begin what other nodes could not read: `what`, which needs this feature level.
    ///
    /// # Errors
    /// `UnsupportedFeature`.
    pub(crate) fn check_level(&self, needed: u16, what: &str) -> Result<()> {
        let Some(cluster) = self.cluster() else {
            return Ok(());
        };
        let level = varve_metadata::log::read(&*cluster.log, varve_metadata::State::level);
        if level >= needed {
            return Ok(());
        }
        let text = format!(
            "the cluster is at feature level {level}, but {what} need level {needed}; nothing was \
             changed; raise the level once every node runs a version that supports it"
        );
        Err(Error::new(ErrorKind::UnsupportedFeature, text).with("level", level))
    }

    /// The cluster, if this node is not alone.
    pub(crate) fn cluster(&self) -> Option<&Arc<InCluster>> {
        match &self.changes {
            Changes::Alone(_) => None,
            Changes::Cluster(cluster) => Some(cluster),
        }
    }

    pub(crate) async fn create_topic(&self, request: CreateTopic) -> Result<TopicInfo> {
        match &self.changes {
            Changes::Alone(ledger) => self.create_topic_alone(ledger, request).await,
            Changes::Cluster(cluster) => self.create_topic_in(cluster, request).await,
        }
    }

    pub(crate) async fn delete_topic(&self, name: &TopicName, id: Option<TopicId>) -> Result<()> {
        match &self.changes {
            Changes::Alone(ledger) => self.delete_topic_alone(ledger, name, id).await,
            Changes::Cluster(cluster) => self.delete_topic_in(cluster, name, id).await,
        }
    }

    pub(crate) async fn add_partitions(&self, request: AddPartitions) -> Result<TopicInfo> {
        match &self.changes {
            Changes::Alone(ledger) => self.add_partitions_alone(ledger, request).await,
            Changes::Cluster(cluster) => self.add_partitions_in(cluster, request).await,
        }
    }

    pub(crate) async fn update_configs(&self, request: UpdateConfigs) -> Result<TopicInfo> {
        match &self.changes {
            Changes::Alone(ledger) => self.update_configs_alone(ledger, request).await,
            Changes::Cluster(cluster) => self.update_configs_in(cluster, request).await,
        }
    }

    pub(crate) async fn init_producer(&self, name: Option<String>) -> Result<ProducerSession> {
        match &self.changes {
            Changes::Alone(ledger) => self.init_producer_alone(ledger, name).await,
            Changes::Cluster(cluster) => self.init_producer_in(cluster, name).await,
        }
    }

    /// Whether a log was refused in this run, was not opened since, and is of a topic that is still there.
    pub(crate) fn has_refused(&self) -> bool {
        let view = self.view();
        let mut there = view.topics.values().map(|t| t.info.id);
        let refused = self.opener.refused.lock();
        !refused.is_empty() && there.any(|id| refused.iter().any(|key| key.topic == id))
    }

    pub(crate) fn slot(&self) -> u32 {
        self.next_slot.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn publish(&self, version: u64, topics: BTreeMap<TopicName, Arc<Topic>>) {
        let held = topics.values().flat_map(|t| {
            let name =
                |(p, held): (&PartitionId, &Arc<Partition>)| (key(t.info.id, *p), Arc::clone(held));
            t.partitions.iter().map(name)
        });
        let by_key = held.collect();
        self.view.store(Arc::new(View {
            version,
            topics,
            by_key,
        }));
        self.version.send_replace(version);
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn topic(&self, name: &TopicName) -> Result<Arc<Topic>> {
        let view = self.view.load();
        let found = view.topics.get(name).cloned();
        found.ok_or_else(|| self.unknown_topic(&view, name))
    }

    /// A topic that the cluster has, and this node has not opened yet, is no unknown one: it only takes a moment.
    fn unknown_topic(&self, view: &View, name: &TopicName) -> Error {
        let made = self
            .cluster()
            .is_some_and(|c| varve_metadata::log::read(&*c.log, |s| s.topic(name).is_some()));
        if made {
            let text = format!(
                "topic {:?} is new, and this node is still opening it; nothing was changed; try again shortly",
                name.as_str()
            );
            return Error::new(ErrorKind::LeaderNotAvailable, text).with("topic", name);
        }
        let error = topic_not_found(name.as_str());
        let names = view
            .topics
            .keys()
            .filter(|t| !t.is_internal())
            .map(TopicName::as_str);
        match varve_types::config::nearest(name.as_str(), names) {
            Some(near) => Error {
                message: format!("{}; did you mean {near:?}?", error.message),
                ..error.with("nearest", near)
            },
            None => error,
        }
    }

    /// A partition that this node holds, whether it leads it or not.
    pub(crate) fn partition(&self, id: &TopicPartition) -> Result<Arc<Partition>> {
        let topic = self.topic(&id.topic)?;
        let found = topic.partition(id.partition).cloned();
        found.map_err(|error| self.with_hint(error, id))
    }

    /// A partition that this node leads, as far as it knows.
    pub(crate) fn leading(&self, id: &TopicPartition) -> Result<Arc<Partition>> {
        let partition = self.partition(id)?;
        if self.cluster().is_none()
            || partition.leading().is_some()
            || partition.offline().is_some()
            || partition.is_deleted()
        {
            return Ok(partition);
        }
        Err(self.not_leading(id))
    }

    /// A partition that this node may read for a caller in `rack`: one it leads, or a copy that is in sync
    /// and in the caller's rack.
    pub(crate) fn readable(&self, id: &TopicPartition, rack: &str) -> Result<Readable> {
        let error = match self.leading(id) {
            Ok(partition) => {
                return Ok(Readable {
                    partition,
                    copy: false,
                });
            }
            Err(error) => error,
        };
        let near = !rack.is_empty() && rack == self.opener.config.rack;
        let in_sync = near
            && error.kind == ErrorKind::NotLeader
            && self.cluster().is_some_and(|cluster| cluster.in_sync(id));
        match self.partition(id) {
            Ok(partition) if in_sync && partition.offline().is_none() => Ok(Readable {
                partition,
                copy: true,
            }),
            _ => Err(error),
        }
    }

    /// The error of a partition that another node leads, or nobody.
    pub(crate) fn not_leading(&self, id: &TopicPartition) -> Error {
        let leader = self.cluster().and_then(|c| c.hint(&id.topic, id.partition));
        let me = self.opener.config.node;
        let (kind, text) = match leader.as_ref().map(|l| l.node) {
            Some(node) if node != me => (
                ErrorKind::NotLeader,
                format!(
                    "node {node} leads partition {id}, not this one; nothing was changed; ask that \
                     node"
                ),
            ),
            _ => (
                ErrorKind::LeaderNotAvailable,
                format!("partition {id} has no leader at present; nothing was changed; try again"),
            ),
        };
        let error = Error::new(kind, text)
            .with("topic", &id.topic)
            .with("partition", id.partition);
        match kind {
            ErrorKind::NotLeader => Error {
                leader: leader.map(Box::new),
                ..error
            },
            _ => error,
        }
    }

    /// Adds where to go.
    pub(crate) fn with_hint(&self, error: Error, id: &TopicPartition) -> Error {
        if error.kind == ErrorKind::NotLeader && error.leader.is_none() {
            self.not_leading(id)
        } else {
            error
        }
    }

    /// Topics as the groups core wants them.
    pub(crate) fn group_topics(&self) -> BTreeMap<TopicName, varve_groups::TopicState> {
        let state = |t: &Topic| varve_groups::TopicState {
            id: t.info.id,
            partitions: t.info.partitions,
        };
        self.view
            .load()
            .topics
            .iter()
            .map(|(n, t)| (n.clone(), state(t)))
            .collect()
    }

    /// What is in force for a topic that is there.
    pub(crate) fn config_of(&self, info: &TopicInfo) -> TopicConfig {
        // Whether they suit the number of replicas is asked when they are set. A topic that has fewer since, or a
        // node with other defaults, must not lose what it was told of retention and compaction.
        let defaults = &self.opener.config.topic_defaults;
        let mut config = TopicConfig::resolve(&info.configs, defaults).unwrap_or_else(|error| {
            // Checked when they were set, perhaps by another version.
            tracing::error!(
                topic = %info.name, %error,
                "invalid topic configs in the metadata; using the defaults"
            );
            TopicConfig::default()
        });
        let replicas = info.replication_factor.unsigned_abs() as usize;
        config.min_insync_replicas = config.min_insync_replicas.min(replicas).max(1);
        config
    }

    /// What configs that are about to be set come to, if they suit a topic of so many replicas.
    pub(crate) fn resolve(
        &self,
        configs: &BTreeMap<String, String>,
        replication_factor: i32,
    ) -> Result<TopicConfig> {
        let config = TopicConfig::resolve(configs, &self.opener.config.topic_defaults)
            .map_err(|e| configs::refused(&e))?;
        if config.min_insync_replicas > replication_factor.unsigned_abs() as usize {
            let text = format!(
                "min.insync.replicas={} is greater than the {replication_factor} replicas of each \
                 partition; nothing was changed",
                config.min_insync_replicas
            );
            return Err(
                Error::new(ErrorKind::InvalidConfig, text).with("key", "min.insync.replicas")
            );
        }
        Ok(config)
    }

    /// Has the lanes let go of partitions; each says so once it has.
    pub(crate) fn begin_close(&self, partitions: &[Arc<Partition>]) -> Vec<oneshot::Receiver<()>> {
        let mut closed = Vec::new();
        for partition in partitions {
            partition.mark_deleted();
            let (reply, done) = oneshot::channel();
            if partition
                .lane
                .push(Command::Close {
                    slot: partition.slot,
                    reply,
                })
                .is_ok()
            {
                closed.push(done);
            }
        }
        closed
    }

    pub(crate) async fn close(&self, partitions: &[Arc<Partition>]) {
        for done in self.begin_close(partitions) {
            let _ = done.await;
        }
    }

    pub(crate) fn topic_configs(&self, name: &TopicName) -> Result<Vec<ConfigEntry>> {
        let topic = self.topic(name)?;
        Ok(configs::entries(
            &topic.info.configs,
            &self.opener.config.topic_defaults,
        ))
    }
}

pub(crate) fn info(name: &TopicName, meta: &varve_metadata::Topic) -> TopicInfo {
    TopicInfo {
        name: name.clone(),
        id: meta.id,
        partitions: meta.partition_count(),
        replication_factor: meta.replication_factor,
        configs: meta.configs.clone(),
        labels: meta.labels.clone(),
        created_ms: meta.created_ms,
    }
}

pub(crate) fn check_partition_count(count: i32) -> Result<()> {
    let max = limits::PARTITIONS_PER_TOPIC_MAX;
    if (1..=max).contains(&count) {
        return Ok(());
    }
    let text =
        format!("a topic must have 1 to {max} partitions; found {count}; nothing was changed");
    Err(Error::invalid("partition_count", text))
}

pub(crate) fn rejected(rejection: &Rejection) -> Error {
    let mut error = Error::new(
        rejection.kind(),
        format!("{rejection}; nothing was changed"),
    );
    error.field = match rejection {
        Rejection::NotEnoughNodes { .. } => Some("replication_factor"),
        Rejection::OutOfRange { what, .. } => field_of(what),
        Rejection::BadPlacement { .. } => Some("placement"),
        _ => None,
    };
    error
}

/// The field of a request that a number comes from.
fn field_of(what: &str) -> Option<&'static str> {
    match what {
        Rejection::REPLICATION_FACTOR => Some("replication_factor"),
        Rejection::PARTITIONS => Some("partition_count"),
        _ => None,
    }
}
