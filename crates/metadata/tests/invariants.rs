//! Random commands against a model of who holds what was committed: R1, R4, R7, R9, R10, R14, R16, R18 and M6.
//!
//! The model commits whenever it may, and then takes the worst case: only those in sync have the newest
//! record. A leader that was not chosen by an operator, and everybody who is in sync or eligible, must
//! hold everything committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{create_with, fence, name, register, unfence};
use proptest::prelude::*;
use varve_metadata::{
    Command, Election, NodeState, Partition, PartitionKey, Rejection, State, apply, command_codec,
    snapshot,
};
use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, PartitionId, TopicId};

const NODES: i32 = 5;

#[derive(Debug, Clone)]
enum Op {
    Start {
        node: i32,
        clean: bool,
        wiped: bool,
    },
    Fence(i32),
    Unfence(i32),
    Shutdown(i32),
    Create {
        topic: usize,
        partitions: i32,
        factor: i32,
        min: usize,
        replicated: bool,
    },
    Delete(usize),
    Min {
        topic: usize,
        min: usize,
        replicated: bool,
    },
    Grow(usize),
    Alter {
        topic: usize,
        partition: i32,
        members: u8,
        stale: u8,
    },
    Elect {
        topic: usize,
        partition: i32,
        how: u8,
        node: i32,
    },
    Reassign {
        topic: usize,
        partition: i32,
        to: Option<Vec<i32>>,
    },
    GiveUp {
        topic: usize,
        partition: i32,
        node: i32,
    },
    Lost {
        topic: usize,
        partition: i32,
        node: i32,
    },
    Decommission(i32, bool),
    Unregister(i32),
    Producer,
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0..NODES;
    let at = (0_usize..3, 0_i32..2);
    let to = prop::collection::vec(0..NODES, 1..4);
    prop_oneof![
        4 => (node.clone(), any::<bool>(), prop::bool::weighted(0.15))
            .prop_map(|(node, clean, wiped)| Op::Start { node, clean, wiped }),
        4 => node.clone().prop_map(Op::Fence),
        6 => node.clone().prop_map(Op::Unfence),
        1 => node.clone().prop_map(Op::Shutdown),
        2 => (0_usize..3, 1_i32..3, 1_i32..4, 1_usize..4, any::<bool>()).prop_map(
            |(topic, partitions, factor, min, replicated)| Op::Create { topic, partitions, factor, min, replicated }
        ),
        1 => (0_usize..3).prop_map(Op::Delete),
        1 => (0_usize..3, 1_usize..4, any::<bool>())
            .prop_map(|(topic, min, replicated)| Op::Min { topic, min, replicated }),
        1 => (0_usize..3).prop_map(Op::Grow),
        12 => (at.clone(), any::<u8>(), prop_oneof![8 => Just(0_u8), 1 => 1_u8..6])
            .prop_map(|((topic, partition), members, stale)| Op::Alter { topic, partition, members, stale }),
        5 => (at.clone(), 0_u8..8, node.clone())
            .prop_map(|((topic, partition), how, node)| Op::Elect { topic, partition, how, node }),
        4 => (at.clone(), prop::option::weighted(0.8, to))
            .prop_map(|((topic, partition), to)| Op::Reassign { topic, partition, to }),
        1 => (at.clone(), node.clone()).prop_map(|((topic, partition), node)| Op::Lost { topic, partition, node }),
        1 => (at, node.clone()).prop_map(|((topic, partition), node)| Op::GiveUp { topic, partition, node }),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, on)| Op::Decommission(n, on)),
        1 => node.prop_map(Op::Unregister),
        1 => Just(Op::Producer),
    ]
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

/// What the model knows beside the state.
#[derive(Default)]
struct Model {
    /// Who holds everything committed.
    holders: BTreeMap<PartitionKey, BTreeSet<NodeId>>,
    /// Who led in which epoch.
    leaders: BTreeMap<(PartitionKey, LeaderEpoch), Option<NodeId>>,
    next: u128,
    elected_from_elr: bool,
}

fn configs(min: usize, replicated: bool) -> Vec<(&'static str, &'static str)> {
    let min = ["1", "2", "3"][min - 1];
    let mut configs = vec![("min.insync.replicas", min)];
    if replicated {
        configs.push(("durability", "replicated"));
    }
    configs
}

impl Model {
    fn command(&mut self, state: &State, op: &Op) -> Command {
        self.next += 1;
        let id = |topic: usize| {
            state
                .topic(&name(TOPICS[topic]))
                .map_or(TopicId(0), |t| t.id)
        };
        let known = |n: i32| state.node(NodeId(n)).is_some();
        let epoch = |n: NodeId| state.node(n).map_or(BrokerEpoch::ZERO, |n| n.epoch);
        match op.clone() {
            Op::Start { node, clean, wiped } => {
                let Command::RegisterNode {
                    features,
                    address,
                    peer_address,
                    version,
                    ..
                } = register(node, 0)
                else {
                    unreachable!()
                };
                let before = state.node(NodeId(node));
                let directory = before.map_or(DirectoryId(self.next), |n| n.directory);
                Command::RegisterNode {
                    node: NodeId(node),
                    incarnation: self.next,
                    directory: if wiped {
                        DirectoryId(self.next)
                    } else {
                        directory
                    },
                    address,
                    peer_address,
                    rack: format!("r{}", node % 3),
                    features,
                    version,
                    clean: before.map(|n| n.epoch).filter(|_| clean),
                }
            }
            Op::Fence(n) if known(n) => fence(state, n),
            Op::Unfence(n) if known(n) => unfence(state, n),
            Op::Fence(n) | Op::Unfence(n) => Command::UnregisterNode { node: NodeId(n) },
            Op::Shutdown(n) => Command::BeginShutdown {
                node: NodeId(n),
                epoch: epoch(NodeId(n)),
            },
            Op::Create {
                topic,
                partitions,
                factor,
                min,
                replicated,
            } => create_with(
                TOPICS[topic],
                self.next,
                partitions,
                factor,
                &configs(min, replicated),
            ),
            Op::Delete(topic) => Command::DeleteTopic {
                name: name(TOPICS[topic]),
                id: None,
            },
            Op::Min {
                topic,
                min,
                replicated,
            } => Command::SetTopicConfigs {
                name: name(TOPICS[topic]),
                configs: configs(min, replicated)
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect(),
            },
            Op::Grow(topic) => Command::AddPartitions {
                name: name(TOPICS[topic]),
                total: 2,
                placement: BTreeMap::new(),
            },
            Op::Alter {
                topic,
                partition,
                members,
                stale,
            } => {
                let topic_id = id(topic);
                let partition = PartitionId(partition);
                let p = state.partition_at(PartitionKey {
                    topic: topic_id,
                    partition,
                });
                let leader = p.and_then(|p| p.leader).unwrap_or(NodeId(0));
                let older = |e: BrokerEpoch, is: bool| {
                    BrokerEpoch::new(e.get() - i64::from(is)).unwrap_or(e)
                };
                let isr = p.map_or(Vec::new(), |p| {
                    let in_it = |n: &&NodeId| **n == leader || members & (1 << n.0) != 0;
                    let seen = |n: &NodeId| (*n, older(epoch(*n), stale == 1 && *n != leader));
                    p.replicas.iter().filter(in_it).map(seen).collect()
                });
                Command::AlterPartition {
                    topic_id,
                    partition,
                    leader: if stale == 2 {
                        NodeId((leader.0 + 1) % NODES)
                    } else {
                        leader
                    },
                    leader_epoch: p
                        .and_then(|p| {
                            LeaderEpoch::new(p.leader_epoch.get() - i32::from(stale == 3))
                        })
                        .unwrap_or(LeaderEpoch::ZERO),
                    partition_epoch: p.map_or(0, |p| p.partition_epoch - i32::from(stale == 4)),
                    isr,
                    broker_epoch: older(epoch(leader), stale == 5),
                }
            }
            Op::Elect {
                topic,
                partition,
                how,
                node,
            } => Command::ElectLeader {
                topic_id: id(topic),
                partition: PartitionId(partition),
                how: match how {
                    0..3 => Election::Unclean(NodeId(node)),
                    3..4 => Election::Preferred,
                    4..6 => Election::Clean(Some(NodeId(node))),
                    _ => Election::Clean(None),
                },
            },
            Op::Reassign {
                topic,
                partition,
                to,
            } => Command::Reassign {
                topic_id: id(topic),
                partition: PartitionId(partition),
                target: to.map(|to| to.into_iter().map(NodeId).collect()),
            },
            Op::Lost {
                topic,
                partition,
                node,
            } => Command::ReplicaLost {
                node: NodeId(node),
                epoch: epoch(NodeId(node)),
                topic_id: id(topic),
                partition: PartitionId(partition),
            },
            Op::GiveUp {
                topic,
                partition,
                node,
            } => Command::GiveUpReplica {
                node: NodeId(node),
                epoch: epoch(NodeId(node)),
                topic_id: id(topic),
                partition: PartitionId(partition),
            },
            Op::Decommission(n, on) => Command::SetDecommissioning {
                node: NodeId(n),
                on,
            },
            Op::Unregister(n) => Command::UnregisterNode { node: NodeId(n) },
            Op::Producer => Command::BumpProducerEpoch {
                name: "p".to_owned(),
            },
        }
    }

    /// What the command means for who holds what, before it is applied.
    fn before(&mut self, state: &State, command: &Command) {
        match command {
            Command::RegisterNode {
                node,
                directory,
                clean,
                ..
            } => {
                let Some(known) = state.node(*node) else {
                    return;
                };
                let same = known.directory == *directory;
                let clean = same && *clean == Some(known.epoch);
                for (at, topic, p) in state.partitions_of(*node) {
                    let configs = &state.topic(&at.topic).unwrap().configs;
                    let cached = configs.contains_key("durability") && p.replicas.len() > 1;
                    if !same || (!clean && cached) {
                        let at = PartitionKey {
                            topic,
                            partition: at.partition,
                        };
                        self.holders.entry(at).or_default().remove(node);
                    }
                }
            }
            Command::AlterPartition {
                topic_id,
                partition,
                isr,
                ..
            } => {
                let at = PartitionKey {
                    topic: *topic_id,
                    partition: *partition,
                };
                // A leader names only replicas that have caught up.
                self.holders
                    .entry(at)
                    .or_default()
                    .extend(isr.iter().map(|(n, _)| *n));
            }
            Command::ReplicaLost {
                topic_id,
                partition,
                node,
                ..
            } => {
                let at = PartitionKey {
                    topic: *topic_id,
                    partition: *partition,
                };
                self.holders.entry(at).or_default().remove(node);
            }
            Command::GiveUpReplica {
                topic_id,
                partition,
                node,
                ..
            } => {
                let at = PartitionKey {
                    topic: *topic_id,
                    partition: *partition,
                };
                if state.partition_at(at).is_some_and(|p| p.has_others(*node)) {
                    self.holders.entry(at).or_default().remove(node);
                }
            }
            _ => {}
        }
    }

    fn after(&mut self, old: &State, new: &State, command: &Command) {
        let unclean = |at: PartitionKey| {
            matches!(command, Command::ElectLeader { topic_id, partition, how: Election::Unclean(_) }
                if *topic_id == at.topic && *partition == at.partition)
                && old.partition_at(at).is_some_and(|p| p.leader.is_none())
        };
        for topic in new.topics().values() {
            for (number, p) in topic.partitions.iter().enumerate() {
                let at = PartitionKey {
                    topic: topic.id,
                    partition: PartitionId(number as i32),
                };
                let was = old.partition_at(at);
                let holders = self.holders.entry(at).or_default();
                if was.is_none() || unclean(at) {
                    *holders = p.isr.iter().copied().collect();
                }
                for node in p.isr.iter().chain(&p.elr) {
                    assert!(
                        holders.contains(node),
                        "R4: {node} lacks committed records of {p:?}"
                    );
                }
                let held = was.is_some_and(|w| !w.isr.is_empty() || !w.elr.is_empty());
                if held && matches!(command, Command::GiveUpReplica { .. }) {
                    let holds = !p.isr.is_empty() || !p.elr.is_empty();
                    assert!(holds, "the last replica was given up: {p:?}");
                }
                let led = self.leaders.entry((at, p.leader_epoch)).or_insert(p.leader);
                assert_eq!(*led, p.leader, "R1: two leaders in one epoch of {p:?}");
                let min = topic.min_insync_replicas(p);
                check(new, was, p, min, command);
                self.elected_from_elr |=
                    was.is_some_and(|w| w.leader.is_none() && p.leader.is_some());
                if p.leader.is_some() && p.isr.len() >= min {
                    *holders = p.isr.iter().copied().collect();
                }
            }
        }
    }
}

fn check(state: &State, was: Option<&Partition>, p: &Partition, min: usize, command: &Command) {
    let is = |n: &NodeId, s| state.node(*n).is_some_and(|n| n.state == s);
    assert!(p.isr.iter().all(|n| !is(n, NodeState::Fenced)), "R9: {p:?}");
    if let Some(leader) = p.leader
        && is(&leader, NodeState::Draining)
    {
        let other = p.isr.iter().any(|n| is(n, NodeState::Active));
        assert!(
            !other,
            "R9: one that is stopping leads although another could: {p:?}"
        );
    }
    assert!(p.elr.iter().all(|n| !p.isr.contains(n)), "R14: {p:?}");
    assert!(p.elr.is_empty() || p.isr.len() < min, "R14: {p:?}");
    let Some(was) = was else { return };
    assert_eq!(
        was == p,
        was.partition_epoch == p.partition_epoch,
        "{was:?} {p:?}"
    );
    assert!(
        p.partition_epoch - was.partition_epoch <= 1 && p.partition_epoch >= was.partition_epoch
    );
    let grown = p.leader_epoch.get() - was.leader_epoch.get();
    assert!(
        (0..=1).contains(&grown) && (grown == 1 || was.leader == p.leader),
        "{was:?} {p:?}"
    );
    if let Command::Reassign { .. } = command {
        assert!(
            p.isr.iter().all(|n| was.isr.contains(n)) || was.leader != p.leader,
            "R18: {was:?} {p:?}"
        );
        let copies = |p: &Partition| p.isr.len() + p.elr.len();
        assert!(copies(p) >= min.min(copies(was)), "R18: {was:?} {p:?}");
    }
    let may_be_in_sync_anew = matches!(command, Command::AlterPartition { .. })
        || (was.isr.is_empty() && p.isr.len() == 1)
        || p.isr
            .iter()
            .all(|n| was.isr.contains(n) || was.elr.contains(n));
    assert!(
        may_be_in_sync_anew
            || matches!(
                command,
                Command::ElectLeader {
                    how: Election::Unclean(_),
                    ..
                }
            )
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_nothing_committed_is_forgotten(
        ops in prop::collection::vec(op(), 0..120),
        restore in any::<u64>(),
    ) {
        let mut s = State::default();
        let mut model = Model::default();
        for n in 0..NODES - 1 {
            apply(&mut s, register(n, 1000)).unwrap();
            let unfence = unfence(&s, n);
            apply(&mut s, unfence).unwrap();
        }
        let mut twin = s.clone();
        for (step, op) in ops.iter().enumerate() {
            let command = model.command(&s, op);
            let bytes = command_codec::encode(&command);
            let read = command_codec::decode(&bytes).unwrap();
            prop_assert_eq!(&read, &command);
            let before = s.clone();
            let result = apply(&mut s, command.clone());
            prop_assert_eq!(&apply(&mut twin, read), &result, "M6");
            if (restore >> (step % 64)) & 1 == 1 {
                twin = snapshot::decode(&snapshot::encode(&twin)).unwrap();
            }
            prop_assert_eq!(&twin, &s, "M6");
            match result {
                Ok(_) => {
                    prop_assert_eq!(s.version(), before.version() + 1);
                    prop_assert_eq!(s.check(), Ok(()));
                    if let Op::Alter { stale, .. } = op {
                        prop_assert!(*stale != 4 && *stale != 2, "R7: {op:?} was accepted");
                    }
                    model.before(&before, &command);
                    model.after(&before, &s, &command);
                }
                Err(rejection) => {
                    prop_assert!(!rejection.is_fatal());
                    let used_up = matches!(rejection, Rejection::Exhausted { .. });
                    prop_assert!(!used_up);
                    prop_assert_eq!(&s, &before, "{}", rejection);
                }
            }
        }
    }
}

#[test]
fn a_delayed_proposal_meets_no_newer_run() {
    let mut s = crate::support::state(
        &[0, 1],
        [create_with("t", 1, 1, 2, &[("min.insync.replicas", "2")])],
    );
    let at = crate::support::key(1, 0);
    let p = s.partition_at(at).unwrap().clone();
    let (leader, follower) = (
        p.leader.unwrap(),
        *p.isr.iter().find(|n| Some(**n) != p.leader).unwrap(),
    );
    let old = s.node(follower).unwrap().epoch;
    let down = fence(&s, follower.0);
    apply(&mut s, down).unwrap();
    apply(&mut s, register(follower.0, 9)).unwrap();
    let up = unfence(&s, follower.0);
    apply(&mut s, up).unwrap();
    let p = s.partition_at(at).unwrap();
    let refused = Command::AlterPartition {
        topic_id: at.topic,
        partition: at.partition,
        leader,
        leader_epoch: p.leader_epoch,
        partition_epoch: p.partition_epoch,
        isr: vec![(leader, s.node(leader).unwrap().epoch), (follower, old)],
        broker_epoch: s.node(leader).unwrap().epoch,
    };
    let rejection = apply(&mut s, refused).unwrap_err();
    assert!(matches!(rejection, Rejection::IneligibleReplica { node, .. } if node == follower));
}
