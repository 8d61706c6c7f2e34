//! The metadata quorum as one state that never fails: it applies real commands, fences the silent, and
//! tells every node of each version. Nodes may be cut off from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use varve_metadata::{
    Command, CreateTopic, Election, FeatureRange, NodeState, PartitionKey, Rejection, State, apply,
};
use varve_partition::{Assignment, IsrRefusal};
use varve_types::config::Durability;
use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, PartitionId, TopicId, TopicName};

use super::knobs::Knobs;
use super::world::{Addr, Message, World};

const TOPIC: TopicId = TopicId(7);

/// What a node learns of one version.
#[derive(Debug)]
pub(super) struct View {
    pub(super) assignments: BTreeMap<PartitionKey, Assignment>,
    pub(super) epochs: BTreeMap<NodeId, BrokerEpoch>,
}

/// The state with all its versions.
pub(super) struct Controller {
    pub(super) state: State,
    /// What each version looked like; the first is version 0.
    pub(super) views: Vec<Arc<View>>,
    heard: BTreeMap<NodeId, u64>,
    applied: BTreeMap<NodeId, u64>,
    pub(super) created: bool,
    last_rejection: Option<Rejection>,
    pub(super) last_event: Option<varve_metadata::Event>,
}

impl Controller {
    pub(super) fn new(_: &Knobs) -> Self {
        let mut controller = Self {
            state: State::default(),
            views: Vec::new(),
            heard: BTreeMap::new(),
            applied: BTreeMap::new(),
            created: false,
            last_rejection: None,
            last_event: None,
        };
        controller.publish();
        controller
    }

    pub(super) fn version(&self) -> u64 {
        self.state.version()
    }

    pub(super) fn view(&self, version: u64) -> Arc<View> {
        Arc::clone(&self.views[version as usize])
    }

    pub(super) fn keys(&self) -> Vec<PartitionKey> {
        let count = self
            .state
            .topic_by_id(TOPIC)
            .map_or(0, |(_, t)| t.partition_count());
        let key = |n| PartitionKey {
            topic: TOPIC,
            partition: PartitionId(n),
        };
        (0..count).map(key).collect()
    }

    pub(super) fn apply(&mut self, command: Command) -> bool {
        match apply(&mut self.state, command) {
            Ok(event) => {
                self.last_event = Some(event);
                self.last_rejection = None;
                self.publish();
                true
            }
            Err(rejection) => {
                self.last_rejection = Some(rejection);
                false
            }
        }
    }

    fn publish(&mut self) {
        let topic = self.state.topic_by_id(TOPIC).map(|(_, t)| t);
        let partitions = topic.into_iter().flat_map(|t| {
            t.partitions.iter().enumerate().map(move |(n, p)| {
                let key = PartitionKey {
                    topic: TOPIC,
                    partition: PartitionId(n as i32),
                };
                let assignment = Assignment {
                    leader: p.leader,
                    leader_epoch: p.leader_epoch,
                    partition_epoch: p.partition_epoch,
                    replicas: p.replicas.clone(),
                    isr: p.isr.clone(),
                    min_isr: t.min_insync_replicas(p),
                    unclean_epoch: p.unclean_epoch,
                };
                (key, assignment)
            })
        });
        let view = View {
            assignments: partitions.collect(),
            epochs: self
                .state
                .nodes()
                .iter()
                .map(|(n, node)| (*n, node.epoch))
                .collect(),
        };
        let version = self.state.version() as usize;
        assert!(self.views.len() == version, "a version is skipped");
        self.views.push(Arc::new(view));
    }
}

impl World {
    pub(super) fn controller_hears(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Register {
                node,
                incarnation,
                directory,
                clean,
            } => self.register(node, incarnation, directory, clean),
            Message::Heartbeat {
                node,
                epoch,
                applied,
                wants_stop,
            } => self.heartbeat(node, epoch, applied, wants_stop),
            Message::Alter {
                key,
                leader,
                leader_epoch,
                partition_epoch,
                isr,
                broker_epoch,
            } => self.alter(
                (key, leader, leader_epoch, partition_epoch),
                isr,
                broker_epoch,
            ),
            _ => Ok(()),
        }
    }

    fn register(
        &mut self,
        node: NodeId,
        incarnation: u128,
        directory: u128,
        clean: Option<BrokerEpoch>,
    ) -> Result<(), String> {
        let applied = self.change(Command::RegisterNode {
            node,
            incarnation,
            directory: DirectoryId(directory),
            address: format!("n{node}:1"),
            peer_address: format!("n{node}:2"),
            rack: String::new(),
            features: FeatureRange::THIS_PROGRAM,
            version: String::new(),
            clean,
        })?;
        if !applied {
            self.count("registration refused until the earlier run is fenced");
        }
        let known = self.controller.state.node(node);
        let Some(epoch) = known
            .filter(|n| n.incarnation == incarnation)
            .map(|n| n.epoch)
        else {
            return Ok(());
        };
        self.controller.heard.insert(node, self.now);
        let reply = Message::Registered { incarnation, epoch };
        self.send(Addr::Controller, Addr::Node(node), reply);
        Ok(())
    }

    fn heartbeat(
        &mut self,
        node: NodeId,
        epoch: BrokerEpoch,
        applied: u64,
        wants_stop: bool,
    ) -> Result<(), String> {
        let Some(state) = self
            .controller
            .state
            .node(node)
            .filter(|n| n.epoch == epoch)
        else {
            let told = Message::Superseded { epoch };
            self.send(Addr::Controller, Addr::Node(node), told);
            return Ok(());
        };
        let state = state.state;
        self.controller.heard.insert(node, self.now);
        self.controller.applied.insert(node, applied);
        if state == NodeState::Fenced && applied >= epoch.get() as u64 && !wants_stop {
            self.change(Command::UnfenceNode { node, epoch })?;
        }
        if wants_stop && state == NodeState::Active {
            self.change(Command::BeginShutdown { node, epoch })?;
        }
        let leads = self.controller.state.led_by(node) > 0;
        let told = Message::Metadata {
            version: self.controller.version(),
            may_stop: wants_stop && !leads,
        };
        self.send(Addr::Controller, Addr::Node(node), told);
        Ok(())
    }

    fn alter(
        &mut self,
        (key, leader, leader_epoch, partition_epoch): (PartitionKey, NodeId, LeaderEpoch, i32),
        isr: Vec<(NodeId, BrokerEpoch)>,
        broker_epoch: BrokerEpoch,
    ) -> Result<(), String> {
        let applied = self.change(Command::AlterPartition {
            topic_id: key.topic,
            partition: key.partition,
            leader,
            leader_epoch,
            partition_epoch,
            isr,
            broker_epoch,
        })?;
        if applied {
            self.count("ISR changed");
            return Ok(());
        }
        self.say(|w| {
            format!(
                "controller refuses node {leader}: {:?}",
                w.controller.last_rejection
            )
        });
        let why = match &self.controller.last_rejection {
            Some(Rejection::IneligibleReplica { node, .. }) => IsrRefusal::Ineligible(*node),
            _ => IsrRefusal::Stale,
        };
        self.count(match why {
            IsrRefusal::Ineligible(_) => "ISR change refused: not eligible",
            IsrRefusal::Stale => "ISR change refused: out of date",
        });
        let reply = Message::AlterRefused {
            key,
            partition_epoch,
            why,
        };
        self.send(Addr::Controller, Addr::Node(leader), reply);
        Ok(())
    }

    pub(super) fn controller_acts(&mut self) -> Result<(), String> {
        let session = self.knobs.session_ms;
        let silent = |(node, n): (&NodeId, &varve_metadata::Node)| {
            let heard = self.controller.heard.get(node).copied().unwrap_or(0);
            let late = n.state != NodeState::Fenced && heard + session < self.now;
            late.then_some((*node, n.epoch))
        };
        let silent: Vec<_> = self
            .controller
            .state
            .nodes()
            .iter()
            .filter_map(silent)
            .collect();
        for (node, epoch) in silent {
            self.count("node fenced");
            self.say(|_| format!("controller: node {node} is fenced"));
            self.change(Command::FenceNode { node, epoch })?;
        }
        let nodes = self.controller.state.nodes();
        let active = nodes
            .values()
            .filter(|n| n.state == NodeState::Active)
            .count();
        if !self.controller.created && active == self.knobs.nodes as usize {
            self.create_topic()?;
        }
        Ok(())
    }

    fn create_topic(&mut self) -> Result<(), String> {
        let mut configs = BTreeMap::new();
        let min = self.knobs.min_insync.to_string();
        configs.insert("min.insync.replicas".to_owned(), min);
        if self.knobs.durability == Durability::Replicated {
            configs.insert("durability".to_owned(), "replicated".to_owned());
        }
        self.controller.created = self.change(Command::CreateTopic(CreateTopic {
            name: TopicName::new("t").map_err(|e| e.to_string())?,
            id: TOPIC,
            partitions: self.knobs.partitions,
            replication_factor: self.knobs.replication_factor,
            configs,
            labels: BTreeMap::new(),
            created_ms: 0,
            placement: BTreeMap::new(),
        }))?;
        if self.controller.created {
            return Ok(());
        }
        Err(format!("no topic: {:?}", self.controller.last_rejection))
    }

    /// An operator wants the first replica, or that one, to lead.
    pub(super) fn elect(&mut self, key: PartitionKey, how: Election) -> Result<(), String> {
        let changed = self.change(Command::ElectLeader {
            topic_id: key.topic,
            partition: key.partition,
            how,
        })?;
        if changed {
            self.count("leader moved on purpose");
        }
        Ok(())
    }
}
