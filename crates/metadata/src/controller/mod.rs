//! What keeps a cluster alive: which commands are due. Sans-IO; runs on the leader of the metadata log.
//!
//! Invariants: a node is fenced only after a whole session without a word from it, counted from when this controller
//! took over at the earliest, but for the node that led before: a new controller has heard it as leader, so its session
//! began with that, and it has half a session more to be heard again; a node is unfenced only when it has applied its
//! own registration; a call of [`Controller::plan`] looks at a bounded number of partitions and gives a bounded number
//! of commands; planning twice on the same state gives commands that do no more together than once. It decides nothing
//! that [`crate::apply`] does not check again. Times are milliseconds of a monotonic clock of the caller's.

mod moves;

use std::collections::BTreeMap;
use std::ops::Bound;

use varve_types::{BrokerEpoch, NodeId};

use crate::command::{Command, Election, PartitionKey};
use crate::state::{NodeState, State};

pub use moves::Progress;

/// How a controller works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControllerConfig {
    /// A node that is silent for so long is fenced, in milliseconds.
    pub session_timeout_ms: u64,
    /// A node that wants to stop is let go after so long even if it still leads what others could take
    /// over, in milliseconds.
    pub shutdown_timeout_ms: u64,
    /// How often leaders and replicas are balanced, in milliseconds, at least 1.
    pub balance_interval_ms: u64,
    /// Whether preferred leaders are made to lead again.
    pub balance_leaders: bool,
    /// Preferred leaders elected each time.
    pub elections_per_interval: usize,
    /// Partitions that may be on the move at once because the controller wants it.
    pub moves_at_once: usize,
    /// Whether replicas are moved to nodes that hold clearly fewer than others.
    pub balance_replicas: bool,
    /// Most commands of one plan, at least 1.
    pub commands_per_plan: usize,
    /// Most partitions that one plan looks at for balance.
    pub looked_at_per_plan: usize,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 9_000,
            shutdown_timeout_ms: 30_000,
            balance_interval_ms: 1_000,
            balance_leaders: true,
            elections_per_interval: 100,
            moves_at_once: 10,
            balance_replicas: true,
            commands_per_plan: 256,
            looked_at_per_plan: 4_096,
        }
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Node.
    pub node: NodeId,
    /// Broker epoch it knows for itself.
    pub epoch: BrokerEpoch,
    /// Version of the state it has applied.
    pub metadata_version_applied: u64,
    /// It wants to stop.
    pub wants_shutdown: bool,
}

/// What a controller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A sign of life of a node.
    Heartbeat(Heartbeat),
    /// This node leads the metadata log from now on.
    BecameController {
        /// Which other node led before, and when this node heard it last in that role, in milliseconds;
        /// `None`: not known.
        before: Option<(NodeId, u64)>,
    },
    /// It does no longer.
    LostControl,
}

/// What a controller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Answer to a heartbeat.
    Alive {
        /// Node.
        node: NodeId,
        /// Whether it takes part.
        state: NodeState,
        /// It asked to stop, and nothing depends on it any more.
        may_stop: bool,
        /// It is being emptied, and holds nothing any more.
        emptied: bool,
    },
    /// The node must register: it is not known, or it has registered again since.
    MustRegister {
        /// Node.
        node: NodeId,
        /// Epoch it is in, if it is known.
        found: Option<BrokerEpoch>,
    },
    /// Another node is the controller.
    NotController {
        /// Node that asked.
        node: NodeId,
    },
}

/// What is known of a node's run.
#[derive(Debug, Clone, Copy)]
struct Session {
    epoch: BrokerEpoch,
    /// Last sign of life, or when this controller began to wait for one.
    heard_ms: u64,
    /// Whether there was any sign of life.
    heard: bool,
    applied: u64,
    /// When it asked to stop.
    stopping_ms: Option<u64>,
    /// Version of the state in which it led nothing that another could lead.
    drained_at: Option<u64>,
    /// The state has it fenced, so its session cannot end.
    fenced: bool,
}

/// The controller of a cluster, or one in waiting.
#[derive(Debug, Clone)]
pub struct Controller {
    config: ControllerConfig,
    in_control: bool,
    took_over_ms: u64,
    sessions: BTreeMap<NodeId, Session>,
    next_balance_ms: u64,
    /// The last plan was full, so there is more to do at once.
    more: bool,
    /// The last plan found something that balance may have to do later.
    restless: bool,
    /// Where the search for leaders to move goes on.
    elections_from: Option<PartitionKey>,
    moves: moves::Cursor,
}

impl Controller {
    /// One in waiting.
    #[must_use]
    pub fn new(config: ControllerConfig) -> Self {
        Self {
            config,
            in_control: false,
            took_over_ms: 0,
            sessions: BTreeMap::new(),
            next_balance_ms: 0,
            more: false,
            restless: false,
            elections_from: None,
            moves: moves::Cursor::default(),
        }
    }

    /// Takes one input; answers are appended to `out`. `state` is the newest that is committed.
    pub fn step(&mut self, now: u64, state: &State, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::BecameController { before } => {
                *self = Self::new(self.config);
                self.in_control = true;
                self.took_over_ms = now;
                self.next_balance_ms = now.saturating_add(self.config.balance_interval_ms.max(1));
                self.sync(now, state);
                if let Some((node, heard_ms)) = before {
                    self.led_before(now, node, heard_ms);
                }
                self.more = true;
            }
            Input::LostControl => *self = Self::new(self.config),
            Input::Heartbeat(beat) if !self.in_control => {
                out.push(Output::NotController { node: beat.node });
            }
            Input::Heartbeat(beat) => out.push(self.heartbeat(now, state, beat)),
        }
    }

    fn heartbeat(&mut self, now: u64, state: &State, beat: Heartbeat) -> Output {
        let node = beat.node;
        let found = state.node(node).map(|n| n.epoch);
        let Some(known) = state.node(node).filter(|n| n.epoch == beat.epoch) else {
            return Output::MustRegister { node, found };
        };
        let session = session(&mut self.sessions, node, beat.epoch, now);
        session.heard_ms = session.heard_ms.max(now);
        session.heard = true;
        session.applied = session.applied.max(beat.metadata_version_applied);
        if beat.wants_shutdown {
            session.stopping_ms = session.stopping_ms.or(Some(now));
        }
        // Something may be due because of it: a node to unfence, one to let go.
        self.more |= known.state == NodeState::Fenced || session.stopping_ms.is_some();
        Output::Alive {
            node,
            state: known.state,
            may_stop: session.stopping_ms.is_some() && known.state == NodeState::Fenced,
            emptied: known.decommissioning && state.held_by(node) == 0,
        }
    }

    /// When [`Self::plan`] has to be called at the latest; `None`: not before the next input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.in_control {
            return None;
        }
        if self.more {
            return Some(self.took_over_ms);
        }
        let ends = self.sessions.values().filter(|s| !s.fenced);
        let ends = ends.map(|s| s.heard_ms.saturating_add(self.config.session_timeout_ms));
        let balance = self.restless.then_some(self.next_balance_ms);
        ends.chain(balance).min()
    }

    /// The commands that are due, most urgent first. Nothing without control.
    pub fn plan(&mut self, state: &State, now: u64) -> Vec<Command> {
        let mut plan = Vec::new();
        if !self.in_control {
            return plan;
        }
        self.more = false;
        self.sync(now, state);
        self.fence(now, state, &mut plan);
        self.stop(now, state, &mut plan);
        self.unfence(now, state, &mut plan);
        let astray = self.config.balance_leaders && !state.index.unpreferred.is_empty();
        self.restless = astray || moves::wanted(state, &self.config);
        if now >= self.next_balance_ms && plan.len() < self.config.commands_per_plan {
            self.next_balance_ms = now.saturating_add(self.config.balance_interval_ms.max(1));
            if self.config.balance_leaders {
                self.prefer(state, &mut plan);
            }
            moves::plan(state, &self.config, &mut self.moves, &mut plan);
        }
        if plan.len() > self.config.commands_per_plan.max(1) {
            plan.truncate(self.config.commands_per_plan.max(1));
            self.more = true;
        }
        plan
    }

    /// Every node of the state has a session; a new registration begins a new one.
    fn sync(&mut self, now: u64, state: &State) {
        self.sessions
            .retain(|node, _| state.nodes().contains_key(node));
        for (id, node) in state.nodes() {
            let session = session(&mut self.sessions, *id, node.epoch, now);
            session.fenced = node.state == NodeState::Fenced;
        }
    }

    /// Most likely it is dead, or this node would not lead. Were its session counted from now, what it leads
    /// would wait for the election of a controller too.
    fn led_before(&mut self, now: u64, node: NodeId, heard_ms: u64) {
        let grace_from = now.saturating_sub(self.config.session_timeout_ms / 2);
        if let Some(session) = self.sessions.get_mut(&node) {
            session.heard_ms = heard_ms.max(grace_from).min(session.heard_ms);
        }
    }

    fn fence(&self, now: u64, state: &State, plan: &mut Vec<Command>) {
        for (node, session) in &self.sessions {
            let end = session
                .heard_ms
                .saturating_add(self.config.session_timeout_ms);
            if !session.fenced && now >= end && state.node(*node).is_some() {
                let (node, epoch) = (*node, session.epoch);
                plan.push(Command::FenceNode { node, epoch });
            }
        }
    }

    /// Nodes that want to stop lead nothing first, then everybody learns of it, then they are let go.
    fn stop(&mut self, now: u64, state: &State, plan: &mut Vec<Command>) {
        let others: Vec<(NodeId, u64)> = self
            .sessions
            .iter()
            .filter(|(_, s)| !s.fenced)
            .map(|(n, s)| (*n, s.applied))
            .collect();
        for (id, session) in &mut self.sessions {
            let (Some(since), Some(node)) = (session.stopping_ms, state.node(*id)) else {
                continue;
            };
            let (node, id, epoch) = (node, *id, session.epoch);
            match node.state {
                NodeState::Fenced => {}
                NodeState::Active => plan.push(Command::BeginShutdown { node: id, epoch }),
                NodeState::Draining => {
                    if can_hand_over(state, id) {
                        session.drained_at = None;
                    } else {
                        session.drained_at = session.drained_at.or(Some(state.version()));
                    }
                    let known_by = |version| {
                        let mut others = others.iter().filter(|(n, _)| *n != id);
                        others.all(|(_, applied)| *applied >= version)
                    };
                    let late = now >= since.saturating_add(self.config.shutdown_timeout_ms);
                    if late || session.drained_at.is_some_and(known_by) {
                        plan.push(Command::FenceNode { node: id, epoch });
                    }
                }
            }
        }
    }

    fn unfence(&self, now: u64, state: &State, plan: &mut Vec<Command>) {
        for (node, session) in &self.sessions {
            let caught_up = u64::try_from(session.epoch.get()).is_ok_and(|e| session.applied >= e);
            let end = session
                .heard_ms
                .saturating_add(self.config.session_timeout_ms);
            let stays = session.heard && now < end && session.stopping_ms.is_none();
            if session.fenced && stays && caught_up && state.node(*node).is_some() {
                let (node, epoch) = (*node, session.epoch);
                plan.push(Command::UnfenceNode { node, epoch });
            }
        }
    }

    /// Preferred leaders lead again, a few at a time.
    fn prefer(&mut self, state: &State, plan: &mut Vec<Command>) {
        let all = &state.index.unpreferred;
        let (mut looked, mut chosen, mut last) = (0, 0, None);
        let keys = match self.elections_from.take() {
            Some(from) => all.range((Bound::Excluded(from), Bound::Unbounded)),
            None => all.range(..),
        };
        for at in keys {
            if looked >= self.config.looked_at_per_plan
                || chosen >= self.config.elections_per_interval
            {
                self.elections_from = last;
                return;
            }
            looked += 1;
            last = Some(*at);
            let ready = state.partition_at(*at).is_some_and(|p| {
                let preferred = p.preferred_leader();
                let node = preferred.and_then(|n| state.node(n));
                let leads_well = node.is_some_and(crate::Node::takes_replicas);
                leads_well && preferred.is_some_and(|n| p.isr.contains(&n))
            });
            if ready {
                chosen += 1;
                plan.push(Command::ElectLeader {
                    topic_id: at.topic,
                    partition: at.partition,
                    how: Election::Preferred,
                });
            }
        }
    }
}

/// The session of that run of a node; a new one, counted from now, if it is the first or the run is new.
fn session(
    sessions: &mut BTreeMap<NodeId, Session>,
    node: NodeId,
    epoch: BrokerEpoch,
    now: u64,
) -> &mut Session {
    let new = Session {
        epoch,
        heard_ms: now,
        heard: false,
        applied: 0,
        stopping_ms: None,
        drained_at: None,
        fenced: true,
    };
    let session = sessions.entry(node).or_insert(new);
    if session.epoch != epoch {
        *session = new;
    }
    session
}

/// Whether `node` leads a partition that another active node may yet take over. What only it can lead
/// goes down with it, however long one waits.
fn can_hand_over(state: &State, node: NodeId) -> bool {
    state.led_by(node) > 0
        && state.partitions_of(node).any(|(_, _, p)| {
            let active = |n: &NodeId| {
                let other = state.node(*n);
                *n != node && other.is_some_and(|n| n.state == NodeState::Active)
            };
            p.leader == Some(node) && p.replicas.iter().any(active)
        })
}
