//! What this node's partitions want of the controller: other in-sync replicas (KIP-497), or to be known as
//! lost. Each wish is one command; what is refused goes back to the partition that wished.
//!
//! Invariants: a wish is made with the broker epochs that the follower was heard in, or, of one not heard
//! from, the epoch that the metadata of the same partition epoch knows; no partition waits for another one's wish;
//! of each partition at most one is under way, the newest: partitions repeat theirs while nobody answers, and a
//! controller that is away must not be called by ever more of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use varve_metadata::{Command, MetadataLog, PartitionKey, ProposeError, Rejection};
use varve_partition::IsrRefusal;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId};

use crate::lane;
use crate::partition::Partition;

/// Wishes that are on their way at once.
const AT_ONCE: usize = 256;

/// What a partition wants.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Other in-sync replicas.
    Isr {
        partition: Arc<Partition>,
        key: PartitionKey,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<(NodeId, Option<BrokerEpoch>)>,
    },
    /// This node's replica is of no use until it is opened again.
    Lost { key: PartitionKey },
}

/// Carries wishes to the controller until the broker is gone.
pub(crate) async fn run(
    me: NodeId,
    log: Arc<dyn MetadataLog>,
    epoch: watch::Receiver<Option<BrokerEpoch>>,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let newest = Arc::new(Newest::default());
    while let Some(wish) = wishes.recv().await {
        let Some(broker_epoch) = *epoch.borrow() else {
            continue;
        };
        let (key, asks) = asks(&wish, broker_epoch);
        let (log, permits) = (Arc::clone(&log), Arc::clone(&permits));
        newest.start(key, asks, async move {
            if let Ok(_permit) = permits.acquire().await {
                carry(me, &*log, broker_epoch, wish).await;
            }
        });
    }
}

/// What a wish comes to.
#[derive(Debug, PartialEq, Eq)]
enum Asks {
    Isr {
        broker_epoch: BrokerEpoch,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<(NodeId, Option<BrokerEpoch>)>,
    },
    Lost(BrokerEpoch),
}

fn asks(wish: &Wish, broker_epoch: BrokerEpoch) -> (PartitionKey, Asks) {
    match wish {
        Wish::Lost { key } => (*key, Asks::Lost(broker_epoch)),
        Wish::Isr {
            key,
            leader_epoch,
            partition_epoch,
            isr,
            ..
        } => {
            let asks = Asks::Isr {
                broker_epoch,
                leader_epoch: *leader_epoch,
                partition_epoch: *partition_epoch,
                isr: isr.clone(),
            };
            (*key, asks)
        }
    }
}

/// The wish of each partition that is under way.
#[derive(Debug, Default)]
struct Newest(Mutex<(u64, BTreeMap<PartitionKey, UnderWay>)>);

#[derive(Debug)]
struct UnderWay {
    number: u64,
    asks: Asks,
    task: AbortHandle,
}

impl Newest {
    /// Begins `work`, unless the same is under way. An older wish of the partition is given up: what became of it is
    /// as unknown as if its answer had been lost, and a partition that wishes anew reckons with that.
    fn start(
        self: &Arc<Self>,
        key: PartitionKey,
        asks: Asks,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut locked = self.0.lock();
        let (numbers, under_way) = &mut *locked;
        if let Some(old) = under_way.get(&key) {
            // A replica that is lost stays so: nothing that it wished before, or wishes later, takes the place of that.
            if old.asks == asks || matches!(old.asks, Asks::Lost(_)) {
                return;
            }
            old.task.abort();
        }
        *numbers += 1;
        let (number, newest) = (*numbers, Arc::clone(self));
        // It cannot end before it is noted: the end waits for the lock.
        let task = tokio::spawn(async move {
            work.await;
            newest.ended(key, number);
        });
        let task = task.abort_handle();
        under_way.insert(key, UnderWay { number, asks, task });
    }

    fn ended(&self, key: PartitionKey, number: u64) {
        let under_way = &mut self.0.lock().1;
        if under_way.get(&key).is_some_and(|u| u.number == number) {
            under_way.remove(&key);
        }
    }
}

async fn carry(me: NodeId, log: &dyn MetadataLog, broker_epoch: BrokerEpoch, wish: Wish) {
    match wish {
        Wish::Lost { key } => {
            let command = Command::ReplicaLost {
                node: me,
                epoch: broker_epoch,
                topic_id: key.topic,
                partition: key.partition,
            };
            if let Err(error) = log.propose(command).await {
                tracing::warn!(?key, %error, "the controller was not told that this replica failed");
            }
        }
        Wish::Isr {
            partition,
            key,
            leader_epoch,
            partition_epoch,
            isr,
        } => {
            let refused = match name_runs(log, key, partition_epoch, isr) {
                None => Some(IsrRefusal::Stale),
                Some(isr) => {
                    let command = Command::AlterPartition {
                        topic_id: key.topic,
                        partition: key.partition,
                        leader: me,
                        leader_epoch,
                        partition_epoch,
                        isr,
                        broker_epoch,
                    };
                    refusal(log.propose(command).await, &partition)
                }
            };
            if let Some(why) = refused {
                let slot = partition.slot;
                let _ = partition.lane.push(lane::Command::IsrRefused {
                    slot,
                    partition_epoch,
                    why,
                });
            }
        }
    }
}

/// The replicas with their runs; `None` when the metadata has moved on.
fn name_runs(
    log: &dyn MetadataLog,
    key: PartitionKey,
    partition_epoch: i32,
    isr: Vec<(NodeId, Option<BrokerEpoch>)>,
) -> Option<Vec<(NodeId, BrokerEpoch)>> {
    varve_metadata::log::read(log, |state| {
        if state.partition_at(key)?.partition_epoch != partition_epoch {
            return None;
        }
        let run = |(node, heard): (NodeId, Option<BrokerEpoch>)| {
            Some((node, heard.or_else(|| state.node(node).map(|n| n.epoch))?))
        };
        isr.into_iter().map(run).collect()
    })
}

/// Why a proposal was certainly refused. One whose fate is unknown is repeated by the core.
fn refusal<T>(result: Result<T, ProposeError>, partition: &Partition) -> Option<IsrRefusal> {
    match result {
        Ok(_) => None,
        Err(ProposeError::Rejected(rejection)) => {
            tracing::debug!(partition = %partition.id, %rejection, "in-sync replicas stay as they are");
            Some(match rejection {
                Rejection::IneligibleReplica { node, .. } => IsrRefusal::Ineligible(node),
                _ => IsrRefusal::Stale,
            })
        }
        Err(error) => {
            tracing::debug!(partition = %partition.id, %error, "in-sync replicas: no answer");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;
    use varve_types::{PartitionId, TopicId};

    use super::*;

    fn asks(partition_epoch: i32) -> Asks {
        Asks::Isr {
            broker_epoch: BrokerEpoch::ZERO,
            leader_epoch: LeaderEpoch::ZERO,
            partition_epoch,
            isr: vec![(NodeId(1), None)],
        }
    }

    fn key(partition: i32) -> PartitionKey {
        PartitionKey {
            topic: TopicId(1),
            partition: PartitionId(partition),
        }
    }

    /// Nobody answers: a partition repeats what it wishes, and that is one wish all the same.
    #[tokio::test]
    async fn a_wish_that_is_repeated_is_made_once_and_a_newer_one_takes_its_place() {
        let newest = Arc::new(Newest::default());
        let made = Arc::new(AtomicU32::new(0));
        let wish = |key, asks, answer: oneshot::Receiver<()>| {
            let made = Arc::clone(&made);
            newest.start(key, asks, async move {
                made.fetch_add(1, Ordering::SeqCst);
                let _ = answer.await;
            });
        };
        let mut silent = Vec::new();
        let mut nobody = || {
            let (sender, answer) = oneshot::channel::<()>();
            silent.push(sender);
            answer
        };
        for _ in 0..50 {
            wish(key(0), asks(7), nobody());
        }
        wish(key(1), asks(7), nobody());
        tokio::task::yield_now().await;
        assert_eq!(made.load(Ordering::SeqCst), 2, "one for each partition");
        let (told, answer) = oneshot::channel();
        wish(key(0), asks(8), answer);
        tokio::task::yield_now().await;
        assert_eq!(made.load(Ordering::SeqCst), 3);
        assert!(silent[0].is_closed(), "the older wish is given up");
        assert!(!silent[50].is_closed(), "that of another partition is not");
        told.send(()).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(newest.0.lock().1.len(), 1, "what is answered is forgotten");
        let (_waits, answer) = oneshot::channel();
        wish(key(0), asks(8), answer);
        tokio::task::yield_now().await;
        assert_eq!(made.load(Ordering::SeqCst), 4, "and can be wished again");
    }

    #[tokio::test]
    async fn that_a_replica_is_lost_is_said_whatever_it_wishes_besides() {
        let newest = Arc::new(Newest::default());
        let (sender, answer) = oneshot::channel::<()>();
        newest.start(key(0), Asks::Lost(BrokerEpoch::ZERO), async move {
            let _ = answer.await;
        });
        newest.start(key(0), asks(7), std::future::pending());
        tokio::task::yield_now().await;
        assert!(!sender.is_closed());
    }
}
