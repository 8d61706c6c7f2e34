//! Time, the network, and the order in which everything happens.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::{Command, Heartbeat, PartitionKey};
use varve_partition::{FetchId, FetchRefusal, IsrRefusal, Position, Rejection, Ticket, Verified};
use varve_txn::AppendId;
use varve_types::{
    Acks, BrokerEpoch, ErrorKind, LeaderEpoch, NodeId, Offset, ProducerId, Sequence,
};

use super::Report;
use super::clients::Client;
use super::clock::Clock;
use super::controller::{Asker, Controller};
use super::disk::{Batch, Kind};
use super::groups::{self, Group};
use super::knobs::Knobs;
use super::nemesis::Plot;
use super::node::Node;
use super::oracle::Oracle;
use super::txn::{Answer, Call, Local, Order, Registers, Transactions, WRITERS};
use crate::rng::Rng;

/// Who can be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Addr {
    Node(NodeId),
    Controller,
    Client(usize),
}

/// Who wants something appended, and hears what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A producer.
    Client(usize),
    /// A transactional producer: its number, that of its transactional id, and who registers the partition.
    Writer {
        number: usize,
        name: usize,
        registers: Registers,
    },
    /// The coordinator of that leadership, on the same node.
    Coordinator {
        epoch: LeaderEpoch,
        append: AppendId,
    },
    /// A coordinator there.
    Marker { to: NodeId, order: Order },
    /// The coordinator of the group, on the same node.
    Group {
        epoch: LeaderEpoch,
        append: varve_groups::AppendId,
    },
}

/// An append as it travels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Produce {
    pub(super) origin: Origin,
    pub(super) request: u64,
    pub(super) key: PartitionKey,
    pub(super) value: u64,
    pub(super) records: u32,
    pub(super) producer: Option<(ProducerId, Sequence)>,
    /// Where the session is not known, it goes on with this batch.
    pub(super) resumes: bool,
    pub(super) acks: Acks,
    pub(super) kind: Kind,
    /// Only in this epoch of the leader.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    /// What is known of the partition's registration in the producer's transaction.
    pub(super) verified: Verified,
}

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Fetch {
        key: PartitionKey,
        id: FetchId,
        position: Position,
    },
    Fetched {
        key: PartitionKey,
        id: FetchId,
        result: Result<(Vec<Batch>, Offset, Offset), FetchRefusal>,
    },
    Progress {
        key: PartitionKey,
        position: Position,
    },
    Register {
        node: NodeId,
        incarnation: u128,
        directory: u128,
        clean: Option<BrokerEpoch>,
    },
    Registered {
        incarnation: u128,
        epoch: BrokerEpoch,
    },
    Heartbeat(Heartbeat),
    /// A replica has a damaged record.
    Damaged {
        key: PartitionKey,
        node: NodeId,
        life: u64,
        epoch: BrokerEpoch,
    },
    /// It is the last one, and stays as it is.
    Kept {
        key: PartitionKey,
        life: u64,
    },
    /// It is given up, in that version of the metadata: it is to begin anew.
    GivenUp {
        key: PartitionKey,
        life: u64,
        version: u64,
    },
    /// The controller knows a later registration of the node.
    Superseded {
        epoch: BrokerEpoch,
    },
    /// The controller's state has this version.
    Metadata {
        version: u64,
        may_stop: bool,
    },
    Alter {
        key: PartitionKey,
        leader: NodeId,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<(NodeId, BrokerEpoch)>,
        broker_epoch: BrokerEpoch,
    },
    AlterRefused {
        key: PartitionKey,
        partition_epoch: i32,
        why: IsrRefusal,
    },
    Produce(Produce),
    Produced {
        request: u64,
        result: Result<Offset, Rejection>,
        hint: Option<NodeId>,
    },
    /// What became of a batch of a transaction.
    Taken {
        request: u64,
        result: Result<Offset, ErrorKind>,
        hint: Option<NodeId>,
    },
    /// A transactional producer asks the coordinator.
    Call {
        request: u64,
        call: Call,
    },
    Called {
        request: u64,
        answer: Answer,
    },
    /// A leader has the partition registered in the transaction of that session and transactional id.
    RegisterPartition {
        key: PartitionKey,
        producer: ProducerId,
        name: usize,
        registers: Registers,
    },
    Registration {
        key: PartitionKey,
        producer: ProducerId,
        result: Result<(), (ErrorKind, Option<NodeId>)>,
    },
    /// A coordinator has a marker written.
    Mark(Order),
    Marked {
        order: Order,
        done: bool,
    },
    /// Somebody asks the coordinator of the group.
    AskGroup {
        request: u64,
        ask: groups::Ask,
    },
    GroupTold {
        request: u64,
        reply: groups::Reply,
    },
}

/// What happens at some time. Those of a process name its run, those of a replica its life: later ones do
/// not see them.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Deliver {
        from: Addr,
        to: Addr,
        message: Message,
    },
    Written {
        node: NodeId,
        run: u64,
        life: u64,
        key: PartitionKey,
        end: Offset,
    },
    Flushed {
        node: NodeId,
        run: u64,
        life: u64,
        key: PartitionKey,
        end: Offset,
        cuts: u64,
    },
    Cut {
        node: NodeId,
        run: u64,
        life: u64,
        key: PartitionKey,
        to: Offset,
        anew: bool,
    },
    FetchTimeout {
        node: NodeId,
        run: u64,
        life: u64,
        key: PartitionKey,
        id: FetchId,
    },
    ParkTimeout {
        node: NodeId,
        run: u64,
        life: u64,
        key: PartitionKey,
        ticket: Ticket,
    },
    Beat {
        node: NodeId,
        run: u64,
    },
    Local {
        node: NodeId,
        run: u64,
        local: Local,
    },
    Start(NodeId),
    Resume(NodeId),
    /// A command reaches the metadata log.
    Commit {
        command: Box<Command>,
        asker: Asker,
        /// Who was in control when it set out.
        term: u64,
    },
    Plot(Plot),
    Controller,
    Client(usize),
    Nemesis,
    Heal(u64),
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) knobs: Knobs,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) controller: Controller,
    pub(super) clients: Vec<Client>,
    pub(super) oracle: Oracle,
    pub(super) transactions: Transactions,
    pub(super) group: Group,
    /// Directions in which nothing passes, each with the number of the fault that cut it.
    pub(super) cut: BTreeMap<(Addr, Addr), u64>,
    /// Until then what that leader proposes is lost.
    pub(super) muted: (NodeId, u64),
    /// The phase of faults is over.
    pub(super) healed: bool,
    /// Transactional producers and members of the group do nothing any more.
    pub(super) quiet: bool,
    pub(super) coverage: BTreeMap<&'static str, u64>,
    pub(super) faults: u64,
    trace: u64,
    events: u64,
    tell: bool,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, tell: bool) -> Self {
        let mut rng = Rng::new(seed);
        let knobs = Knobs::draw(seed, &mut rng);
        let mut world = Self {
            seed,
            now: 0,
            rng,
            knobs,
            queue: BTreeMap::new(),
            next_event: 0,
            nodes: BTreeMap::new(),
            controller: Controller::new(&knobs),
            clients: Vec::new(),
            oracle: Oracle::default(),
            transactions: Transactions::default(),
            group: Group::default(),
            cut: BTreeMap::new(),
            muted: (NodeId(0), 0),
            healed: false,
            quiet: false,
            coverage: BTreeMap::new(),
            faults: 0,
            trace: seed,
            events: 0,
            tell,
            story: Vec::new(),
        };
        world.say(|_| format!("{knobs:?}"));
        for n in 1..=knobs.nodes {
            let clock = Clock::draw(&mut world.rng);
            world.nodes.insert(NodeId(n), Node::new(NodeId(n), clock));
            world.at(0, Event::Start(NodeId(n)));
        }
        world.clients = Client::all(&mut world.rng, &knobs);
        for client in 0..world.clients.len() {
            world.at(300, Event::Client(client));
        }
        if knobs.transactions {
            world.begin_writers();
            world.begin_members();
        }
        world.at(20, Event::Controller);
        world.at(500, Event::Nemesis);
        world
    }

    pub(super) fn run(mut self) -> Report {
        let violation = self.run_to_end().err();
        let violation = violation.map(|why| format!("at {} ms: {why}", self.now));
        if let Some(why) = &violation {
            self.say(|_| format!("VIOLATION {why}"));
        }
        Report {
            seed: self.seed,
            violation,
            trace: self.trace,
            events: self.events,
            records: self.oracle.records(),
            coverage: self.coverage,
            story: self.story,
        }
    }

    fn run_to_end(&mut self) -> Result<(), String> {
        let until = self.knobs.fault_phase_ms;
        while self.now < until {
            self.one()?;
        }
        self.heal_everything();
        // V1 gives a cluster 60 s; this one's clocks run that much faster.
        let until = self.now + 30_000;
        while self.now < until {
            self.one()?;
            if self.events.is_multiple_of(64) && self.recovered() {
                return self.run_out();
            }
        }
        Err(format!(
            "not back to full strength 30 s after everything was healed: {}",
            self.what_is_missing()
        ))
    }

    /// Whoever uses transactions and the group begins nothing more, so that what is under way arrives.
    fn run_out(&mut self) -> Result<(), String> {
        self.quiet = true;
        let until = self.now + u64::from(self.knobs.transactions) * 300;
        while self.now < until {
            self.one()?;
        }
        // What takes its time on this disk and this network is waited for, as long as V1 waits: a decision is made
        // before its markers are written, and those are written before the coordinator of the group hears of them.
        let until = self.now + 30_000;
        while !self.nothing_is_open() || !self.group_has_heard_all() {
            if self.now >= until {
                return Err(format!(
                    "V1: 30 s after the last call something is still under way: {}",
                    self.what_is_missing()
                ));
            }
            self.one()?;
        }
        self.final_check()
    }

    fn one(&mut self) -> Result<(), String> {
        let Some(((at, number), event)) = self.queue.pop_first() else {
            return Err("the simulation is stuck: nothing is left to happen".to_owned());
        };
        self.now = self.now.max(at);
        self.events += 1;
        self.trace = (self.trace ^ at ^ (number << 20) ^ kind(&event))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
        self.happen(event)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Client(client) => {
                self.client_acts(client);
                Ok(())
            }
            Event::Controller => self.controller_acts(),
            Event::Commit {
                command,
                asker,
                term,
            } => self.commit(*command, asker, term),
            Event::Plot(plot) => self.plot_goes_on(plot),
            Event::Nemesis => self.nemesis_acts(),
            Event::Heal(fault) => {
                self.heal_cut(fault);
                Ok(())
            }
            Event::Start(node) => {
                self.start_node(node);
                Ok(())
            }
            Event::Resume(node) => {
                self.resume_node(node);
                Ok(())
            }
            other => self.node_event(other),
        }
    }

    /// Schedules something `after` milliseconds.
    pub(super) fn at(&mut self, after: u64, event: Event) {
        self.next_event += 1;
        self.queue
            .insert((self.now + after, self.next_event), event);
    }

    /// Sends a message through a network that delays, reorders, loses and repeats.
    pub(super) fn send(&mut self, from: Addr, to: Addr, message: Message) {
        if self.cut.contains_key(&(from, to)) {
            return self.count("message stopped by a cut");
        }
        // What transactional producers send may come twice, too.
        let alone = |addr: Addr| matches!(addr, Addr::Client(number) if number < WRITERS);
        let peers = !alone(from) && !alone(to);
        let (loss, duplicates) = match self.healed {
            true => (0, 0),
            false => (
                self.knobs.loss,
                if peers { self.knobs.duplicates } else { 0 },
            ),
        };
        if self.rng.below(1_000) < loss {
            return self.count("message lost");
        }
        let copies = 1 + u64::from(self.rng.below(1_000) < duplicates);
        for copy in 0..copies {
            let late = self.rng.below(100) < 3 && !self.healed;
            let most = self.knobs.delay_ms * if late || copy > 0 { 20 } else { 1 };
            let delay = 1 + self.rng.below(most);
            let message = message.clone();
            self.at(delay, Event::Deliver { from, to, message });
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub(super) fn say(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.tell {
            let line = format!("{:>7} {}", self.now, what(self));
            self.story.push(line);
        }
    }

    /// Adds a line that is at hand already.
    pub(super) fn say_last(&mut self, line: String) {
        if self.tell {
            self.story.push(line);
        }
    }

    /// The partitions there are.
    pub(super) fn keys(&self) -> Vec<PartitionKey> {
        self.controller.keys()
    }

    /// That cut is over.
    pub(super) fn heal_cut(&mut self, fault: u64) {
        self.cut.retain(|_, by| *by != fault);
    }

    /// Cuts both directions, or one, between two sets.
    pub(super) fn separate(&mut self, a: &BTreeSet<Addr>, b: &BTreeSet<Addr>, both: bool) -> u64 {
        self.faults += 1;
        let fault = self.faults;
        for x in a {
            for y in b.iter().filter(|y| *y != x) {
                self.cut.insert((*x, *y), fault);
                if both {
                    self.cut.insert((*y, *x), fault);
                }
            }
        }
        fault
    }

    fn deliver(&mut self, from: Addr, to: Addr, message: Message) -> Result<(), String> {
        match to {
            Addr::Controller => {
                self.controller_hears(message);
                Ok(())
            }
            Addr::Client(client) => self.client_hears(client, message),
            Addr::Node(node) => {
                let Some(n) = self.nodes.get_mut(&node) else {
                    return Ok(());
                };
                if n.paused {
                    n.held.push((from, message));
                    return Ok(());
                }
                if n.up {
                    self.node_hears(node, from, message)
                } else {
                    Ok(())
                }
            }
        }
    }
}

fn kind(event: &Event) -> u64 {
    let (kind, node) = match event {
        Event::Deliver { to, message, .. } => {
            let to = match to {
                Addr::Node(n) => n.0 as u64,
                Addr::Controller => 90,
                Addr::Client(c) => 100 + *c as u64,
            };
            let kind = match message {
                Message::Fetch { position, .. } => position.log_end.get() as u64,
                Message::Fetched { id, .. } => id.0,
                Message::Progress { position, .. } => position.flushed.get() as u64,
                Message::Produce(p) => p.value,
                Message::Produced { request, .. } => *request,
                _ => 1,
            };
            (kind << 8, to)
        }
        Event::Written { node, end, .. } => (2 + ((end.get() as u64) << 8), node.0 as u64),
        Event::Flushed { node, end, .. } => (3 + ((end.get() as u64) << 8), node.0 as u64),
        Event::Cut { node, to, .. } => (4 + ((to.get() as u64) << 8), node.0 as u64),
        Event::FetchTimeout { node, .. } => (5, node.0 as u64),
        Event::ParkTimeout { node, .. } => (6, node.0 as u64),
        Event::Beat { node, .. } => (7, node.0 as u64),
        Event::Local { node, .. } => (16, node.0 as u64),
        Event::Start(node) => (8, node.0 as u64),
        Event::Resume(node) => (9, node.0 as u64),
        Event::Controller => (10, 0),
        Event::Client(client) => (11, *client as u64),
        Event::Nemesis => (12, 0),
        Event::Heal(fault) => (13, *fault),
        Event::Commit { .. } => (14, 0),
        Event::Plot(_) => (15, 0),
    };
    (kind << 8) ^ node
}
