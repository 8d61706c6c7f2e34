//! The leader's question before the first batch of a transaction: the coordinator registers the partition, and only
//! then the batch is handed to the core. Batches of the same session that come meanwhile wait behind it. Follows
//! `varve-broker`, `transactions/gate.rs`; the core refuses the first batch of a transaction that was not asked for,
//! so half of the time it is left to the core to notice.

use varve_metadata::PartitionKey;
use varve_partition::{Rejection, Verified};
use varve_types::{ErrorKind, LeaderEpoch, NodeId, ProducerId};

use super::super::disk::{Kind, Log};
use super::super::groups::{Caller, Reply};
use super::super::world::{Addr, Message, Origin, Produce, World};
use super::{KEEPER, Registers};

/// A question without answer is repeated after this long, milliseconds.
const ASK_AGAIN_MS: u64 = 80;
/// How long it is repeated, milliseconds.
const PATIENCE_MS: u64 = 800;

/// What waits for the coordinator.
#[derive(Debug, Clone)]
enum Waiting {
    Batch(Produce),
    /// Offsets that the coordinator of the group is to commit.
    Offsets(Caller),
}

/// What waits of one session.
#[derive(Debug, Clone)]
pub(in crate::cluster) struct Gate {
    name: usize,
    registers: Registers,
    waiting: Vec<Waiting>,
    /// What is known if the answer is yes, in this leadership.
    verified: Verified,
    epoch: Option<LeaderEpoch>,
    since: u64,
    asked: u64,
}

impl World {
    /// A batch of a transaction arrives where its partition may be led.
    pub(in crate::cluster) fn transactional(
        &mut self,
        id: NodeId,
        produce: Produce,
        (name, registers): (usize, Registers),
    ) -> Result<(), String> {
        let Some((producer, _)) = produce.producer else {
            return Ok(());
        };
        let lazy = self.rng.below(2) == 0;
        let leader = self.leader_known_to(id, produce.key);
        let Some(replica) = self.replica(id, produce.key) else {
            let unknown = Rejection::NotLeader {
                leader: leader.unwrap_or(id),
                leader_epoch: LeaderEpoch::ZERO,
            };
            self.answer_writer(id, produce, Err(unknown), leader);
            return Ok(());
        };
        if let Some(gate) = replica.gates.get_mut(&producer) {
            gate.waiting.push(Waiting::Batch(produce));
            return Ok(());
        }
        let verified = replica.registered.verified(producer);
        if verified != Verified::No || lazy {
            return self.offer(
                id,
                Produce {
                    verified,
                    ..produce
                },
            );
        }
        let place = (produce.key, producer, name);
        self.wait_for_coordinator(id, place, registers, Waiting::Batch(produce));
        Ok(())
    }

    /// What is known of the partition's registration in the transaction of that session.
    pub(in crate::cluster) fn registered_here(
        &self,
        id: NodeId,
        key: PartitionKey,
        producer: ProducerId,
    ) -> Verified {
        let replica = self.nodes.get(&id).and_then(|n| n.replicas.get(&key));
        replica.map_or(Verified::No, |r| r.registered.verified(producer))
    }

    /// Offsets of a transaction arrive, and the partition of the group is not known to be registered in it.
    pub(in crate::cluster) fn offsets_wait(
        &mut self,
        id: NodeId,
        place: (PartitionKey, ProducerId, usize),
        caller: Caller,
    ) {
        let (key, producer, _) = place;
        let gate = self
            .replica(id, key)
            .and_then(|r| r.gates.get_mut(&producer));
        match gate {
            Some(gate) => gate.waiting.push(Waiting::Offsets(caller)),
            None => {
                let registers = match place.2 == KEEPER {
                    true => Registers::Producer,
                    false => Registers::Leader,
                };
                self.wait_for_coordinator(id, place, registers, Waiting::Offsets(caller));
            }
        }
    }

    /// It waits, and the question is asked.
    fn wait_for_coordinator(
        &mut self,
        id: NodeId,
        (key, producer, name): (PartitionKey, ProducerId, usize),
        registers: Registers,
        waiting: Waiting,
    ) {
        let now = self.now;
        let written = self.nodes.get(&id).and_then(|n| n.disks.get(&key));
        let verified = Verified::Since(written.map(Log::end).unwrap_or_default());
        let Some(replica) = self.replica(id, key) else {
            return;
        };
        let epoch = replica.core.leader_epoch();
        let gate = Gate {
            name,
            registers,
            waiting: vec![waiting],
            verified,
            epoch,
            since: now,
            asked: now,
        };
        replica.gates.insert(producer, gate);
        self.ask_coordinator(id, (key, producer, name), registers);
    }

    fn ask_coordinator(
        &mut self,
        id: NodeId,
        (key, producer, name): (PartitionKey, ProducerId, usize),
        registers: Registers,
    ) {
        let log = self.transaction_log();
        let coordinator = log.and_then(|log| self.leader_known_to(id, log));
        if let Some(coordinator) = coordinator {
            let message = Message::RegisterPartition {
                key,
                producer,
                name,
                registers,
            };
            self.send(Addr::Node(id), Addr::Node(coordinator), message);
        }
    }

    /// The core answers a batch of a transaction.
    pub(in crate::cluster) fn answer_writer(
        &mut self,
        id: NodeId,
        produce: Produce,
        result: Result<varve_types::Offset, Rejection>,
        hint: Option<NodeId>,
    ) {
        let Origin::Writer {
            number,
            name,
            registers,
        } = produce.origin
        else {
            return;
        };
        let ask = matches!(
            result,
            Err(Rejection::TransactionUnverified | Rejection::TransactionOver)
        );
        if let Some((producer, _)) = produce.producer.filter(|_| ask) {
            if result == Err(Rejection::TransactionOver)
                && let Some(replica) = self.replica(id, produce.key)
            {
                replica.registered.forget(producer);
            }
            self.count("first batch of a transaction waits for the coordinator");
            let place = (produce.key, producer, name);
            return self.wait_for_coordinator(id, place, registers, Waiting::Batch(produce));
        }
        let result = result.map_err(Rejection::kind);
        if result == Err(ErrorKind::ProducerFenced) {
            self.count("late batch of a transaction refused");
        }
        let request = produce.request;
        let message = Message::Taken {
            request,
            result,
            hint,
        };
        self.send(Addr::Node(id), Addr::Client(number), message);
    }

    /// The coordinator answers.
    pub(in crate::cluster) fn registration(
        &mut self,
        id: NodeId,
        (key, producer): (PartitionKey, ProducerId),
        result: Result<(), (ErrorKind, Option<NodeId>)>,
    ) -> Result<(), String> {
        let passes = |kind| {
            matches!(
                kind,
                ErrorKind::ConcurrentTransactions
                    | ErrorKind::CoordinatorLoading
                    | ErrorKind::NotCoordinator
                    | ErrorKind::ShuttingDown
                    | ErrorKind::CommitTimeout
            )
        };
        let Some(replica) = self.replica(id, key) else {
            return Ok(());
        };
        if !replica.gates.contains_key(&producer) {
            return Ok(());
        }
        match result {
            // Asked again soon.
            Err((kind, _)) if passes(kind) => Ok(()),
            Err((kind, _)) => {
                self.refuse_waiting(id, key, producer, kind);
                Ok(())
            }
            Ok(()) => {
                let Some(gate) = replica.gates.remove(&producer) else {
                    return Ok(());
                };
                if replica.core.leader_epoch() == gate.epoch {
                    replica.registered.note(producer, gate.verified);
                }
                let (verified, leader_epoch) = (gate.verified, gate.epoch);
                for waiting in gate.waiting {
                    let produce = match waiting {
                        Waiting::Batch(produce) => produce,
                        Waiting::Offsets(caller) => {
                            self.group_asked(id, caller)?;
                            continue;
                        }
                    };
                    self.offer(
                        id,
                        Produce {
                            verified,
                            leader_epoch,
                            ..produce
                        },
                    )?;
                }
                Ok(())
            }
        }
    }

    fn refuse_waiting(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        producer: ProducerId,
        kind: ErrorKind,
    ) {
        let gate = self
            .replica(id, key)
            .and_then(|r| r.gates.remove(&producer));
        for waiting in gate.into_iter().flat_map(|g| g.waiting) {
            let produce = match waiting {
                Waiting::Batch(produce) => produce,
                Waiting::Offsets(caller) => {
                    self.tell_group_caller(id, &caller, Reply::Failed(kind, None));
                    continue;
                }
            };
            if let Origin::Writer { number, .. } = produce.origin {
                let (request, result, hint) = (produce.request, Err(kind), None);
                let message = Message::Taken {
                    request,
                    result,
                    hint,
                };
                self.send(Addr::Node(id), Addr::Client(number), message);
            }
        }
    }

    /// Asks again what was not answered.
    pub(in crate::cluster) fn tend_gates(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let (mut ask, mut give_up) = (Vec::new(), Vec::new());
        for (key, replica) in &mut node.replicas {
            for (producer, gate) in &mut replica.gates {
                if gate.since + PATIENCE_MS < now {
                    give_up.push((*key, *producer));
                } else if gate.asked + ASK_AGAIN_MS < now {
                    gate.asked = now;
                    ask.push(((*key, *producer, gate.name), gate.registers));
                }
            }
        }
        for (key, producer) in give_up {
            self.refuse_waiting(id, key, producer, ErrorKind::CoordinatorLoading);
        }
        for (place, registers) in ask {
            self.ask_coordinator(id, place, registers);
        }
    }

    /// Whether that batch belongs to a transaction, of whom, and who registers it.
    pub(in crate::cluster) const fn writer_of(produce: &Produce) -> Option<(usize, Registers)> {
        match (produce.origin, produce.kind) {
            (
                Origin::Writer {
                    name, registers, ..
                },
                Kind::Transactional,
            ) => Some((name, registers)),
            _ => None,
        }
    }
}
