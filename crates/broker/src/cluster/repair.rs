//! Damaged replicas are given up and copied again from those that are whole: which ones, and how far each has
//! come. What is done about a given-up replica's files is in [`super::replace`].
//!
//! Invariants: nothing of a replica is touched before the metadata say, durably, that it does not count; from
//! before that is asked until the replica is replaced it is told nothing new, so that it can neither follow the
//! next leader nor be taken for whole by it; one that is damaged again soon after waits longer each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use varve_metadata::{
    Command, Event, MetadataLog, NodeState, PartitionKey, ProposeError, Rejection,
};
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId};
use varve_vfs::{Clock, Tick};

/// Replicas that are repaired at once: each is a copy of a whole partition.
const AT_ONCE: usize = 16;
/// Time before what the controller did not do is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// Longest time that the controller has for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait before a partition is repaired again.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// After so long without damage an earlier repair counts for nothing.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// How far the repair of a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is wrong; there was once.
    Whole,
    /// It is damaged. `serves`: what is not damaged of it is still read.
    Wanted { serves: bool },
    /// The controller is asked.
    Asking { serves: bool },
    /// It counts for nothing from this epoch on, and is to be replaced.
    GivenUp { epoch: LeaderEpoch, serves: bool },
    /// Its lane lets it go, and its directory is renamed.
    Leaving { serves: bool },
    /// Its place is free.
    Left,
    /// Another instance is in its place and copies what the leader has.
    Copying,
}

#[derive(Debug)]
struct Repair {
    stage: Stage,
    /// Instance that this is about. Later ones have greater numbers.
    slot: u32,
    /// Nothing is done before.
    not_before: Tick,
    /// Repairs so far, and the last one.
    count: u32,
    last: Tick,
}

/// What the reconciler has to look after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Take that instance out, once another node leads in this epoch or a later one.
    TakeOut { slot: u32, epoch: LeaderEpoch },
    /// Open another instance.
    Open,
    /// See whether the new one is in sync.
    Finish,
}

/// All repairs of this node.
pub(crate) struct Repairs {
    me: NodeId,
    log: Arc<dyn MetadataLog>,
    clock: Arc<dyn Clock>,
    /// Before a second repair of the same partition.
    pause: Duration,
    all: Mutex<BTreeMap<PartitionKey, Repair>>,
    /// Something is to be done.
    pub(crate) wake: Notify,
    running: Gauge,
}

impl std::fmt::Debug for Repairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repairs")
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

impl Repairs {
    pub(crate) fn new(
        me: NodeId,
        log: Arc<dyn MetadataLog>,
        clock: Arc<dyn Clock>,
        pause: Duration,
        running: Gauge,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            log,
            clock,
            pause,
            all: Mutex::default(),
            wake: Notify::new(),
            running,
        })
    }

    /// An instance of a partition is damaged. Whether it will be repaired now, so that whoever wanted to read
    /// what is damaged had better ask again. `serves`: the rest of it is still read.
    pub(crate) fn ask(&self, key: PartitionKey, slot: u32, serves: bool) -> bool {
        let possible = self.possible(key, serves);
        let now = self.clock.now();
        let mut all = self.all.lock();
        let repair = all.entry(key).or_insert(Repair {
            stage: Stage::Whole,
            slot,
            not_before: Tick::ZERO,
            count: 0,
            last: Tick::ZERO,
        });
        // Somebody still reads from an instance that was replaced.
        if slot < repair.slot {
            return true;
        }
        repair.slot = slot;
        match repair.stage {
            Stage::Wanted { .. } => {}
            Stage::Whole | Stage::Copying => repair.stage = Stage::Wanted { serves },
            _ => return true,
        }
        let now = possible && repair.not_before <= now;
        self.count(&all);
        // What is not possible now becomes so by a change of the metadata, or by time.
        if now {
            self.wake.notify_one();
        }
        now
    }

    /// Whether others have the partition whole, as far as is known, and where this replica is read, whether one
    /// of them could go on at once.
    fn possible(&self, key: PartitionKey, serves: bool) -> bool {
        varve_metadata::log::read(&*self.log, |state| {
            let Some(p) = state.partition_at(key) else {
                return false;
            };
            let mut others = p.isr.iter().chain(&p.elr).filter(|n| **n != self.me);
            let active = |n: &NodeId| {
                let node = state.node(*n);
                node.is_some_and(|node| node.state == NodeState::Active)
            };
            others.any(|n| !serves || active(n))
        })
    }

    /// Nothing of this is told to that instance now: what it would do with it must not count.
    pub(crate) fn holds(&self, key: PartitionKey, slot: u32) -> bool {
        let all = self.all.lock();
        let told = |s| matches!(s, Stage::Whole | Stage::Wanted { .. } | Stage::Copying);
        all.get(&key)
            .is_some_and(|r| r.slot == slot && !told(r.stage))
    }

    /// Whether that instance is known to be damaged.
    pub(crate) fn wants(&self, key: PartitionKey, slot: u32) -> bool {
        let all = self.all.lock();
        all.get(&key)
            .is_some_and(|r| r.slot == slot && !matches!(r.stage, Stage::Whole | Stage::Copying))
    }

    /// Asks the controller for what is due. To be called within a runtime.
    pub(crate) fn begin(self: &Arc<Self>, epoch: BrokerEpoch) {
        let now = self.clock.now();
        let wanted: Vec<(PartitionKey, bool)> = {
            let all = self.all.lock();
            let due = all.iter().filter(|(_, r)| r.not_before <= now);
            due.filter_map(|(key, r)| match r.stage {
                Stage::Wanted { serves } => Some((*key, serves)),
                _ => None,
            })
            .collect()
        };
        for (key, serves) in wanted {
            if !self.possible(key, serves) {
                continue;
            }
            let mut all = self.all.lock();
            if all.values().filter(|r| is_running(r.stage)).count() >= AT_ONCE {
                return;
            }
            if let Some(repair) = all.get_mut(&key)
                && repair.stage == (Stage::Wanted { serves })
            {
                repair.stage = Stage::Asking { serves };
                let (me, slot) = (Arc::clone(self), repair.slot);
                self.count(&all);
                crate::work::spawn(async move { me.give_up(key, slot, epoch).await });
            }
        }
    }

    async fn give_up(&self, key: PartitionKey, slot: u32, epoch: BrokerEpoch) {
        let command = Command::GiveUpReplica {
            node: self.me,
            epoch,
            topic_id: key.topic,
            partition: key.partition,
        };
        let answer = tokio::time::timeout(ANSWER, self.log.propose(command)).await;
        let now = self.clock.now();
        let mut all = self.all.lock();
        let Some(repair) = all.get_mut(&key).filter(|r| r.slot == slot) else {
            return;
        };
        let Stage::Asking { serves } = repair.stage else {
            return;
        };
        match answer {
            Ok(Ok(Event::PartitionChanged { leader_epoch, .. })) => {
                repair.stage = Stage::GivenUp {
                    epoch: leader_epoch,
                    serves,
                };
            }
            refused => {
                // Also where the answer was lost: it is given up once more then.
                repair.stage = Stage::Wanted { serves };
                repair.not_before = now.plus(RETRY);
                match refused {
                    Ok(Err(ProposeError::Rejected(why)))
                        if !matches!(why, Rejection::LastReplica { .. }) =>
                    {
                        tracing::warn!(?key, %why, "a damaged replica cannot be given up yet");
                    }
                    other => tracing::debug!(
                        ?key, answer = ?other,
                        "a damaged replica stays in service"
                    ),
                }
            }
        }
        self.count(&all);
        self.wake.notify_one();
    }

    /// What is to be done about which partitions.
    pub(crate) fn tasks(&self) -> Vec<(PartitionKey, Task)> {
        let all = self.all.lock();
        let task = |(key, r): (&PartitionKey, &Repair)| match r.stage {
            Stage::GivenUp { epoch, .. } => Some((
                *key,
                Task::TakeOut {
                    slot: r.slot,
                    epoch,
                },
            )),
            Stage::Left => Some((*key, Task::Open)),
            Stage::Copying => Some((*key, Task::Finish)),
            _ => None,
        };
        all.iter().filter_map(task).collect()
    }

    /// Time until something is to be done that nothing else will wake for.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let now = self.clock.now();
        let all = self.all.lock();
        let waits = all.values().filter_map(|r| match r.stage {
            Stage::Wanted { .. } if r.not_before > now => Some(r.not_before.since(now)),
            _ => None,
        });
        waits.min()
    }

    /// A given-up replica is about to be let go of; whether it may be.
    pub(crate) fn leaving(&self, key: PartitionKey) -> bool {
        let mut all = self.all.lock();
        if let Some(repair) = all.get_mut(&key)
            && let Stage::GivenUp { serves, .. } = repair.stage
        {
            repair.stage = Stage::Leaving { serves };
            return true;
        }
        false
    }

    /// Nothing is left of the instance but a directory.
    pub(crate) fn left(&self, key: PartitionKey) {
        if let Some(repair) = self.all.lock().get_mut(&key) {
            repair.stage = Stage::Left;
        }
        self.wake.notify_one();
    }

    /// It stays as it is for now: somebody decided that it counts after all, or it cannot be let go of.
    pub(crate) fn called_back(&self, key: PartitionKey) {
        let now = self.clock.now();
        let mut all = self.all.lock();
        if let Some(repair) = all.get_mut(&key)
            && let Stage::GivenUp { serves, .. } | Stage::Leaving { serves } = repair.stage
        {
            repair.stage = Stage::Wanted { serves };
            repair.not_before = now.plus(self.pause);
        }
        self.count(&all);
        self.wake.notify_one();
    }

    /// Another instance is in the place of the damaged one.
    pub(crate) fn replaced(&self, key: PartitionKey, slot: u32) {
        let now = self.clock.now();
        let mut all = self.all.lock();
        if let Some(repair) = all.get_mut(&key) {
            if now.since(repair.last) > FORGOTTEN {
                repair.count = 0;
            }
            let longer = 1_u32.checked_shl(repair.count).unwrap_or(u32::MAX);
            let pause = self.pause.saturating_mul(longer).min(PAUSE_MAX);
            repair.stage = Stage::Copying;
            repair.slot = slot;
            repair.count = repair.count.saturating_add(1);
            repair.last = now;
            repair.not_before = now.plus(pause);
        }
        self.count(&all);
    }

    /// A replica that an earlier run began to copy again.
    pub(crate) fn resume(&self, key: PartitionKey, slot: u32) {
        let now = self.clock.now();
        let mut all = self.all.lock();
        all.entry(key).or_insert(Repair {
            stage: Stage::Copying,
            slot,
            not_before: now.plus(self.pause),
            count: 1,
            last: now,
        });
        self.count(&all);
    }

    /// It is in sync again.
    pub(crate) fn finished(&self, key: PartitionKey) {
        let mut all = self.all.lock();
        if let Some(repair) = all.get_mut(&key)
            && repair.stage == Stage::Copying
        {
            repair.stage = Stage::Whole;
        }
        self.count(&all);
        // Others may have waited for their turn.
        self.wake.notify_one();
    }

    /// This node does not hold the partition any more.
    pub(crate) fn forget(&self, key: PartitionKey) {
        let mut all = self.all.lock();
        all.remove(&key);
        self.count(&all);
        // Others may have waited for their turn.
        self.wake.notify_one();
    }

    /// Partitions that are being repaired.
    pub(crate) fn running(&self) -> Vec<PartitionKey> {
        let all = self.all.lock();
        let running = all.iter().filter(|(_, r)| is_running(r.stage));
        running.map(|(key, _)| *key).collect()
    }

    fn count(&self, all: &BTreeMap<PartitionKey, Repair>) {
        let running = all.values().filter(|r| is_running(r.stage)).count();
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
    }
}

fn is_running(stage: Stage) -> bool {
    !matches!(stage, Stage::Whole | Stage::Wanted { .. })
}

/// The way from an instance of a partition to its repair.
#[derive(Debug, Clone)]
pub(crate) struct Repairer {
    pub(crate) key: PartitionKey,
    pub(crate) repairs: Arc<Repairs>,
}
