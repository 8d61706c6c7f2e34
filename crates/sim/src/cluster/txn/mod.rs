//! Transactions over the simulated partitions: coordinators with the real core on the nodes that lead
//! `__transaction_state`, the question a leader asks before the first batch of a transaction, markers on their
//! way, and producers that crash, sleep too long, come back as others, and repeat what they have asked.
//!
//! What the rim does here is what the real rim does (`varve-broker`, `transactions/`), one message at a time.
//! Only some seeds have transactions: see [`super::knobs::Knobs::transactions`].

mod checks;
mod gate;
mod host;
mod markers;
pub(super) mod seen;
mod writers;

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::PartitionKey;
use varve_partition::TransactionEnd;
use varve_txn::{AppendId, Place};
use varve_types::{ErrorKind, LeaderEpoch, NodeId, ProducerId, TopicName, TransactionalId};

use super::groups::Appended;
use super::world::World;

pub(super) use gate::Gate;
pub(super) use host::Host;
pub(super) use markers::Order;
pub(super) use writers::{WRITERS, Writer};

/// A record of an internal topic.
pub(super) type KeyValue = (Vec<u8>, Option<Vec<u8>>);

/// The producers of this transactional id keep their epoch from one transaction to the next.
pub(super) const KEEPER: usize = 1;

/// Who registers a partition in a transaction: what a request says by its version. An end says by its own whether the
/// epoch stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registers {
    Producer,
    Leader,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Producers write to it.
    Data,
    /// The coordinator of transactions does.
    Transactions,
    /// The coordinator of the group does.
    Offsets,
}

/// What is asked of the coordinator of a transactional id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// The transactional id, by number.
    pub(super) name: usize,
    pub(super) ask: Ask,
}

/// See [`varve_txn::Input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Init {
        timeout_ms: u64,
        keep: Option<ProducerId>,
    },
    Add {
        producer: ProducerId,
        key: PartitionKey,
    },
    Verify {
        producer: ProducerId,
        key: PartitionKey,
    },
    End {
        producer: ProducerId,
        commit: bool,
    },
}

/// What it answers: the session to use from now on, or why not, and who may know better.
pub(super) type Answer = Result<ProducerId, (ErrorKind, Option<NodeId>)>;

/// What happens inside of a process, a little later.
#[derive(Debug, Clone)]
pub(super) enum Local {
    /// An append of the coordinator of that leadership has ended.
    Appended {
        epoch: LeaderEpoch,
        id: AppendId,
        result: Result<(), (varve_txn::Lost, ErrorKind)>,
    },
    /// A marker cannot be sent: nobody leads there.
    Nowhere(Order),
    /// An append of the coordinator of the group has ended.
    Group(Appended),
}

/// Transactions of the whole world.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Records of internal topics, by the value of their batch.
    pub(super) contents: BTreeMap<u64, Vec<KeyValue>>,
    /// Those of them that are offsets of a transaction, and whose.
    pub(super) offsets_in: BTreeMap<u64, ProducerId>,
    /// Those that are known to be committed.
    learned: BTreeSet<u64>,
    written: u64,
    next_producer: i64,
    pub(super) seen: seen::Seen,
    /// Producers that run, by the number that messages for them carry.
    pub(super) writers: BTreeMap<usize, Writer>,
    next_writer: usize,
}

impl Transactions {
    /// A batch of an internal topic that was never seen before.
    pub(super) fn record(&mut self, contents: Vec<KeyValue>) -> u64 {
        self.written += 1;
        let value = (1 << 62) | self.written;
        self.contents.insert(value, contents);
        value
    }

    /// A producer id that nobody has had.
    fn fresh(&mut self) -> i64 {
        self.next_producer += 1;
        1_000 + self.next_producer
    }
}

/// The marker that ends a transaction: a repeat of it is the same batch.
pub(super) fn marker_value(end: &TransactionEnd) -> u64 {
    let commit = u64::from(end.end.marker == varve_record::Marker::Commit);
    let ProducerId { id, epoch } = end.producer;
    let number = end.end.number.unwrap_or(0) as u64;
    (1 << 63) | number << 44 | (id as u64) << 20 | (epoch as u64) << 1 | commit
}

fn name(number: usize) -> TransactionalId {
    match TransactionalId::new(&format!("p{number}")) {
        Ok(name) => name,
        Err(error) => unreachable!("p{number} is a legal id: {error}"),
    }
}

fn place(key: PartitionKey) -> Place {
    let name = match TopicName::new("t") {
        Ok(name) => name,
        Err(error) => unreachable!("t is a legal name: {error}"),
    };
    Place {
        topic: key.topic,
        name,
        partition: key.partition,
    }
}

fn key_of(place: &Place) -> PartitionKey {
    PartitionKey {
        topic: place.topic,
        partition: place.partition,
    }
}

impl World {
    /// What a partition is for.
    pub(super) const fn role(&self, key: PartitionKey) -> Role {
        match key.partition.0 - self.knobs.partitions {
            0 => Role::Transactions,
            1 => Role::Offsets,
            _ => Role::Data,
        }
    }

    /// The partition of a coordinator, in seeds that have them.
    pub(super) fn log_of(&self, role: Role) -> Option<PartitionKey> {
        let is = |key: &PartitionKey| self.role(*key) == role;
        self.keys().into_iter().find(is)
    }

    /// The partition of the coordinator of transactions.
    fn transaction_log(&self) -> Option<PartitionKey> {
        self.log_of(Role::Transactions)
    }

    /// Who leads a partition, as a node knows the metadata.
    pub(super) fn leader_known_to(&self, node: NodeId, key: PartitionKey) -> Option<NodeId> {
        let view = self.controller.view(self.nodes.get(&node)?.applied);
        view.assignments.get(&key)?.leader
    }
}
