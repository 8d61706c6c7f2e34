//! The metadata of the cluster: one committed state with all its versions, changed by real commands that come
//! late, twice or never. Who decides what is due is the real controller, in `seats`; consensus itself is
//! tested elsewhere, so what is committed stays committed.

mod seats;

use std::collections::BTreeMap;
use std::sync::Arc;

use varve_metadata::{
    Command, CreateTopic, Election, Event as Made, FeatureRange, PartitionKey, Rejection, State,
    apply, features,
};
use varve_partition::{Assignment, IsrRefusal};
use varve_types::config::Durability;
use varve_types::{BrokerEpoch, DirectoryId, NodeId, PartitionId, TopicId, TopicName};

use self::seats::Seats;
use super::invariants::{metadata_steps, no_fenced_replica};
use super::knobs::Knobs;
use super::world::{Addr, Event, Message, World};

const TOPIC: TopicId = TopicId(7);
/// Time between two looks of the controller at what is due, milliseconds.
const LOOK_MS: u64 = 20;

/// What a node learns of one version.
#[derive(Debug)]
pub(super) struct View {
    pub(super) assignments: BTreeMap<PartitionKey, Assignment>,
    pub(super) epochs: BTreeMap<NodeId, BrokerEpoch>,
}

/// Who waits to hear what became of a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker {
    /// Nobody.
    None,
    /// A node that registers.
    Registration { node: NodeId, incarnation: u128 },
    /// A leader that asks for other in-sync replicas.
    Leader {
        key: PartitionKey,
        node: NodeId,
        partition_epoch: i32,
    },
    /// A node that has found damage in this instance of a replica.
    Damaged {
        key: PartitionKey,
        node: NodeId,
        life: u64,
    },
}

/// The state with all its versions, and who decides about it.
pub(super) struct Controller {
    pub(super) state: State,
    /// What each version looked like; the first is version 0.
    views: Vec<Arc<View>>,
    seats: Seats,
    pub(super) created: bool,
    last_rejection: Option<Rejection>,
}

impl Controller {
    pub(super) fn new(knobs: &Knobs) -> Self {
        let mut controller = Self {
            state: State::default(),
            views: Vec::new(),
            seats: Seats::new(knobs),
            created: false,
            last_rejection: None,
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

    fn apply(&mut self, command: Command) -> Option<Made> {
        match apply(&mut self.state, command) {
            Ok(event) => {
                self.last_rejection = None;
                self.publish();
                Some(event)
            }
            Err(rejection) => {
                self.last_rejection = Some(rejection);
                None
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
        let nodes = self.state.nodes().iter();
        let view = View {
            assignments: partitions.collect(),
            epochs: nodes.map(|(n, node)| (*n, node.epoch)).collect(),
        };
        let version = self.state.version() as usize;
        assert!(self.views.len() == version, "a version is skipped");
        self.views.push(Arc::new(view));
    }
}

impl World {
    pub(super) fn controller_hears(&mut self, message: Message) {
        match message {
            Message::Register {
                node,
                incarnation,
                directory,
                clean,
            } => {
                let command = registration(node, incarnation, directory, clean);
                self.propose_command(command, Asker::Registration { node, incarnation });
            }
            Message::Heartbeat(beat) => self.heartbeat(beat),
            Message::Alter {
                key,
                leader,
                leader_epoch,
                partition_epoch,
                isr,
                broker_epoch,
            } => {
                let command = Command::AlterPartition {
                    topic_id: key.topic,
                    partition: key.partition,
                    leader,
                    leader_epoch,
                    partition_epoch,
                    isr,
                    broker_epoch,
                };
                let node = leader;
                self.propose_command(
                    command,
                    Asker::Leader {
                        key,
                        node,
                        partition_epoch,
                    },
                );
            }
            Message::Damaged {
                key,
                node,
                life,
                epoch,
            } => {
                let command = Command::GiveUpReplica {
                    node,
                    epoch,
                    topic_id: key.topic,
                    partition: key.partition,
                };
                self.propose_command(command, Asker::Damaged { key, node, life });
            }
            _ => {}
        }
    }

    /// A command sets out to be committed. It may get lost, come late, or be made twice, and so may the answer.
    pub(super) fn propose_command(&mut self, command: Command, asker: Asker) {
        let (calm, delay) = (self.healed, self.knobs.delay_ms);
        if !calm && self.rng.below(1_000) < self.knobs.loss {
            return self.count("metadata command lost");
        }
        let twice = !calm && self.rng.below(1_000) < self.knobs.duplicates;
        let term = self.controller.seats.term;
        for copy in 0..1 + u64::from(twice) {
            let late = (!calm && self.rng.below(50) == 0) || copy > 0;
            let after = self.rng.below(delay * if late { 20 } else { 1 } + 1);
            let event = Event::Commit {
                command: Box::new(command.clone()),
                asker,
                term,
            };
            self.at(after, event);
        }
        if twice {
            self.count("metadata command proposed twice");
        }
    }

    /// A command reaches the metadata log, if there is a quorum to take it.
    pub(super) fn commit(
        &mut self,
        command: Command,
        asker: Asker,
        term: u64,
    ) -> Result<(), String> {
        if self.controller.seats.term != term || !self.controller.seats.led() {
            let alters = matches!(command, Command::AlterPartition { .. });
            self.count(if alters {
                "controller changed during an ISR change"
            } else {
                "controller changed under a command"
            });
        }
        if !self.controller.seats.led() {
            if self.rng.below(2) == 0 {
                let command = Box::new(command);
                self.at(
                    LOOK_MS,
                    Event::Commit {
                        command,
                        asker,
                        term,
                    },
                );
            }
            return Ok(());
        }
        let made = self.change(command)?.is_some();
        match asker {
            Asker::None => {}
            Asker::Registration { node, incarnation } => self.registered(node, incarnation, made),
            Asker::Leader {
                key,
                node,
                partition_epoch,
            } => self.altered(key, node, partition_epoch, made),
            Asker::Damaged { key, node, life } => {
                self.count(if made {
                    "damaged replica given up"
                } else {
                    "damaged replica kept: it is the last"
                });
                let version = self.controller.version();
                let reply = match made {
                    true => Message::GivenUp { key, life, version },
                    false => Message::Kept { key, life },
                };
                self.send(Addr::Controller, Addr::Node(node), reply);
            }
        }
        Ok(())
    }

    fn registered(&mut self, node: NodeId, incarnation: u128, made: bool) {
        if !made {
            self.count("registration refused until the earlier run is fenced");
        }
        let known = self.controller.state.node(node);
        if let Some(known) = known.filter(|n| n.incarnation == incarnation) {
            let epoch = known.epoch;
            let reply = Message::Registered { incarnation, epoch };
            self.send(Addr::Controller, Addr::Node(node), reply);
        }
    }

    fn altered(&mut self, key: PartitionKey, leader: NodeId, partition_epoch: i32, made: bool) {
        if made {
            return self.count("ISR changed");
        }
        self.say(|w| {
            let why = &w.controller.last_rejection;
            format!("controller refuses node {leader}: {why:?}")
        });
        let why = match &self.controller.last_rejection {
            Some(Rejection::IneligibleReplica { node, .. }) => IsrRefusal::Ineligible(*node),
            Some(Rejection::StaleBrokerEpoch { .. }) => {
                self.count("ISR change refused: old broker epoch");
                IsrRefusal::Stale
            }
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
    }

    /// Applies a command to the metadata; the invariants of the metadata are checked with it.
    pub(super) fn change(&mut self, command: Command) -> Result<Option<Made>, String> {
        let before = self.controller.state.clone();
        let given = command.clone();
        let Some(made) = self.controller.apply(command) else {
            return Ok(None);
        };
        self.say(|w| w.metadata_line(&made));
        if matches!(made, Made::UncleanLeaderElected { .. }) {
            self.count("unclean election");
        }
        let after = &self.controller.state;
        metadata_steps::check(&before, after, &given, &made)?;
        no_fenced_replica::check(&before, after)?;
        self.count_step(&before, &given);
        self.check_metadata()?;
        Ok(Some(made))
    }

    fn metadata_line(&self, made: &Made) -> String {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|n| n.0).collect::<Vec<_>>();
        let partitions = self.keys().into_iter();
        let partitions = partitions.filter_map(|k| self.controller.state.partition_at(k));
        let lines = partitions.map(|p| {
            format!(
                "[leader {:?} epoch {} unclean {:?} change {} replicas {:?} in sync {:?} eligible {:?}]",
                p.leader.map(|n| n.0),
                p.leader_epoch,
                p.unclean_epoch.map(varve_types::LeaderEpoch::get),
                p.partition_epoch,
                ids(&p.replicas),
                ids(&p.isr),
                ids(&p.elr)
            )
        });
        let version = self.controller.version();
        let lines = lines.collect::<Vec<_>>().join(" ");
        format!("metadata {version}: {lines} by {made:?}")
    }

    /// What is worth counting about a change that was made.
    fn count_step(&mut self, before: &State, command: &Command) {
        let mut found: Vec<&'static str> = Vec::new();
        for key in self.keys() {
            let Some((was, is)) = before
                .partition_at(key)
                .zip(self.controller.state.partition_at(key))
            else {
                continue;
            };
            if let Some(leader) = is.leader
                && was.leader.is_none()
                && was.elr.contains(&leader)
            {
                found.push("eligible replica elected");
            }
            if was.is_reassigning() && !is.is_reassigning() {
                found.push(match command {
                    Command::Reassign { target: None, .. } => "move cancelled",
                    _ => "move ended",
                });
            }
            if was.replicas != is.replicas && is.leader_epoch == was.leader_epoch {
                found.push("replicas changed under one leader");
            }
        }
        if let Command::RegisterNode { node, clean, .. } = command
            && let Some(known) = before.node(*node)
            && *clean != Some(known.epoch)
        {
            found.push("unclean start");
        }
        found.into_iter().for_each(|what| self.count(what));
    }

    fn create_topic(&mut self) -> Result<(), String> {
        let mut configs = BTreeMap::new();
        let min = self.knobs.min_insync.to_string();
        configs.insert("min.insync.replicas".to_owned(), min);
        if self.knobs.durability == Durability::Replicated {
            configs.insert("durability".to_owned(), "replicated".to_owned());
        }
        if self.knobs.newest_level {
            let level = features::KNOWN_LEVEL;
            self.change(Command::FinalizeFeature { level })?;
        }
        let made = self.change(Command::CreateTopic(CreateTopic {
            name: TopicName::new("t").map_err(|e| e.to_string())?,
            id: TOPIC,
            partitions: self.knobs.all_partitions(),
            replication_factor: self.knobs.replication_factor,
            configs,
            labels: BTreeMap::new(),
            created_ms: 0,
            placement: BTreeMap::new(),
        }))?;
        self.controller.created = made.is_some();
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
        if changed.is_some() {
            self.count("leader moved on purpose");
        }
        Ok(())
    }
}

/// The registration of a run of a node.
pub(super) fn registration(
    node: NodeId,
    incarnation: u128,
    directory: u128,
    clean: Option<BrokerEpoch>,
) -> Command {
    Command::RegisterNode {
        node,
        incarnation,
        directory: DirectoryId(directory),
        address: format!("n{node}:1"),
        peer_address: format!("n{node}:2"),
        rack: String::new(),
        features: FeatureRange::THIS_PROGRAM,
        version: String::new(),
        clean,
    }
}
