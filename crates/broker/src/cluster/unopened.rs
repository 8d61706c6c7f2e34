//! Replicas of this node whose log could not be opened: the metadata are told, until they count on them no more.
//!
//! What could not be opened may be whole: it is given up, which is refused where nobody else holds everything, and
//! never said to be lost. The last one stays, offline, until a start opens it.
//!
//! Invariants: what is here is told again until the metadata that are applied here show it, or show that this one is
//! the last; a start does not end before that, nor is this node let in: it could be elected for what it does not have,
//! and its journal could be gone before anybody knows that records are in it alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use varve_metadata::{Command, MetadataLog, PartitionKey, ProposeError, Rejection, State};
use varve_types::{BrokerEpoch, NodeId};

use super::RETRY_TOLD;
use super::reconcile::counts;

/// Replicas that are told of at once.
const AT_ONCE: usize = 64;
/// Longest time that the controller has for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a start says what it waits for.
const SAY: Duration = Duration::from_secs(10);

/// Those replicas.
pub(super) struct Unopened {
    me: NodeId,
    log: Arc<dyn MetadataLog>,
    all: BTreeSet<PartitionKey>,
    /// Those that the controller is being told of.
    told: Arc<Mutex<BTreeSet<PartitionKey>>>,
    /// When somebody was told last what is waited for.
    said: Option<Instant>,
}

impl Unopened {
    pub(super) fn new(me: NodeId, log: Arc<dyn MetadataLog>) -> Self {
        Self {
            me,
            log,
            all: BTreeSet::new(),
            told: Arc::default(),
            said: None,
        }
    }

    /// What became of an attempt to open it.
    pub(super) fn note(&mut self, key: PartitionKey, opened: bool) {
        if opened {
            self.all.remove(&key);
        } else {
            self.all.insert(key);
        }
    }

    /// Forgets what this node does not hold any more.
    pub(super) fn retain(&mut self, held: &BTreeSet<PartitionKey>) {
        self.all.retain(|key| held.contains(key));
    }

    /// Those that the metadata count on although others could do without them.
    fn counted(&self) -> Vec<PartitionKey> {
        if self.all.is_empty() {
            return Vec::new();
        }
        varve_metadata::log::read(&*self.log, |state| {
            let all = self.all.iter().copied();
            all.filter(|key| is_to_go(state, *key, self.me)).collect()
        })
    }

    /// Tells the controller of those that are still counted on, but for what `others` see to, and returns
    /// them. To be called within a runtime.
    pub(super) fn tell(
        &self,
        epoch: BrokerEpoch,
        others: impl Fn(PartitionKey) -> bool,
    ) -> Vec<PartitionKey> {
        let mut counted = self.counted();
        counted.retain(|key| !others(*key));
        let mut told = self.told.lock();
        for key in &counted {
            if told.len() >= AT_ONCE {
                break;
            }
            if told.insert(*key) {
                let (log, all, node) = (Arc::clone(&self.log), Arc::clone(&self.told), self.me);
                let key = *key;
                crate::work::spawn(async move {
                    give_up(&*log, node, epoch, key).await;
                    all.lock().remove(&key);
                });
            }
        }
        counted
    }

    /// Waits until none is counted on any more that others could do without. `epochs`: this node's registrations.
    pub(super) async fn settle(&mut self, epochs: &watch::Receiver<Option<BrokerEpoch>>) {
        loop {
            let Some(epoch) = *epochs.borrow() else {
                return;
            };
            let seen = varve_metadata::log::read(&*self.log, State::version);
            let waits = self.tell(epoch, |_| false);
            if waits.is_empty() {
                return;
            }
            if self.said.is_none_or(|said| said.elapsed() >= SAY) {
                self.said = Some(Instant::now());
                tracing::warn!(
                    partitions = waits.len(), first = ?waits.first(),
                    "these replicas could not be opened, and the controller has not been told yet: \
                     the start of this node waits until a controller answers"
                );
            }
            tokio::select! {
                _ = self.log.newer_than(seen) => {}
                () = tokio::time::sleep(RETRY_TOLD) => {}
            }
        }
    }
}

/// Whether the metadata count on that replica of `me`, and another one holds everything too.
fn is_to_go(state: &State, key: PartitionKey, me: NodeId) -> bool {
    let partition = state.partition_at(key);
    partition.is_some_and(|p| counts(p, me) && p.has_others(me))
}

async fn give_up(log: &dyn MetadataLog, node: NodeId, epoch: BrokerEpoch, key: PartitionKey) {
    let command = Command::GiveUpReplica {
        node,
        epoch,
        topic_id: key.topic,
        partition: key.partition,
    };
    match tokio::time::timeout(ANSWER, log.propose(command)).await {
        Ok(Ok(_)) => tracing::warn!(
            ?key,
            "a replica that could not be opened left the in-sync replicas; other nodes hold all \
             its committed records"
        ),
        // What is applied here will say so too, and nothing is asked then.
        Ok(Err(ProposeError::Rejected(Rejection::LastReplica { .. }))) => {}
        answer => tracing::warn!(
            ?key,
            ?answer,
            "could not report an unopened replica to the controller yet; trying again"
        ),
    }
}
