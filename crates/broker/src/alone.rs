//! The registry of a node that is alone: changes of metadata are made one at a time: check, apply to a copy,
//! make the directories, store the copy durably, publish.
//!
//! Invariants: a topic is visible only after its metadata is durable and its logs are open; a directory is
//! removed only after its deletion is durable, and if that is interrupted it is finished at the next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use varve_broker_api::{
    AddPartitions, CreateTopic, Error, ProducerSession, Result, TopicInfo, UpdateConfigs,
};
use varve_metadata::{Command as Change, CreateTopic as NewTopic, FeatureRange, State};
use varve_types::text::counted;
use varve_types::{
    BrokerEpoch, ErrorKind, NodeId, PartitionId, ProducerId, TopicConfig, TopicId, TopicName,
    limits,
};

use crate::config::BrokerConfig;
use crate::configs;
use crate::lane::Command;
use crate::metadata_file::{self, Stored};
use crate::opener::{OpenAs, Opener};
use crate::partition::Partition;
use crate::registry::{Changes, Registry, Topic, View, check_partition_count, info, rejected};

/// Producer ids taken from the metadata at a time, so that most sessions cost no metadata write.
pub(crate) const PRODUCER_ID_BLOCK: u32 = 1_000;

/// How long a repeated `request_id` gets the first answer, in milliseconds.
const REQUEST_ID_MS: i64 = 600_000;

/// What changes are made to.
#[derive(Default)]
pub(crate) struct Ledger {
    stored: Stored,
    producer_ids: std::ops::Range<i64>,
    recent_requests: Vec<(u128, i64, TopicInfo)>,
}

impl Registry {
    /// Loads the metadata and opens every partition. Blocking: reads every log's tail.
    pub(crate) fn open_alone(
        opener: Opener,
    ) -> std::result::Result<Self, metadata_file::MetadataFileError> {
        let stored = load(&opener)?;
        let state = stored.state.clone();
        let ledger = Ledger {
            stored,
            ..Ledger::default()
        };
        let registry = Self::new(opener, Changes::Alone(Box::new(Mutex::new(ledger))));
        let topics = registry.open_all(&state);
        registry.publish(state.version(), topics);
        Ok(registry)
    }

    fn open_all(&self, state: &State) -> BTreeMap<TopicName, Arc<Topic>> {
        let mut topics = BTreeMap::new();
        for (name, meta) in state.topics() {
            let info = info(name, meta);
            let config = self.config_of(&info);
            let partitions = (0..info.partitions).map(PartitionId);
            let mode = OpenAs::Alone { fresh: false };
            let opened = self
                .opener
                .open_many(&info, &config, partitions, mode, || self.slot());
            let partitions = by_number(opened);
            topics.insert(info.name.clone(), Arc::new(Topic { info, partitions }));
        }
        topics
    }

    /// Applies a change to a copy, stores the copy, and only then makes it the state.
    async fn commit(&self, ledger: &mut Ledger, change: Change, deleting: &[String]) -> Result<()> {
        let mut stored = ledger.stored.clone();
        varve_metadata::apply(&mut stored.state, change).map_err(|r| rejected(&r))?;
        stored.deleting.extend_from_slice(deleting);
        self.store(ledger, stored).await
    }

    async fn store(&self, ledger: &mut Ledger, stored: Stored) -> Result<()> {
        let (vfs, dir) = (
            Arc::clone(&self.opener.vfs),
            self.opener.config.data_dir.clone(),
        );
        let copy = stored.clone();
        let written = tokio::task::spawn_blocking(move || metadata_file::store(&*vfs, &dir, &copy));
        match written.await {
            Ok(Ok(())) => {
                ledger.stored = stored;
                Ok(())
            }
            Ok(Err(error)) => Err(Error::new(
                ErrorKind::StorageError,
                format!("the metadata change could not be stored: {error}"),
            )),
            Err(error) => Err(Error::new(ErrorKind::StorageError, error.to_string())),
        }
    }

    pub(crate) async fn create_topic_alone(
        &self,
        ledger: &Mutex<Ledger>,
        request: CreateTopic,
    ) -> Result<TopicInfo> {
        let mut ledger = ledger.lock().await;
        let now_ms = self.opener.clock.wall_ms();
        ledger
            .recent_requests
            .retain(|(_, at, _)| now_ms.saturating_sub(*at) < REQUEST_ID_MS);
        if let Some(id) = request.request_id
            && let Some((_, _, info)) = ledger.recent_requests.iter().find(|(r, _, _)| *r == id)
            && info.name == request.topic
        {
            return Ok(info.clone());
        }
        let info = self.check_new(&request, now_ms)?;
        let config = self.resolve(&info.configs, info.replication_factor)?;
        if request.validate_only {
            return Ok(info);
        }
        let partitions = self.open_new(&info, &config, 0..info.partitions).await?;
        let change = Change::CreateTopic(NewTopic {
            name: info.name.clone(),
            id: info.id,
            partitions: info.partitions,
            replication_factor: info.replication_factor,
            configs: info.configs.clone(),
            labels: info.labels.clone(),
            created_ms: info.created_ms,
            placement: request.placement,
        });
        if let Err(error) = self.commit(&mut ledger, change, &[]).await {
            self.close(&partitions).await;
            self.opener
                .remove_topic_dir(&self.opener.dir_name(&info))
                .await;
            return Err(error);
        }
        if let Some(id) = request.request_id {
            ledger.recent_requests.push((id, now_ms, info.clone()));
        }
        let topic = Topic {
            info: info.clone(),
            partitions: by_number(partitions),
        };
        self.replace(&ledger, &info.name, Some(topic));
        tracing::info!(topic = %info.name, partitions = info.partitions, "topic created");
        Ok(info)
    }

    fn check_new(&self, request: &CreateTopic, now_ms: i64) -> Result<TopicInfo> {
        let view = self.view();
        if view.topics.contains_key(&request.topic) {
            let text = format!(
                "topic {:?} already exists; nothing was changed",
                request.topic.as_str()
            );
            return Err(
                Error::new(ErrorKind::TopicAlreadyExists, text).with("topic", &request.topic)
            );
        }
        let partitions = request
            .partitions
            .unwrap_or(self.opener.config.num_partitions);
        check_partition_count(partitions)?;
        self.check_room(&view, partitions)?;
        let replication_factor = request.replication_factor.unwrap_or(1);
        if replication_factor != 1 {
            let text = format!(
                "replication factor {replication_factor} needs that many nodes, but this cluster \
                 has 1; nothing was created"
            );
            return Err(Error::invalid("replication_factor", text));
        }
        self.check_placement(&request.placement, 0..partitions)?;
        Ok(TopicInfo {
            name: request.topic.clone(),
            id: TopicId(uuid::Uuid::new_v4().as_u128()),
            partitions,
            replication_factor,
            configs: configs::stored(&request.configs)?,
            labels: request.labels.clone(),
            created_ms: now_ms,
        })
    }

    fn check_room(&self, view: &View, more: i32) -> Result<()> {
        let present: usize = view.topics.values().map(|t| t.partitions.len()).sum();
        let max = limits::PARTITIONS_PER_NODE_MAX;
        if present + more.unsigned_abs() as usize > max {
            let text = format!(
                "this node already has {} and takes at most {max}; nothing was created",
                counted(present, "partition")
            );
            return Err(Error::new(ErrorKind::PolicyViolation, text));
        }
        Ok(())
    }

    fn check_placement(
        &self,
        placement: &BTreeMap<i32, Vec<NodeId>>,
        partitions: std::ops::Range<i32>,
    ) -> Result<()> {
        let me = self.opener.config.node;
        for (partition, nodes) in placement {
            if !partitions.contains(partition) {
                let text = format!(
                    "placement names partition {partition}, which the call does not create"
                );
                return Err(Error::invalid("placement", text));
            }
            if nodes.as_slice() != [me] {
                let text =
                    format!("placement of partition {partition} must be [{me}], the only node");
                return Err(Error::invalid("placement", text));
            }
        }
        if placement.is_empty() || placement.len() == partitions.len() {
            Ok(())
        } else {
            Err(Error::invalid(
                "placement",
                "placement must name every partition or none",
            ))
        }
    }

    async fn open_new(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partitions: std::ops::Range<i32>,
    ) -> Result<Vec<Arc<Partition>>> {
        let slots: Vec<u32> = partitions.clone().map(|_| self.slot()).collect();
        let (opener, info, config) = (self.opener.clone(), info.clone(), config.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let mut slots = slots.into_iter();
            let next = || slots.next().unwrap_or_default();
            let mode = OpenAs::Alone { fresh: true };
            opener.open_many(&info, &config, partitions.map(PartitionId), mode, next)
        })
        .await
        .map_err(|e| Error::new(ErrorKind::StorageError, e.to_string()))?;
        if let Some(bad) = opened.iter().find(|p| p.offline().is_some()) {
            let error = Error::new(
                ErrorKind::StorageError,
                format!(
                    "{} could not be opened: {}",
                    bad.id,
                    bad.offline().unwrap_or_default()
                ),
            );
            self.close(&opened).await;
            return Err(error);
        }
        Ok(opened)
    }

    fn replace(&self, ledger: &Ledger, name: &TopicName, topic: Option<Topic>) {
        let mut topics = self.view().topics.clone();
        match topic {
            Some(topic) => topics.insert(name.clone(), Arc::new(topic)),
            None => topics.remove(name),
        };
        self.publish(ledger.stored.state.version(), topics);
    }

    pub(crate) async fn delete_topic_alone(
        &self,
        ledger: &Mutex<Ledger>,
        name: &TopicName,
        id: Option<TopicId>,
    ) -> Result<()> {
        let mut ledger = ledger.lock().await;
        let topic = self.topic(name)?;
        if let Some(id) = id
            && id != topic.info.id
        {
            let text = format!(
                "topic {:?} has id {}, not {id}; nothing was deleted",
                name.as_str(),
                topic.info.id
            );
            return Err(Error::new(ErrorKind::TopicNotFound, text).with("topic", name));
        }
        let dir = self.opener.dir_name(&topic.info);
        let change = Change::DeleteTopic {
            name: name.clone(),
            id: Some(topic.info.id),
        };
        self.commit(&mut ledger, change, std::slice::from_ref(&dir))
            .await?;
        self.replace(&ledger, name, None);
        let held: Vec<_> = topic.partitions.values().cloned().collect();
        self.close(&held).await;
        tracing::info!(topic = %name, "topic deleted");
        if self.opener.remove_topic_dir(&dir).await {
            let mut stored = ledger.stored.clone();
            stored.deleting.retain(|d| *d != dir);
            // Not stored: the directory is looked for again at the next start, and is not there.
            let _ = self.store(&mut ledger, stored).await;
        }
        Ok(())
    }

    /// Removes directories whose deletion was interrupted.
    pub(crate) async fn finish_deletions(&self) {
        let Changes::Alone(ledger) = &self.changes else {
            return;
        };
        let mut ledger = ledger.lock().await;
        let mut stored = ledger.stored.clone();
        if stored.deleting.is_empty() {
            return;
        }
        let mut left = Vec::new();
        for dir in std::mem::take(&mut stored.deleting) {
            if !self.opener.remove_topic_dir(&dir).await {
                left.push(dir);
            }
        }
        stored.deleting = left;
        let _ = self.store(&mut ledger, stored).await;
    }

    pub(crate) async fn add_partitions_alone(
        &self,
        ledger: &Mutex<Ledger>,
        request: AddPartitions,
    ) -> Result<TopicInfo> {
        let mut ledger = ledger.lock().await;
        let topic = self.topic(&request.topic)?;
        let present = topic.info.partitions;
        check_partition_count(request.total)?;
        if request.total < present {
            let text = format!(
                "topic {:?} already has {}, and the number cannot be reduced; nothing was changed",
                request.topic.as_str(),
                counted(present, "partition")
            );
            return Err(Error::invalid("partition_count", text));
        }
        let added = present..request.total;
        self.check_placement(&request.placement, added.clone())?;
        self.check_room(&self.view(), request.total - present)?;
        let info = TopicInfo {
            partitions: request.total,
            ..topic.info.clone()
        };
        if request.validate_only || added.is_empty() {
            return Ok(info);
        }
        let config = self.resolve(&info.configs, info.replication_factor)?;
        let opened = self.open_new(&info, &config, added.clone()).await?;
        let change = Change::AddPartitions {
            name: info.name.clone(),
            total: request.total,
            placement: request.placement,
        };
        if let Err(error) = self.commit(&mut ledger, change, &[]).await {
            self.close(&opened).await;
            return Err(error);
        }
        let held = topic.partitions.values().cloned().chain(opened);
        let partitions = by_number(held.collect());
        self.replace(
            &ledger,
            &info.name,
            Some(Topic {
                info: info.clone(),
                partitions,
            }),
        );
        Ok(info)
    }

    pub(crate) async fn update_configs_alone(
        &self,
        ledger: &Mutex<Ledger>,
        request: UpdateConfigs,
    ) -> Result<TopicInfo> {
        let mut ledger = ledger.lock().await;
        let topic = self.topic(&request.topic)?;
        let mut configs = topic.info.configs.clone();
        for (name, change) in request.changes {
            configs::change(&mut configs, &name, change)?;
        }
        let config = self.resolve(&configs, topic.info.replication_factor)?;
        let info = TopicInfo {
            configs: configs.clone(),
            ..topic.info.clone()
        };
        if request.validate_only {
            return Ok(info);
        }
        let change = Change::SetTopicConfigs {
            name: info.name.clone(),
            configs,
        };
        self.commit(&mut ledger, change, &[]).await?;
        for partition in topic.partitions.values() {
            let config = Box::new(config.clone());
            let _ = partition.lane.push(Command::Configure {
                slot: partition.slot,
                config,
            });
        }
        let partitions = topic.partitions.clone();
        self.replace(
            &ledger,
            &info.name,
            Some(Topic {
                info: info.clone(),
                partitions,
            }),
        );
        Ok(info)
    }

    pub(crate) async fn init_producer_alone(
        &self,
        ledger: &Mutex<Ledger>,
        name: Option<String>,
    ) -> Result<ProducerSession> {
        let mut ledger = ledger.lock().await;
        let idle_expiry_ms = limits::PRODUCER_IDLE_EXPIRY_MS;
        let producer = match name {
            Some(name) => {
                let change = Change::BumpProducerEpoch { name: name.clone() };
                self.commit(&mut ledger, change, &[]).await?;
                let found = ledger.stored.state.producer(&name);
                found.ok_or_else(|| {
                    Error::new(
                        ErrorKind::StorageError,
                        format!("the state of producer {name:?} could not be stored"),
                    )
                })?
            }
            None => {
                if ledger.producer_ids.is_empty() {
                    let first = ledger.stored.state.next_producer_id();
                    let count = PRODUCER_ID_BLOCK;
                    self.commit(&mut ledger, Change::AllocateProducerIds { count }, &[])
                        .await?;
                    ledger.producer_ids = first..first + i64::from(count);
                }
                let id = ledger.producer_ids.start;
                ledger.producer_ids.start += 1;
                ProducerId { id, epoch: 0 }
            }
        };
        Ok(ProducerSession {
            producer,
            idle_expiry_ms,
        })
    }
}

fn by_number(partitions: Vec<Arc<Partition>>) -> BTreeMap<PartitionId, Arc<Partition>> {
    let number = |p: Arc<Partition>| (p.id.partition, p);
    partitions.into_iter().map(number).collect()
}

/// The stored state, in which this node is registered, alive, and leads what it holds.
fn load(opener: &Opener) -> std::result::Result<Stored, metadata_file::MetadataFileError> {
    let (vfs, config) = (&*opener.vfs, &opener.config);
    let mut stored = metadata_file::load(vfs, &config.data_dir)?.unwrap_or_default();
    match join(&stored.state, config) {
        Ok(state) => {
            stored.state = state;
            metadata_file::store(vfs, &config.data_dir, &stored)?;
        }
        Err(rejection) => tracing::error!(%rejection, "this node could not be registered"),
    }
    Ok(stored)
}

/// What a controller would do, on a node that is its own: the last run is over, because the data directory
/// is ours, and this one has every change.
fn join(
    state: &State,
    config: &BrokerConfig,
) -> std::result::Result<State, varve_metadata::Rejection> {
    let (mut state, node) = (state.clone(), config.node);
    let last = state.node(node).map(|n| n.epoch);
    if let Some(epoch) = last {
        varve_metadata::apply(&mut state, Change::FenceNode { node, epoch })?;
    }
    let register = Change::RegisterNode {
        node,
        incarnation: uuid::Uuid::new_v4().as_u128(),
        directory: config.directory,
        address: config.address.clone(),
        peer_address: String::new(),
        rack: config.rack.clone(),
        features: FeatureRange::THIS_PROGRAM,
        version: config.version.to_owned(),
        clean: last.filter(|_| config.clean_start),
    };
    varve_metadata::apply(&mut state, register)?;
    let epoch = state.node(node).map_or(BrokerEpoch::ZERO, |n| n.epoch);
    varve_metadata::apply(&mut state, Change::UnfenceNode { node, epoch })?;
    Ok(state)
}
