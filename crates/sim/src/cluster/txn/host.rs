//! The rim of the transactions core: a coordinator for each leadership of `__transaction_state`, from the first
//! look or call in it until somebody notices that it is over. Follows `varve-broker`, `transactions/host.rs`.
//!
//! Invariants: appends are made in the coordinator's own leadership only; before all that was committed is read,
//! nothing is answered but that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_metadata::PartitionKey;
use varve_partition::{Rejection, Verified};
use varve_txn::{
    AppendId, Cause, Config, Coordinator, Failure, Input, Lost, Markers, Next, Now, Output, Reply,
    State, Tick, Ticket, codec,
};
use varve_types::{Acks, ErrorKind, LeaderEpoch, NodeId, ProducerId};

use super::super::disk::Kind;
use super::super::world::{Addr, Event, Message, Origin, Produce, World};
use super::{Answer, Ask, Call, KEEPER, Local, Registers, Role, Writer, name, place};

/// What failed is tried again after this long, milliseconds.
const RETRY_MS: u64 = 60;
/// Markers that nobody answers are sent again after this long, milliseconds.
const MARKER_WAIT_MS: u64 = 400;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Writer {
        number: usize,
        request: u64,
        ask: Ask,
    },
    Gate {
        node: NodeId,
        key: PartitionKey,
        producer: ProducerId,
        registers: Registers,
    },
}

/// The coordinator of one leadership.
pub(in crate::cluster) struct Host {
    core: Coordinator,
    loaded: bool,
    callers: BTreeMap<Ticket, Caller>,
}

fn config() -> Config {
    Config {
        timeout_min_ms: 1,
        retry_ms: RETRY_MS,
        marker_wait_ms: MARKER_WAIT_MS,
        ..Config::default()
    }
}

/// What a failed append left behind, going by what it was answered.
const fn lost(kind: ErrorKind) -> Lost {
    match kind {
        ErrorKind::NotLeader
        | ErrorKind::FencedLeaderEpoch
        | ErrorKind::NotEnoughReplicas
        | ErrorKind::StorageFull
        | ErrorKind::LeaderNotAvailable => Lost::Refused,
        _ => Lost::Unknown,
    }
}

impl World {
    /// Looks after the coordinators of a node: begins those of new leaderships, reads what is not read yet, lets
    /// time pass, and now and then lets go of those whose leadership is over.
    pub(in crate::cluster) fn tend_coordinators(&mut self, id: NodeId) -> Result<(), String> {
        let Some(key) = self.transaction_log() else {
            return Ok(());
        };
        let led = self.begin_coordinating(id, key);
        let forget = self.rng.below(2) == 0;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let mono = Tick(node.clock.mono(self.now));
        if forget {
            node.hosts.retain(|epoch, _| Some(*epoch) == led);
        }
        let due = node
            .hosts
            .iter()
            .filter(|(_, h)| h.core.next_deadline().is_some_and(|at| at <= mono));
        let due: Vec<LeaderEpoch> = due.map(|(epoch, _)| *epoch).collect();
        if let Some(epoch) = led {
            self.load(id, key, epoch)?;
        }
        for epoch in due {
            self.coordinate(id, epoch, Input::Tick)?;
        }
        Ok(())
    }

    /// The leadership of this node, with a coordinator for it.
    fn begin_coordinating(&mut self, id: NodeId, key: PartitionKey) -> Option<LeaderEpoch> {
        let node = self.nodes.get_mut(&id)?;
        let epoch = node.replicas.get(&key)?.core.leader_epoch()?;
        node.hosts.entry(epoch).or_insert_with(|| Host {
            core: Coordinator::new(config(), epoch),
            loaded: false,
            callers: BTreeMap::new(),
        });
        Some(epoch)
    }

    /// Reads the partition, once everything that earlier leaders have committed is known to be.
    fn load(&mut self, id: NodeId, key: PartitionKey, epoch: LeaderEpoch) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let waits = node.hosts.get(&epoch).is_some_and(|h| !h.loaded);
        let (Some(replica), Some(log)) = (node.replicas.get(&key), node.disks.get(&key)) else {
            return Ok(());
        };
        let Some(latest) = replica.core.latest().filter(|_| waits) else {
            return Ok(());
        };
        let batches = log.batches.iter().take_while(|b| b.end() <= latest);
        let values: Vec<u64> = batches.map(|b| b.value).collect();
        let mut deciding = BTreeMap::new();
        for value in values {
            for (key, value) in self
                .transactions
                .contents
                .get(&value)
                .cloned()
                .unwrap_or_default()
            {
                if let Some(Ok(record)) = value.as_deref().map(codec::decode_value) {
                    deciding.insert(key.clone(), record.state.is_deciding());
                }
                self.coordinate(id, epoch, Input::Load { key, value })?;
            }
        }
        if deciding.values().any(|deciding| *deciding) {
            self.count("coordinator failover in PREPARE");
        }
        if let Some(host) = self.host(id, epoch) {
            host.loaded = true;
        }
        self.say(|_| format!("node {id} coordinates transactions in epoch {epoch}"));
        self.coordinate(
            id,
            epoch,
            Input::Topics(Arc::new(BTreeSet::from([key.topic]))),
        )?;
        self.coordinate(id, epoch, Input::Loaded)
    }

    fn host(&mut self, id: NodeId, epoch: LeaderEpoch) -> Option<&mut Host> {
        self.nodes.get_mut(&id)?.hosts.get_mut(&epoch)
    }

    /// A producer asks.
    pub(in crate::cluster) fn called(
        &mut self,
        id: NodeId,
        from: Addr,
        request: u64,
        call: Call,
    ) -> Result<(), String> {
        let Addr::Client(number) = from else {
            return Ok(());
        };
        // Nothing but the connection it came by tells the call of a producer that keeps its epoch from the same call
        // about the next transaction: see `Ask`.
        let asks = |w: &Writer| w.asks(request);
        if call.name == KEEPER && !self.transactions.writers.get(&number).is_some_and(asks) {
            self.count("late call on a closed connection");
            return Ok(());
        }
        let caller = Caller::Writer {
            number,
            request,
            ask: call.ask,
        };
        self.ask(id, call, caller)
    }

    /// A leader asks for a partition of its own.
    pub(in crate::cluster) fn asked_to_register(
        &mut self,
        id: NodeId,
        from: Addr,
        (key, producer, name): (PartitionKey, ProducerId, usize),
        registers: Registers,
    ) -> Result<(), String> {
        let Addr::Node(node) = from else {
            return Ok(());
        };
        if name == KEEPER && registers == Registers::Leader {
            self.count("kept epoch: registered by the leader");
        }
        let ask = match registers {
            Registers::Producer => Ask::Verify { producer, key },
            Registers::Leader => Ask::Add { producer, key },
        };
        let call = Call { name, ask };
        self.ask(
            id,
            call,
            Caller::Gate {
                node,
                key,
                producer,
                registers,
            },
        )
    }

    fn ask(&mut self, id: NodeId, call: Call, caller: Caller) -> Result<(), String> {
        let Some(log) = self.transaction_log() else {
            return Ok(());
        };
        let (Some(epoch), Some(ticket)) = (self.begin_coordinating(id, log), self.ticket(id))
        else {
            let leader = self.leader_known_to(id, log);
            let kind = match leader {
                Some(_) => ErrorKind::NotCoordinator,
                None => ErrorKind::CoordinatorLoading,
            };
            self.tell_caller(id, caller, Err((kind, leader)));
            return Ok(());
        };
        let (ticket, name, fresh) = (Ticket(ticket.0), name(call.name), self.transactions.fresh());
        let input = match call.ask {
            Ask::Init { timeout_ms, keep } => Input::Init {
                ticket,
                name,
                timeout_ms,
                fresh,
                keep,
            },
            Ask::Add { producer, key } => {
                let partitions = vec![place(key)];
                Input::Add {
                    ticket,
                    name,
                    producer,
                    partitions,
                }
            }
            Ask::Verify { producer, key } => Input::Verify {
                ticket,
                name,
                producer,
                partitions: vec![place(key)],
            },
            Ask::End { producer, commit } => Input::End {
                ticket,
                name,
                producer,
                commit,
                next: match call.name == KEEPER {
                    true => Next::Same,
                    false => Next::Epoch { fresh },
                },
            },
        };
        if let Some(host) = self.host(id, epoch) {
            host.callers.insert(ticket, caller);
        }
        self.coordinate(id, epoch, input)
    }

    fn tell_caller(&mut self, id: NodeId, caller: Caller, answer: Answer) {
        let me = Addr::Node(id);
        match caller {
            Caller::Writer {
                number,
                request,
                ask,
            } => {
                if let (
                    Ask::End { .. },
                    Err((ErrorKind::ProducerFenced | ErrorKind::TransactionAborted, _)),
                ) = (ask, answer)
                {
                    self.count("late EndTxn refused");
                }
                let message = Message::Called { request, answer };
                self.send(me, Addr::Client(number), message);
            }
            Caller::Gate {
                node,
                key,
                producer,
                ..
            } => {
                let result = answer.map(|_| ());
                let message = Message::Registration {
                    key,
                    producer,
                    result,
                };
                self.send(me, Addr::Node(node), message);
            }
        }
    }

    /// One step of a coordinator, and everything that follows from it.
    pub(super) fn coordinate(
        &mut self,
        id: NodeId,
        epoch: LeaderEpoch,
        input: Input,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let now = Now {
            tick: Tick(node.clock.mono(self.now)),
            wall_ms: node.clock.wall(self.now),
        };
        let Some(host) = node.hosts.get_mut(&epoch) else {
            return Ok(());
        };
        let mut out = Vec::new();
        host.core.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Append {
                    id: append,
                    key,
                    value,
                    ..
                } => self.append_state(id, epoch, append, (key, value))?,
                Output::SendMarkers(markers) => self.send_markers(id, epoch, markers),
                Output::Reply { ticket, reply } => self.reply(id, epoch, ticket, reply)?,
                Output::LoadSkipped { error } => {
                    return Err(format!(
                        "a record of a coordinator is not understood: {error}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether that is the last leadership of the coordinator's partition, as a quorum would say.
    fn is_newest(&self, epoch: LeaderEpoch) -> bool {
        let log = self.transaction_log();
        let newest = log.and_then(|log| self.controller.state.partition_at(log));
        newest.map(|p| p.leader_epoch) == Some(epoch)
    }

    /// Whether it asks for a producer that always keeps its epoch: what is remembered of that is good for one
    /// transaction, and the epoch does not say of which.
    fn is_of_keeper(&self, caller: Caller) -> bool {
        match caller {
            Caller::Writer { number, .. } => {
                let writer = self.transactions.writers.get(&number);
                writer.is_some_and(Writer::keeps)
            }
            Caller::Gate { registers, .. } => registers == Registers::Producer,
        }
    }

    fn reply(
        &mut self,
        id: NodeId,
        epoch: LeaderEpoch,
        ticket: Ticket,
        reply: Reply,
    ) -> Result<(), String> {
        let caller = self.host(id, epoch).and_then(|h| h.callers.remove(&ticket));
        let Some(caller) = caller else {
            return Ok(());
        };
        // What it only remembers may be over.
        let unsure = self.is_of_keeper(caller) || reply == Reply::Verified;
        let answer = match (reply, caller) {
            (Reply::Verified | Reply::Added | Reply::Ended(_), _)
                if unsure && !self.is_newest(epoch) =>
            {
                self.count("answer of an old coordinator not told");
                Err((ErrorKind::NotCoordinator, None))
            }
            (Reply::Session(producer) | Reply::Ended(producer), _) => Ok(producer),
            (
                Reply::Added | Reply::Verified,
                Caller::Gate { producer, .. }
                | Caller::Writer {
                    ask: Ask::Add { producer, .. },
                    ..
                },
            ) => Ok(producer),
            (Reply::Failed(Failure { kind, .. }), _) => {
                // One that this node has lost meanwhile says so by the failure of its appends.
                let moved = matches!(
                    kind,
                    ErrorKind::NotLeader
                        | ErrorKind::FencedLeaderEpoch
                        | ErrorKind::LeaderNotAvailable
                );
                // And a refusal that is final is told only by the newest coordinator: others remember old sessions.
                let final_ = matches!(
                    kind,
                    ErrorKind::UnknownProducer
                        | ErrorKind::ProducerFenced
                        | ErrorKind::TransactionAborted
                        | ErrorKind::InvalidTransactionState
                );
                let log = self.transaction_log();
                let leader = log.and_then(|log| self.leader_known_to(id, log));
                let stale = final_ && !self.is_newest(epoch);
                if stale {
                    self.count("refusal of an old coordinator not told");
                }
                let kind = match moved || stale {
                    true => ErrorKind::NotCoordinator,
                    false => kind,
                };
                Err((kind, leader))
            }
            (other, _) => return Err(format!("a coordinator answers {caller:?} with {other:?}")),
        };
        self.tell_caller(id, caller, answer);
        Ok(())
    }

    fn append_state(
        &mut self,
        id: NodeId,
        epoch: LeaderEpoch,
        append: AppendId,
        record: super::KeyValue,
    ) -> Result<(), String> {
        let Some(key) = self.transaction_log() else {
            return Ok(());
        };
        if let Some(Ok(record)) = record.1.as_deref().map(codec::decode_value) {
            if record.cause == Cause::Timeout && record.state == State::PrepareAbort {
                self.count("transaction aborted by timeout");
            }
            match record.state {
                State::PrepareCommit | State::PrepareAbort => {
                    self.strike_coordinator(id, "prepare under way")
                }
                State::CompleteCommit | State::CompleteAbort => {
                    self.strike_coordinator(id, "complete under way")
                }
                State::Ongoing => self.strike_coordinator(id, "registration under way"),
                State::Empty => {}
            }
        }
        let value = self.transactions.record(vec![record]);
        let produce = Produce {
            origin: Origin::Coordinator { epoch, append },
            request: 0,
            key,
            value,
            records: 1,
            producer: None,
            resumes: false,
            acks: Acks::All,
            kind: Kind::Plain,
            leader_epoch: Some(epoch),
            verified: Verified::No,
        };
        self.offer(id, produce)
    }

    /// An append of a coordinator was answered: it hears of that a little later.
    pub(in crate::cluster) fn appended(
        &mut self,
        id: NodeId,
        produce: &Produce,
        result: Result<(), Rejection>,
    ) -> Result<(), String> {
        let Origin::Coordinator { epoch, append } = produce.origin else {
            return Ok(());
        };
        let result = result.map_err(|rejection| (lost(rejection.kind()), rejection.kind()));
        if let Err((Lost::Refused, _)) = result {
            self.oracle.refused(produce)?;
        }
        let after = self.rng.below(3);
        self.local(
            id,
            after,
            Local::Appended {
                epoch,
                id: append,
                result,
            },
        );
        Ok(())
    }

    /// Something happens inside of a process.
    pub(in crate::cluster) fn local(&mut self, id: NodeId, after: u64, local: Local) {
        let run = self.nodes.get(&id).map_or(0, |n| n.run);
        self.at(
            after,
            Event::Local {
                node: id,
                run,
                local,
            },
        );
    }

    pub(in crate::cluster) fn happens_locally(
        &mut self,
        id: NodeId,
        local: Local,
    ) -> Result<(), String> {
        match local {
            Local::Appended {
                epoch,
                id: append,
                result,
            } => {
                let input = match result {
                    Ok(()) => Input::Durable { id: append },
                    Err((lost, kind)) => {
                        let failure = Failure::new(kind, "the append failed");
                        Input::Failed {
                            id: append,
                            lost,
                            failure,
                        }
                    }
                };
                self.coordinate(id, epoch, input)
            }
            Local::Group(appended) => self.group_appended(id, appended),
            Local::Nowhere(order) => self.coordinate(id, order.epoch, order.again()),
        }
    }

    fn send_markers(&mut self, id: NodeId, epoch: LeaderEpoch, markers: Markers) {
        self.strike_coordinator(id, "prepare durable");
        self.send_orders(id, epoch, markers);
    }

    /// Sometimes a coordinator dies, loses its log, or sleeps, just there.
    pub(super) fn strike_coordinator(&mut self, id: NodeId, step: &'static str) {
        if self.healed || self.rng.below(60) > 0 {
            return;
        }
        self.count(match step {
            "prepare under way" => "coordinator struck with a decision under way",
            "prepare durable" => "coordinator struck before the first marker",
            "marker told" => "coordinator struck between markers",
            "complete under way" => "coordinator struck before the transaction is complete",
            _ => "coordinator struck with a registration under way",
        });
        let after = self.rng.below(4);
        self.strike_at(id, after);
    }

    /// Who coordinates, for people.
    pub(in crate::cluster) fn coordinators(&self) -> String {
        let hosts = self.nodes.iter().flat_map(|(id, node)| {
            node.hosts.iter().map(move |(epoch, host)| {
                format!(
                    "node {id} epoch {epoch} loaded {} open {}",
                    host.loaded,
                    host.core.open_count()
                )
            })
        });
        hosts.collect::<Vec<_>>().join(", ")
    }

    /// Whether a partition is one that a coordinator reads.
    pub(in crate::cluster) fn is_internal(&self, key: PartitionKey) -> bool {
        self.role(key) != Role::Data
    }
}
