//! The state itself and how to look at it. Changed by `apply` only.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::config::Durability;
use varve_types::{
    BrokerEpoch, ConfigError, DirectoryId, LeaderEpoch, NodeId, PartitionId, ProducerId,
    TopicConfig, TopicId, TopicName, TopicPartition, limits,
};

use crate::command::PartitionKey;
use crate::features::{FIRST_LEVEL, FeatureRange, KNOWN_LEVEL};
use crate::index::Index;
use crate::leadership::{self, Edit, Ground};

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It leads nothing and is in sync nowhere: it has just registered, or is given up for dead.
    Fenced,
    /// It may lead and be in sync.
    Active,
    /// It wants to stop and serves until it may.
    Draining,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port` for clients.
    pub address: String,
    /// `host:port` for other nodes; empty on a node that is alone.
    pub peer_address: String,
    /// Rack or zone; may be empty.
    pub rack: String,
    /// Data directory.
    pub directory: DirectoryId,
    /// Random number of the run of its process that registered last.
    pub incarnation: u128,
    /// Its last registration.
    pub epoch: BrokerEpoch,
    /// Whether it takes part.
    pub state: NodeState,
    /// It gets no new replicas and is to give away those it has.
    pub decommissioning: bool,
    /// Levels it can work at.
    pub features: FeatureRange,
    /// Version of its program, for people.
    pub version: String,
}

impl Node {
    /// Whether new replicas may be placed on it.
    #[must_use]
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Active && !self.decommissioning
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Nodes that hold it, those being added and removed among them; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Replicas that a move adds, ascending.
    pub adding: Vec<NodeId>,
    /// Replicas that leave when the move is over, ascending.
    pub removing: Vec<NodeId>,
    /// Node that leads it; `None`: none at present.
    pub leader: Option<NodeId>,
    /// Grows with every change of leader, and when the same leader must begin anew.
    pub leader_epoch: LeaderEpoch,
    /// Replicas in sync, ascending; empty only while nobody leads.
    pub isr: Vec<NodeId>,
    /// Replicas out of sync that hold everything committed, ascending (KIP-966).
    pub elr: Vec<NodeId>,
    /// Grows with every change of the partition.
    pub partition_epoch: i32,
    /// The last leader epoch that began with an unclean election: replicas whose last record is older may
    /// have to cut even what was committed once. `None`: there never was one.
    pub unclean_epoch: Option<LeaderEpoch>,
}

impl Partition {
    /// Node that should lead it.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<NodeId> {
        self.replicas.first().copied()
    }

    /// Whether a replica other than that of `node` is known to hold everything committed.
    #[must_use]
    pub fn has_others(&self, node: NodeId) -> bool {
        self.isr.iter().chain(&self.elr).any(|n| *n != node)
    }

    /// Whether a move is under way.
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Replicas when the move is over; the present ones if there is none.
    #[must_use]
    pub fn target(&self) -> Vec<NodeId> {
        let stays = |n: &&NodeId| !self.removing.contains(n);
        self.replicas.iter().filter(stays).copied().collect()
    }
}

/// What a topic's configs say about its leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `min.insync.replicas` as configured.
    pub(crate) min_insync: usize,
    /// `durability=replicated`: what was acknowledged may be lost by an unclean stop.
    pub(crate) replicated: bool,
}

impl Rules {
    pub(crate) fn of(configs: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let config = TopicConfig::resolve(configs, &BTreeMap::new())?;
        Ok(Self {
            min_insync: config.min_insync_replicas,
            replicated: config.durability == Durability::Replicated,
        })
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
    /// Derived from the configs.
    pub(crate) rules: Rules,
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

    /// In-sync replicas without which nothing of `partition` is committed: `min.insync.replicas`, and no
    /// more than the replicas it has beside those being added.
    #[must_use]
    pub fn min_insync_replicas(&self, partition: &Partition) -> usize {
        leadership::effective_min(self.rules.min_insync, partition)
    }
}

/// State of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(crate) version: u64,
    pub(crate) level: u16,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) topics: BTreeMap<TopicName, Topic>,
    pub(crate) next_producer_id: i64,
    pub(crate) producers: BTreeMap<String, ProducerId>,
    pub(crate) index: Index,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: 0,
            level: FIRST_LEVEL,
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            next_producer_id: 0,
            producers: BTreeMap::new(),
            index: Index::default(),
        }
    }
}

impl State {
    /// Commands applied so far: grows with each.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Feature level that the cluster has agreed on.
    #[must_use]
    pub const fn level(&self) -> u16 {
        self.level
    }

    /// Nodes by id.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
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
        self.topics.get_key_value(self.index.names.get(&id)?)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.topics
            .get(&partition.topic)?
            .partition(partition.partition)
    }

    /// One partition, by the id of its topic.
    #[must_use]
    pub fn partition_at(&self, at: PartitionKey) -> Option<&Partition> {
        self.topic_by_id(at.topic)?.1.partition(at.partition)
    }

    /// Number of partitions of all topics.
    #[must_use]
    pub const fn partition_count(&self) -> usize {
        self.index.partitions
    }

    /// Every partition that `node` holds, ordered by topic id and number.
    pub fn partitions_of(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (TopicPartition, TopicId, &Partition)> {
        let keys = self.index.held.get(&node).into_iter().flatten();
        keys.filter_map(|at| {
            let (name, topic) = self.topic_by_id(at.topic)?;
            let partition = topic.partition(at.partition)?;
            Some((
                TopicPartition::new(name.clone(), at.partition),
                topic.id,
                partition,
            ))
        })
    }

    /// How many partitions `node` holds, is to hold, or has yet to give away.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> usize {
        self.index.held_by(node)
    }

    /// How many partitions `node` leads.
    #[must_use]
    pub fn led_by(&self, node: NodeId) -> usize {
        self.index.leading.get(&node).copied().unwrap_or(0)
    }

    /// Partitions that are being moved.
    #[must_use]
    pub const fn reassigning(&self) -> &BTreeSet<PartitionKey> {
        &self.index.reassigning
    }

    /// Partitions that nobody leads.
    #[must_use]
    pub const fn leaderless(&self) -> &BTreeSet<PartitionKey> {
        &self.index.leaderless
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

    /// Changes one partition and brings it in order. Returns whether anything is different now.
    ///
    /// # Panics
    /// When the partition breaks an invariant afterwards: a bug of ours.
    pub(crate) fn edit(
        &mut self,
        at: PartitionKey,
        edit: Edit,
        change: impl FnOnce(&mut Partition),
    ) -> bool {
        let name = self.index.names.get(&at.topic);
        let Some(topic) = name.and_then(|name| self.topics.get_mut(name)) else {
            return false;
        };
        let number = usize::try_from(at.partition.0).ok();
        let Some(partition) = number.and_then(|n| topic.partitions.get_mut(n)) else {
            return false;
        };
        let ground = Ground {
            nodes: &self.nodes,
            min_insync: topic.rules.min_insync,
            level: self.level,
        };
        let before = partition.clone();
        change(partition);
        leadership::settle(&before, partition, &ground, edit);
        assert_eq!(leadership::check(partition, &ground), Ok(()), "{before:?}");
        if *partition == before {
            return false;
        }
        self.index.put(at, Some(&before), Some(partition));
        // One that only gives replicas up may be over at once.
        let resized = before.replicas.len() != partition.replicas.len();
        let ended = (before.is_reassigning() || resized) && !partition.is_reassigning();
        if ended && partition.replicas.len() as i64 != i64::from(topic.replication_factor) {
            // Grown or shrunk: new partitions follow once every one has been moved so.
            let count = partition.replicas.len();
            let same = |p: &Partition| !p.is_reassigning() && p.replicas.len() == count;
            if topic.partitions.iter().all(same) {
                topic.replication_factor = count as i32;
            }
        }
        true
    }

    /// Checks what must hold of every state.
    ///
    /// # Errors
    /// A sentence about the first thing that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.check_parts()?;
        if self.index != Index::of(&self.topics) {
            return Err("the index differs from the partitions".to_owned());
        }
        Ok(())
    }

    /// As [`Self::check`], for a state whose index has just been made.
    pub(crate) fn check_parts(&self) -> Result<(), String> {
        if !(FIRST_LEVEL..=KNOWN_LEVEL).contains(&self.level) {
            return Err(format!(
                "feature level {} is not one of {FIRST_LEVEL} to {KNOWN_LEVEL}",
                self.level
            ));
        }
        for (id, node) in &self.nodes {
            let epoch = u64::try_from(node.epoch.get()).unwrap_or(u64::MAX);
            if epoch > self.version {
                return Err(format!("node {id} is in broker epoch {}", node.epoch));
            }
            if !node.features.contains(self.level) {
                return Err(format!(
                    "node {id} does not support feature level {}",
                    self.level
                ));
            }
        }
        let mut ids = BTreeSet::new();
        for (name, topic) in &self.topics {
            if !ids.insert(topic.id) {
                return Err(format!("topic id {} belongs to two topics", topic.id));
            }
            self.check_topic(topic)
                .map_err(|why| format!("topic {name}: {why}"))?;
        }
        for (name, producer) in &self.producers {
            if producer.id < 0 || producer.epoch < 0 || producer.id >= self.next_producer_id {
                return Err(format!(
                    "producer {name:?} has id {} and epoch {}, but the next id is {}",
                    producer.id, producer.epoch, self.next_producer_id
                ));
            }
        }
        Ok(())
    }

    fn check_topic(&self, topic: &Topic) -> Result<(), String> {
        let count = topic.partitions.len();
        if count == 0 || count > limits::PARTITIONS_PER_TOPIC_MAX as usize {
            return Err(format!("it has {count} partitions"));
        }
        let factor = topic.replication_factor;
        if !(1..=limits::REPLICATION_FACTOR_MAX).contains(&factor) {
            return Err(format!("its replication factor is {factor}"));
        }
        let rules = Rules::of(&topic.configs).map_err(|e| e.to_string())?;
        if rules != topic.rules {
            return Err("its rules differ from its configs".to_owned());
        }
        let ground = Ground {
            nodes: &self.nodes,
            min_insync: rules.min_insync,
            level: self.level,
        };
        for (number, partition) in topic.partitions.iter().enumerate() {
            leadership::check(partition, &ground)
                .map_err(|why| format!("partition {number}: {why}"))?;
        }
        Ok(())
    }
}
