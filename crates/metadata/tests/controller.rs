//! The controller and the state together, in simulated time: what is due is applied at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use crate::support::{create, create_with, fence, key, node, register, state};
use varve_metadata::{
    Command, Controller, ControllerConfig, Event, Heartbeat, Input, NodeState, Output, Progress,
    State, apply,
};
use varve_types::{BrokerEpoch, NodeId};

struct Cluster {
    state: State,
    controller: Controller,
    now: u64,
    /// Nodes that send heartbeats.
    alive: BTreeSet<i32>,
    stopping: BTreeSet<i32>,
    most: usize,
}

impl Cluster {
    fn new(state: State, alive: &[i32], config: ControllerConfig) -> Self {
        let mut controller = Controller::new(config);
        controller.step(
            0,
            &state,
            Input::BecameController { before: None },
            &mut Vec::new(),
        );
        Self {
            state,
            controller,
            now: 0,
            alive: alive.iter().copied().collect(),
            stopping: BTreeSet::new(),
            most: 0,
        }
    }

    fn beat(&mut self, id: i32) -> Output {
        let epoch = self
            .state
            .node(NodeId(id))
            .map_or(BrokerEpoch::ZERO, |n| n.epoch);
        let beat = Heartbeat {
            node: NodeId(id),
            epoch,
            metadata_version_applied: self.state.version(),
            wants_shutdown: self.stopping.contains(&id),
        };
        let mut out = Vec::new();
        self.controller
            .step(self.now, &self.state, Input::Heartbeat(beat), &mut out);
        assert_eq!(out.len(), 1);
        out[0]
    }

    fn plan(&mut self) -> Vec<Command> {
        let plan = self.controller.plan(&self.state, self.now);
        self.most = self.most.max(plan.len());
        for command in &plan {
            apply(&mut self.state, command.clone()).unwrap();
        }
        plan
    }

    /// Half a second in which the living say so, and followers catch up if `catch_up`.
    fn tick(&mut self, catch_up: bool) -> Vec<Command> {
        self.now += 500;
        for id in self.alive.clone() {
            self.beat(id);
        }
        let plan = self.plan();
        if catch_up {
            self.catch_up();
        }
        plan
    }

    /// Leaders ask for every active replica to be in sync.
    fn catch_up(&mut self) {
        let mut asks = Vec::new();
        for topic in self.state.topics().values() {
            for (number, p) in topic.partitions.iter().enumerate() {
                let Some(leader) = p.leader else { continue };
                let up = |n: &&NodeId| {
                    self.state.node(**n).unwrap().state == NodeState::Active || p.isr.contains(n)
                };
                let seen = |n: &NodeId| (*n, self.state.node(*n).unwrap().epoch);
                let isr: Vec<_> = p.replicas.iter().filter(up).map(seen).collect();
                if isr.len() > p.isr.len() {
                    asks.push(Command::AlterPartition {
                        topic_id: topic.id,
                        partition: key(0, number as i32).partition,
                        leader,
                        leader_epoch: p.leader_epoch,
                        partition_epoch: p.partition_epoch,
                        isr,
                        broker_epoch: self.state.node(leader).unwrap().epoch,
                    });
                }
            }
        }
        for ask in asks {
            apply(&mut self.state, ask).unwrap();
        }
    }
}

fn two_in_sync(partitions: i32, factor: i32) -> Command {
    create_with("t", 1, partitions, factor, &[("min.insync.replicas", "2")])
}

#[test]
fn a_silent_node_is_fenced_after_a_whole_session_of_this_controller() {
    let s = state(&[0, 1, 2], [two_in_sync(6, 3)]);
    let mut c = Cluster::new(s, &[0, 1], ControllerConfig::default());
    assert_eq!(c.controller.next_deadline().map(|d| d <= c.now), Some(true));
    for _ in 0..17 {
        assert_eq!(c.tick(true), [], "at {}", c.now);
        assert!(c.controller.next_deadline().is_some_and(|d| d <= 9_000));
    }
    assert_eq!(c.now, 8_500);
    let epoch = node(&c.state, 2).epoch;
    assert_eq!(
        c.tick(true),
        [Command::FenceNode {
            node: NodeId(2),
            epoch
        }]
    );
    assert_eq!(c.state.led_by(NodeId(2)), 0);
    assert!(c.state.leaderless().is_empty());
    // Silent and fenced: it stays so. Its word brings it back, and the preferred leaders with it.
    assert_eq!(c.tick(true), []);
    c.alive.insert(2);
    assert_eq!(
        c.tick(false),
        [Command::UnfenceNode {
            node: NodeId(2),
            epoch
        }]
    );
    for _ in 0..4 {
        c.tick(true);
    }
    assert_eq!(c.state.led_by(NodeId(2)), 2);
}

#[test]
fn preferred_leaders_wait_to_be_asked_for_where_nobody_balances_leaders() {
    let s = state(&[0, 1, 2], [two_in_sync(6, 3)]);
    let config = ControllerConfig {
        balance_leaders: false,
        ..ControllerConfig::default()
    };
    let mut c = Cluster::new(s, &[0, 1], config);
    while c.state.led_by(NodeId(2)) > 0 {
        assert!(c.now < 60_000);
        c.tick(true);
    }
    c.alive.insert(2);
    for _ in 0..20 {
        c.tick(true);
    }
    let topic = c.state.topics().values().next().unwrap();
    assert!(topic.partitions.iter().all(|p| p.isr.len() == 3));
    assert_eq!(c.state.led_by(NodeId(2)), 0);
    // Nothing is due but the ends of sessions.
    let due = c.controller.next_deadline();
    assert_eq!(due, Some(c.now + config.session_timeout_ms));
}

#[test]
fn a_new_controller_waits_a_whole_session() {
    let s = state(&[0, 1], [create("t", 1, 1, 2)]);
    let mut c = Cluster::new(s, &[0], ControllerConfig::default());
    for _ in 0..17 {
        c.tick(false);
    }
    // Control is lost and won again just before the session of node 1 would end.
    c.controller
        .step(c.now, &c.state, Input::LostControl, &mut Vec::new());
    assert_eq!((c.controller.next_deadline(), c.plan()), (None, vec![]));
    assert_eq!(c.beat(0), Output::NotController { node: NodeId(0) });
    c.controller.step(
        c.now,
        &c.state,
        Input::BecameController { before: None },
        &mut Vec::new(),
    );
    for _ in 0..17 {
        assert_eq!(c.tick(false), []);
    }
    assert_eq!(c.tick(false).len(), 1);
}

/// When a controller that takes over at 20 s fences the node that led before, which it heard at `heard`.
fn fenced_at(heard: u64) -> u64 {
    let s = state(&[0, 1], [create("t", 1, 1, 2)]);
    let config = ControllerConfig::default();
    let mut controller = Controller::new(config);
    let (now, before) = (20_000, Some((NodeId(1), heard)));
    let input = Input::BecameController { before };
    controller.step(now, &s, input, &mut Vec::new());
    let epoch = node(&s, 1).epoch;
    let fence = Command::FenceNode {
        node: NodeId(1),
        epoch,
    };
    let mut due = |at: &u64| controller.plan(&s, *at).contains(&fence);
    (now..40_000).find(|at| due(at)).unwrap()
}

#[test]
fn the_node_that_led_before_has_a_session_since_it_was_heard_and_half_of_one_at_least() {
    assert_eq!(fenced_at(18_500), 27_500);
    assert_eq!(fenced_at(19_999), 28_999);
    // Heard long ago, or never in this run: it may be alive all the same, and has time to say so.
    assert_eq!(fenced_at(1), 24_500);
    // What this node says to itself is no silence of others.
    assert_eq!(fenced_at(30_000), 29_000);
    // A word from it counts as from every node.
    let s = state(&[0, 1], [create("t", 1, 1, 2)]);
    let mut c = Cluster::new(s, &[0, 1], ControllerConfig::default());
    for _ in 0..40 {
        assert_eq!(c.tick(false), []);
    }
    let before = Some((NodeId(1), c.now - 8_000));
    let input = Input::BecameController { before };
    c.controller.step(c.now, &c.state, input, &mut Vec::new());
    for _ in 0..40 {
        assert_eq!(c.tick(false), []);
    }
}

#[test]
fn a_node_is_unfenced_when_it_knows_its_own_registration() {
    let mut s = state(&[0], []);
    apply(&mut s, register(1, 1)).unwrap();
    let epoch = node(&s, 1).epoch;
    let mut c = Cluster::new(s, &[0], ControllerConfig::default());
    let mut say = |epoch, metadata_version_applied| {
        let node = NodeId(1);
        let beat = Heartbeat {
            node,
            epoch,
            metadata_version_applied,
            wants_shutdown: false,
        };
        let mut out = Vec::new();
        c.controller
            .step(c.now, &c.state, Input::Heartbeat(beat), &mut out);
        (out[0], c.controller.plan(&c.state, c.now))
    };
    let must = Output::MustRegister {
        node: NodeId(1),
        found: Some(epoch),
    };
    assert_eq!(say(BrokerEpoch::ZERO, 9), (must, vec![]));
    let version = u64::try_from(epoch.get()).unwrap();
    assert_eq!(say(epoch, version - 1).1, []);
    assert_eq!(
        say(epoch, version).1,
        [Command::UnfenceNode {
            node: NodeId(1),
            epoch
        }]
    );
}

#[test]
fn a_graceful_stop_takes_a_few_heartbeats_and_leaves_no_partition_without_a_leader() {
    let s = state(&[0, 1, 2], [two_in_sync(9, 3)]);
    let mut c = Cluster::new(s, &[0, 1, 2], ControllerConfig::default());
    c.tick(true);
    c.stopping.insert(1);
    let mut beats = 0;
    loop {
        beats += 1;
        c.now += 10;
        let answers: Vec<Output> = [1, 0, 2].iter().map(|id| c.beat(*id)).collect();
        let Output::Alive {
            state, may_stop, ..
        } = answers[0]
        else {
            panic!("{answers:?}")
        };
        assert!(c.state.leaderless().is_empty());
        if may_stop {
            assert_eq!(state, NodeState::Fenced);
            break;
        }
        c.plan();
        assert!(beats < 6);
    }
    assert_eq!(c.state.led_by(NodeId(1)), 0);
    assert!(c.tick(true).is_empty(), "it is not unfenced again");
}

#[test]
fn what_nobody_else_can_lead_does_not_hold_up_a_stop_and_what_others_may_does() {
    let mut s = state(
        &[0, 1],
        [create("single", 1, 2, 1), two_in_sync(1, 2)].map(|c| match c {
            Command::CreateTopic(mut t) if t.name.as_str() == "t" => {
                t.id = varve_types::TopicId(2);
                t.placement.insert(0, vec![NodeId(1), NodeId(0)]);
                Command::CreateTopic(t)
            }
            other => other,
        }),
    );
    // Node 0 fell out of sync with min 1, so node 1 alone can lead t-0.
    let min = std::collections::BTreeMap::new();
    apply(
        &mut s,
        Command::SetTopicConfigs {
            name: crate::support::name("t"),
            configs: min,
        },
    )
    .unwrap();
    let down = fence(&s, 0);
    apply(&mut s, down).unwrap();
    let up = crate::support::unfence(&s, 0);
    apply(&mut s, up).unwrap();
    let mut c = Cluster::new(s, &[0, 1], ControllerConfig::default());
    c.stopping.insert(1);
    for _ in 0..6 {
        c.tick(false);
        assert_eq!(node(&c.state, 1).state, NodeState::Draining);
        assert_eq!(
            c.state.partition_at(key(2, 0)).unwrap().leader,
            Some(NodeId(1))
        );
    }
    c.tick(true);
    assert_eq!(
        c.state.partition_at(key(2, 0)).unwrap().leader,
        Some(NodeId(0))
    );
    c.tick(false);
    c.tick(false);
    assert_eq!(node(&c.state, 1).state, NodeState::Fenced);
    assert_eq!(c.state.leaderless().len(), 1, "its only replica of single");
}

#[test]
fn a_decommissioned_node_is_emptied_with_bounded_moves_even_when_it_is_dead() {
    let s = state(&[0, 1, 2, 3], [two_in_sync(40, 3)]);
    let config = ControllerConfig {
        moves_at_once: 4,
        ..ControllerConfig::default()
    };
    let mut c = Cluster::new(s, &[1, 2, 3], config);
    for _ in 0..19 {
        c.tick(true);
    }
    assert_eq!(node(&c.state, 0).state, NodeState::Fenced);
    apply(
        &mut c.state,
        Command::SetDecommissioning {
            node: NodeId(0),
            on: true,
        },
    )
    .unwrap();
    let begun = Progress::of(&c.state, NodeId(0));
    assert!(
        begun.left == 30 && !begun.done() && begun.usable == 3,
        "{begun:?}"
    );
    let mut rounds = 0;
    while !Progress::of(&c.state, NodeId(0)).done() {
        c.tick(false);
        assert!(c.state.reassigning().len() <= 4);
        c.catch_up();
        rounds += 1;
        assert!(rounds < 100, "{:?}", Progress::of(&c.state, NodeId(0)));
    }
    assert_eq!(node(&c.state, 0).state, NodeState::Fenced);
    assert!(matches!(c.beat(0), Output::Alive { emptied: true, .. }));
    for id in 1..4 {
        assert_eq!(c.state.held_by(NodeId(id)), 40);
    }
    assert!(matches!(
        apply(&mut c.state, Command::UnregisterNode { node: NodeId(0) }),
        Ok(Event::NodeUnregistered { .. })
    ));
}

#[test]
fn a_node_that_joins_gets_its_share_and_then_it_is_quiet() {
    let mut s = state(&[0, 1, 2], [two_in_sync(40, 2)]);
    apply(&mut s, register(3, 1)).unwrap();
    let mut c = Cluster::new(s, &[0, 1, 2, 3], ControllerConfig::default());
    for _ in 0..200 {
        c.tick(true);
        assert!(c.state.reassigning().len() <= 10 && c.most <= 256);
    }
    for id in 0..4 {
        let held = c.state.held_by(NodeId(id));
        assert!((18..=22).contains(&held), "node {id} holds {held}");
    }
    for _ in 0..10 {
        assert_eq!(c.tick(true), [], "balance has an end");
    }
}

/// People may place partitions as they like, and nobody moves them back.
#[test]
fn replicas_stay_where_people_put_them_where_nobody_balances_replicas() {
    let mut s = state(&[0, 1, 2], [two_in_sync(40, 2)]);
    apply(&mut s, register(3, 1)).unwrap();
    let config = ControllerConfig {
        balance_replicas: false,
        ..ControllerConfig::default()
    };
    let mut c = Cluster::new(s, &[0, 1, 2, 3], config);
    for _ in 0..50 {
        c.tick(true);
    }
    assert_eq!(c.state.held_by(NodeId(3)), 0);
}

#[test]
fn a_dead_rack_does_not_fill_a_plan_beyond_its_bound() {
    let ids: Vec<i32> = (0..20).collect();
    let s = state(&ids, [two_in_sync(50, 3)]);
    let config = ControllerConfig {
        commands_per_plan: 4,
        ..ControllerConfig::default()
    };
    let mut c = Cluster::new(s, &[0, 1], config);
    for _ in 0..18 {
        c.tick(false);
    }
    for _ in 0..10 {
        assert!(c.plan().len() <= 4);
    }
    let fenced = c
        .state
        .nodes()
        .values()
        .filter(|n| n.state == NodeState::Fenced)
        .count();
    assert_eq!((fenced, c.most), (18, 4));
}

#[test]
fn a_move_that_waits_for_a_dead_node_gets_another_end_when_that_node_is_decommissioned() {
    let s = state(&[0, 1, 2, 3], [two_in_sync(12, 3)]);
    let config = ControllerConfig {
        moves_at_once: 2,
        balance_replicas: false,
        ..ControllerConfig::default()
    };
    let mut c = Cluster::new(s, &[1, 2, 3], config);
    for _ in 0..19 {
        c.tick(true);
    }
    assert_eq!(node(&c.state, 0).state, NodeState::Fenced);
    // People move partitions that have a replica on the dead node: none of these moves can end.
    let mut asked = 0;
    let held: Vec<_> = c.state.partitions_of(NodeId(0)).collect();
    let held: Vec<_> = held
        .into_iter()
        .map(|(id, topic, p)| (id.partition, topic, p.replicas.clone()))
        .collect();
    for (partition, topic_id, replicas) in held {
        let outside = (1..4).map(NodeId).find(|n| !replicas.contains(n)).unwrap();
        let from = *replicas.iter().find(|n| **n != NodeId(0)).unwrap();
        let place = |n: &NodeId| if *n == from { outside } else { *n };
        let target = Some(replicas.iter().map(place).collect());
        let command = Command::Reassign {
            topic_id,
            partition,
            target,
        };
        apply(&mut c.state, command).unwrap();
        asked += 1;
    }
    for _ in 0..10 {
        c.tick(true);
    }
    assert_eq!(
        c.state.reassigning().len(),
        asked,
        "they wait, more of them than may move at once"
    );
    let dead = NodeId(0);
    let decommission = Command::SetDecommissioning {
        node: dead,
        on: true,
    };
    apply(&mut c.state, decommission).unwrap();
    for _ in 0..30 {
        c.tick(true);
    }
    assert!(Progress::of(&c.state, dead).done());
    assert!(c.state.reassigning().is_empty());
}

#[test]
fn two_dead_nodes_of_one_partition_can_be_decommissioned_together() {
    let s = state(&[0, 1, 2, 3, 4], [create_with("t", 1, 10, 3, &[])]);
    let mut c = Cluster::new(s, &[2, 3, 4], ControllerConfig::default());
    for _ in 0..19 {
        c.tick(true);
    }
    for id in 0..2 {
        let node = NodeId(id);
        let on = true;
        apply(&mut c.state, Command::SetDecommissioning { node, on }).unwrap();
    }
    for _ in 0..60 {
        c.tick(true);
    }
    for id in 0..2 {
        let left = Progress::of(&c.state, NodeId(id));
        assert!(left.done(), "{id}: {left:?}");
    }
}

#[test]
fn balance_leaves_alone_what_is_not_in_sync() {
    let s = state(&[0, 1, 2], [two_in_sync(30, 2)]);
    let mut c = Cluster::new(s, &[1, 2], ControllerConfig::default());
    for _ in 0..19 {
        c.tick(true);
    }
    apply(&mut c.state, register(3, 1)).unwrap();
    c.alive.insert(3);
    for _ in 0..100 {
        c.tick(true);
    }
    assert!(c.state.held_by(NodeId(3)) > 0, "what is in sync has moved");
    assert!(c.state.reassigning().is_empty(), "nothing waits for ever");
}
