//! The leader's question before the first batch of a transaction: the coordinator of the transactional id registers
//! the partition in it, durably, and only then the batch is handed to its lane. Batches of the same producer for
//! the same partition that come meanwhile wait behind it, in their order; others pass.
//!
//! Invariants: batches of one producer for one partition reach the lane in the order in which they came; what waits
//! holds a byte permit, so it is bounded; a batch that is refused here was not appended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_record::Batch;
use varve_types::{ErrorKind, ProducerId, TopicId, TransactionalId};
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

/// Batches that wait for a question, by topic, partition and session.
#[derive(Default)]
pub(crate) struct Gate(Mutex<BTreeMap<(TopicId, i32, ProducerId), VecDeque<Waiting>>>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gate").field(&self.0.lock().len()).finish()
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
        id: TransactionalId,
        batch: Batch,
        terms: Terms,
        (permit, arrived): (Permit, Tick),
    ) -> Result<Receipt, Error> {
        let Some(producer) = batch.header().session() else {
            return Err(Error::invalid(
                "session",
                "a batch of a transaction has a producer session; nothing was appended",
            ));
        };
        let terms = Terms {
            verified: true,
            ..terms
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
        if let Some(queue) = gate.get_mut(&place) {
            queue.push_back(waiting);
            return Ok(receipt);
        }
        if partition.registered.knows(producer) {
            drop(gate);
            waiting.pass(partition);
            return Ok(receipt);
        }
        gate.insert(place, VecDeque::from([waiting]));
        drop(gate);
        let (me, partition) = (Arc::clone(self), Arc::clone(partition));
        tokio::spawn(async move {
            let partitions = vec![(topic, partition.id.clone())];
            let registration = Registration {
                id,
                producer,
                partitions,
            };
            let registered = me.register(registration).await;
            if registered.is_ok() {
                partition.registered.note(producer);
            }
            // Whoever comes now waits for the lock and finds the session known.
            let mut gate = me.gate.0.lock();
            for waiting in gate.remove(&place).into_iter().flatten() {
                match &registered {
                    Ok(()) => waiting.pass(&partition),
                    Err(error) => waiting.promise.keep(Err(error.clone())),
                }
            }
        });
        Ok(receipt)
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
    /// To the lane.
    fn pass(self, partition: &Arc<Partition>) {
        let Self {
            batch,
            terms,
            permit,
            arrived,
            promise,
        } = self;
        enqueue_for(partition, batch, terms, (permit, arrived), promise);
    }
}
