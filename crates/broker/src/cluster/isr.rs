//! What this node's partitions want of the controller: other in-sync replicas (KIP-497), or to be known as
//! lost. Each wish is one command; what is refused goes back to the partition that wished.
//!
//! Invariants: a wish is made with the broker epochs that the follower was heard in, or, of one not heard from, the
//! epoch that the metadata of the same partition epoch knows; no partition waits for another one's wish; of each
//! partition at most one is under way, the newest: partitions repeat theirs while nobody answers, and a controller that
//! is away must not be called by ever more of them; that a replica is lost is said once by the partition, and repeated
//! here until the metadata show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use varve_metadata::{Command, MetadataLog, PartitionKey, ProposeError, Rejection};
use varve_partition::IsrRefusal;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId};

use super::RETRY_TOLD;
use super::reconcile::counts;
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
    Lost {
        partition: Arc<Partition>,
        key: PartitionKey,
    },
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
        let registered = *epoch.borrow();
        let Some((key, asks)) = asks(&wish, registered) else {
            continue;
        };
        let (log, permits, epoch) = (Arc::clone(&log), Arc::clone(&permits), epoch.clone());
        newest.start(key, asks, async move {
            carry(me, &*log, (registered, &epoch), &permits, wish).await;
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
    /// In whatever epoch this node is registered.
    Lost,
}

/// `None`: it can only be made by a node that is registered.
fn asks(wish: &Wish, broker_epoch: Option<BrokerEpoch>) -> Option<(PartitionKey, Asks)> {
    match wish {
        Wish::Lost { key, .. } => Some((*key, Asks::Lost)),
        Wish::Isr {
            key,
            leader_epoch,
            partition_epoch,
            isr,
            ..
        } => {
            let asks = Asks::Isr {
                broker_epoch: broker_epoch?,
                leader_epoch: *leader_epoch,
                partition_epoch: *partition_epoch,
                isr: isr.clone(),
            };
            Some((*key, asks))
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
            if old.asks == asks || old.asks == Asks::Lost {
                return;
            }
            old.task.abort();
        }
        *numbers += 1;
        let (number, newest) = (*numbers, Arc::clone(self));
        // It cannot end before it is noted: the end waits for the lock.
        let task = crate::work::spawn(async move {
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

async fn carry(
    me: NodeId,
    log: &dyn MetadataLog,
    (registered, epoch): (Option<BrokerEpoch>, &watch::Receiver<Option<BrokerEpoch>>),
    permits: &Semaphore,
    wish: Wish,
) {
    match wish {
        Wish::Lost { partition, key } => {
            let gone = || partition.is_deleted();
            say_lost(me, log, epoch, permits, (key, &gone)).await;
        }
        Wish::Isr {
            partition,
            key,
            leader_epoch,
            partition_epoch,
            isr,
        } => {
            let Ok(_permit) = permits.acquire().await else {
                return;
            };
            let Some(broker_epoch) = registered else {
                return;
            };
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

/// Says that a replica is lost until the metadata that are applied here do not count on it, or it is `gone`: nothing
/// else takes it out of the sets of a node that lives.
async fn say_lost(
    me: NodeId,
    log: &dyn MetadataLog,
    epoch: &watch::Receiver<Option<BrokerEpoch>>,
    permits: &Semaphore,
    (key, gone): (PartitionKey, &(dyn Fn() -> bool + Sync)),
) {
    let counted = || {
        varve_metadata::log::read(log, |state| {
            state.partition_at(key).is_some_and(|p| counts(p, me))
        })
    };
    while counted() && !gone() {
        let broker_epoch = *epoch.borrow();
        if let Some(epoch) = broker_epoch {
            let Ok(_permit) = permits.acquire().await else {
                return;
            };
            let command = Command::ReplicaLost {
                node: me,
                epoch,
                topic_id: key.topic,
                partition: key.partition,
            };
            if let Err(error) = log.propose(command).await {
                tracing::warn!(
                    ?key, %error,
                    "could not report the failed replica to the controller yet; trying again"
                );
            }
        }
        tokio::time::sleep(RETRY_TOLD).await;
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
            tracing::debug!(
                partition = %partition.id, %rejection,
                "the change of the in-sync replicas was rejected"
            );
            Some(match rejection {
                Rejection::IneligibleReplica { node, .. } => IsrRefusal::Ineligible(node),
                _ => IsrRefusal::Stale,
            })
        }
        Err(error) => {
            tracing::debug!(
                partition = %partition.id, %error,
                "the change of the in-sync replicas got no answer"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;
    use varve_metadata::log::Later;
    use varve_metadata::{CreateTopic, Event, FeatureRange, Leadership, State};
    use varve_types::{DirectoryId, PartitionId, TopicId};

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

    /// A log with one node and one partition, whose answers are lost for a while.
    struct Lossy {
        state: Mutex<State>,
        lost: AtomicU32,
    }

    impl MetadataLog for Lossy {
        fn look(&self, look: &mut dyn FnMut(&State)) {
            look(&self.state.lock());
        }

        fn newer_than(&self, _: u64) -> Later<'_, u64> {
            Box::pin(std::future::pending())
        }

        fn propose(&self, command: Command) -> Later<'_, Result<Event, ProposeError>> {
            let lost = self.lost.load(Ordering::SeqCst);
            Box::pin(async move {
                if lost > 0 {
                    self.lost.store(lost - 1, Ordering::SeqCst);
                    return Err(ProposeError::NoLeader);
                }
                Ok(varve_metadata::apply(&mut self.state.lock(), command)?)
            })
        }

        fn catch_up(&self) -> Later<'_, Result<(), ProposeError>> {
            Box::pin(async { Ok(()) })
        }

        fn leadership(&self) -> Leadership {
            Leadership::default()
        }

        fn leadership_after(&self, _: Leadership) -> Later<'_, Leadership> {
            Box::pin(std::future::pending())
        }
    }

    fn lossy(lost: u32) -> (Lossy, BrokerEpoch) {
        let mut state = State::default();
        let register = Command::RegisterNode {
            node: NodeId(1),
            incarnation: 1,
            directory: DirectoryId(1),
            address: "a:1".to_owned(),
            peer_address: "a:2".to_owned(),
            rack: String::new(),
            features: FeatureRange::THIS_PROGRAM,
            version: "1".to_owned(),
            clean: None,
        };
        varve_metadata::apply(&mut state, register).unwrap();
        let (node, epoch) = (NodeId(1), state.node(NodeId(1)).unwrap().epoch);
        varve_metadata::apply(&mut state, Command::UnfenceNode { node, epoch }).unwrap();
        let topic = CreateTopic {
            name: "t".parse().unwrap(),
            id: TopicId(1),
            partitions: 1,
            replication_factor: 1,
            configs: BTreeMap::new(),
            labels: BTreeMap::new(),
            created_ms: 0,
            placement: BTreeMap::new(),
        };
        varve_metadata::apply(&mut state, Command::CreateTopic(topic)).unwrap();
        let (state, lost) = (Mutex::new(state), AtomicU32::new(lost));
        (Lossy { state, lost }, epoch)
    }

    #[tokio::test]
    async fn that_a_replica_is_lost_is_said_until_the_metadata_show_it() {
        let (log, epoch) = lossy(1);
        let counted = || {
            varve_metadata::log::read(&log, |s| counts(s.partition_at(key(0)).unwrap(), NodeId(1)))
        };
        assert!(counted());
        // It is not registered yet when that is wished.
        let (registers, epochs) = watch::channel(None);
        let (permits, gone) = (Semaphore::new(1), || false);
        let said = say_lost(NodeId(1), &log, &epochs, &permits, (key(0), &gone));
        let registered = async {
            tokio::task::yield_now().await;
            registers.send_replace(Some(epoch));
        };
        tokio::join!(said, registered);
        assert!(!counted());
        assert_eq!(log.lost.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn that_a_replica_is_lost_is_said_whatever_it_wishes_besides() {
        let newest = Arc::new(Newest::default());
        let (sender, answer) = oneshot::channel::<()>();
        newest.start(key(0), Asks::Lost, async move {
            let _ = answer.await;
        });
        newest.start(key(0), asks(7), std::future::pending());
        tokio::task::yield_now().await;
        assert!(!sender.is_closed());
    }
}
