//! Brings what this node holds in line with the metadata: logs are opened and closed, cores are told what
//! they are now.
//!
//! Invariants: nothing is assigned before this node has applied its own registration; a replica that is to
//! have records and whose directory is missing is reported lost before an empty one takes its place; nothing is
//! opened where a replica that has moved away is still being taken out; this node says that it has applied the first
//! look, and so is let in, only once the metadata do not count on what it could not open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use varve_broker_api::TopicInfo;
use varve_metadata::{Command as Change, PartitionKey, State};
use varve_partition::Assignment;
use varve_types::{BrokerEpoch, NodeId, PartitionId, TopicConfig, TopicName};

use super::moved::Leaving;
use super::replace::Repairing;
use super::tombstone::Graveyard;
use super::unopened::Unopened;
use super::{InCluster, key};
use crate::lane::Command;
use crate::opener::OpenAs;
use crate::partition::Partition;
use crate::registry::{Registry, Topic, info};
use crate::work::blocking;

/// Time before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What the metadata says of one partition of this node.
struct Wanted {
    key: PartitionKey,
    number: PartitionId,
    assignment: Assignment,
    /// It counts as a replica that has records.
    counted: bool,
    /// A move adds it.
    joining: bool,
}

/// A topic that is there, with what changed of it here.
struct TopicNow {
    name: TopicName,
    /// `None`: as before.
    info: Option<TopicInfo>,
    wanted: Vec<Wanted>,
}

/// One look at the metadata.
struct Look {
    version: u64,
    topics: Vec<TopicNow>,
    held: BTreeSet<PartitionKey>,
    repairing: Vec<Repairing>,
}

/// The task.
pub(crate) struct Reconciler {
    pub(super) registry: Arc<Registry>,
    pub(super) cluster: Arc<InCluster>,
    applied: watch::Sender<u64>,
    /// Newest assignment that each partition was told.
    pub(super) told: BTreeMap<PartitionKey, i32>,
    /// Nothing was reconciled in this run yet.
    first: bool,
    /// Replicas whose directory was missing at the start, for as long as the metadata counts on them.
    missing: BTreeSet<PartitionKey>,
    /// Replicas that are elsewhere now, and whose files are not taken away yet.
    pub(super) leaving: Leaving,
    /// Replicas that are whole again, and what was set aside of them is being taken out of its place.
    pub(super) finishing: Leaving,
    /// Where directories go that are not needed any more.
    pub(super) graveyard: Graveyard,
    /// Replicas that could not be opened.
    unopened: Unopened,
    /// Something failed and is to be tried again.
    again: bool,
    /// Told once the first look is done.
    opened: Option<oneshot::Sender<()>>,
}

impl Reconciler {
    pub(crate) fn new(
        registry: Arc<Registry>,
        cluster: Arc<InCluster>,
        applied: watch::Sender<u64>,
        opened: oneshot::Sender<()>,
    ) -> Self {
        let unopened = Unopened::new(cluster.me, Arc::clone(&cluster.log));
        Self {
            graveyard: Graveyard::new(registry.opener.clone()),
            registry,
            cluster,
            unopened,
            applied,
            told: BTreeMap::new(),
            first: true,
            missing: BTreeSet::new(),
            leaving: Leaving::default(),
            finishing: Leaving::default(),
            again: false,
            opened: Some(opened),
        }
    }

    /// Runs until dropped.
    pub(crate) async fn run(mut self) {
        let mut epochs = self.cluster.epoch.clone();
        let mut epoch = loop {
            if let Some(epoch) = *epochs.borrow_and_update() {
                break epoch;
            }
            if epochs.changed().await.is_err() {
                return;
            }
        };
        self.registered(epoch);
        let log = Arc::clone(&self.cluster.log);
        let mut seen = u64::try_from(epoch.get()).unwrap_or(0).saturating_sub(1);
        let repairs = Arc::clone(&self.cluster.repairs);
        loop {
            let wait = repairs.wait();
            tokio::select! {
                _ = log.newer_than(seen) => {}
                () = tokio::time::sleep(RETRY), if self.again => {}
                () = repairs.wake.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                Ok(()) = epochs.changed() => {
                    if let Some(new) = *epochs.borrow_and_update()
                        && new != epoch
                    {
                        epoch = new;
                        self.registered(epoch);
                    }
                    continue;
                }
            }
            self.again = false;
            repairs.begin(epoch);
            let look = self.look();
            seen = look.version;
            self.reconcile(look).await;
            if self.opened.is_some() {
                // Nothing else of the metadata is acted on meanwhile: files stay where they are for the journal's sake.
                self.unopened.settle(&epochs).await;
            } else {
                self.tell_unopened(epoch);
            }
            self.applied.send_replace(seen);
            if let Some(opened) = self.opened.take() {
                let _ = opened.send(());
            }
        }
    }

    fn registered(&self, epoch: BrokerEpoch) {
        for lane in self.registry.opener.lanes.iter() {
            let _ = lane.push(Command::Registered(epoch));
        }
    }

    fn look(&self) -> Look {
        let view = self.registry.view();
        let now = self.registry.opener.clock.wall_ms();
        varve_metadata::log::read(&*self.cluster.log, |state| {
            self.cluster.absent.note(state, now);
            let mut held = BTreeSet::new();
            let topics = state.topics().iter().map(|(name, topic)| {
                let known = view.topics.get(name).map(|t| &t.info);
                let same = known.is_some_and(|k| {
                    k.id == topic.id
                        && k.partitions == topic.partition_count()
                        && k.configs == topic.configs
                        && k.replication_factor == topic.replication_factor
                });
                TopicNow {
                    name: name.clone(),
                    info: (!same).then(|| info(name, topic)),
                    wanted: self.wanted(state, topic, &mut held),
                }
            });
            Look {
                version: state.version(),
                topics: topics.collect(),
                repairing: self.repairing(state),
                held,
            }
        })
    }

    fn wanted(
        &self,
        state: &State,
        topic: &varve_metadata::Topic,
        held: &mut BTreeSet<PartitionKey>,
    ) -> Vec<Wanted> {
        let me = self.cluster.me;
        if state.held_by(me) == 0 {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (number, partition) in topic.partitions.iter().enumerate() {
            if !partition.replicas.contains(&me) {
                continue;
            }
            let number = PartitionId(number as i32);
            let key = key(topic.id, number);
            held.insert(key);
            if self.told.get(&key) != Some(&partition.partition_epoch) {
                wanted.push(Wanted {
                    key,
                    number,
                    assignment: assignment(topic, partition),
                    counted: counts(partition, me),
                    joining: partition.adding.contains(&me),
                });
            }
        }
        wanted
    }

    async fn reconcile(&mut self, look: Look) {
        self.missing.retain(|key| look.held.contains(key));
        self.unopened.retain(&look.held);
        let free = self.repair(&look.repairing);
        let old = self.registry.view();
        let gone: Vec<(PartitionKey, Arc<Partition>)> = old
            .by_key
            .iter()
            .filter(|(key, _)| !look.held.contains(key))
            .map(|(key, partition)| (*key, Arc::clone(partition)))
            .collect();
        let mut topics = BTreeMap::new();
        let mut assign = Vec::new();
        for now in look.topics {
            let before = old.topics.get(&now.name);
            let topic = self.topic(before, now, (&gone, &free), &mut assign).await;
            topics.insert(topic.info.name.clone(), topic);
        }
        // Readers and peers find a partition before it is told what it is.
        self.registry.publish(look.version, topics);
        for (partition, wanted) in assign {
            self.told
                .insert(wanted.key, wanted.assignment.partition_epoch);
            partition.set_joining(wanted.joining);
            let (slot, assignment) = (partition.slot, Box::new(wanted.assignment));
            let _ = partition.lane.push(Command::Assign { slot, assignment });
        }
        self.close(&old, gone);
        if std::mem::take(&mut self.first) {
            self.sweep(&look.held).await;
            self.resume_repairs().await;
        }
    }

    /// The topic as it is now, its partitions open.
    async fn topic(
        &mut self,
        before: Option<&Arc<Topic>>,
        now: TopicNow,
        (gone, free): (&[(PartitionKey, Arc<Partition>)], &BTreeSet<PartitionKey>),
        assign: &mut Vec<(Arc<Partition>, Wanted)>,
    ) -> Arc<Topic> {
        let before = before.filter(|t| now.info.as_ref().is_none_or(|i| i.id == t.info.id));
        let leaves = |t: &Topic| {
            t.partitions
                .keys()
                .any(|p| is_gone(gone, key(t.info.id, *p)))
        };
        if let (Some(before), None, true) = (before, &now.info, now.wanted.is_empty())
            && !leaves(before)
        {
            return Arc::clone(before);
        }
        let info = match (now.info, before) {
            (Some(info), _) => info,
            (None, Some(before)) => before.info.clone(),
            (None, None) => unreachable!("an unknown topic comes with what it is"),
        };
        let config = self.registry.config_of(&info);
        let mut partitions = before.map(|t| t.partitions.clone()).unwrap_or_default();
        partitions.retain(|number, _| {
            let key = key(info.id, *number);
            !is_gone(gone, key) && !free.contains(&key)
        });
        if before.is_some_and(|t| t.info.configs != info.configs) {
            for partition in partitions.values() {
                let (slot, config) = (partition.slot, Box::new(config.clone()));
                let _ = partition.lane.push(Command::Configure { slot, config });
            }
        }
        let (mut new, mut kept) = (Vec::new(), Vec::new());
        for wanted in &now.wanted {
            if partitions.contains_key(&wanted.number) {
                continue;
            }
            match self.may_open(&info, wanted).await {
                Some(May::BeginAnew) => new.push(wanted.number),
                Some(May::GoOn) => kept.push(wanted.number),
                None => {}
            }
        }
        let mut opened = self.open(&info, &config, new, false).await;
        opened.extend(self.open(&info, &config, kept, true).await);
        for partition in opened {
            let key = key(info.id, partition.id.partition);
            if free.contains(&key) {
                self.cluster.repairs.replaced(key, partition.slot);
                if partition.offline().is_some() {
                    partition.ask_repair();
                }
            }
            self.unopened.note(key, partition.offline().is_none());
            partitions.insert(partition.id.partition, partition);
        }
        for wanted in now.wanted {
            if let Some(partition) = partitions.get(&wanted.number)
                && !self.cluster.repairs.holds(wanted.key, partition.slot)
            {
                assign.push((Arc::clone(partition), wanted));
            }
        }
        Arc::new(Topic { info, partitions })
    }

    /// A replica that counts and has no directory any more is lost, and everybody must know before an empty
    /// one is begun: elected from what was known before, it would make the others cut what they have. One that
    /// was placed here in this run has none yet.
    async fn may_open(&mut self, info: &TopicInfo, wanted: &Wanted) -> Option<May> {
        // Whoever leaves wakes us once it is out of the way.
        if self.leaving.contains(wanted.key) {
            return None;
        }
        if !wanted.counted {
            self.missing.remove(&wanted.key);
            return Some(May::BeginAnew);
        }
        if !self.first && !self.missing.contains(&wanted.key) {
            return Some(May::BeginAnew);
        }
        let dir = self.registry.opener.partition_dir(info, wanted.number);
        match self.registry.opener.vfs.exists(&dir) {
            Ok(true) => {
                self.missing.remove(&wanted.key);
                return Some(May::GoOn);
            }
            // Nobody knows whether it is there: what cannot be opened is seen to, with what the journal has of it.
            Err(error) => {
                tracing::error!(%error, dir = %dir.display(), "a replica cannot be looked for");
                return Some(May::GoOn);
            }
            Ok(false) => {}
        }
        // Tried again until the metadata does not count on it, which a later look shows.
        self.again = true;
        let new = self.missing.insert(wanted.key);
        let epoch = (*self.cluster.epoch.borrow())?;
        if new {
            tracing::error!(
                topic = %info.name, partition = wanted.number.0, dir = %dir.display(),
                "the directory of this replica is missing: it counts as lost, and is copied again from its leader"
            );
        }
        let lost = Change::ReplicaLost {
            node: self.cluster.me,
            epoch,
            topic_id: info.id,
            partition: wanted.number,
        };
        if let Err(error) = self.cluster.log.propose(lost).await {
            tracing::warn!(%error, "the loss of a replica is not known to the controller yet");
        }
        None
    }

    /// The controller is told of what could not be opened, again until it knows. What is damaged, those who repair it
    /// tell.
    fn tell_unopened(&mut self, epoch: BrokerEpoch) {
        let (view, repairs) = (self.registry.view(), &self.cluster.repairs);
        let damaged = |key| {
            let partition = view.by_key.get(&key);
            partition.is_some_and(|p| repairs.wants(key, p.slot))
        };
        self.again |= !self.unopened.tell(epoch, damaged).is_empty();
    }

    async fn open(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        numbers: Vec<PartitionId>,
        kept: bool,
    ) -> Vec<Arc<Partition>> {
        if numbers.is_empty() {
            return Vec::new();
        }
        let (opener, info, config) = (self.registry.opener.clone(), info.clone(), config.clone());
        let registry = Arc::clone(&self.registry);
        let workers = self.registry.opener.config.workers.clone();
        let opened = blocking(&workers, move || {
            let (slot, as_replica) = (|| registry.slot(), OpenAs::Replica { kept });
            opener.open_many(&info, &config, numbers.into_iter(), as_replica, slot)
        });
        opened.await.unwrap_or_else(|error| {
            tracing::error!(%error, "opening partitions failed");
            Vec::new()
        })
    }
}

/// How a replica may be opened.
#[derive(Debug, Clone, Copy)]
enum May {
    /// Nothing that it has is missed: where it has no directory, it gets one.
    BeginAnew,
    /// It is counted on, and goes on with what it has.
    GoOn,
}

fn is_gone(gone: &[(PartitionKey, Arc<Partition>)], key: PartitionKey) -> bool {
    gone.binary_search_by_key(&key, |(k, _)| *k).is_ok()
}

pub(crate) fn counts(partition: &varve_metadata::Partition, me: NodeId) -> bool {
    partition.isr.contains(&me) || partition.elr.contains(&me)
}

pub(super) fn assignment(
    topic: &varve_metadata::Topic,
    partition: &varve_metadata::Partition,
) -> Assignment {
    Assignment {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        min_isr: topic.min_insync_replicas(partition),
        unclean_epoch: partition.unclean_epoch,
    }
}
