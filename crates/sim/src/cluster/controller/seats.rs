//! Where the real controller runs: one in waiting on each node, one of them in control. Control changes when
//! its node goes down or the nemesis wants it. A new one knows nothing of sessions; the old one may not have
//! noticed yet, and goes on deciding by the state that it saw last. Their clocks differ.

use varve_metadata::{
    Controller as Core, ControllerConfig, Heartbeat, Input, NodeState, Output, State,
};
use varve_types::NodeId;

use super::super::knobs::Knobs;
use super::super::world::{Addr, Event, Message, World};
use super::{Asker, LOOK_MS};

/// The controller of one node.
struct Seat {
    core: Core,
    /// It was replaced and does not know: the state it saw last, and until when.
    behind: Option<(Box<State>, u64)>,
    /// Version of the state that it has looked at last.
    planned: u64,
}

/// All of them.
pub(super) struct Seats {
    seats: Vec<Seat>,
    /// Which is in control.
    leader: Option<usize>,
    /// Who was before, and when it was heard last.
    before: Option<(NodeId, u64)>,
    /// With nobody in control: when somebody is elected.
    elected_at: u64,
    /// Grows with every change of control.
    pub(super) term: u64,
}

impl Seats {
    pub(super) fn new(knobs: &Knobs) -> Self {
        let config = ControllerConfig {
            session_timeout_ms: knobs.session_ms,
            shutdown_timeout_ms: 1_000,
            balance_interval_ms: 400,
            balance_replicas: knobs.balance,
            ..ControllerConfig::default()
        };
        let seat = |_| Seat {
            core: Core::new(config),
            behind: None,
            planned: 0,
        };
        Self {
            seats: (0..knobs.nodes).map(seat).collect(),
            leader: None,
            before: None,
            elected_at: 0,
            term: 0,
        }
    }

    pub(super) const fn led(&self) -> bool {
        self.leader.is_some()
    }

    fn node(seat: usize) -> NodeId {
        NodeId(seat as i32 + 1)
    }
}

impl World {
    /// A node says that it lives. Without a controller nobody hears it; one that was replaced may.
    pub(super) fn heartbeat(&mut self, beat: Heartbeat) {
        let seats = &mut self.controller.seats;
        let behind = seats.seats.iter().position(|s| s.behind.is_some());
        let strays = behind.is_some() && self.rng.below(4) == 0;
        let Some(at) = behind.filter(|_| strays).or(seats.leader) else {
            return self.count("heartbeat without a controller");
        };
        let now = self
            .nodes
            .get(&Seats::node(at))
            .map_or(0, |n| n.clock.mono(self.now));
        let seat = &mut seats.seats[at];
        let state = match &seat.behind {
            Some((state, _)) => state,
            None => &self.controller.state,
        };
        let version = state.version();
        let mut out = Vec::new();
        seat.core.step(now, state, Input::Heartbeat(beat), &mut out);
        for output in out {
            let message = match output {
                Output::Alive { may_stop, .. } => Message::Metadata {
                    version: self.known_version(version),
                    may_stop,
                },
                Output::MustRegister { found, .. } if found > Some(beat.epoch) => {
                    let epoch = beat.epoch;
                    Message::Superseded { epoch }
                }
                Output::MustRegister { .. } | Output::NotController { .. } => continue,
            };
            self.send(Addr::Controller, Addr::Node(beat.node), message);
        }
    }

    /// Nodes are versions behind.
    fn known_version(&mut self, version: u64) -> u64 {
        if self.healed || self.rng.below(4) > 0 {
            return version;
        }
        version.saturating_sub(self.rng.below(6))
    }

    pub(in crate::cluster) fn controller_acts(&mut self) -> Result<(), String> {
        self.at(LOOK_MS, Event::Controller);
        self.change_control();
        self.plan();
        let nodes = self.controller.state.nodes().values();
        let active = nodes.filter(|n| n.state == NodeState::Active).count();
        if !self.controller.created && active == self.knobs.nodes as usize {
            self.create_topic()?;
        }
        Ok(())
    }

    /// Somebody takes over where nobody is in control; one whose process is gone is not.
    fn change_control(&mut self) {
        let now = self.now;
        let up = |seat: usize| {
            self.nodes
                .get(&Seats::node(seat))
                .filter(|n| n.up && !n.paused)
        };
        let clock = |seat| up(seat).map_or(0, |n| n.clock.mono(now));
        let seats = &mut self.controller.seats;
        if let Some(at) = seats.leader
            && up(at).is_none()
        {
            let (seat, wait) = (&mut seats.seats[at], self.rng.below(300));
            seat.core = fresh(&seat.core, &self.controller.state);
            seats.leader = None;
            seats.before = Some((Seats::node(at), now));
            seats.elected_at = now + wait;
            return self.count("controller died");
        }
        let healed = self.healed;
        for (at, seat) in seats.seats.iter_mut().enumerate() {
            let over = |(_, until): &(Box<State>, u64)| *until <= now || healed || up(at).is_none();
            if seat.behind.as_ref().is_some_and(over) {
                seat.behind = None;
                seat.core = fresh(&seat.core, &self.controller.state);
            }
        }
        if seats.leader.is_some() || now < seats.elected_at {
            return;
        }
        let able = |at: &usize| up(*at).is_some() && seats.seats[*at].behind.is_none();
        let able: Vec<usize> = (0..seats.seats.len()).filter(able).collect();
        if able.is_empty() {
            return;
        }
        let at = able[self.rng.below(able.len() as u64) as usize];
        let here = clock(at);
        let heard = |(node, then): (NodeId, u64)| (node, here.saturating_sub(now - then));
        let before = seats
            .before
            .filter(|(n, _)| *n != Seats::node(at))
            .map(heard);
        let input = Input::BecameController { before };
        let state = &self.controller.state;
        seats.seats[at]
            .core
            .step(here, state, input, &mut Vec::new());
        seats.leader = Some(at);
        seats.term += 1;
        self.count("controller elected");
        self.say(|_| format!("node {} is the controller", Seats::node(at)));
    }

    /// Everybody who believes to be in control says what is due.
    fn plan(&mut self) {
        let mut due = Vec::new();
        let controller = &mut self.controller;
        for (at, seat) in controller.seats.seats.iter_mut().enumerate() {
            let Some(node) = self.nodes.get(&Seats::node(at)) else {
                continue;
            };
            if !node.up || node.paused {
                continue;
            }
            let now = node.clock.mono(self.now);
            let state = match &seat.behind {
                Some((state, _)) => state,
                None => &controller.state,
            };
            let stray = seat.behind.is_some();
            let changed = std::mem::replace(&mut seat.planned, state.version()) != state.version();
            if changed || seat.core.next_deadline().is_some_and(|at| at <= now) {
                let commands = seat.core.plan(state, now);
                due.extend(commands.into_iter().map(|c| (stray, c)));
            }
        }
        for (stray, command) in due {
            self.say(|_| format!("controller (replaced: {stray}) proposes {command:?}"));
            self.count(match (&command, stray) {
                (_, true) => "command of a controller that was replaced",
                (varve_metadata::Command::FenceNode { .. }, _) => "controller fences a node",
                (varve_metadata::Command::Reassign { .. }, _) => "controller moves a replica",
                (varve_metadata::Command::ElectLeader { .. }, _) => "controller moves a leader",
                _ => "controller: other commands",
            });
            self.propose_command(command, Asker::None);
        }
    }

    /// Control goes to another node, though this one lives and may not notice for a while.
    pub(in crate::cluster) fn unseat_controller(&mut self) {
        let (now, wait, until) = (self.now, self.rng.below(300), self.rng.below(500));
        let seats = &mut self.controller.seats;
        let Some(at) = seats.leader.take() else {
            return;
        };
        seats.seats[at].behind = Some((Box::new(self.controller.state.clone()), now + until));
        seats.before = Some((Seats::node(at), now));
        seats.elected_at = now + wait;
        self.count("controller replaced");
    }
}

/// One that has lost control.
fn fresh(core: &Core, state: &State) -> Core {
    let mut core = core.clone();
    core.step(0, state, Input::LostControl, &mut Vec::new());
    core
}
