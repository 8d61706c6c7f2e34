//! The leader's question before the first batch of a transaction: the coordinator of the transactional id registers the
//! partition in it, durably, and only then the batch is handed to its lane. A producer that keeps its epoch registers
//! its partitions itself; of those the coordinator is only asked whether they are registered, each by itself, so that a
//! late batch begins nothing and holds up nothing. Batches of the same producer for the same partition that come
//! meanwhile wait behind it, in their order; others pass. Partitions that a producer comes to while a question of its
//! transaction is under way are in the next one, together.
//!
//! Invariants: batches of one producer for one partition reach the lane in the order in which they came; a
//! transaction has one question of this node under way at most; what waits holds a byte permit, so it is bounded; a
//! batch that is refused here was not appended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use varve_broker_api::{Error, TransactionVersion};
use varve_partition::Verified;
use varve_record::Batch;
use varve_types::{ErrorKind, LeaderEpoch, ProducerId, TopicId, TransactionalId};
use varve_vfs::Tick;

use super::Transactions;
use crate::admission::Permit;
use crate::partition::Partition;
use crate::peer::Registration;
use crate::produce::{Promise, Receipt, Terms, enqueue_for};

/// How long a question is repeated while the transaction before is being completed or its coordinator is moving.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause between repetitions; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A batch that waits.
struct Waiting {
    batch: Batch,
    terms: Terms,
    permit: Permit,
    arrived: Tick,
    promise: Promise,
}

/// Topic, partition and session.
type PlaceOf = (TopicId, i32, ProducerId);
/// Whose transaction it is, in which session, and of which kind.
type Whose = (TransactionalId, ProducerId, TransactionVersion);

/// What waits for questions.
#[derive(Default)]
struct Queues {
    batches: BTreeMap<PlaceOf, VecDeque<Waiting>>,
    /// Partitions for the next question of each transaction that has one under way.
    next: BTreeMap<Whose, Vec<(TopicId, Arc<Partition>)>>,
}

/// Batches that wait for a question, and what is to be asked.
#[derive(Default)]
pub(crate) struct Gate(Mutex<Queues>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.0.lock().batches.len();
        f.debug_tuple("Gate").field(&waiting).finish()
    }
}

impl Transactions {
    /// Takes a batch of a transaction for a partition that this node leads.
    ///
    /// # Errors
    /// Never for what the coordinator says: that comes with the receipt.
    pub(crate) fn append(
        self: &Arc<Self>,
        (topic, partition): (TopicId, &Arc<Partition>),
        (id, version): (TransactionalId, TransactionVersion),
        batch: Batch,
        terms: Terms,
        (permit, arrived): (Permit, Tick),
    ) -> Result<Receipt, Error> {
        let Some(producer) = batch.header().session() else {
            return Err(Error::invalid(
                "session",
                "a transactional batch needs a producer session; nothing was appended",
            ));
        };
        let (promise, receipt) = Promise::new();
        let waiting = Waiting {
            batch,
            terms,
            permit,
            arrived,
            promise,
        };
        let place = (topic, partition.id.partition.0, producer);
        let mut gate = self.gate.0.lock();
        if let Some(queue) = gate.batches.get_mut(&place) {
            queue.push_back(waiting);
            return Ok(receipt);
        }
        let (epoch, verified) = partition.registered.verified(producer);
        if verified != Verified::No {
            drop(gate);
            waiting.pass(partition, verified, epoch);
            return Ok(receipt);
        }
        gate.batches.insert(place, VecDeque::from([waiting]));
        let whose = (id, producer, version);
        let asking = gate.next.contains_key(&whose);
        let next = gate.next.entry(whose.clone()).or_default();
        next.push((topic, Arc::clone(partition)));
        drop(gate);
        if !asking {
            crate::work::spawn(Arc::clone(self).question(whose));
        }
        Ok(receipt)
    }

    /// Asks for everything that a transaction's batches wait for, until nothing is left.
    async fn question(self: Arc<Self>, whose: Whose) {
        while let Some(wanted) = self.wanted(&whose) {
            match whose.2 {
                TransactionVersion::V2 => self.ask_for(&whose, wanted).await,
                TransactionVersion::V1 => {
                    let each = wanted
                        .into_iter()
                        .map(|one| self.ask_for(&whose, vec![one]));
                    join_all(each).await;
                }
            }
        }
    }

    /// One question, and what comes of it for the batches that wait for it.
    async fn ask_for(&self, whose: &Whose, wanted: Vec<(TopicId, Arc<Partition>)>) {
        let (id, producer, version) = whose.clone();
        let place = |(topic, partition): &(TopicId, Arc<Partition>)| (*topic, partition.id.clone());
        let registration = Registration {
            id,
            producer,
            partitions: wanted.iter().map(place).collect(),
            verify_only: version == TransactionVersion::V1,
        };
        // Before the question: a marker that comes while it is under way is behind these ends.
        let known =
            |(_, p): &(TopicId, Arc<Partition>)| (p.leading(), Verified::Since(p.log_end()));
        let known: Vec<_> = wanted.iter().map(known).collect();
        let registered = self.register(registration).await;
        for ((topic, partition), (epoch, verified)) in wanted.into_iter().zip(known) {
            if registered.is_ok() {
                partition.registered.note(producer, verified, epoch);
            }
            // Whoever comes now waits for the lock and finds the session known.
            let place = (topic, partition.id.partition.0, producer);
            let mut gate = self.gate.0.lock();
            for waiting in gate.batches.remove(&place).into_iter().flatten() {
                match &registered {
                    Ok(()) => waiting.pass(&partition, verified, epoch),
                    Err(error) => waiting.refuse(&partition, error.clone()),
                }
            }
        }
    }

    /// The partitions of a transaction's next question; `None`: there are none, and whoever comes asks anew.
    fn wanted(&self, whose: &Whose) -> Option<Vec<(TopicId, Arc<Partition>)>> {
        let mut gate = self.gate.0.lock();
        let next = gate.next.get_mut(whose).map(std::mem::take);
        let next = next.filter(|next| !next.is_empty());
        if next.is_none() {
            gate.next.remove(whose);
        }
        next
    }

    /// Registers partitions, through whichever node coordinates the id; repeats what only needs time.
    ///
    /// # Errors
    /// What the coordinator says, or that there is none.
    pub(crate) async fn register(&self, registration: Registration) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let error = match self.register_once(&registration).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let passes = matches!(
                error.kind,
                ErrorKind::ConcurrentTransactions
                    | ErrorKind::CoordinatorLoading
                    | ErrorKind::NotCoordinator
                    | ErrorKind::ShuttingDown
                    | ErrorKind::CommitTimeout
            );
            if !passes || tokio::time::Instant::now() + pause >= until {
                return Err(for_producers(error));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn register_once(&self, registration: &Registration) -> Result<(), Error> {
        match self.register_here(registration.clone()).await {
            Err(error) if error.kind == ErrorKind::NotCoordinator => {
                let (Some(hint), Some(cluster)) = (&error.leader, self.registry.cluster()) else {
                    return Err(error);
                };
                let address = varve_metadata::log::read(&*cluster.log, |state| {
                    state.node(hint.node).map(|n| n.peer_address.clone())
                });
                let Some(address) = address else {
                    return Err(error);
                };
                let node = hint.node;
                let asked = cluster
                    .links
                    .peers()
                    .register(node, address, registration.clone());
                asked.await.unwrap_or_else(|error| {
                    let text = format!("{error}; nothing was appended; try again");
                    Err(Error::new(ErrorKind::CoordinatorLoading, text))
                })
            }
            answer => answer,
        }
    }
}

/// Whoever appends asked this node, which leads the partition: that the coordinator is elsewhere is not its affair.
fn for_producers(error: Error) -> Error {
    let kind = match error.kind {
        ErrorKind::NotCoordinator | ErrorKind::ShuttingDown | ErrorKind::CommitTimeout => {
            ErrorKind::CoordinatorLoading
        }
        kind => kind,
    };
    Error {
        leader: None,
        kind,
        ..error
    }
}

impl Waiting {
    fn refuse(self, partition: &Partition, error: Error) {
        let producer = self.batch.header().producer();
        partition.refusals.note(producer, &error, self.arrived);
        self.promise.keep(Err(error));
    }

    /// To the lane. What was verified is known by a place in the log, and holds in the leadership that it was verified
    /// in: another may have cut the log, and have written a marker below that place.
    fn pass(self, partition: &Arc<Partition>, verified: Verified, epoch: Option<LeaderEpoch>) {
        let Self {
            batch,
            terms,
            permit,
            arrived,
            promise,
        } = self;
        let terms = Terms {
            verified,
            leader_epoch: epoch,
            ..terms
        };
        enqueue_for(partition, batch, terms, (permit, arrived), promise);
    }
}
