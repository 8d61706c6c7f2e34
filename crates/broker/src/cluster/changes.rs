//! Changes of topics and producer sessions in a cluster: checked here for what only people get wrong, decided
//! by the metadata log, and answered once this node has applied them.
//!
//! Invariants: what is refused changed nothing; a change whose fate is unknown says so; a request that is
//! repeated under its id gets the answer of the first, as long as the topic lives.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use varve_broker_api::{
    AddPartitions, CreateTopic, Error, ProducerSession, Result, TopicInfo, UpdateConfigs,
};
use varve_metadata::{Command, CreateTopic as NewTopic, Event, ProposeError, State};
use varve_types::text::counted;
use varve_types::{ErrorKind, ProducerId, TopicId, TopicName, limits};

use super::InCluster;
use crate::alone::PRODUCER_ID_BLOCK;
use crate::configs;
use crate::registry::{Registry, check_partition_count, info, rejected};

/// Configs that decide about replication: what a node's defaults say of them becomes part of the topic, so that
/// all nodes go by the same.
const AGREED: [&str; 2] = ["min.insync.replicas", "durability"];
/// How long an answered change may take to be visible here.
const VISIBLE: Duration = Duration::from_secs(5);

/// Producer ids that this node may give out.
pub(crate) type ProducerIds = tokio::sync::Mutex<Range<i64>>;

/// What the API says of a change that was not made.
pub(crate) fn unmade(error: &ProposeError) -> Error {
    match error {
        ProposeError::Rejected(rejection) => rejected(rejection),
        ProposeError::NoLeader => Error::new(ErrorKind::LeaderNotAvailable, error.to_string())
            .after(Duration::from_millis(200)),
        ProposeError::Unknown(_) => Error::new(ErrorKind::CommitTimeout, error.to_string()),
        ProposeError::Stopped(_) => Error::new(ErrorKind::StorageError, error.to_string()),
    }
}

impl InCluster {
    pub(crate) async fn propose(&self, command: Command) -> Result<Event> {
        self.log.propose(command).await.map_err(|e| unmade(&e))
    }

    pub(crate) fn look<T>(&self, take: impl FnOnce(&State) -> T) -> T {
        varve_metadata::log::read(&*self.log, take)
    }

    fn known(&self, name: &TopicName) -> Option<TopicInfo> {
        self.look(|state| state.topic(name).map(|topic| info(name, topic)))
    }

    /// Waits until what was just committed is visible here.
    async fn visible(&self) {
        let version = self.look(State::version);
        let mut applied = self.applied.clone();
        let wait = applied.wait_for(|applied| *applied >= version);
        // It will be visible in a moment; the change is made whatever this says.
        let _ = tokio::time::timeout(VISIBLE, wait).await;
    }
}

impl Registry {
    pub(crate) async fn create_topic_in(
        &self,
        cluster: &Arc<InCluster>,
        request: CreateTopic,
    ) -> Result<TopicInfo> {
        let name = request.topic.clone();
        let partitions = request
            .partitions
            .unwrap_or(self.opener.config.num_partitions);
        check_partition_count(partitions)?;
        let nodes = cluster.look(|s| s.nodes().values().filter(|n| n.takes_replicas()).count());
        let usual = i32::try_from(nodes).unwrap_or(i32::MAX).clamp(1, 3);
        let usual = self
            .opener
            .config
            .default_replication_factor
            .unwrap_or(usual);
        let replication_factor = request.replication_factor.unwrap_or(usual);
        let defaults = &self.opener.config.topic_defaults;
        let mut configs = configs::stored(&request.configs)?;
        for key in AGREED {
            if let Some(value) = defaults.get(key) {
                configs
                    .entry(key.to_owned())
                    .or_insert_with(|| value.clone());
            }
        }
        if replication_factor >= 3 {
            // One replica may fail, and nothing that was acknowledged is lost with it.
            configs
                .entry("min.insync.replicas".to_owned())
                .or_insert_with(|| "2".to_owned());
        }
        self.resolve(&configs, replication_factor)?;
        // A repeated request finds its own topic under the id that only it can have made.
        let id = TopicId(match request.request_id {
            Some(id) => id,
            None => uuid::Uuid::new_v4().as_u128(),
        });
        if let Some(known) = cluster.known(&name).filter(|t| t.id == id) {
            return Ok(known);
        }
        let topic = NewTopic {
            name: name.clone(),
            id,
            partitions,
            replication_factor,
            configs,
            labels: request.labels,
            created_ms: self.opener.clock.wall_ms(),
            placement: request.placement,
        };
        if request.validate_only {
            return cluster.look(|state| {
                let mut copy = state.clone();
                varve_metadata::apply(&mut copy, Command::CreateTopic(topic))
                    .map_err(|r| rejected(&r))?;
                let made = copy.topic(&name).map(|t| info(&name, t));
                made.ok_or_else(|| gone(&name))
            });
        }
        match cluster.propose(Command::CreateTopic(topic)).await {
            Ok(_) => tracing::info!(topic = %name, partitions, replication_factor, "topic created"),
            Err(error) => match cluster.known(&name).filter(|t| t.id == id) {
                Some(known) => return Ok(known),
                None => return Err(error),
            },
        }
        cluster.visible().await;
        cluster.known(&name).ok_or_else(|| gone(&name))
    }

    pub(crate) async fn delete_topic_in(
        &self,
        cluster: &InCluster,
        name: &TopicName,
        id: Option<TopicId>,
    ) -> Result<()> {
        // For the sentence about names that are nearly right.
        self.topic(name)?;
        let name = name.clone();
        cluster.propose(Command::DeleteTopic { name, id }).await?;
        cluster.visible().await;
        Ok(())
    }

    pub(crate) async fn add_partitions_in(
        &self,
        cluster: &InCluster,
        request: AddPartitions,
    ) -> Result<TopicInfo> {
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
        let changed = TopicInfo {
            partitions: request.total,
            ..topic.info.clone()
        };
        if request.total == present {
            return Ok(changed);
        }
        let command = Command::AddPartitions {
            name: request.topic.clone(),
            total: request.total,
            placement: request.placement,
        };
        if request.validate_only {
            let tried = cluster
                .look(|state| varve_metadata::apply(&mut state.clone(), command).map(|_| changed));
            return tried.map_err(|r| rejected(&r));
        }
        cluster.propose(command).await?;
        cluster.visible().await;
        cluster
            .known(&request.topic)
            .ok_or_else(|| gone(&request.topic))
    }

    pub(crate) async fn update_configs_in(
        &self,
        cluster: &InCluster,
        request: UpdateConfigs,
    ) -> Result<TopicInfo> {
        let topic = self.topic(&request.topic)?;
        let mut configs: BTreeMap<String, String> = topic.info.configs.clone();
        for (name, change) in request.changes {
            configs::change(&mut configs, &name, change)?;
        }
        self.resolve(&configs, topic.info.replication_factor)?;
        let changed = TopicInfo {
            configs: configs.clone(),
            ..topic.info.clone()
        };
        if request.validate_only {
            return Ok(changed);
        }
        let name = request.topic.clone();
        cluster
            .propose(Command::SetTopicConfigs { name, configs })
            .await?;
        cluster.visible().await;
        Ok(changed)
    }

    pub(crate) async fn init_producer_in(
        &self,
        cluster: &InCluster,
        name: Option<String>,
    ) -> Result<ProducerSession> {
        let unexpected = |event: &Event| {
            let text = format!("internal error: the metadata answered {event:?}");
            Error::new(ErrorKind::StorageError, text)
        };
        let producer = match name {
            Some(name) => match cluster.propose(Command::BumpProducerEpoch { name }).await? {
                Event::ProducerEpochBumped { producer } => producer,
                other => return Err(unexpected(&other)),
            },
            None => {
                let mut ids = cluster.producer_ids.lock().await;
                if ids.is_empty() {
                    let count = PRODUCER_ID_BLOCK;
                    match cluster
                        .propose(Command::AllocateProducerIds { count })
                        .await?
                    {
                        Event::ProducerIdsAllocated { first, count } => {
                            *ids = first..first + i64::from(count);
                        }
                        other => return Err(unexpected(&other)),
                    }
                }
                let id = ids.start;
                ids.start += 1;
                ProducerId { id, epoch: 0 }
            }
        };
        Ok(ProducerSession {
            producer,
            idle_expiry_ms: limits::PRODUCER_IDLE_EXPIRY_MS,
        })
    }
}

fn gone(name: &TopicName) -> Error {
    let text = format!("topic {:?} was deleted in the meantime", name.as_str());
    Error::new(ErrorKind::TopicNotFound, text).with("topic", name)
}
