//! The rim of a node: it performs what the cores decide, with writes and flushes that take time, and
//! carries messages. It follows the rules that the real rim must follow:
//! - nothing is assigned to a core before the node has seen the metadata of its own registration: what an
//!   earlier run led, this one does not lead;
//! - a fetch that waits is answered only while the same leadership lasts;
//! - a flush that began before a cut counts for nothing after it.

mod damage;
mod rim;

use std::collections::BTreeMap;

use varve_metadata::{Heartbeat, PartitionKey};
use varve_partition::{
    Append, Core, CoreConfig, FetchGrant, FetchId, Fetched, Input, Now, Registered, Ticket,
};
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, ProducerId};

use super::clock::Clock;
use super::disk::{Batch, Log};
use super::groups;
use super::txn::{Gate, Host};
use super::world::{Addr, Event, Message, Produce, World};

/// Most batches of one answer to a follower.
const FETCH_BATCHES: usize = 100;
/// How long a follower's fetch waits for records, milliseconds.
const PARK_MS: u64 = 100;
/// After so long a fetch is given up, milliseconds.
const FETCH_TIMEOUT_MS: u64 = 300;
/// Time between heartbeats, milliseconds.
const BEAT_MS: u64 = 40;

/// A node that wants to stop waits so long for its leaderships to move, milliseconds.
const STOP_MS: u64 = 1_500;

/// A follower's fetch that waits for something to read.
#[derive(Debug, Clone, Copy)]
struct Parked {
    from: NodeId,
    id: FetchId,
    epoch: LeaderEpoch,
    grant: FetchGrant,
}

/// A partition in a running process.
pub(super) struct Replica {
    pub(super) core: Core,
    /// Has offsets, is not written.
    staged: Vec<Batch>,
    writing: bool,
    flushing: bool,
    /// Which replica of this partition this is, of those that the process has had.
    pub(super) life: u64,
    /// Cuts of the log so far.
    cuts: u64,
    offered: BTreeMap<Ticket, Produce>,
    fetches: BTreeMap<Ticket, (NodeId, FetchId)>,
    parked: BTreeMap<Ticket, Parked>,
    arrived: Option<(FetchId, Vec<Batch>)>,
    /// Everything below has been shown to consumers here, since that unclean election.
    pub(super) shown: Offset,
    pub(super) since: Option<LeaderEpoch>,
    /// Everything below has been shown to readers of committed records here.
    pub(super) stable: Offset,
    /// Transactions that this partition is known to be registered in.
    pub(super) registered: Registered,
    /// Batches of transactions that wait for the coordinator.
    pub(super) gates: BTreeMap<ProducerId, Gate>,
}

/// Damage that was found in a replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damage {
    life: u64,
    /// When the controller is asked again.
    ask_at: u64,
}

/// A node: its disk, and its process while it runs.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) up: bool,
    pub(super) paused: bool,
    /// What arrived during the pause.
    pub(super) held: Vec<(Addr, Message)>,
    pub(super) held_events: Vec<Event>,
    pub(super) run: u64,
    incarnation: u128,
    pub(super) directory: u128,
    pub(super) epoch: Option<BrokerEpoch>,
    /// Broker epoch of the run that stopped cleanly last, if it was the last.
    pub(super) clean: Option<BrokerEpoch>,
    /// Since when it wants to stop.
    pub(super) wants_stop: Option<u64>,
    /// Version of the metadata it has seen.
    pub(super) applied: u64,
    pub(super) disks: BTreeMap<PartitionKey, Log>,
    pub(super) replicas: BTreeMap<PartitionKey, Replica>,
    /// Coordinators of transactions, by leadership.
    pub(super) hosts: BTreeMap<LeaderEpoch, Host>,
    /// Coordinators of the group, by leadership.
    pub(super) groups: BTreeMap<LeaderEpoch, groups::Host>,
    next_ticket: u64,
    /// Replicas that are held: they are told nothing new until the controller has decided.
    pub(super) damaged: BTreeMap<PartitionKey, Damage>,
    pub(super) clock: Clock,
    /// Until then no flush ends.
    pub(super) stalled_until: u64,
    /// Until then writes find no space.
    pub(super) full_until: u64,
    /// Until then some of them do.
    pub(super) nearly_full_until: u64,
}

impl Node {
    pub(super) fn new(id: NodeId, clock: Clock) -> Self {
        Self {
            id,
            up: false,
            paused: false,
            held: Vec::new(),
            held_events: Vec::new(),
            run: 0,
            incarnation: 0,
            directory: id.0 as u128,
            epoch: None,
            clean: None,
            wants_stop: None,
            applied: 0,
            disks: BTreeMap::new(),
            replicas: BTreeMap::new(),
            hosts: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_ticket: 0,
            damaged: BTreeMap::new(),
            clock,
            stalled_until: 0,
            full_until: 0,
            nearly_full_until: 0,
        }
    }

    /// The process is gone; only its disks are left.
    pub(super) fn kill(&mut self) {
        self.up = false;
        self.paused = false;
        self.held.clear();
        self.held_events.clear();
        self.run += 1;
        self.replicas.clear();
        self.hosts.clear();
        self.groups.clear();
        self.epoch = None;
        self.wants_stop = None;
        self.damaged.clear();
    }
}

impl World {
    pub(super) fn start_node(&mut self, id: NodeId) {
        let incarnation = u128::from(self.rng.next()) + 1;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.up {
            return;
        }
        node.up = true;
        node.incarnation = incarnation;
        let run = node.run;
        self.say(|_| format!("node {id} starts"));
        self.at(0, Event::Beat { node: id, run });
    }

    pub(super) fn resume_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if !node.paused {
            return;
        }
        node.paused = false;
        let (messages, events) = (
            std::mem::take(&mut node.held),
            std::mem::take(&mut node.held_events),
        );
        self.say(|_| format!("node {id} resumes"));
        for event in events {
            self.at(0, event);
        }
        for (from, message) in messages {
            let to = Addr::Node(id);
            self.at(0, Event::Deliver { from, to, message });
        }
    }

    pub(super) fn node_event(&mut self, event: Event) -> Result<(), String> {
        let (id, run) = match &event {
            Event::Written { node, run, .. }
            | Event::Flushed { node, run, .. }
            | Event::Cut { node, run, .. }
            | Event::FetchTimeout { node, run, .. }
            | Event::ParkTimeout { node, run, .. }
            | Event::Beat { node, run }
            | Event::Local { node, run, .. } => (*node, *run),
            _ => return Ok(()),
        };
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        if !node.up || node.run != run {
            return Ok(());
        }
        let of_replica = match &event {
            Event::Written { key, life, .. }
            | Event::Flushed { key, life, .. }
            | Event::Cut { key, life, .. }
            | Event::FetchTimeout { key, life, .. }
            | Event::ParkTimeout { key, life, .. } => Some((*key, *life)),
            _ => None,
        };
        if let Some((key, life)) = of_replica
            && node.replicas.get(&key).is_none_or(|r| r.life != life)
        {
            return Ok(());
        }
        if node.paused {
            node.held_events.push(event);
            return Ok(());
        }
        match event {
            Event::Beat { .. } => self.beat(id),
            Event::Local { local, .. } => self.happens_locally(id, local),
            Event::Written { key, end, .. } => self.written(id, key, end),
            Event::Flushed { key, end, cuts, .. } => self.flushed(id, key, end, cuts),
            Event::Cut { key, to, anew, .. } => self.cut_log(id, key, to, anew),
            Event::FetchTimeout { key, id: fetch, .. } => {
                self.step(id, key, Input::FetchFailed(fetch))
            }
            Event::ParkTimeout { key, ticket, .. } => {
                self.serve(id, key, Some(ticket));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells the controller of this process, and lets time pass in its cores.
    fn beat(&mut self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let message = match node.epoch {
            None => Message::Register {
                node: id,
                incarnation: node.incarnation,
                directory: node.directory,
                clean: node.clean,
            },
            Some(epoch) => Message::Heartbeat(Heartbeat {
                node: id,
                epoch,
                metadata_version_applied: node.applied,
                wants_shutdown: node.wants_stop.is_some(),
            }),
        };
        // What it leads and nobody else can lead does not hold it up for ever.
        if let (Some(since), Some(epoch)) = (node.wants_stop, node.epoch)
            && since + STOP_MS < self.now
        {
            return self.stop_cleanly(id, epoch);
        }
        let (run, mono) = (node.run, node.clock.mono(self.now));
        let wall_ms = node.clock.wall(self.now);
        for replica in node.replicas.values_mut() {
            replica.core.expire_producers(wall_ms);
        }
        let due: Vec<PartitionKey> = node
            .replicas
            .iter()
            .filter(|(_, r)| r.core.next_deadline().is_some_and(|at| at <= mono))
            .map(|(key, _)| *key)
            .collect();
        self.send(Addr::Node(id), Addr::Controller, message);
        self.ask_about_damage(id);
        self.at(BEAT_MS, Event::Beat { node: id, run });
        for key in due {
            self.step(id, key, Input::Tick)?;
        }
        if self.knobs.transactions {
            self.tend_gates(id);
            self.tend_coordinators(id)?;
            self.tend_groups(id)?;
        }
        Ok(())
    }

    pub(super) fn node_hears(
        &mut self,
        id: NodeId,
        from: Addr,
        message: Message,
    ) -> Result<(), String> {
        match (message, from) {
            (Message::Registered { incarnation, epoch }, _) => {
                let Some(node) = self.nodes.get_mut(&id) else {
                    return Ok(());
                };
                if node.incarnation != incarnation || node.epoch.is_some() {
                    return Ok(());
                }
                node.epoch = Some(epoch);
                node.clean = None;
                let keys: Vec<PartitionKey> = node.replicas.keys().copied().collect();
                for key in keys {
                    self.step(id, key, Input::Registered(epoch))?;
                }
                Ok(())
            }
            (Message::Superseded { epoch }, _) => {
                // A registration of an earlier run came late and was taken for a newer one.
                if let Some(node) = self.nodes.get_mut(&id)
                    && node.epoch == Some(epoch)
                {
                    node.epoch = None;
                    self.count("registration superseded");
                }
                Ok(())
            }
            (Message::Metadata { version, may_stop }, _) => self.learn(id, version, may_stop),
            (Message::GivenUp { key, life, version }, _) => self.begin_anew(id, key, life, version),
            (Message::Kept { key, life }, _) => self.keep_damaged(id, key, life),
            (
                Message::Fetch {
                    key,
                    id: fetch,
                    position,
                },
                Addr::Node(follower),
            ) => {
                let Some(ticket) = self.ticket(id) else {
                    return Ok(());
                };
                let Some(replica) = self.replica(id, key) else {
                    return Ok(());
                };
                replica.fetches.insert(ticket, (follower, fetch));
                self.step(id, key, Input::ReplicaFetch { ticket, position })
            }
            (Message::Progress { key, position }, _) => {
                self.step(id, key, Input::ReplicaProgress(position))
            }
            (
                Message::Fetched {
                    key,
                    id: fetch,
                    result,
                },
                _,
            ) => {
                let Some(replica) = self.replica(id, key) else {
                    return Ok(());
                };
                let result = result.map(|(batches, high_watermark, log_start)| {
                    let fetched = Fetched {
                        batches: batches.iter().map(Batch::replicated).collect(),
                        high_watermark,
                        log_start,
                    };
                    replica.arrived = Some((fetch, batches));
                    fetched
                });
                self.step(id, key, Input::Fetched { id: fetch, result })
            }
            (
                Message::AlterRefused {
                    key,
                    partition_epoch,
                    why,
                },
                _,
            ) => self.step(
                id,
                key,
                Input::IsrRefused {
                    partition_epoch,
                    why,
                },
            ),
            (Message::Produce(produce), _) => match Self::writer_of(&produce) {
                Some(name) => self.transactional(id, produce, name),
                None => self.offer(id, produce),
            },
            (Message::AskGroup { request, ask }, Addr::Client(number)) => {
                let caller = groups::Caller {
                    number,
                    request,
                    ask,
                };
                self.group_asked(id, caller)
            }
            (Message::Call { request, call }, _) => self.called(id, from, request, call),
            (
                Message::RegisterPartition {
                    key,
                    producer,
                    name,
                    registers,
                },
                _,
            ) => self.asked_to_register(id, from, (key, producer, name), registers),
            (
                Message::Registration {
                    key,
                    producer,
                    result,
                },
                _,
            ) => self.registration(id, (key, producer), result),
            (Message::Mark(order), _) => self.marker_arrives(id, from, order),
            (Message::Marked { order, done }, _) => self.marked(id, order, done),
            _ => Ok(()),
        }
    }

    pub(super) fn replica(&mut self, id: NodeId, key: PartitionKey) -> Option<&mut Replica> {
        self.nodes.get_mut(&id)?.replicas.get_mut(&key)
    }

    fn run_and_life(&mut self, id: NodeId, key: PartitionKey) -> (u64, u64) {
        let run = self.nodes.get(&id).map_or(0, |n| n.run);
        (run, self.replica(id, key).map_or(0, |r| r.life))
    }

    pub(super) fn ticket(&mut self, id: NodeId) -> Option<Ticket> {
        let node = self.nodes.get_mut(&id)?;
        node.next_ticket += 1;
        Some(Ticket(node.next_ticket))
    }

    pub(super) fn offer(&mut self, id: NodeId, produce: Produce) -> Result<(), String> {
        let Some(ticket) = self.ticket(id) else {
            return Ok(());
        };
        let Some(replica) = self.replica(id, produce.key) else {
            return Ok(());
        };
        replica.offered.insert(ticket, produce);
        let sessions = replica.core.producers().len();
        let append = Append {
            producer: produce.producer,
            resumes: produce.resumes,
            leader_epoch: produce.leader_epoch,
            unsequenced: produce.kind.offsets_of(),
            transactional: produce.kind.is_transactional(),
            verified: produce.verified,
            marker: produce.kind.marker(),
            ..Append::new(ticket, produce.records, produce.acks)
        };
        self.step(id, produce.key, Input::Append(append))?;
        let now = self.replica(id, produce.key);
        if now.is_some_and(|replica| replica.core.producers().len() < sessions) {
            self.count("sessions gave way to others");
        }
        Ok(())
    }

    /// The metadata has this version: sees all versions up to it, or some of them.
    fn learn(&mut self, id: NodeId, version: u64, may_stop: bool) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let Some(epoch) = node.epoch else {
            return Ok(());
        };
        if node.wants_stop.is_some() && may_stop {
            return self.stop_cleanly(id, epoch);
        }
        let first = (epoch.get() as u64).max(node.applied + 1);
        if version < first {
            return Ok(());
        }
        node.applied = version;
        let jump = self.rng.below(4) == 0;
        let from = if jump { version } else { first };
        for version in from..=version {
            let view = self.controller.view(version);
            for (key, assignment) in &view.assignments {
                if !assignment.replicas.contains(&id) {
                    self.drop_replica(id, *key);
                    continue;
                }
                self.open(id, *key, epoch)?;
                let node = self.nodes.get(&id);
                if node.is_none_or(|n| !n.damaged.contains_key(key)) {
                    self.step(id, *key, Input::Assign(assignment.clone()))?;
                }
            }
        }
        Ok(())
    }

    fn drop_replica(&mut self, id: NodeId, key: PartitionKey) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.replicas.remove(&key);
            node.damaged.remove(&key);
            if node.disks.remove(&key).is_some() {
                self.say(|_| format!("node {id} drops partition {}", key.partition));
            }
        }
    }

    /// Opens the log of a partition, once per run.
    fn open(&mut self, id: NodeId, key: PartitionKey, epoch: BrokerEpoch) -> Result<(), String> {
        let config = CoreConfig {
            durability: self.knobs.durability,
            min_insync_replicas: self.knobs.min_insync,
            replica_lag_ms: 400,
        };
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        if node.replicas.contains_key(&key) {
            return Ok(());
        }
        node.next_ticket += 1;
        let life = node.next_ticket;
        let wall_ms = node.clock.wall(self.now);
        let recovered = node.disks.entry(key).or_default().open(wall_ms);
        let replica = Replica {
            core: Core::new(id, config, recovered, life as u32),
            staged: Vec::new(),
            writing: false,
            flushing: false,
            life,
            cuts: 0,
            offered: BTreeMap::new(),
            fetches: BTreeMap::new(),
            parked: BTreeMap::new(),
            arrived: None,
            shown: Offset::ZERO,
            since: None,
            stable: Offset::ZERO,
            registered: Registered::default(),
            gates: BTreeMap::new(),
        };
        node.replicas.insert(key, replica);
        self.step(id, key, Input::Registered(epoch))
    }

    fn stop_cleanly(&mut self, id: NodeId, epoch: BrokerEpoch) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        for (key, log) in &mut node.disks {
            log.flushed = log.end();
            if let Some(replica) = node.replicas.get(key) {
                log.saved_high_watermark = replica.core.high_watermark().min(log.end());
            }
        }
        node.kill();
        node.clean = Some(epoch);
        self.count("clean stop");
        self.say(|_| format!("node {id} has stopped cleanly"));
        let after = 50 + self.rng.below(500);
        self.at(after, Event::Start(id));
        Ok(())
    }

    fn written(&mut self, id: NodeId, key: PartitionKey, end: Offset) -> Result<(), String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let unlucky = now < node.nearly_full_until && self.rng.below(2) == 0;
        let full = now < node.full_until || unlucky;
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get_mut(&key))
        else {
            return Ok(());
        };
        replica.writing = false;
        if full {
            replica.staged.clear();
            let end = log.end();
            self.count("write found no space");
            return self.step(id, key, Input::WriteRefused(end));
        }
        let written: Vec<Batch> = replica
            .staged
            .iter()
            .filter(|b| b.end() <= end)
            .copied()
            .collect();
        replica.staged.retain(|b| b.end() > end);
        log.batches.extend(written);
        self.step(id, key, Input::Written(end))
    }

    fn flushed(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        end: Offset,
        cuts: u64,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get_mut(&key))
        else {
            return Ok(());
        };
        replica.flushing = false;
        if replica.cuts != cuts {
            self.start_flush(id, key);
            return Ok(());
        }
        log.flushed = log.flushed.max(end);
        self.step(id, key, Input::Flushed(end))
    }

    fn cut_log(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        to: Offset,
        anew: bool,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get_mut(&key))
        else {
            return Ok(());
        };
        replica.cuts += 1;
        replica.shown = replica.shown.min(to);
        replica.stable = replica.stable.min(to);
        let spans = log.at(to).map(|b| b.epoch) != log.batches.last().map(|b| b.epoch);
        if anew {
            log.restart(to);
        } else {
            log.truncate(to);
        }
        let input = Input::Truncated {
            log_start: log.start,
            log_end: log.end(),
            flushed: log.flushed,
            producers: log.producers(node.clock.wall(self.now)),
        };
        self.count(match (anew, spans) {
            (true, _) => "log restarted from scratch",
            (false, true) => "log cut over several epochs",
            (false, false) => "log cut",
        });
        self.step(id, key, input)
    }

    /// One step of a core, and everything that follows from it.
    pub(super) fn step(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        input: Input,
    ) -> Result<(), String> {
        let mut out = Vec::new();
        let Some(clock) = self.nodes.get(&id).map(|n| n.clock) else {
            return Ok(());
        };
        let now = Now {
            mono_ms: clock.mono(self.now),
            wall_ms: clock.wall(self.now),
        };
        let Some(replica) = self.replica(id, key) else {
            return Ok(());
        };
        let led = replica.core.leader_epoch();
        replica.core.step(now, input, &mut out);
        let leads = replica.core.leader_epoch();
        if let Some(epoch) = leads
            && led != leads
        {
            // What others have written meanwhile is not known.
            replica.registered.clear();
            self.say(|_| format!("node {id} leads {} in epoch {epoch}", key.partition));
            self.check_new_leader(id, key, epoch)?;
        }
        for output in out {
            self.perform(id, key, output)?;
        }
        self.start_write(id, key);
        self.start_flush(id, key);
        self.serve(id, key, None);
        self.check_shown(id, key)?;
        self.check_stable(id, key)
    }
}
