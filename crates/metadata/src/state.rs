//! The state itself and how to look at it. Changed by `apply` only.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{
    LeaderEpoch, NodeId, PartitionId, ProducerId, TopicConfig, TopicId, TopicName, TopicPartition,
    limits,
};

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port` for clients.
    pub address: String,
    /// Rack or zone; may be empty.
    pub rack: String,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Nodes that hold it; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Node that leads it; `None`: none at present.
    pub leader: Option<NodeId>,
    /// Epoch of the leader; grows with every election.
    pub leader_epoch: LeaderEpoch,
    /// Replicas in sync, ascending.
    pub isr: Vec<NodeId>,
    /// Grows with every change of leader or in-sync replicas.
    pub partition_epoch: i32,
}

impl Partition {
    /// Node that should lead it.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<NodeId> {
        self.replicas.first().copied()
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Id.
    pub id: TopicId,
    /// Replicas of each partition, as asked for.
    pub replication_factor: i32,
    /// Configs that were set on the topic.
    pub configs: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Partitions by number.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// Number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, number: PartitionId) -> Option<&Partition> {
        usize::try_from(number.0)
            .ok()
            .and_then(|n| self.partitions.get(n))
    }
}

/// State of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub(crate) version: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) topics: BTreeMap<TopicName, Topic>,
    pub(crate) next_producer_id: i64,
    pub(crate) producers: BTreeMap<String, ProducerId>,
}

impl State {
    /// Commands applied so far: grows with each.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Nodes by id.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// Topics by name.
    #[must_use]
    pub const fn topics(&self) -> &BTreeMap<TopicName, Topic> {
        &self.topics
    }

    /// One topic.
    #[must_use]
    pub fn topic(&self, name: &TopicName) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// The topic with that id, with its name.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<(&TopicName, &Topic)> {
        self.topics.iter().find(|(_, t)| t.id == id)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.topics
            .get(&partition.topic)?
            .partition(partition.partition)
    }

    /// Every partition that `node` holds, ordered by topic and number.
    pub fn partitions_of(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (TopicPartition, TopicId, &Partition)> {
        self.topics.iter().flat_map(move |(name, topic)| {
            topic
                .partitions
                .iter()
                .enumerate()
                .filter(move |(_, p)| p.replicas.contains(&node))
                .map(move |(number, p)| {
                    let number = PartitionId(number as i32);
                    (TopicPartition::new(name.clone(), number), topic.id, p)
                })
        })
    }

    /// Session of a named producer.
    #[must_use]
    pub fn producer(&self, name: &str) -> Option<ProducerId> {
        self.producers.get(name).copied()
    }

    /// The next producer id that nobody has. Ids begin at 1: clients may take 0 for none.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id.max(1)
    }

    /// Checks what must hold of every state.
    ///
    /// # Errors
    /// A sentence about the first thing that does not hold.
    pub fn check(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for (name, topic) in &self.topics {
            if !ids.insert(topic.id) {
                return Err(format!("topic id {} belongs to two topics", topic.id));
            }
            let most = limits::PARTITIONS_PER_TOPIC_MAX as usize;
            if topic.partitions.is_empty() || topic.partitions.len() > most {
                return Err(format!(
                    "topic {name} has {} partitions",
                    topic.partitions.len()
                ));
            }
            let nodes = i32::try_from(self.nodes.len()).unwrap_or(i32::MAX);
            if !(1..=nodes).contains(&topic.replication_factor) {
                return Err(format!(
                    "topic {name} has replication factor {} on {nodes} nodes",
                    topic.replication_factor
                ));
            }
            TopicConfig::resolve(&topic.configs, &BTreeMap::new())
                .map_err(|e| format!("topic {name}: {e}"))?;
            for (number, partition) in topic.partitions.iter().enumerate() {
                self.check_partition(partition)
                    .map_err(|why| format!("partition {name}-{number}: {why}"))?;
            }
        }
        for (name, producer) in &self.producers {
            if producer.id < 0 || producer.epoch < 0 || producer.id >= self.next_producer_id {
                return Err(format!(
                    "producer {name:?} has id {} and epoch {}, and the next id is {}",
                    producer.id, producer.epoch, self.next_producer_id
                ));
            }
        }
        Ok(())
    }

    fn check_partition(&self, partition: &Partition) -> Result<(), String> {
        let replicas: BTreeSet<_> = partition.replicas.iter().collect();
        if replicas.is_empty() || replicas.len() != partition.replicas.len() {
            return Err("its replicas are not one or more distinct nodes".to_owned());
        }
        if let Some(node) = replicas.iter().find(|n| !self.nodes.contains_key(n)) {
            return Err(format!("replica {node} is not a known node"));
        }
        check_leadership(&partition.replicas, partition.leader, &partition.isr)?;
        if partition.partition_epoch < 0 {
            return Err(format!(
                "its partition epoch is {}",
                partition.partition_epoch
            ));
        }
        Ok(())
    }
}

/// The leader, if any, is in sync, and who is in sync is a replica; in-sync replicas are ascending.
pub(crate) fn check_leadership(
    replicas: &[NodeId],
    leader: Option<NodeId>,
    isr: &[NodeId],
) -> Result<(), String> {
    if !isr.windows(2).all(|w| w[0] < w[1]) {
        return Err("the in-sync replicas are not distinct and ascending".to_owned());
    }
    if let Some(node) = isr.iter().find(|n| !replicas.contains(n)) {
        return Err(format!("node {node} is in sync and not a replica"));
    }
    match leader {
        Some(leader) if !isr.contains(&leader) => {
            Err(format!("leader {leader} is not among the in-sync replicas"))
        }
        _ => Ok(()),
    }
}
